"""Float network: exact parameter counts, and folding that keeps every spike."""

import pytest
import torch

from s2tdpt.golden import complexity
from s2tdpt.golden.config import load_config
from s2tdpt.golden.errors import UserError
from s2tdpt.golden.trace import spike_traces
from s2tdpt.sw.fold import fold
from s2tdpt.sw.network import Network, parameter_count
from tests.sw.helpers import ODD_SHAPES, images_for, lively


@pytest.mark.parametrize(
    "name, count",
    [
        ("s2tdpt-4-384", 9_320_122),
        ("s2tdpt-4-384-cifar100", 9_354_772),
        ("s2tdpt-4-256", 4_152_106),
        ("s2tdpt-2-384", 5_762_746),
    ],
)
def test_parameter_counts_are_those_of_the_paper(name, count):
    assert (
        parameter_count(Network(load_config(name))) == count == complexity.parameter_count(load_config(name))
    )


@pytest.mark.parametrize("name", ODD_SHAPES)
def test_parameter_count_formula_holds_for_any_shape(name):
    assert parameter_count(Network(ODD_SHAPES[name])) == complexity.parameter_count(ODD_SHAPES[name])


@pytest.mark.parametrize("name", ODD_SHAPES)
def test_folding_keeps_every_spike(name):
    config = ODD_SHAPES[name]
    network = lively(config).double()
    images = torch.as_tensor(images_for(config, 8, 99))
    before, after = {}, {}
    with torch.no_grad():
        logits, folded = network(images, before), fold(network)
        assert not any("norm" in key for key in folded.state_dict())
        assert torch.allclose(logits, folded(images, after), rtol=0, atol=1e-11)
    assert before.keys() == after.keys()
    for key in spike_traces(config):
        assert torch.equal(before[key], after[key]), key
        assert before[key].unique().tolist() in ([0.0, 1.0], [0.0], [1.0])
    assert any(0 < float(before[key].mean()) < 1 for key in spike_traces(config))


def test_folding_twice_is_refused():
    with pytest.raises(UserError, match="folded already"):
        fold(fold(lively(ODD_SHAPES["small"])))


def test_first_convolution_runs_once_for_all_steps(monkeypatch):
    config = ODD_SHAPES["small"]
    network = lively(config)
    seen = []
    network.sps.stages[0].register_forward_hook(lambda module, args, out: seen.append(tuple(out.shape)))
    network(torch.as_tensor(images_for(config, 4)))
    assert seen == [(4, config.sps_channels[0], config.image_height, config.image_width)]


def test_norm_statistics_run_over_steps_and_batch_jointly():
    config = ODD_SHAPES["small"]
    network = Network(config).train()
    stage, outputs = network.sps.stages[1], []
    stage.map.register_forward_hook(lambda module, args, out: outputs.append(out.detach()))
    network(torch.as_tensor(images_for(config, 4)))
    assert outputs[0].shape[0] == config.timesteps * 4
    assert torch.allclose(stage.norm.running_mean, 0.1 * outputs[0].mean((0, 2, 3)), atol=1e-6)
