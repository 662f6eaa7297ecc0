"""Rate to latency: how early a head fires, from how often its channels do."""

from amaranth import Cat, Module, unsigned
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hw.fixed import exact, interval_shape

__all__ = ["RateToLatency", "popcount"]


def popcount(bits):
    """Number of 1 bits of a value, as a tree of full adders: 2 four-input LUTs for every bit removed.

    Each full adder turns three bits of one weight into one of that weight and one of the next, so that no
    carry chain is spent on one- and two-bit sums.
    """
    columns = [list(bits)]
    weight = 0
    while weight < len(columns):
        column = columns[weight]
        while len(column) > 1:
            if weight + 1 == len(columns):
                columns.append([])
            # Oldest bits first: the tree stays shallow.
            taken, column = column[:3], column[3:]
            if len(taken) == 3:
                a, b, c = taken
                column.append(a ^ b ^ c)
                columns[weight + 1].append(a & b | c & (a ^ b))
            else:
                a, b = taken
                column.append(a ^ b)
                columns[weight + 1].append(a & b)
        columns[weight] = column
        weight += 1
    return Cat(column[0] for column in columns)


class RateToLatency(wiring.Component):
    """Count of active channels of a head in one time step, and the spike latency it stands for.

    The paper codes a rate ``r / d_h`` as the time ``T_max * (1 - r / d_h)``; in units of ``T_max / d_h``
    that is the integer ``d_h - r``, so the conversion is exact.

    Latency: combinational, about ``2 * log2(head_dim)`` LUT levels. Throughput: one head step a cycle.
    Resources: about ``2 * head_dim`` four-input LUTs.

    Parameters
    ----------
    head_dim : int
        Channels of a head, ``d_h >= 1``.

    Members
    -------
    spikes : ``In(head_dim)``
        The channels of one head in one time step.
    rank : ``Out``, 0..head_dim
        Number of active channels ``r``.
    latency : ``Out``, 0..head_dim
        ``head_dim - r``.

    References
    ----------
    S2TDPT (arXiv 2511.14691), section 3.2, rate to latency coding. Software twin: `golden.latency`.
    """

    def __init__(self, head_dim):
        if not isinstance(head_dim, int) or head_dim < 1:
            raise ValueError(f"head_dim must be a positive integer, not {head_dim!r}")
        self._head_dim = head_dim
        super().__init__({
            "spikes": In(head_dim),
            "rank": Out(interval_shape(0, head_dim)),
            "latency": Out(interval_shape(0, head_dim)),
        })

    @property
    def head_dim(self):
        return self._head_dim

    def elaborate(self, platform):
        m = Module()
        # A popcount of head_dim bits is at most head_dim, and so is its complement to head_dim.
        shape = unsigned(len(self.rank))
        m.d.comb += [
            self.rank.eq(exact(popcount(self.spikes), shape)),
            self.latency.eq(exact(self._head_dim - self.rank, shape)),
        ]
        return m
