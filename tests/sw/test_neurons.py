"""Trainable neurons: the law that is trained is the one that is exported, exactly, and it has gradients."""

import numpy as np
import pytest
import torch

from s2tdpt.golden.errors import UserError
from s2tdpt.golden.network import GoldenNetwork
from s2tdpt.golden.neuron import NEURONS, learned_places, places
from s2tdpt.golden.neuron.base import LEAKS
from s2tdpt.golden.neuron.glif import GlifLaw
from s2tdpt.golden.neuron.graded import LevelsLaw, TernaryLaw
from s2tdpt.golden.neuron.klif import KlifLaw
from s2tdpt.golden.neuron.plif import PlifLaw
from s2tdpt.golden.params import Params, random_params
from s2tdpt.sw.evaluate import verify_equal
from s2tdpt.sw.export import export, from_params
from s2tdpt.sw.fold import fold
from s2tdpt.sw.initialise import set_rates
from s2tdpt.sw.neuron import MODULES, follow, key, lif, make_neurons
from s2tdpt.sw.quantize import QatNetwork
from s2tdpt.sw.unfold import dequantised, unfolded
from tests.sw.helpers import ODD_SHAPES, images_for, lively, small
from tests.sw.test_quantize import few_steps

KINDS = sorted(MODULES)
LAWS = [
    *(PlifLaw(leak) for leak in LEAKS),
    *(KlifLaw(gain) for gain in (1, 16, 37, 255)),
    GlifLaw(4, None, 0, (0, 0, 0, 0)),
    GlifLaw(8, 2, 0, (0, 0, 0, 0), 20),
    GlifLaw(8, 0, 2, (1, 0, 3, 0), 12),
    GlifLaw(7, None, 1, (0, 2, 0, 1)),
    GlifLaw(0, None, 3, (0, 0, 0, 0)),
]


def module_of(law):
    module = MODULES[type(law).__name__.removesuffix("Law").lower()](law)
    module.set_law(law)
    return module


def other(config, kind):
    return config.model_copy(update={"neuron": NEURONS[kind]()})


def with_laws(network, seed=0):
    """`network` with any laws."""
    config, rng = network.config, np.random.default_rng(seed)
    for place in learned_places(config):
        network.neurons[key(place)].set_law(config.neuron.random_law(config, rng))
    return network


def test_every_kind_but_lif_has_a_module():
    assert set(MODULES) | {"lif"} == set(NEURONS)
    assert len(make_neurons(small())) == 0  # and the checkpoints of LIF networks are what they were


@pytest.mark.parametrize("law", LAWS, ids=repr)
def test_a_module_takes_a_law_and_gives_it_back(law):
    assert module_of(law).law() == law


