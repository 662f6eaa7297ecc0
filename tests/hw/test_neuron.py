"""Neurons of other laws than LIF: `LifCell` and `LifPipeline` against `golden.neuron`."""

import random

import pytest
import torch
from amaranth import Signal, signed, unsigned

from s2tdpt.golden.neuron import LIF
from s2tdpt.golden.neuron.base import LEAKS
from s2tdpt.golden.neuron.glif import GlifLaw
from s2tdpt.golden.neuron.graded import TernaryLaw
from s2tdpt.golden.neuron.klif import KlifLaw
from s2tdpt.golden.neuron.plif import PlifLaw
from s2tdpt.hw.blocks.lif import LifCell
from s2tdpt.hw.blocks.lif_pipeline import LifPipeline
from s2tdpt.hw.blocks.neuron import Carry, membrane_interval
from s2tdpt.hw.fixed import interval_of
from tests.hw.pieces import GAPS, run_pieces
from tests.hw.util import simulate

STEPS = 3
PLIF = tuple(PlifLaw(leak) for leak in LEAKS)
GLIF = (
    GlifLaw(4, None, 0, (0, 0, 0)),
    GlifLaw(8, 1, 0, (0, 0, 0)),
    GlifLaw(8, 2, 1, (1, 0, 2)),
    GlifLaw(7, None, 2, (0, 2, 0)),
    GlifLaw(6, None, 1, (0, 0, 1)),
    GlifLaw(0, None, 3, (0, 0, 0)),
)
SETS = {f"leak {law.leak}/8": (law,) for law in PLIF}
SETS |= {f"glif {number}": (law,) for number, law in enumerate(GLIF)}
SETS |= {"klif": (KlifLaw(16),), "plif": PLIF, "steep": (PlifLaw(7), PlifLaw(6))}
SETS |= {"glif": GLIF, "soft": GLIF[2:]}
TERNARY = {"ternary": (TernaryLaw(),), "of one sign and of two": (LIF, TernaryLaw())}
TERNARY |= {"beside others": (*PLIF, TernaryLaw()), "beside soft ones": (*GLIF[1:3], TernaryLaw())}


def run_cell(laws, sequences, *, shown=None):
    """Sequences ``(x[T], threshold, law number)`` one after the other, a lane of each at a time.

    `shown`: the laws that the golden model gets instead.
    """
    drive = interval_of(signed(4))
    membrane = membrane_interval(drive, 7, STEPS, laws)
    dut = LifCell(2, signed(4), membrane=membrane, threshold=unsigned(3), laws=laws)
    assert hasattr(dut, "law") == (len(laws) > 1)

    async def testbench(ctx):
        for x, threshold, number in sequences:
            expected = (shown or laws)[number].spikes(torch.tensor(x), threshold).tolist()
            other = [-value - 1 for value in x]
            beside = (shown or laws)[number].spikes(torch.tensor(other), threshold).tolist()
            if hasattr(dut, "law"):
                ctx.set(dut.law, number)
            for t in range(STEPS):
                ctx.set(dut.en, 1)
                ctx.set(dut.last, t == STEPS - 1)
                ctx.set(dut.x, [x[t], other[t]])
                ctx.set(dut.threshold, [threshold, threshold])
                if hasattr(dut, "step"):
                    ctx.set(dut.step, t)
                assert ctx.get(dut.spikes) == expected[t] + 2 * beside[t], (x, threshold, number, t)
                await ctx.tick()

    simulate(dut, testbench, deadline=4 * STEPS * len(sequences) + 10)


def sequences_of(laws, count=500):
    """Of all small sequences, thresholds and laws a part, the ends of the input more often than the rest."""
    rng = random.Random(len(laws))
    values, thresholds = (-8, -8, -3, -1, 0, 1, 2, 4, 7, 7), (1, 2, 3, 5, 7)
    return [
        (tuple(rng.choices(values, k=STEPS)), rng.choice(thresholds), rng.randrange(len(laws)))
        for _ in range(count)
    ]


@pytest.mark.parametrize("name", SETS)
def test_cell(name):
    run_cell(SETS[name], sequences_of(SETS[name]))


