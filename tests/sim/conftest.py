"""Builds that several tests of the simulation share."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import standin  # noqa: E402

from golden.errors import UserError  # noqa: E402
from sim.runner import SIMULATORS, build  # noqa: E402


@pytest.fixture(scope="session", params=SIMULATORS)
def standin_build(request):
    """The stand-in accelerator, built for one simulator; Icarus is optional on a machine."""
    try:
        return build(standin.verilog(), standin.MODULE, request.param)
    except UserError as error:
        if request.param == "icarus" and "not found" in str(error):
            pytest.skip("Icarus Verilog is not installed")
        raise