@pytest.mark.parametrize("law", LAWS, ids=repr)
def test_the_float_neuron_is_the_law_but_for_its_floors(law):
    """On multiples of a large power of two nothing is floored: the same spikes, also repeated and in half."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randint(-40, 60, (4, 300), generator=generator).double() * 2**20
    base = 32 << 20
    exact = follow(law, x, law.threshold(base))
    over, under = law.factor
    real = module_of(law).double()(x, base)
    if over * base % under == 0:
        assert torch.equal(real, exact)
    else:
        assert (real != exact).double().mean() < 0.01
    assert torch.equal(exact, law.spikes(x, law.threshold(base)))
    module = module_of(law).double()
    assert torch.equal(module(x[0], base, steps=4), module(x[:1].expand(4, -1), base))
    assert torch.equal(follow(law, x[0], base, steps=4), follow(law, x[:1].expand(4, -1), base))


@pytest.mark.parametrize("kind", KINDS)
def test_training_begins_as_lif(kind):
    x = torch.randn(4, 500).abs()
    module = make_neurons(other(small(timesteps=4), kind))["block/0/x"]
    assert torch.equal(module(x, 2.0), lif(x, 2.0))


@pytest.mark.parametrize("law", LAWS, ids=repr)
def test_gradient_of_the_exact_neuron_is_that_of_the_real_one(law):
    """Two implementations: sums in reverse order, and autograd through the learned neuron."""
    generator = torch.Generator().manual_seed(2)
    base, weight = 960 << 16, torch.randn(4, 200, generator=generator).double()
    x = torch.randint(-1200, 1800, (4, 200), generator=generator).double() * 2**16
    gradients = []
    over, under = law.factor
    for run in (
        lambda v: follow(law, v, over * base / under, 1.0 / base),
        lambda v: module_of(law).double()(v, float(base), 1.0 / base),
    ):
        value = x.clone().requires_grad_()
        (run(value) * weight).sum().backward()
        gradients.append(value.grad)
    same = (gradients[0] - gradients[1]).abs() <= 1e-9 * gradients[1].abs().max()
    assert same.double().mean() > 0.99  # a tie may fall either way in floats
    assert gradients[0].abs().sum() > 0


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_learned_has_gradients_and_moves(kind):
    torch.manual_seed(0)
    config = other(small(timesteps=4), kind)
    network = with_laws(lively(config), 3).train()
    network(torch.as_tensor(images_for(config, 16))).square().sum().backward()
    for place in learned_places(config):
        gradients = [p.grad for p in network.neurons[key(place)].parameters() if p.grad is not None]
        assert gradients and any(g.abs().sum() > 0 for g in gradients), place
    before = {place: network.neurons[key(place)].law() for place in learned_places(config)}
    optimizer = torch.optim.SGD(network.neurons.parameters(), lr=1.0)
    for _ in range(20):
        for parameter in network.neurons.parameters():
            if parameter.grad is not None:
                parameter.grad.sign_()
        optimizer.step()
    assert any(network.neurons[key(place)].law() != law for place, law in before.items())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", ["small", "one step, one head", "odd widths", "coarse grid"])
def test_the_trained_network_is_the_golden_one(kind, shape):
    config = other(ODD_SHAPES[shape], kind)
    network = QatNetwork.from_folded(fold(with_laws(lively(config), len(shape))))
    params = export(few_steps(network, images_for(config, 8), config.num_classes, 2))
    assert len(set(params.laws.values())) > 2
    result = verify_equal(network, GoldenNetwork(params), images_for(config, 6))
    assert result.equal, result.difference
    images = torch.as_tensor(images_for(config, 4))
    evaluated = network.eval()(images)
    assert torch.equal(network.train()(images), evaluated)


@pytest.mark.parametrize("kind", KINDS)
def test_any_parameter_file_comes_back(kind, tmp_path):
    config = other(small(), kind)
    params = random_params(config, seed=5)
    params.save(tmp_path / "p.safetensors")
    network = from_params(Params.load(tmp_path / "p.safetensors"))
    assert verify_equal(network, GoldenNetwork(params), images_for(config, 6)).equal
    again = export(network)
    assert again.laws == params.laws
    assert all(np.array_equal(again.tensors[name], tensor) for name, tensor in params.tensors.items())


@pytest.mark.parametrize("kind", KINDS)
def test_a_planted_law_is_found(kind):
    """Plant: the hardware's parameters say another law at one place than the trained network."""
    config = other(small(timesteps=4), kind)
    network = from_params(random_params(config, seed=6))
    params, place = export(network), "block.1.mlp_in"
    laws = dict(params.laws)
    laws[place] = {"plif": PlifLaw(7 if laws[place] != PlifLaw(7) else 0), "klif": KlifLaw(77)}.get(
        kind, GlifLaw(8, 0, 2, (0, 0, 0, 0))
    )
    faulty = Params(
        config,
        params.tensors | config.neuron.tensors(config, laws),
        attention_threshold=params.attention_threshold,
    )
    result = verify_equal(network, GoldenNetwork(faulty), images_for(config, 12))
    assert not result.equal and place in result.difference


@pytest.mark.parametrize("kind", KINDS)
def test_a_loaded_state_brings_its_laws(kind):
    config = other(small(), kind)
    first = QatNetwork.from_folded(fold(with_laws(lively(config), 1)))
    second = QatNetwork(config)
    assert second.laws != first.laws
    second.load_state_dict(first.state_dict())
    assert second.laws == first.laws and set(first.laws) == set(places(config))


