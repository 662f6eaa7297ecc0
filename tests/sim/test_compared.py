"""The shipped network of every attention: training network, golden model and Verilog, tensor by tensor.

Run with ``scripts/test -m wide tests/sim/test_compared.py``.
"""

import pytest

from s2tdpt.golden.attention import MECHANISMS
from s2tdpt.golden.network import GoldenNetwork
from s2tdpt.golden.shipped import load, shipped_models
from s2tdpt.golden.trace import traces
from s2tdpt.hw.machine import load_machine
from s2tdpt.sim.cosim import Options, cosimulate
from s2tdpt.sw.datasets import load_dataset
from s2tdpt.sw.evaluate import verify_equal
from s2tdpt.sw.export import from_params

COMPARED = [name for kind in MECHANISMS if (name := f"digits-{kind}") in shipped_models()]
COMPARED_IMAGES, SIMULATED = 60, 2


@pytest.mark.wide
@pytest.mark.parametrize("name", COMPARED)
def test_training_and_golden_network_and_verilog_are_equal(name):
    params, images = load(name), load_dataset("digits").test_images[:COMPARED_IMAGES]
    equality = verify_equal(from_params(params), GoldenNetwork(params), images)
    assert equality.equal and equality.images == COMPARED_IMAGES, equality.difference
    report = cosimulate(params, load_machine("digits"), images[:SIMULATED], Options(jobs=1))
    assert report.ok, report.first()
    assert report.images == report.layer_images == SIMULATED
    assert report.tensors == len(traces(params.config)) - 3  # without the head's
    assert {step.model_error for step in report.steps} == {0}
    print(f"{name}: {equality.values:,} values QAT = golden, {report.comparisons:,} golden = Verilog")