def run_pipeline(laws, pieces, *, gap="back to back", shown=None):
    """Pieces ``(x[lanes][T], threshold[lanes], law number)``."""
    drive = interval_of(signed(4))
    dut = LifPipeline(
        lanes=2,
        timesteps=STEPS,
        x_width=4,
        threshold_width=3,
        membrane=membrane_interval(drive, 7, STEPS, laws),
        laws=laws,
    )
    assert dut.delay == 2 * STEPS - 1  # whatever the law

    def drive_piece(ctx, piece):
        x, threshold, number = piece
        ctx.set(dut.x, x)
        ctx.set(dut.threshold, threshold)
        if hasattr(dut, "law"):
            ctx.set(dut.law, number)

    def idle(ctx, rng):
        ctx.set(dut.x, rng.integers(*drive, (2, STEPS)).tolist())
        if hasattr(dut, "law"):
            ctx.set(dut.law, int(rng.integers(len(laws))))

    def check(ctx, piece):
        x, threshold, number = piece
        law = (shown or laws)[number]
        rows = [law.spikes(torch.tensor(row), theta) for row, theta in zip(x, threshold, strict=True)]
        expected = [int(bit) for row in rows for bit in row]
        spikes, signs = ctx.get(dut.spikes), ctx.get(dut.signs) if hasattr(dut, "signs") else 0
        places = range(2 * STEPS)
        assert [(spikes >> n & 1) - 2 * (signs >> n & 1) for n in places] == expected, piece

    run_pieces(dut, pieces, drive=drive_piece, idle=idle, check=check, gap=gap, seed=len(laws))


def pieces_of(laws, count=250):
    found = sequences_of(laws, 2 * count)
    return [
        ([list(a[0]), list(b[0])], [a[1], b[1]], a[2]) for a, b in zip(found[::2], found[1::2], strict=True)
    ]


@pytest.mark.parametrize("name", [*SETS, *TERNARY])
def test_pipeline(name):
    laws = (SETS | TERNARY)[name]
    run_pipeline(laws, pieces_of(laws))


@pytest.mark.parametrize(
    "built, shown",
    [
        ((TernaryLaw(),), (LIF,)),
        ((LIF,), (TernaryLaw(),)),
        ((LIF, TernaryLaw()), (TernaryLaw(), LIF)),
    ],
    ids=["a sign too many", "a sign too few", "exchanged"],
)
def test_another_sign_is_noticed(built, shown):
    with pytest.raises(AssertionError):
        run_pipeline(built, pieces_of(built), shown=shown)


def test_only_pipelines_fire_downwards():
    with pytest.raises(ValueError, match="LIF cells fire upwards only"):
        LifCell(1, signed(4), membrane=(-8, 7), threshold=3, laws=(TernaryLaw(),))
    for laws, has in ((PLIF, False), ((LIF, TernaryLaw()), True)):
        dut = LifPipeline(lanes=1, timesteps=2, x_width=4, threshold_width=2, membrane=(-9, 9), laws=laws)
        assert hasattr(dut, "signs") == has


@pytest.mark.parametrize("gap", GAPS)
def test_laws_travel_with_their_pieces(gap):
    run_pipeline(PLIF, pieces_of(PLIF, 60), gap=gap)


@pytest.mark.parametrize("run, cases", [(run_cell, sequences_of), (run_pipeline, pieces_of)])
@pytest.mark.parametrize(
    "built, shown",
    [
        ((PlifLaw(6),), (PlifLaw(7),)),
        ((PlifLaw(4),), (KlifLaw(16),)),
        ((PlifLaw(2), PlifLaw(6)), (PlifLaw(6), PlifLaw(2))),
        ((GLIF[1],), (GLIF[0],)),
        ((GLIF[3],), (GlifLaw(7, None, 1, (0, 2, 0)),)),
        ((GLIF[3],), (GlifLaw(7, None, 2, (0, 1, 0)),)),
    ],
    ids=["leak", "rectified", "exchanged", "linear", "soft", "conduct"],
)
def test_another_law_is_noticed(run, cases, built, shown):
    """Plant: hardware of one law, compared with another."""
    with pytest.raises(AssertionError):
        run(built, cases(built), shown=shown)


def test_a_membrane_that_is_too_narrow_is_noticed():
    """A subtracted threshold reaches below what a LIF neuron's interval holds."""
    laws = (GlifLaw(8, 0, 1, (0, 0, 0)),)
    good = membrane_interval((-8, 7), 7, STEPS, laws)
    assert good[0] < membrane_interval((-8, 7), 7, STEPS)[0]


def test_only_what_a_law_asks_for_is_built():
    """A law alone selects nothing; that of LIF in any model is the same hardware."""
    for laws in SETS.values():
        carry = Carry(laws)
        assert carry.select_bits == (len(laws) - 1).bit_length()
    u, fired, select = Signal(signed(8)), Signal(), Signal(3)
    texts = {
        repr(Carry((law,)).carried(u, fired, 5, select, signed(7)))
        for law in (LIF, PlifLaw(4), GlifLaw(4, None, 0, (0, 0, 0)))
    }
    assert len(texts) == 1 and "select" not in texts.pop()


def test_messages():
    for laws in ((), (PlifLaw(4), LIF), (KlifLaw(3), KlifLaw(4))):
        with pytest.raises(ValueError, match="laws must be of different forms, at least one"):
            Carry(laws)