@pytest.mark.parametrize("kind", KINDS)
def test_back_to_floats_and_the_start_keep_the_laws(kind):
    config = other(small(timesteps=4), kind)
    network = from_params(random_params(config, seed=5))
    folded = dequantised(network)
    normed = unfolded(folded, torch.as_tensor(images_for(config, 16)))
    for found in (folded, normed):
        assert all(found.neurons[key(p)].law() == network.laws[p] for p in learned_places(config))
    set_rates(normed, torch.as_tensor(images_for(config, 16)), 0.2)
    record = {}
    with torch.no_grad():
        normed.train()(torch.as_tensor(images_for(config, 16)), record)
    assert 0.1 < float(record["block.0.hidden"].mean()) < 0.3


def test_neurons_that_pass_spikes_on_have_nothing_to_learn():
    config = other(small(attention={"kind": "none"}), "plif")
    params = random_params(config, seed=2)
    laws = dict(params.laws)
    assert "block.0.attn" not in learned_places(config) and laws["block.0.attn"] == PlifLaw(4)
    laws["block.0.attn"] = PlifLaw(7)
    odd = Params(config, params.tensors | config.neuron.tensors(config, laws))
    with pytest.raises(UserError, match="neurons of block.0.attn have a law of their own"):
        from_params(odd)


def test_levels_have_the_gradient_of_a_line_between_their_ends():
    theta = 8.0
    x = torch.tensor([[-1.0, 0.0, 60.0, 127.0, 128.0, 500.0]], requires_grad=True)
    levels = follow(LevelsLaw(), x, theta)
    assert levels.tolist() == [[0.0, 0.0, 7.0, 15.0, 15.0, 15.0]]
    levels.sum().backward()
    assert x.grad.tolist() == [[0.0, 1 / theta, 1 / theta, 1 / theta, 0.0, 0.0]]


def test_spikes_of_two_signs_have_a_surrogate_at_either_threshold():
    x = torch.tensor([[-9.0, -8.0, 0.0, 8.0, 9.0]], requires_grad=True)
    spikes = follow(TernaryLaw(), x, 8.0)
    assert spikes.tolist() == [[-1.0, 0.0, 0.0, 1.0, 1.0]]  # a tie fires above, not below
    spikes.sum().backward()
    gradient = x.grad[0]
    assert torch.allclose(gradient, gradient.flip(0)) and gradient[1] > 0.2 > gradient[2] > 0


@pytest.mark.parametrize("law", [TernaryLaw(), LevelsLaw()], ids=repr)
def test_prescribed_neurons_of_the_float_network_are_the_law_but_for_its_floors(law):
    generator = torch.Generator().manual_seed(1)
    x = torch.randint(-40, 60, (4, 300), generator=generator).double() * 2**20
    real, exact = (follow(law, x, 9 << 20, floor_leak=floor) for floor in (False, True))
    assert torch.equal(real, exact) and torch.equal(exact, law.spikes(x, 9 << 20))
    assert len(exact.unique()) > 2
    fine = follow(law, x * 2.0**-30, 9 * 2.0**-10, floor_leak=False)  # units do not matter
    assert torch.equal(fine, exact)


def test_an_attention_that_prescribes_neurons_trains():
    """Levels and signs occur, gradients reach the layers in front of them, rates can be set."""
    torch.manual_seed(0)
    config = small(timesteps=3, attention={"kind": "a2os2a"})
    network, images = lively(config), torch.as_tensor(images_for(config, 16))
    set_rates(network, images, 0.2)
    record = {}
    network.train()(images, record).square().sum().backward()
    assert 0.1 < float((record["block.0.v"] > 0).float().mean()) < 0.3
    assert record["block.0.v"].min() == -1 and 1 < record["block.0.k"].max() <= 15
    for kind in ("q", "k", "v"):
        assert network.layer(f"block.0.{kind}").map.weight.grad.abs().sum() > 0, kind
