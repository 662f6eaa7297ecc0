"""Builds that several tests of the simulation share."""

import pytest

from golden.errors import UserError
from sim.runner import SIMULATORS, build
from tests.sim import standin


@pytest.fixture(scope="session", params=SIMULATORS)
def standin_build(request):
    """The stand-in accelerator, built for one simulator; Icarus is optional on a machine."""
    try:
        return build(standin.verilog(), standin.MODULE, request.param)
    except UserError as error:
        if request.param == "icarus" and "not found" in str(error):
            pytest.skip("Icarus Verilog is not installed")
        raise
