"""The memory plan against the memories of the described hardware, and the shapes of block RAMs."""

from __future__ import annotations

from collections import Counter

import pytest
from amaranth.hdl import Fragment, Shape
from amaranth.hdl._mem import MemoryInstance

from s2tdpt.golden.attention import MECHANISMS
from s2tdpt.golden.errors import UserError
from s2tdpt.golden.params import random_params
from s2tdpt.hw.attention import HARDWARE
from s2tdpt.hw.estimate.memory_plan import BLOCKS, Memory, MemoryPlan, check_plan, plan_of
from s2tdpt.hw.plan.machine import Machine
from s2tdpt.hw.top import Accelerator
from s2tdpt.sim.cases import network

CASES = {
    "on chip": (network(), Machine(lanes=8, banks=2, post_lanes=4)),
    "streamed": (network(), Machine(lanes=8, banks=4, post_lanes=2, queue=4, weight_memory="stream")),
    "one lane": (network(), Machine(lanes=1, banks=1, post_lanes=1, queue=2, attention_steps=1)),
    "one piece": (network(), Machine(lanes=8, banks=1, post_lanes=8)),
    "many tokens": (
        network(image_height=24, image_width=24, sps_pool=(False, False), timesteps=3),
        Machine(lanes=4, banks=2, post_lanes=2, attention_steps=2),
    ),
    "many classes": (network(num_classes=40), Machine(lanes=4, banks=1, post_lanes=1, attention_steps=2)),
    "wide": (
        network(sps_channels=(4, 36), heads=3, timesteps=4, depth=2),
        Machine(lanes=16, banks=4, post_lanes=4, attention_steps=3),
    ),
}
CASES |= {
    kind: (
        network(attention=MECHANISMS[kind](), timesteps=3, sps_channels=(4, 10)),
        Machine(lanes=8, banks=2, post_lanes=4, attention_steps=2),
    )
    for kind in HARDWARE
    if kind in MECHANISMS
}


def described(fragment) -> Counter:
    """Words and bits of every memory below a fragment."""
    found = Counter()
    if isinstance(fragment, MemoryInstance):
        found[fragment._data.depth, Shape.cast(fragment._data.shape).width] += 1
    for sub, *_ in fragment.subfragments:
        found += described(sub)
    return found


@pytest.mark.parametrize("case", CASES)
def test_every_memory_is_planned(case):
    config, machine = CASES[case]
    params = random_params(config, 0)
    planned = Counter()
    for memory in plan_of(params, machine).memories:
        planned[memory.words, memory.bits] += memory.count
    assert planned == described(Fragment.get(Accelerator(params, machine), None))


def test_shapes_of_blocks():
    def block(words, bits, **more):
        memory = Memory("m", words, bits, style="block", **more)
        return memory.shape, memory.blocks

    assert block(512, 36) == ((36, 512), 1)
    assert block(513, 36) == ((18, 1024), 2)
    assert block(2048, 24, granularity=8) == ((9, 2048), 3)
    assert block(3072, 192, granularity=32) == ((18, 1024), 36)  # a write enable governs 9 bits
    assert block(8192, 2) == ((2, 8192), 1)
    assert block(481, 512, count=4, rom=True) == ((36, 512), 60)


def test_small_memories_need_no_block():
    assert Memory("m", 16, 64).kind == "distributed" and Memory("m", 4, 500, style="distributed").blocks == 0
    assert Memory("m", 21, 72, rom=True).kind == "logic" and Memory("m", 312, 72, rom=True).kind == "block"
    assert Memory("m", 768, 24).kind == "block"


def test_what_does_not_fit_says_by_how_much_and_what_helps():
    memories = (
        Memory("weights", 512, 360, count=30, style="block", helps=("lanes", "banks")),
        Memory("queues", 8, 40, style="distributed"),
    )
    plan = MemoryPlan("net", "mine", memories)
    assert plan.blocks == 300 and not plan.fits("ecp5-85k") and BLOCKS["ecp5-85k"] == 208
    with pytest.raises(UserError) as error:
        check_plan(plan, "ecp5-85k")
    assert str(error.value) == (
        "net on machine mine does not fit: over by 92: 300 of 208 block RAMs of ecp5-85k; the largest, and "
        "the fields that help: weights 300 (lanes, banks); --force goes on nevertheless"
    )
    small = MemoryPlan("net", "mine", (Memory("weights", 512, 36, count=56, style="block"),))
    assert small.verdict("ecp5-25k") == "fits: 56 of 56 block RAMs of ecp5-25k"
    check_plan(small, "ecp5-25k")
