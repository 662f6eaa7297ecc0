"""Rate to latency: how early a head fires, from how often its channels do."""

from amaranth import Module, unsigned
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from s2tdpt.hw.fixed import exact, interval_shape

__all__ = ["RateToLatency", "popcount"]


def popcount(bits):
    """Number of 1 bits of a value: a balanced tree of adders, each as wide as its own sum.

    `sum()` of the bits would be a chain, and every link of it a bit wider than the last.
    """
    terms = list(bits)
    while len(terms) > 1:
        pairs = [a + b for a, b in zip(terms[::2], terms[1::2], strict=False)]
        terms = pairs + terms[len(terms) & ~1 :]
    return terms[0]


class RateToLatency(wiring.Component):
    """Count of active channels of a head in one time step, and the spike latency it stands for.

    The paper codes a rate ``r / d_h`` as the time ``T_max * (1 - r / d_h)``; in units of ``T_max / d_h``
    that is the integer ``d_h - r``, so the conversion is exact.

    Latency: combinational, about ``2 * log2(head_dim)`` LUT levels. Throughput: one head step a cycle.
    Resources: about ``3.4 * head_dim`` four-input LUTs.

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
        super().__init__(
            {
                "spikes": In(head_dim),
                "rank": Out(interval_shape(0, head_dim)),
                "latency": Out(interval_shape(0, head_dim)),
            }
        )

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
