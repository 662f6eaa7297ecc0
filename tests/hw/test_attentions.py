"""The attention units beside STDP against their golden twins: every sum, every spike, every cycle."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from amaranth.hdl import Fragment, Shape, signed, unsigned

from s2tdpt.golden.attention import MECHANISMS
from s2tdpt.golden.bounds import Interval
from s2tdpt.golden.errors import UserError
from s2tdpt.hw import attention
from s2tdpt.hw.attention import HARDWARE, attention_of
from s2tdpt.hw.attention.columns import ColumnCounts
from s2tdpt.hw.attention.dendrites import DendriteRows
from s2tdpt.hw.attention.records import HeadSizes
from s2tdpt.hw.attention.sssa import KeyTotals, reachable
from s2tdpt.hw.attention.state_records import REUSE, Rounds
from s2tdpt.hw.attention.state_rows import StateRows
from s2tdpt.hw.fixed import interval_shape
from tests.hw.attention_bench import Member, heads_of, program_for
from tests.hw.util import memories_of, state_of

GATES = ("sdsa", "qkca", "qkta")
FIELDS = ("lrf-ssa", "lrf-stdp", "lrf-dyn")
KINDS = [kind for kind in MECHANISMS if kind in HARDWARE and kind != "stdp"]

SHAPES = [
    # head_dim, heads, tokens, steps, lanes, post_lanes, attention_steps, rows
    (5, 4, 8, 3, 12, 4, 2, 2),  # padded heads that straddle two tiles; an engine with one step less
    (4, 2, 6, 2, 8, 4, 2, 3),  # all steps at once: a row may come back in the next cycle
]
MORE_SHAPES = [
    (1, 1, 1, 1, 1, 1, 1, 1),
    (3, 1, 6, 1, 3, 3, 1, 2),
    (4, 2, 3, 3, 8, 4, 2, 3),
    (5, 4, 8, 3, 12, 4, 3, 2),
    (7, 2, 3, 5, 4, 1, 3, 1),  # more parts than steps
    (8, 3, 1, 4, 4, 4, 4, 1),
    (6, 2, 16, 8, 12, 6, 3, 4),
    (5, 1, 12, 4, 8, 8, 1, 3),
    (16, 2, 16, 4, 24, 8, 4, 4),
]


def _size(shape):
    names = ("head_dim", "heads", "tokens", "steps", "lanes", "post_lanes", "attention_steps", "rows")
    return dict(zip(names, shape, strict=True))


def mechanism(kind, gate_threshold=1):
    options = {"gate_threshold": gate_threshold} if kind in GATES else {}
    if kind in FIELDS:
        options = {"lrf": (1, 2)}
    return MECHANISMS[kind](**options)


def check_shape(kind, shape):
    unit = Member(mechanism(kind, 2), **_size(shape), depth=2)
    # Blocks of two frames, back to back.
    unit.check(
        unit.spikes(1),
        unit.spikes(2, q=0.02, v=0.5),
        unit.spikes(3, v=0.03),
        unit.spikes(4, q=0.9, k=0.9, v=0.9),
    )
    unit = Member(mechanism(kind, 8), **_size(shape))
    unit.check(unit.spikes(5), unit.spikes(6, q=0.6), gap=0.5)
    unit = Member(mechanism(kind, 1), **_size(shape))
    unit.check(unit.spikes(7, q=0, k=0, v=0), unit.spikes(8, q=1, k=1, v=1), once=True)


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: "-".join(map(str, shape)))
@pytest.mark.parametrize("kind", KINDS)
def test_shapes(kind, shape):
    check_shape(kind, shape)


@pytest.mark.wide
@pytest.mark.parametrize("shape", MORE_SHAPES, ids=lambda shape: "-".join(map(str, shape)))
@pytest.mark.parametrize("kind", KINDS)
def test_more_shapes(kind, shape):
    check_shape(kind, shape)


@pytest.mark.parametrize("kind", ["sdsa", "qkca"])
def test_gates_of_channels_without_a_spike(kind):
    """One spike opens a gate, and none does not: counts of one bit, every channel silent in turn."""
    unit = Member(mechanism(kind, 1), head_dim=3, heads=1, tokens=4, steps=2, lanes=4, post_lanes=2)
    blocks = []
    for channel in range(3):
        q, k, v = maps = unit.spikes(1, q=1, k=1, v=1)
        counted = q if kind == "qkca" else k
        counted[:, :, channel] = 0
        blocks.append(maps)
    unit.check(*blocks)


@pytest.mark.parametrize("kind", KINDS)
def test_silent_projections(kind):
    """One of q, k and v without a spike while all others fire always, behind a block in which all did."""
    unit = Member(mechanism(kind, 2), head_dim=3, heads=2, tokens=4, steps=3, lanes=8, post_lanes=4, rows=2)
    rates = dict(q=1, k=1, v=1)
    unit.check(
        unit.spikes(1, **rates),
        unit.spikes(2, **rates | {"q": 0}),
        unit.spikes(3, **rates | {"k": 0}),
        unit.spikes(4, **rates | {"v": 0}),
    )


@pytest.mark.parametrize("kind", ["ssa", "lrf-ssa", "lrf-stdp", "lrf-dyn"])
def test_one_engine_for_all_steps(kind):
    """Its rows of every step are kept apart, and empty when the next head begins."""
    size = dict(head_dim=3, heads=2, tokens=4, steps=3, lanes=8, post_lanes=4, rows=2, attention_steps=1)
    unit = Member(mechanism(kind), **size)
    unit.check(unit.spikes(1, q=0.8, k=0.9, v=0.9), unit.spikes(2, q=0.8, k=0.2, v=0.6))


@pytest.mark.parametrize("kind", FIELDS)
def test_maps_whose_width_is_no_power_of_two(kind):
    """The column of a token does not wrap by itself: three tokens a row, taps beyond every edge."""
    size = dict(head_dim=2, heads=1, tokens=9, steps=2, lanes=2, post_lanes=2, rows=3)
    unit = Member(mechanism(kind), **size)
    unit.check(unit.spikes(1, v=0.6), unit.spikes(2, q=0.6, v=0.6))


@pytest.mark.parametrize("attention_steps", [1, 2, 3])
def test_rows_of_the_state_that_come_back_at_once(attention_steps):
    """All keys have the same channel only: its row is updated in round after round."""
    size = dict(head_dim=4, heads=1, tokens=5, steps=3, lanes=4, post_lanes=4)
    unit = Member(mechanism("ssa"), **size, attention_steps=attention_steps)
    q, k, v = unit.spikes(1, v=1)
    k[:], q[:] = 0, 1
    k[:, :, 2] = 1
    rounds = Rounds(HeadSizes(unit.program))
    updates = {1: 1 + (REUSE - 1), 2: 2, 3: 1}[rounds.count] * rounds.count * 5
    cycles = 5 + updates + rounds.turn + max(attention_steps, 1) * rounds.count * 5
    assert unit.hardware.head_cycles(unit.program, q, k, v) == cycles
    unit.check((q, k, v))


@pytest.mark.parametrize("tokens", [16, 1024])
def test_state_does_not_grow_with_the_tokens(tokens):
    """``head_dim`` rows of ``head_dim`` counts a step, as wide as the number of tokens needs."""
    program = program_for(head_dim=4, heads=1, tokens=tokens, steps=2, lanes=4, post_lanes=4)
    sizes = HeadSizes(program)
    shapes = interval_shape(0, tokens), interval_shape(0, 4 * tokens)
    memory = state_of(StateRows(sizes, 0, *shapes))[1]
    assert memory == 2 * 4 * 4 * tokens.bit_length()


@pytest.mark.parametrize("tokens", [16, 256])
def test_dendrites_are_eight_words_a_channel(tokens):
    """The rows in the elaborated hardware: ``8 d_h`` words for a head and step, where `ssa` has ``d_h^2``."""
    size = dict(head_dim=16, heads=2, tokens=tokens, steps=4, lanes=16, post_lanes=4, rows=4)
    words = {}
    for kind in ("lrf-dyn", "ssa"):
        unit = Member(mechanism(kind), **size, attention_steps=2)
        fragment = Fragment.get(unit.dut, None)
        rows = [memory._data for path, memory in memories_of(fragment) if "/rows" in f"/{path}"]
        bits = unit.bounds.attention_inner["dendrite" if kind == "lrf-dyn" else "state"].unsigned_bits
        assert {Shape.cast(row.shape).width for row in rows} == {16 * bits} and bits <= 16
        words[kind] = sum(16 * row.depth for row in rows) // 4
    assert words == {"lrf-dyn": 8 * 16, "ssa": 16 * 16}


@pytest.mark.parametrize("engines", [1, 3])
def test_resources_of_an_engine_of_dendrites(engines):
    size = dict(head_dim=5, heads=1, tokens=4, steps=3, lanes=8, post_lanes=4)
    sizes = HeadSizes(program_for(**size, attention_steps=engines))
    flops, memory = state_of(DendriteRows(sizes, 0, unsigned(12), signed(14)))
    rows = 8 * (4 if engines == 1 else 1)  # three steps count as four
    assert memory == rows * 5 * 12
    place = 3 + (rows - 1).bit_length()
    assert flops == 5 * (7 * 12 + 14 + 4) + 6 * place + 25


def test_units_hold_only_what_they_read():
    """Every bit of the head stores: none for a projection that does not exist."""
    size = dict(head_dim=4, heads=2, tokens=8, steps=2, lanes=8, post_lanes=4)
    bits = {}
    for kind in KINDS:
        unit = Member(mechanism(kind), **size)
        found = unit.hardware.memories(unit.program, unit.bounds)
        bits[kind] = sum(memory.total_bits for memory in found)
        assert state_of(unit.dut)[1] == bits[kind], kind
    spikes = 2 * 8 * 4 * 2  # of one projection
    assert bits["none"] == bits["uniform"] == spikes
    assert bits["sdsa"] == 3 * spikes and bits["qkca"] == 2 * spikes
    assert bits["qkta"] == spikes + 2 * 8 * 2 * 3  # two counts of 3 bits a token


# ---- planted faults --------------------------------------------------------------------------------------

FAULTY = dict(head_dim=3, heads=1, tokens=8, steps=4, lanes=4, post_lanes=2, rows=2)


def _case(unit, **rates):
    return unit.spikes(5, **{"q": 0.5, "k": 0.5, "v": 0.5, **rates})


@pytest.mark.parametrize("kind", KINDS)
def test_a_lost_piece_is_noticed(kind):
    """Of the first projection, of the keys of `qkca`: its queries only open gates that others open, too."""
    unit = Member(mechanism(kind), **FAULTY)
    with pytest.raises(AssertionError):
        unit.check(_case(unit, q=0.2), drop={"qkca": 18, "lrf-dyn": 4}.get(kind, 3))


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in (*GATES, "none")])
def test_another_threshold_is_noticed(kind):
    def double(params):
        return dataclasses.replace(params, attention_threshold=2 * params.attention_threshold)

    unit = Member(mechanism(kind), **FAULTY, hardware=double)
    with pytest.raises(AssertionError):
        unit.check(_case(unit))


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind in GATES])
def test_another_gate_threshold_is_noticed(kind):
    unit = Member(mechanism(kind, 2), **FAULTY)
    other = Member(mechanism(kind, 4), **FAULTY)
    unit.dut = other.dut
    with pytest.raises(AssertionError):
        unit.check(_case(unit, q=0.3))


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind in FIELDS])
def test_an_altered_tap_is_noticed(kind):
    def alter(params):
        name = "block.0.lrf.weight"
        taps = params.tensors[name].copy()
        taps[1, 0] ^= 1
        return dataclasses.replace(params, tensors={**params.tensors, name: taps})

    unit = Member(mechanism(kind), **FAULTY, hardware=alter)
    with pytest.raises(AssertionError):
        unit.check(_case(unit))


TENSORS = [
    # One number of a tensor, and what takes its place.
    ("lrf-dyn", "dyn.leak", (0, 2), 2),
    ("lrf-dyn", "dyn.input", (0, 1), 300),
    ("lrf-dyn", "dyn.sign", (0, 3), 0),
    ("lrf-dyn", "dyn.shift", (0, 3), 2),
    ("sssa", "sssa.weight", (0, 2, 1), 0),
    ("sssa", "sssa.threshold", (0, 2), 2**31 - 1),
]


@pytest.mark.parametrize("kind, tensor, place, value", TENSORS, ids=lambda value: str(value))
def test_an_altered_number_is_noticed(kind, tensor, place, value):
    def alter(params):
        name = f"block.0.{tensor}"
        values = params.tensors[name].copy()
        assert values[place] != value
        values[place] = value
        return dataclasses.replace(params, tensors={**params.tensors, name: values})

    unit = Member(mechanism(kind), **FAULTY, hardware=alter)
    with pytest.raises(AssertionError):
        unit.check(_case(unit))


@pytest.mark.parametrize("lo, hi", [(-3, 5), (-8, -1), (0, 0), (2, 4)])
def test_thresholds_that_no_sum_reaches_are_alike(lo, hi):
    for threshold in (1, *range(hi, hi + 4), 2**31 - 1):
        lowered = reachable(threshold, Interval(lo, hi))
        assert lowered <= max(0, hi) + 1
        assert all((x >= threshold) == (x >= lowered) for x in (*range(lo, hi + 1), 0))


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind in ("ssa", "lrf-ssa", "lrf-stdp")])
def test_cycles_that_do_not_see_the_spikes_are_noticed(kind, monkeypatch):
    """The formula is compared with every head: a constant in its place does not pass."""
    unit = Member(mechanism(kind), **FAULTY)
    constant = unit.hardware.head_cycles(unit.program, *(np.zeros((4, 8, 3), np.uint8),) * 3)
    monkeypatch.setattr(type(unit.hardware), "head_cycles", lambda *arguments: constant)
    with pytest.raises(AssertionError):
        unit.check(_case(unit))


def test_an_attention_without_hardware(monkeypatch):
    program = program_for(head_dim=4, heads=1, tokens=4, steps=2, lanes=4, post_lanes=4)
    monkeypatch.setattr(attention, "HARDWARE", {"none": HARDWARE["none"]})
    with pytest.raises(UserError) as error:
        attention_of(program)
    assert str(error.value) == (
        "attention stdp of attention has no hardware; expected one of none; choose another attention"
    )


def test_hardware_is_that_of_known_attentions():
    assert set(HARDWARE) <= set(MECHANISMS)
    assert len(KINDS) == len(HARDWARE) - 1


# ---- the page of the attentions --------------------------------------------------------------------------


def _bits(most):
    return most.bit_length()


# Of docs/attentions.md, with 8 channels a head, 6 tokens, a gate at 2, 4 steps, one engine, 2 pieces a head:
# the head store of a token and step; rows of a head and step, in bits; cycles of a head.
N, D, T, P = 6, 8, 4, 4
COSTS = {
    "none": (D, 0, N * P + 1),
    "uniform": (D, 0, N * P + N + 2),
    "sdsa": (3 * D, 0, N * P + N + T + 3),
    "qkca": (2 * D, 0, N * P + N + T + 3),
    "qkta": (D + _bits(D), 0, N * P + 1),
    "sssa": (D + 2 * _bits(D), 0, N * P + N + 2),
    "stdp": (D + 1 + 2 * _bits(D), (D + 1) * D, None),
    "ssa": (3 * D, D * D * _bits(N), None),
    "lrf-ssa": (3 * D, D * D * _bits(N), None),
    "lrf-stdp": (D + 1 + 2 * _bits(D), (D + 1) * D, None),
    "a2os2a": ((1 + 4 + 2) * D, D * D * (1 + _bits(15 * N)), None),
    "lrf-dyn": (3 * D, 8 * D, 2 + T * N * 8),  # no token has more taps on the map,
}


@pytest.mark.parametrize("kind", HARDWARE)
def test_costs_of_the_page(kind):
    size = dict(head_dim=D, heads=2, tokens=N, steps=T, lanes=16, post_lanes=4, rows=2)
    unit = Member(mechanism(kind, 2), **size)
    kept, state, cycles = COSTS[kind]
    own = unit.hardware.own_memories(unit.program, unit.bounds)
    store = state_of(unit.dut)[1]
    store -= sum(memory.total_bits for memory in own)
    assert store == 2 * N * T * kept
    rows = sum(memory.total_bits for memory in own if memory.name.startswith("rows of the attention"))
    if "stdp" in kind:
        y = unit.hardware.sums(unit.program, unit.bounds) if kind == "lrf-stdp" else unit.bounds.attention
        state *= T * _bits(y.hi)
    elif kind == "lrf-dyn":
        state *= T * _bits(unit.bounds.attention_inner["dendrite"].hi)
    else:
        state *= T
    assert rows == state
    if cycles is not None:
        heads = heads_of(unit.spikes(1), 2)
        assert {unit.hardware.head_cycles(unit.program, *head) for head in heads} == {cycles}


def test_counters_of_the_page():
    program = program_for(head_dim=D, heads=2, tokens=N, steps=T, lanes=16, post_lanes=4)
    sizes = HeadSizes(program)
    assert state_of(ColumnCounts(sizes, N))[0] == T * D * _bits(N)
    assert state_of(ColumnCounts(sizes, 2))[0] == T * D * _bits(2)
    total = _bits(N * D)
    assert state_of(KeyTotals(sizes))[0] == T * (total + _bits(total - 1) + 1) + 1  # and a pulse


def test_page_names_every_unit():
    page = (Path(__file__).parents[2] / "docs" / "attentions.md").read_text()
    section = page.split("## Cost of the hardware")[1].split("\n## ")[0]
    for kind in HARDWARE:
        assert section.count(f"| `{kind}` |") == 2, kind
