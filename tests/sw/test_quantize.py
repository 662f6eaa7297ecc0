"""The trained integer network is the golden one: every logit and every intermediate, bit for bit."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from s2tdpt.golden.errors import UserError
from s2tdpt.golden.network import GoldenNetwork
from s2tdpt.golden.params import Params, random_params
from s2tdpt.sw.evaluate import verify_equal
from s2tdpt.sw.export import export, from_params
from s2tdpt.sw.fold import fold
from s2tdpt.sw.quantize import FINEST_STEP, QatNetwork, weight_limit
from tests.sw.helpers import ODD_SHAPES, images_for, lively, small


def quantised(config, bits=8, seed=0, **options):
    return QatNetwork.from_folded(fold(lively(config, seed, **options)), bits).eval()


def few_steps(network, images, classes, count=3):
    """Train a little, far off the starting point."""
    optimizer = torch.optim.AdamW(network.parameters(), lr=2e-2)
    network.train()
    for step in range(count):
        logits = network(torch.as_tensor(images)) * network.logit_scale
        loss = F.cross_entropy(logits, (torch.arange(len(images)) + step) % classes)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        network.clip_()
    return network.eval()


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("name", ODD_SHAPES)
def test_evaluation_is_the_golden_network(name, bits):
    config = ODD_SHAPES[name]
    network = quantised(config, bits)
    for trained in (False, True):
        if trained:
            before = export(network)
            few_steps(network, images_for(config, 8, 5), config.num_classes)
            assert any(not np.array_equal(before.tensors[n], t) for n, t in export(network).tensors.items())
        golden = GoldenNetwork(export(network))
        images = images_for(config, 12, 7)
        result = verify_equal(network, golden, images, batch_size=5)
        assert result.equal, result.difference
        assert result.images == 12 and result.traces >= 8 + 10 * config.depth - 5
        assert torch.equal(network(torch.as_tensor(images)).long(), golden.forward(images))


def test_every_weight_gets_a_gradient():
    config = small()
    network = quantised(config).train()
    logits = network(torch.as_tensor(images_for(config, 16))) * network.logit_scale
    F.cross_entropy(logits, torch.arange(16) % 3).backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().sum() > 0, name


def test_quantised_gradient_follows_the_float_one():
    """Where 8 bits change little, the straight-through gradient points the way of the folded network's."""
    config = small(timesteps=2, depth=1)
    folded = fold(lively(config))
    network = QatNetwork.from_folded(folded, 8).train()
    images, labels = torch.as_tensor(images_for(config, 32)), torch.arange(32) % 3
    F.cross_entropy(folded.train()(images), labels).backward()
    F.cross_entropy(network(images) * network.logit_scale, labels).backward()
    for name in ("head", "block.0.fc2", "block.0.fc1"):
        source = folded.layer(name)
        real = (source if name == "head" else source.map).weight.grad.flatten().double()
        layer = network.layer(name)
        column = (layer.scale * layer.limit).reshape(-1, *[1] * (layer.weight.dim() - 1))
        mine = (layer.weight.grad.double() / column).flatten()
        assert F.cosine_similarity(mine, real, dim=0) > 0.8, name


def test_training_and_evaluation_forward_agree():
    config = small()
    network = quantised(config)
    images = torch.as_tensor(images_for(config, 6))
    expected = network(images)
    assert torch.equal(network.train()(images), expected)


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("name", ["small", "odd widths", "one convolution"])
def test_any_parameter_file_can_be_evaluated_and_exported_again(name, bits):
    config = ODD_SHAPES[name].model_copy(update={"weight_bits": bits})
    params = random_params(config, seed=4)
    network = from_params(params)
    result = verify_equal(network, GoldenNetwork(params), images_for(config, 6))
    assert result.equal, result.difference
    again = export(network)
    assert again.attention_threshold == params.attention_threshold
    for tensor, value in params.tensors.items():
        assert np.array_equal(again.tensors[tensor], value) and again.tensors[tensor].dtype == value.dtype


