"""Builds and recorded runs that several tests of the simulation share."""

import shutil

import numpy as np
import pytest

from s2tdpt.golden.params import random_params
from s2tdpt.sim.build import SIMULATORS, build
from tests.sim import standin
from tests.sim.recording import COUNT, golden_run

PRESENT = [name for name in SIMULATORS if name != "icarus" or shutil.which("iverilog")]
QUICK = PRESENT[-1]
"""Simulator for tests that build anew every time: Icarus, which builds in a moment, where it is."""


@pytest.fixture(scope="session", params=PRESENT)
def standin_build(request):
    """The stand-in accelerator, built for one simulator; Verilator must be there, Icarus runs where it is."""
    return build(standin.verilog(), standin.MODULE, request.param)


@pytest.fixture
def wide_fields(monkeypatch):
    """Fields of the stand-in in which the numbers of the golden model have room."""
    monkeypatch.setattr(standin, "U_BITS", 16)
    monkeypatch.setattr(standin, "Y_BITS", 8)


@pytest.fixture(scope="session")
def params():
    """Of the stand-in's network."""
    return random_params(standin.NETWORK, 0)


@pytest.fixture(scope="session")
def images():
    return np.random.default_rng(1).integers(0, 256, (COUNT, 4, 3, 1)).astype(np.uint8)


@pytest.fixture
def shares(params, images, tmp_path, wide_fields):
    """Two processes, as `cosim` shares images out: 0 and 2, 1; all images recorded."""
    return [
        golden_run(tmp_path / f"run{n}", params, images, range(n, COUNT, 2), len(range(n, COUNT, 2)))
        for n in (0, 1)
    ]
