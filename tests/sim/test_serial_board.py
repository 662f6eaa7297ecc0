"""End to end without a board: host, pseudo-terminal, UART pins toggling in Verilator, the accelerator."""

import numpy as np
import pytest

from s2tdpt.golden.errors import UserError
from s2tdpt.golden.network import GoldenNetwork
from s2tdpt.golden.params import random_params
from s2tdpt.golden.shipped import load
from s2tdpt.host import Accelerator
from s2tdpt.host.port import SerialPort
from s2tdpt.hw.plan.machine import Machine, load_machine
from s2tdpt.sim.cases import network
from s2tdpt.sim.line import FaultyPort
from s2tdpt.sim.serial_board import CLOCK, CYCLES, SimulatedBoard

PARAMS = random_params(network(), 3)
BAUD = CLOCK // CYCLES
SLOW = 30.0
"""Seconds that the simulation of an image may take on a busy computer."""


@pytest.fixture(scope="module")
def board():
    """A running board with a tiny network."""
    with SimulatedBoard(PARAMS, Machine(lanes=4, banks=2, post_lanes=2)) as board:
        yield board


def pictures(count: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 5, 4, 1), dtype=np.uint8)


def equal(found, images) -> bool:
    logits = GoldenNetwork(PARAMS).forward(images).numpy()
    return bool((found.logits == logits).all() and (found.classes == logits.argmax(1)).all())


def test_equal_to_the_golden_model(board):
    """Twice, with the port closed between: the board keeps nothing that matters."""
    for seed in (1, 2):
        images = pictures(40, seed)
        with Accelerator.open(board.port, params=PARAMS, timeout=SLOW) as host:
            assert host.identity.clock == CLOCK and host.identity.window == 8
            assert equal(host.infer(images), images)
            assert host.statistics.repeats == 0


def test_faults_on_the_line(board):
    """Hundreds of faults, resets in mid-frame among them: never a wrong result, and the link recovers."""
    images = pictures(100, 3)
    line = FaultyPort(SerialPort(board.port, BAUD), 4, 0.0, board.reset)
    with Accelerator.open(line, timeout=1.0, attempts=80) as host:
        line.rate = 0.25
        while line.faults.total() < 300 or line.faults["reset"] <= 5:
            assert equal(host.infer(images), images)
    assert line.faults["reset"] > 5
    with Accelerator.open(board.port, params=PARAMS, timeout=SLOW) as host:
        assert equal(host.infer(images), images)


def test_unplugged(board):
    """In the middle of the images: an error, no result. The last test of this board."""
    with Accelerator.open(board.port, timeout=SLOW, attempts=2) as host:
        with pytest.raises(UserError, match="^the (port|board at) /dev/.*(does not work|did not answer)"):
            host.infer(pictures(1000, 5), lambda done: board.unplug())


@pytest.mark.wide
def test_all_digits():
    """360 test images through the pins of the digits network."""
    from s2tdpt.sw.datasets import load_dataset

    params, data = load("digits"), load_dataset("digits")
    images = np.asarray(data.test_images)
    with SimulatedBoard(params, load_machine("digits")) as board:
        with Accelerator.open(board.port, params=params, timeout=300) as host:
            found = host.infer(images)
    assert len(images) == 360 and (found.logits == GoldenNetwork(params).forward(images).numpy()).all()
