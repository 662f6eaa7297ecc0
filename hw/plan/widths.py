"""Register widths of the datapath, from the proven intervals of the actual weights."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from s2tdpt.golden.arith import signed_bits, unsigned_bits
from s2tdpt.golden.bounds import Bounds, Interval
from s2tdpt.golden.errors import UserError
from s2tdpt.golden.layers import StreamNeurons
from s2tdpt.golden.neuron import Law
from s2tdpt.golden.params import Params
from s2tdpt.hw.fixed import interval_shape

RESULT_BITS = 64
"""Widest word of the result stream (`axi.ResultSender`)."""


@dataclass(frozen=True)
class Widths:
    """Bits of every register class; each is wide enough for every value that can occur in it.

    Parameters
    ----------
    accumulator : int
        Signed sum of weights in one plane (time step or bit plane), every partial sum included.
    combined : int
        Signed Horner combination of bit planes (conv 0, head) after any number of planes, from the highest
        one on: right however many planes a pass takes, and with any copies of the sign in front.
    value : int
        Signed value handed to the LIF: sum plus bias, or the updated membrane stream U.
    membrane : int
        Signed LIF membrane u = h + value.
    residual : int
        Signed membrane stream U.
    head_sum : int
        Signed sum of U over steps and tokens, every partial sum included; exact, it sets the head's passes.
    logit : int
        Signed logits.
    bias, threshold : int
        Per-channel constants: signed bias, unsigned threshold.
    shift : int
        Left shift of a writer's channel, less `min_shift`.
    attention : int
        Attention sum Y, unsigned where its interval has no negative number.
    attention_membrane : int
        Signed membrane of the attention LIF.
    attention_inner : dict of str to int
        What the attention keeps on the way to Y, by the names of `golden.bounds`; unsigned as `attention` is.
    min_shift : int
        Smallest left shift that occurs, not a width; that of LIF-fed layers, too.
    """

    accumulator: int
    combined: int
    value: int
    membrane: int
    residual: int
    head_sum: int
    logit: int
    bias: int
    threshold: int
    shift: int
    attention: int
    attention_membrane: int
    attention_inner: dict[str, int]
    min_shift: int

    def as_dict(self) -> dict[str, int]:
        """Plain values for JSON."""
        return asdict(self)


def shift_range(params: Params) -> Interval:
    """Smallest and largest left shift of the writers.

    By the smallest one the sums, biases and thresholds of LIF-fed layers are shifted up, too: neurons on a
    finer grid give the same spikes, since by the floor-leak lemma both are those of the real leak of one half
    (docs/parameters.md). It spares the shifter that much. Where a law floors what a real neuron would keep
    (`Law.scale_free`), grids are not alike, and the range begins at 0.
    """
    shifts = [params.shift(layer.name) for layer in params.config.layers() if layer.writer]
    alike = all(params.laws[layer.writes].scale_free for layer in params.config.layers() if layer.lif_fed)
    smallest = min(int(s.min()) for s in shifts) if alike else 0
    return Interval(smallest, max(int(s.max()) for s in shifts))


def stream_laws(params: Params) -> dict[str, Law]:
    """The law of the neurons that read the stream behind a writer, by its name; none behind the last one."""
    parts = params.config.parts()
    readers = {part.reads: part.writes for part in parts if isinstance(part, StreamNeurons)}
    writers = {layer.name: layer.writes for layer in params.config.layers() if layer.writer}
    return {name: params.laws[readers[writes]] for name, writes in writers.items() if writes in readers}


def _finer(interval: Interval, bits: int) -> Interval:
    """Membranes on a grid finer by `bits`: the floor of 2^bits times the real membrane."""
    return Interval(interval.lo << bits, ((interval.hi + 1) << bits) - 1)


def _signed(*intervals: Interval) -> int:
    """Signed bits that hold every interval, and zero (the reset value)."""
    return signed_bits(min(0, *(i.lo for i in intervals)), max(0, *(i.hi for i in intervals)))


def _with_zero(interval: Interval) -> int:
    """Bits that hold the interval and zero, unsigned where it has no negative number."""
    return interval_shape(min(0, interval.lo), max(0, interval.hi)).width


def _head_sums(params: Params, head_sum: Interval) -> tuple[Interval, Interval]:
    """Sums of head weights over any channels, and the weighted sums of ``head_sum >> b`` for any b."""
    weight = params.tensors["head.weight"].astype(object)
    negative = [sum(w for w in row if w < 0) for row in weight]
    positive = [sum(w for w in row if w > 0) for row in weight]
    lo, hi = min(head_sum.lo, -1), max(head_sum.hi, 0)
    lows = [p * lo + n * hi for p, n in zip(positive, negative, strict=True)]
    highs = [p * hi + n * lo for p, n in zip(positive, negative, strict=True)]
    return Interval(min(negative), max(positive)), Interval(min(0, *lows), max(0, *highs))


def derive_widths(params: Params, bounds: Bounds) -> Widths:
    """Widths for one set of weights.

    # Ref: docs/parameters.md, "Widths"

    Raises
    ------
    UserError
        A logit could exceed the 64 bits of the result stream.
    """
    shifts = shift_range(params)
    finer = shifts.lo
    layers = params.config.layers()
    fed = [layer.name for layer in layers if layer.lif_fed]
    biases = [params.bias(layer.name).astype(object) << finer * layer.lif_fed for layer in layers]
    thresholds = [int(params.threshold(name).max()) << finer for name in fed]
    stream = [law.threshold(params.residual_threshold) for law in stream_laws(params).values()]
    head_planes, head_prefixes = _head_sums(params, bounds.head_sum)
    # A layer's membrane interval contains its biased sums.
    fine_membranes = [_finer(bounds.membrane[name], finer) for name in fed]
    values = [*bounds.residual.values(), *bounds.written.values(), *fine_membranes]
    membranes = [*fine_membranes, *bounds.residual_membrane.values()]
    combined = _signed(bounds.preact["sps.0"], head_prefixes, bounds.logits)
    if combined > RESULT_BITS:
        raise UserError(
            f"logits of {params.config.name} could need {combined} bits; expected at most {RESULT_BITS}, "
            "the width of the result stream; scale the head's weights and bias down"
        )
    return Widths(
        accumulator=_signed(*bounds.acc.values(), head_planes),
        combined=combined,
        value=_signed(*values),
        membrane=_signed(*membranes),
        residual=_signed(*bounds.residual.values()),
        head_sum=_signed(bounds.head_sum),
        logit=_signed(bounds.logits),
        bias=signed_bits(min(int(b.min()) for b in biases), max(int(b.max()) for b in biases)),
        threshold=unsigned_bits(max(*stream, *thresholds)),
        shift=max(1, unsigned_bits(shifts.hi - shifts.lo)),
        attention=_with_zero(bounds.attention),
        attention_membrane=_signed(bounds.attention_membrane),
        attention_inner={name: _with_zero(inner) for name, inner in bounds.attention_inner.items()},
        min_shift=shifts.lo,
    )
