"""The hardware has one answer to an image: after any other and after itself, whatever the streams do."""

from __future__ import annotations

import numpy as np
import pytest

from s2tdpt.golden.network import GoldenNetwork
from s2tdpt.hw.plan.machine import Machine
from s2tdpt.sim.cases import build_case, network
from s2tdpt.sim.cosim import Options, cosimulate
from s2tdpt.sim.design import generate
from tests.sim.conftest import QUICK


def every_pair(count: int) -> list[int]:
    """A sequence in which each of `count` images follows each, itself included: an Eulerian circuit."""
    left = {node: list(range(count)) for node in range(count)}
    stack, order = [0], []
    while stack:
        node = stack[-1]
        if left[node]:
            stack.append(left[node].pop())
        else:
            order.append(stack.pop())
    return order[::-1]


def test_every_pair_is_in_the_sequence():
    order = every_pair(4)
    pairs = list(zip(order, order[1:], strict=False))
    assert sorted(pairs) == [(first, second) for first in range(4) for second in range(4)]


@pytest.mark.parametrize("memory", ["rom", "stream"])
def test_after_any_image_and_in_any_order(memory):
    """One simulator process per run, so that every image but the first meets what another left behind."""
    machine = Machine(lanes=8, banks=2, post_lanes=4, weight_memory=memory)
    case = build_case(network(), machine, seed=3, frames=4)
    images = case.images.copy()
    images[2], images[3] = 0, 255  # silent, and as loud as it gets
    alone = GoldenNetwork(case.params).forward(images).numpy()
    assert len({tuple(row) for row in alone.tolist()}) >= 3
    design = generate(case.params, machine)
    cycles: dict[int, set[int]] = {}
    orders = [
        (every_pair(len(images)), "none"),
        (np.random.default_rng(1).permutation([0, 1, 2, 3] * 2), "bursty"),
    ]
    for order, stall in orders:
        options = Options(jobs=1, stall=stall, seed=2, simulator=QUICK)
        report = cosimulate(case.params, machine, images[order], options, design=design)
        assert report.ok, report.first()
        assert np.array_equal(report.logits, alone[order])
        if stall == "none" and memory == "rom":  # what a late weight costs depends on the image before
            for image, count in zip(order, report.frame_cycles, strict=True):
                cycles.setdefault(image, set()).add(count)
    assert all(len(counts) == 1 for counts in cycles.values()), cycles
