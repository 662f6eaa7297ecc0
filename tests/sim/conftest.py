"""Builds that several tests of the simulation share."""

import shutil

import pytest

from s2tdpt.sim.build import SIMULATORS, build
from tests.sim import standin

PRESENT = [name for name in SIMULATORS if name != "icarus" or shutil.which("iverilog")]
QUICK = PRESENT[-1]
"""Simulator for tests that build anew every time: Icarus, which builds in a moment, where it is."""


@pytest.fixture(scope="session", params=PRESENT)
def standin_build(request):
    """The stand-in accelerator, built for one simulator; Verilator must be there, Icarus runs where it is."""
    return build(standin.verilog(), standin.MODULE, request.param)
