"""The head's input: U summed over time steps and tokens, read back as bit planes."""

from __future__ import annotations

from itertools import zip_longest

from amaranth import Array, Cat, Module, Mux, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from s2tdpt.hw.blocks.delay import delayed
from s2tdpt.hw.blocks.totals import RunningTotals
from s2tdpt.hw.fixed import exact, index_shape

__all__ = ["HeadSum"]


class HeadSum(wiring.Component):
    """Sums of U per channel over all steps and tokens of an image.

    Latency: `delay` = max(1, ceil(log2 T)) cycles from `add` until a read sees it; a cycle from `read_en`
    to `read_data`. Throughput: a piece a cycle in any order, the same piece again in the next cycle included;
    or a read a cycle. Reads and additions share the one read port of the memory and must not meet: `read_en`
    is low until `delay` cycles after an `add`.
    Resources: P x T adders; `totals.RunningTotals` for pieces x P x width bits of distributed RAM:
    a block RAM is 512 words deep and too slow in front of an adder.

    Parameters
    ----------
    lanes, timesteps : int
        P, T.
    pieces : int
        Pieces of a token.
    value_width, width : int
        Signed widths of U and of the sums. Every sum, after each piece, is proven to fit.
    passes : int
        Passes of T planes in which a sum is read.

    Members
    -------
    add : ``In(1)``
        Add `values` to the sums of `piece`.
    clear : ``In(1)``
        With `add`: start from zero.
    piece : ``In``, index of pieces
    values : ``In(ArrayLayout(ArrayLayout(signed(value_width), T), P))``
    read_en : ``In(1)``
    read_piece : ``In``, index of pieces
    read_pass : ``In``, index of passes
    read_data : ``Out(P * T)``
        The cycle after `read_en`: T planes of the sums of `read_piece`, the highest first. Bit
        ``lane * T + t`` is bit ``(passes - read_pass) * T - 1 - t`` of the sum, sign-extended.

    References
    ----------
    Software twin: `golden.head.head_sum`.
    """

    def __init__(self, *, lanes: int, timesteps: int, pieces: int, value_width: int, width: int, passes: int):
        sizes = {"lanes": lanes, "timesteps": timesteps, "pieces": pieces, "value_width": value_width}
        for name, value in (sizes | {"width": width, "passes": passes}).items():
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"head sum {name} must be a positive integer, not {value!r}")
        if passes * timesteps < width:
            raise ValueError(f"head sum passes must cover width {width}, not {passes} x {timesteps} planes")
        self._lanes, self._timesteps, self._pieces, self._passes = lanes, timesteps, pieces, passes
        self._sum = signed(width)
        super().__init__(
            {
                "add": In(1),
                "clear": In(1),
                "piece": In(index_shape(pieces)),
                "values": In(data.ArrayLayout(data.ArrayLayout(signed(value_width), timesteps), lanes)),
                "read_en": In(1),
                "read_piece": In(index_shape(pieces)),
                "read_pass": In(index_shape(passes)),
                "read_data": Out(lanes * timesteps),
            }
        )

    @property
    def delay(self) -> int:
        """Cycles from `add` to the first `read_en` that may follow and sees it."""
        return max(1, (self._timesteps - 1).bit_length())

    def elaborate(self, platform):
        m = Module()
        lanes = range(self._lanes)
        width = self._sum.width
        added = [self._over_steps(m, self.values[lane]) for lane in lanes]
        add, clear, piece = self.add, self.clear, self.piece
        add, clear, piece = (delayed(m, value, self.delay - 1) for value in (add, clear, piece))

        m.submodules.sums = sums = RunningTotals(width=self._lanes * width, depth=self._pieces)
        read_pass = delayed(m, self.read_pass)
        m.d.comb += [
            sums.en.eq(add),
            sums.restart.eq(clear & ~self.read_en),
            sums.index.eq(Mux(self.read_en, self.read_piece, piece)),
        ]
        planes = []
        for lane in lanes:
            before = sums.before.word_select(lane, width).as_signed()
            m.d.comb += sums.after.word_select(lane, width).eq(exact(before + added[lane], self._sum))
            planes.append(self._planes(before, read_pass))
        m.d.comb += self.read_data.eq(Cat(planes))
        return m

    def _over_steps(self, m, values):
        """Sum of a lane over time: a tree of adders, a register behind each.

        Without the registers Yosys would make carry-save adders of it, several times the size.
        """
        terms = [values[t] for t in range(self._timesteps)]
        for _ in range(self.delay):
            pairs = zip_longest(terms[::2], terms[1::2])
            terms = [delayed(m, a if b is None else a + b) for a, b in pairs]
        return terms[0]

    def _planes(self, total, read_pass):
        """The T planes of `total` that `read_pass` asks for."""
        extended = exact(total, signed(self._passes * self._timesteps))[::-1]  # the highest bit first
        parts = [extended.word_select(number, self._timesteps) for number in range(self._passes)]
        return Array(parts)[read_pass]
