"""The parts of the network on their own, and what must not change its results."""

import numpy as np
import pytest
import torch

from s2tdpt.golden.config import load_config
from s2tdpt.golden.conv import conv3x3
from s2tdpt.golden.errors import UserError
from s2tdpt.golden.head import class_of, head_sum, logits_of
from s2tdpt.golden.latency import popcount
from s2tdpt.golden.network import GoldenNetwork, carrier
from s2tdpt.golden.parallel import map_pieces
from s2tdpt.golden.params import Params, random_params
from s2tdpt.golden.pool import or_pool
from s2tdpt.golden.reference import ReferenceNetwork
from s2tdpt.golden.residual import written
from s2tdpt.golden.trace import trace_shapes
from tests.golden.shapes import SHAPES, images_for, make_config, params_for


@pytest.mark.parametrize("size", [(1, 1), (1, 4), (3, 3), (5, 7)])
def test_convolution_is_the_usual_one(size):
    rng = np.random.default_rng(sum(size))
    x = torch.tensor(rng.integers(-128, 128, (2, *size, 3)))
    weight = torch.tensor(rng.integers(-127, 128, (4, 3, 3, 3)))
    expected = torch.nn.functional.conv2d(x.permute(0, 3, 1, 2).double(), weight.double(), padding=1)
    for dtype in (torch.int64, torch.float32, torch.float64):
        result = conv3x3(x.to(dtype), weight.to(dtype))
        assert torch.equal(result.double(), expected.permute(0, 2, 3, 1))


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (4, 4), (5, 6), (7, 1)])
def test_pool_is_an_or(size):
    rng = np.random.default_rng(sum(size))
    spikes = rng.random((3, *size, 5)) < 0.2
    for dtype in (torch.uint8, torch.float32):
        pooled = or_pool(torch.tensor(spikes).to(dtype)).bool().numpy()
        assert pooled.shape == (3, (size[0] + 1) // 2, (size[1] + 1) // 2, 5)
        for y in range(pooled.shape[1]):
            for x in range(pooled.shape[2]):
                window = spikes[:, max(0, 2 * y - 1) : 2 * y + 2, max(0, 2 * x - 1) : 2 * x + 2]
                assert np.array_equal(pooled[:, y, x], window.any(axis=(1, 2)))


def test_a_count_of_spikes_has_room_beyond_its_type():
    """More spikes than a byte counts: int64 of integers, and the type of floating ones."""
    spikes = torch.ones(2, 300, dtype=torch.uint8)
    assert popcount(spikes).tolist() == [300, 300] and popcount(spikes).dtype == torch.int64
    assert popcount(spikes.float()).tolist() == [300, 300] and popcount(spikes.float()).dtype == torch.float32


def test_written_is_shift_and_bias():
    acc = torch.tensor([[3, -5], [0, 7]])
    shift, bias = torch.tensor([0, 15], dtype=torch.uint8), torch.tensor([-4, 9])
    assert written(acc, shift, bias).tolist() == [[-1, -163831], [-4, 229385]]


def test_head_takes_the_lowest_of_equal_logits():
    assert class_of(torch.tensor([[1, 5, 5], [7, 7, 7], [-3, -9, -1]])).tolist() == [1, 0, 2]
    u = torch.arange(24).view(2, 1, 3, 4)
    total = head_sum(u)
    assert total.tolist() == [[60, 66, 72, 78]] and total.dtype == torch.int64
    weight, bias = torch.tensor([[1, 0, 0, -1], [2, 0, 0, 0]]), torch.tensor([0, -1])
    assert logits_of(total, weight, bias).tolist() == [[-18, 119]]


@pytest.mark.parametrize("name", ["base", "odd-pooled", "single-stem"])
def test_results_do_not_depend_on_batch_pieces_or_threads(name):
    config = SHAPES[name]
    network = GoldenNetwork(params_for(config, 1))
    images = images_for(config, 9)
    expected = network.forward(images)
    assert torch.equal(torch.cat([network.forward(image[None]) for image in images]), expected)
    threads = torch.get_num_threads()
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            for network._chunk in (1, 2, 4, 100):
                assert torch.equal(network(images), expected)
                assert torch.equal(network.trace(images)["head.logits"], expected)
            assert torch.get_num_threads() == count
    finally:
        torch.set_num_threads(threads)


def test_named_configurations_run_in_both_forms():
    for name in ("digits", "s2tdpt-2-384"):
        config = load_config(name)
        params = random_params(config, 1)
        images = images_for(config, 2)
        results = [GoldenNetwork(params, streamed).forward(images) for streamed in (False, True)]
        assert torch.equal(*results) and results[0].dtype == torch.int64
        assert results[0].shape == (2, config.num_classes)


@pytest.mark.parametrize("model", [GoldenNetwork, ReferenceNetwork])
def test_inputs_are_checked(model):
    network = model(params_for(SHAPES["base"]))
    good = images_for(SHAPES["base"], 2)
    assert torch.equal(network(good), network(torch.tensor(good)))
    assert network(good[:0]).shape == (0, 5) and network.classify(good).shape == (2,)
    empty = network.trace(good[:0])
    assert {name: value.shape[1:] for name, value in empty.items()} == trace_shapes(SHAPES["base"])
    assert all(len(value) == 0 for value in empty.values())
    for bad in (good.astype(np.int16), good[0], good[:, :5], good.astype(np.float32)):
        with pytest.raises(UserError, match=r"expected uint8\[batch, 6, 6, 2\]"):
            network(bad)


def test_carrier_types():
    assert carrier(2**24 - 1) == torch.float32
    assert carrier(2**24) == carrier(2**53 - 1) == torch.float64
    with pytest.raises(UserError, match="less than 2\\^53"):
        carrier(2**53)
    config = make_config()
    tensors = {name: np.array(value) for name, value in params_for(config).tensors.items()}
    tensors["head.bias"][0] = 2**60
    with pytest.raises(UserError, match="^parameters of tiny: integers reach"):
        GoldenNetwork(Params(config, tensors))
    ReferenceNetwork(Params(config, tensors))
    tensors["head.bias"][0] = 2**63 - 1
    with pytest.raises(UserError, match="^parameters of tiny: integers need 65 bits; expected at most 64"):
        ReferenceNetwork(Params(config, tensors))


def test_pieces_keep_their_order_and_raise():
    threads = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        assert map_pieces(lambda n: n * n, range(50)) == [n * n for n in range(50)]
        assert set(map_pieces(lambda _: torch.get_num_threads(), range(9))) == {1}
        with pytest.raises(ZeroDivisionError):
            map_pieces(lambda n: 1 // n, [1, 0, 2])
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(threads)
    assert map_pieces(lambda n: n + 1, [1]) == [2]
