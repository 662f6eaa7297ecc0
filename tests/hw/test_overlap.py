"""How early steps start: never before a word is written, and not a cycle later than that."""

import numpy as np
import pytest

from s2tdpt.hw.attention.timeline import attention_lead, emission_period
from s2tdpt.hw.blocks.overlap import (
    ENDED_DELAY,
    START_DELAY,
    settle_cycles,
    words_read,
)
from s2tdpt.hw.blocks.timing import PostTiming, drain_delay
from s2tdpt.hw.estimate.front_model import FrontModel, word_marks
from s2tdpt.hw.plan.machine import Machine
from s2tdpt.hw.plan.program import Source
from s2tdpt.hw.plan.records import FETCH_CYCLES, FIRST_REQUEST, VISIBLE_DELAY
from s2tdpt.hw.plan.schedule import build_program
from s2tdpt.sim.cases import network

CASES = {
    "tiny": (network(), Machine(lanes=4, banks=2, post_lanes=2)),
    "pooled twice": (
        network(image_height=9, image_width=7, sps_channels=(4, 6, 8), sps_pool=(False, True, True)),
        Machine(lanes=8, banks=4, post_lanes=4),
    ),
    "one lane": (network(sps_pool=(False, False)), Machine(lanes=1, banks=1, post_lanes=1)),
    "one position": (
        network(image_height=1, image_width=1, sps_pool=(False, False)),
        Machine(lanes=8, banks=2, post_lanes=8),
    ),
    "wide": (network(depth=2), Machine(lanes=16, banks=8, post_lanes=16)),
}


@pytest.fixture(params=CASES)
def program(request):
    return build_program(*CASES[request.param], 20)


def written_after(writer, program):
    """The fastest tile: cycles of the last write of every position of its map, from the end of its last
    position on. Counted with the front's own model, whose positions end as soon as they may."""
    count, pieces = writer.positions * writer.passes, writer.subgroups(program.machine)
    final = np.arange(count) == count - 1
    marks = word_marks(np.ones(count, bool), final, pieces - 1, pieces - 1 + FETCH_CYCLES)
    front = FrontModel(program.machine.banks, program.machine.queue)
    front.walk(np.zeros((count, program.machine.banks), np.int64), marks, 0)
    ends = np.array([front.position_end(n) for n in range(count)])[writer.passes - 1 :: writer.passes]
    named = ends - ends[-1] + drain_delay(program) + pieces - 1
    written = (named + PostTiming(program).written_at).reshape(writer.height, writer.width)
    if not writer.pooled:
        return written.reshape(-1)
    maps = [
        [written[2 * y : 2 * y + 2, 2 * x : 2 * x + 2].max() for x in range(-(-writer.width // 2))]
        for y in range(-(-writer.height // 2))
    ]
    return np.array(maps).reshape(-1)


def test_words_come_after_their_writes_and_at_once(program):
    """Even if nothing slows the walk down and the writer was as late as it can be."""
    settle = settle_cycles(program)
    found = 0
    for index, (step, wait) in enumerate(zip(program.steps, settle, strict=True)):
        if wait is None:
            assert step.source is not Source.SPIKES or step.after != index - 1
            continue
        found += 1
        written = written_after(program.steps[index - 1], program)[words_read(step)]
        asked = ENDED_DELAY + wait + START_DELAY + FIRST_REQUEST + np.arange(len(written))
        assert (asked >= written + VISIBLE_DELAY).all(), step.name
        assert wait == 0 or (asked == written + VISIBLE_DELAY).any(), step.name
    assert found >= 4


def test_reader_of_the_attention(program):
    """The tokens on their way are written in time, and nothing else is written before them."""
    reader = next(step for step in program.steps if step.after_attention)
    period, tokens = emission_period(program), program.network.tokens
    lead = attention_lead(program, period)

    def fits(lead):
        written = (np.arange(tokens) - (tokens - 1 - lead)) * period  # from the write that counts on
        asked = 1 + START_DELAY + FIRST_REQUEST + np.arange(len(words_read(reader)))
        first_write = asked[0] + drain_delay(program) + PostTiming(program).written_at
        return (asked >= written[words_read(reader)] + VISIBLE_DELAY).all() and first_write > written[-1]

    assert 0 <= lead < tokens
    assert fits(lead)
    assert lead == tokens - 1 or not fits(lead + 1)


def test_walks_of_words_passes_and_taps():
    small = network(image_height=2, image_width=2, sps_pool=(False, False))
    program = build_program(small, Machine(lanes=2, banks=1, post_lanes=2), 20)
    pixels, convolution = program.steps[0], next(s for s in program.steps if s.kernel == 3)
    assert (pixels.passes, pixels.packing_in.groups, convolution.packing_in.groups) == (4, 5, 2)
    assert words_read(pixels).tolist() == np.repeat(np.arange(4), 4 * 5).tolist()
    assert words_read(convolution).tolist() == [0, 0, 1, 1, 2, 2, 3, 3] * 4
    assert words_read(next(s for s in program.steps if s.layer == "head")).max() == 0