def test_round_trip_through_the_file(tmp_path):
    network = few_steps(quantised(small()), images_for(small(), 8), 3)
    params = export(network, {"seed": 1})
    params.save(tmp_path / "p.safetensors")
    loaded = Params.load(tmp_path / "p.safetensors")
    assert verify_equal(from_params(loaded), GoldenNetwork(params), images_for(small(), 6)).equal


def test_checker_finds_a_planted_fault():
    config = small()
    network = quantised(config)
    params = export(network)
    images = images_for(config, 6)
    for name, index in (("block.1.fc1.threshold", 2), ("sps.2.bias", 0), ("head.bias", 1)):
        tensors = {key: value.copy() for key, value in params.tensors.items()}
        tensors[name][index] += 200
        faulty = GoldenNetwork(Params(config, tensors))
        result = verify_equal(network, faulty, images)
        assert not result.equal and " in training, " in result.difference, name
    short = GoldenNetwork(params)
    short.trace = lambda batch: {
        k: v for k, v in GoldenNetwork.trace(short, batch).items() if k != "block.0.q"
    }
    assert verify_equal(network, short, images).difference == "trace block.0.q exists on one side only"


def test_large_shifts_switch_to_float64_and_stay_exact():
    config = small(residual_fraction_bits=20)
    network = quantised(config)
    with torch.no_grad():
        network.layer("sps.2").gain.fill_(2.0**15)
    assert network.exact_dtype() == torch.float64
    result = verify_equal(network, GoldenNetwork(export(network)), images_for(config, 6))
    assert result.equal, result.difference
    assert quantised(small()).exact_dtype() == torch.float32


def test_bound_is_a_bound():
    network = quantised(small())
    trace = network.trace(torch.as_tensor(images_for(small(), 16)))
    largest = max(int(v.abs().max()) for k, v in trace.items() if not k.startswith("head."))
    assert largest <= network.magnitude_bound()


@pytest.mark.parametrize("bits", [8, 4])
def test_integers_stay_in_their_ranges(bits):
    network = quantised(small(), bits)
    with torch.no_grad():
        network.layer("block.0.q").weight.mul_(50.0)
        network.layer("block.0.q").bias.fill_(1e30)
    params = export(network)
    assert np.abs(params.weight("block.0.q")).max() == weight_limit(bits)
    assert params.bias("block.0.q").max() == 2**31 - 1
    assert set(np.unique(params.shift("sps.2"))) <= set(range(16))


def test_a_dead_channel_keeps_a_usable_threshold():
    source = lively(small())
    with torch.no_grad():
        source.blocks[0].q.norm.weight[3] = 1e-30
        source.blocks[0].q.norm.bias[3] = 5.0  # fires at every step, by its bias alone
    network = QatNetwork.from_folded(fold(source), 8).eval()
    assert network.layer("block.0.q").threshold.max() <= 1 / FINEST_STEP
    trace = network.trace(torch.as_tensor(images_for(small(), 4)))
    assert (trace["block.0.q"][..., 3] == 1).all()
    assert verify_equal(network, GoldenNetwork(export(network)), images_for(small(), 4)).equal


def test_writers_have_power_of_two_scales_and_other_layers_thresholds():
    network = quantised(small())
    for name in network.config.layer_names():
        layer = network.layer(name)
        if network.config.is_writer(name):
            assert torch.equal(layer.scale, layer.gain * 2.0**-network.config.residual_fraction_bits)
            assert torch.equal(torch.log2(layer.gain), torch.log2(layer.gain).round())
        elif name != "head":
            assert torch.equal(layer.threshold, torch.ceil(2.0 / layer.scale))


def test_mistakes_are_named():
    with pytest.raises(UserError, match="BatchNorm"):
        QatNetwork.from_folded(lively(small()), 8)
    network = quantised(small())
    with torch.no_grad():
        network.layer("head").weight[0, 0] = float("nan")
    with pytest.raises(UserError, match="NaN"):
        export(network)
