"""Confusion matrix, Grad-CAM and firing-rate maps against independent counts and hand-made networks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from s2tdpt.golden.config import CONFIG_DIRECTORY, load_config
from s2tdpt.golden.errors import UserError
from s2tdpt.golden.network import GoldenNetwork
from s2tdpt.golden.parameter_file import tensor_layout
from s2tdpt.golden.params import Params, random_params
from s2tdpt.sw.datasets import load_digits
from s2tdpt.sw.explain import (
    CLASS_NAMES,
    Disagreement,
    cam_layers,
    check_layer,
    class_activation,
    class_names,
    confusion_matrix,
    default_layer,
    explain,
    map_shape,
    to_pixels,
)
from s2tdpt.sw.export import from_params
from tests.sw.helpers import ODD_SHAPES, images_for, small

MODEL = CONFIG_DIRECTORY.parent / "models" / "digits.safetensors"

# Confusion matrix -------------------------------------------------------------------------------------------


def test_confusion_matrix_of_a_hand_made_case():
    labels, classes = [0, 0, 0, 1, 2, 2], [0, 0, 2, 1, 0, 2]
    assert confusion_matrix(labels, classes, 3).tolist() == [[2, 0, 1], [0, 1, 0], [1, 0, 1]]


def test_confusion_matrix_adds_up():
    draw = np.random.default_rng(0)
    labels, classes = draw.integers(0, 7, 500), draw.integers(0, 7, 500)
    matrix = confusion_matrix(labels, classes, 7)
    assert matrix.shape == (7, 7) and matrix.sum() == 500
    assert np.array_equal(matrix.sum(axis=1), np.bincount(labels, minlength=7))
    assert np.array_equal(matrix.sum(axis=0), np.bincount(classes, minlength=7))
    assert np.trace(matrix) == (labels == classes).sum()
    assert confusion_matrix([], [], 3).tolist() == [[0] * 3] * 3


@pytest.mark.parametrize(
    ("labels", "classes", "message"),
    [
        ([0, 3], [0, 1], "label 3 is out of range; expected 0..2; choose"),
        ([0, -1], [0, 1], "label -1 is out of range"),
        ([0, 1], [0, 3], "predicted class 3 is out of range"),
        ([0, 1, 2], [0, 1], "3 labels and 2 predicted classes; expected one of each"),
    ],
)
def test_confusion_matrix_refuses(labels, classes, message):
    with pytest.raises(UserError, match=message):
        confusion_matrix(labels, classes, 3)


def test_class_names():
    assert class_names("cifar10", 10)[3] == "cat"
    names = class_names("cifar100", 100)
    assert len(set(names)) == 100 and names[1] == "aquarium fish"
    assert CLASS_NAMES["cifar100"] == sorted(CLASS_NAMES["cifar100"])  # the official order is alphabetical
    assert class_names("digits", 3) == class_names(None, 3) == ["0", "1", "2"]
    assert class_names("cifar10", 11)[9:] == ["truck", "10"]


# Firing rates -----------------------------------------------------------------------------------------------


def test_firing_rates_are_those_counted_in_the_golden_trace():
    config = small()
    params, images = random_params(config, 3), images_for(config, 3)
    golden = GoldenNetwork(params)
    trace = golden.trace(images)
    found = list(explain(from_params(params), golden, images, batch_size=2))
    assert len(found) == 3
    seen = set()
    for image, one in enumerate(found):
        for name in one.spikes:
            height, width = map_shape(config, name)
            values = trace[name][image].numpy()
            assert values.shape[1] == height * width
            for y in range(height):
                for x in range(width):
                    token = values[:, y * width + x]  # [T, C], tokens in raster order
                    assert one.spikes[name][y, x] == np.count_nonzero(token)
                    assert one.rate(name)[y, x] == np.count_nonzero(token) / token.size
            seen.add(name)
    binary = {name for name, value in trace.items() if value.dtype == torch.uint8}
    assert seen == binary and {"sps.0.spikes", "sps.2.pooled", "block.1.attn"} < seen


# Grad-CAM ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", ODD_SHAPES)
def test_behind_the_last_block_the_map_is_the_logit_itself(shape):
    """The head is linear in U, so the positions' shares add up to the logit less its bias, exactly."""
    config = ODD_SHAPES[shape]
    params, images = random_params(config, 1), images_for(config, 3)
    golden = GoldenNetwork(params)
    for target in range(min(3, config.num_classes)):
        for one in explain(from_params(params), golden, images, targets=[target] * 3):
            assert one.layer == default_layer(config) == f"block.{config.depth - 1}.u"
            assert one.contribution.sum() == int(one.logits[target]) - int(params.bias("head")[target])
            assert np.array_equal(one.cam, np.where(one.contribution > 0, one.contribution, 0))


@pytest.mark.parametrize("shape", ["small", "odd widths", "one token", "one convolution"])
def test_every_layer_has_a_map_and_the_golden_classes(shape):
    config = ODD_SHAPES[shape]
    params, images = random_params(config, 2), images_for(config, 2)
    golden, network = GoldenNetwork(params), from_params(params)
    logits, classes = golden.forward(images).numpy(), golden.classify(images).tolist()
    for layer in cam_layers(config):
        found = list(explain(network, golden, images, layer))
        assert [one.predicted for one in found] == [one.target for one in found] == classes
        for one, expected, image in zip(found, logits, images, strict=True):
            assert one.contribution.shape == map_shape(config, layer)
            assert np.isfinite(one.contribution).all()
            assert np.array_equal(one.logits, expected) and np.array_equal(one.image, image)
            pixels = to_pixels(one.cam, config, layer)
            assert pixels.shape == (config.image_height, config.image_width)
            assert pixels.max() <= one.cam.max() and pixels.min() >= one.cam.min()


def test_batches_do_not_mix_images():
    config = small()
    params, images = random_params(config, 5), images_for(config, 5)
    golden, network = GoldenNetwork(params), from_params(params)
    for layer in ("sps.0.spikes", "block.0.q"):
        together = list(explain(network, golden, images, layer, batch_size=5))
        for one, alone in zip(together, explain(network, golden, images, layer, batch_size=1), strict=True):
            np.testing.assert_allclose(one.contribution, alone.contribution, rtol=1e-4, atol=1e-3)
            assert all(np.array_equal(one.spikes[name], alone.spikes[name]) for name in one.spikes)


def test_gradients_of_stem_maps_follow_from_those_of_the_stream():
    """From U backwards through the last convolution and the pool, by other functions than autograd's own."""
    config = small(sps_channels=(5, 6, 8), sps_pool=(False, True, True), image_height=9, image_width=7)
    params = random_params(config, 4)
    images, network = torch.from_numpy(images_for(config, 2)), from_params(params)
    targets = torch.tensor([0, 2])

    def forward():
        record = {}
        return network(images, record), record

    def expected(gradient, name, record):  # gradient [T*B, C, H, W]
        maps = gradient.double().unflatten(0, (config.timesteps, -1)).flatten(3).transpose(2, 3)
        values = record[name].detach().double()
        return (maps.mean(dim=2, keepdim=True) * values).sum(dim=(0, 3)).unflatten(1, map_shape(config, name))

    logits, record = forward()
    (stream,) = torch.autograd.grad(logits.gather(1, targets[:, None]).sum(), record["sps.u"])
    gain = torch.exp2(torch.tensor(params.shift("sps.2"), dtype=stream.dtype))
    sums = (stream * gain).flatten(0, 1).transpose(1, 2).unflatten(2, map_shape(config, "sps.u"))
    weight = torch.tensor(params.weight("sps.2"), dtype=sums.dtype)
    pooled = F.conv_transpose2d(sums, weight, padding=1)
    name = "sps.2.pooled"
    logits, record = forward()
    found = class_activation(logits, record, name, targets, config)
    np.testing.assert_allclose(found, expected(pooled, name, record), rtol=1e-3, atol=1e-3)

    name = "sps.1.spikes"
    height, width = map_shape(config, name)
    spikes = record[name].detach().flatten(0, 1).transpose(1, 2).unflatten(2, (height, width))
    _, chosen = F.max_pool2d(spikes, 3, 2, 1, return_indices=True)
    before = torch.zeros_like(spikes).flatten(2).scatter_add(2, chosen.flatten(2), pooled.flatten(2))
    logits, record = forward()
    found = class_activation(logits, record, name, targets, config)
    np.testing.assert_allclose(
        found, expected(before.unflatten(2, (height, width)), name, record), rtol=1e-3, atol=1e-3
    )
    assert np.abs(found).max() > 0


def colours() -> Params:
    """A network that was made by hand: class 0 is red, class 1 is green; blue says nothing.

    Each channel carries one colour: the stem fires on bright pixels, the MLP copies what it sees.
    """
    config = small(
        name="colours",
        image_height=8,
        image_width=8,
        image_channels=3,
        num_classes=2,
        timesteps=2,
        sps_channels=(3, 3),
        sps_pool=(False, True),
        depth=1,
        heads=1,
        mlp_ratio=1,
    )
    tensors = {name: np.zeros(t.shape, t.dtype) for name, t in tensor_layout(config).items()}
    for name in tensors:
        if name.endswith(".threshold"):
            tensors[name][:] = 1 << 20  # out of reach
    for i in (0, 1):
        tensors[f"sps.{i}.weight"][range(3), range(3), 1, 1] = 64
    tensors["sps.0.threshold"][:] = 64 * 200
    tensors["sps.1.shift"][:] = 5  # 64 << 5 is the residual threshold
    for part in ("fc1", "fc2"):
        tensors[f"block.0.{part}.weight"][range(3), range(3)] = 64
    tensors["block.0.fc1.threshold"][:] = 64
    tensors["block.0.fc2.shift"][:] = 4
    tensors["head.weight"][:] = [[100, -20, 0], [-20, 100, 0]]
    tensors |= config.attention.derived_tensors(config)
    assert config.residual_threshold == 64 << 5
    return Params(config=config, tensors=tensors)


QUADRANTS = {"top left": (0, 0), "top right": (0, 1), "bottom left": (1, 0), "bottom right": (1, 1)}


@pytest.mark.parametrize("red", QUADRANTS)
@pytest.mark.parametrize("layer", ["sps.0.spikes", "sps.1.pooled", "sps.u", "block.0.hidden", "block.0.u"])
def test_the_map_points_to_the_quadrant_that_decides(red, layer):
    """A red square in one quadrant, a smaller green one in the opposite, blue in the rest."""
    (top, left), side = QUADRANTS[red], 4
    params = colours()
    image = np.zeros((8, 8, 3), np.uint8)
    image[..., 2] = 255
    image[top * 4 + 1 : top * 4 + 3, left * 4 + 1 : left * 4 + 3] = (255, 0, 0)
    image[(1 - top) * 4 + 2, (1 - left) * 4 + 2] = (0, 255, 0)
    golden, network = GoldenNetwork(params), from_params(params)
    for target, (down, right) in ((0, (top, left)), (1, (1 - top, 1 - left))):
        (one,) = explain(network, golden, image[None], layer, [target])
        assert one.predicted == 0
        pixels = to_pixels(one.cam, params.config, layer)
        inside = pixels[down * side : (down + 1) * side, right * side : (right + 1) * side].sum()
        assert inside > 0.6 * pixels.sum() > 0, (target, pixels)
        y, x = np.unravel_index(pixels.argmax(), pixels.shape)
        assert (y // side, x // side) == (down, right)
        if layer == "sps.0.spikes":
            colour = image[..., target] == 255
            assert (pixels[colour] > 0).all() and not pixels[~colour].any()


def test_a_map_without_weight_is_zero():
    """The attention of the hand-made network has no weights: it contributes to nothing."""
    params = colours()
    image = np.full((1, 8, 8, 3), 255, np.uint8)
    (one,) = explain(from_params(params), GoldenNetwork(params), image, "block.0.x")
    assert not one.contribution.any() and one.spikes["block.0.x"].any()


def test_positions_lie_on_their_pixels():
    config = load_config("digits")
    tokens = np.zeros((4, 4))
    tokens[1, 2] = 1.0
    pixels = to_pixels(tokens, config, "block.0.u")
    assert pixels[2, 4] == 1.0 and np.argwhere(pixels == 1.0).tolist() == [[2, 4]]
    assert pixels[2, 3] == pixels[2, 5] == pixels[1, 4] == pixels[3, 4] == 0.5 and pixels[1, 3] == 0.25
    assert pixels.sum() == 4.0
    tokens = np.arange(16.0).reshape(4, 4)
    assert np.array_equal(to_pixels(tokens, config, "sps.1.pooled")[::2, ::2], tokens)
    assert to_pixels(tokens, config, "sps.u")[7, 7] == 15.0  # beyond the last centre
    stem = np.arange(64.0).reshape(8, 8)
    assert np.array_equal(to_pixels(stem, config, "sps.0.spikes"), stem)


def test_shipped_digits():
    params, data = Params.load(MODEL), load_digits()
    golden = GoldenNetwork(params)
    found = list(explain(from_params(params), golden, data.test_images[:10]))
    assert [one.predicted for one in found] == golden.classify(data.test_images[:10]).tolist()
    ink, empty = [], []
    for one in found:
        tokens = one.image[..., 0].reshape(4, 2, 4, 2).max(axis=(1, 3)) > 100
        ink.append(one.cam[tokens].mean())
        empty.append(one.cam[~tokens].mean())
    assert np.mean(ink) > 1.2 * np.mean(empty)  # the digit counts for more than its background


# What must not pass -----------------------------------------------------------------------------------------


def test_a_planted_difference_is_named():
    config = small()
    params, images = random_params(config, 3), images_for(config, 4)
    golden = GoldenNetwork(params)

    network = from_params(params)
    network.layer("block.1.q").threshold.mul_(2)
    with pytest.raises(
        Disagreement, match=r"block\.1\.q: image 0, step \d, token \d+, channel \d+: expected"
    ):
        list(explain(network, golden, images))

    network = from_params(params)
    with torch.no_grad():
        network.layer("head").weight[2] += 1 / network.layer("head").limit
    with pytest.raises(
        Disagreement, match=r"differs from the golden model: head\.logits: image 0, channel 2:"
    ):
        next(explain(network, golden, images))


class Flipped:
    """A golden model in which one spike of one image is another."""

    def __init__(self, golden: GoldenNetwork, image: np.ndarray):
        self.golden, self.config, self.image = golden, golden.config, image

    def trace(self, images):
        trace = self.golden.trace(images)
        for i, image in enumerate(images):
            if np.array_equal(image, self.image):
                trace["block.0.hidden"][i, 1, 2, 3] ^= 1
        return trace


def test_one_spike_in_a_later_batch_is_found():
    config = small()
    params, images = random_params(config, 3), images_for(config, 4)
    steps = explain(from_params(params), Flipped(GoldenNetwork(params), images[3]), images, batch_size=2)
    assert [next(steps).predicted, next(steps).predicted] == GoldenNetwork(params).classify(
        images[:2]
    ).tolist()
    place = r"block\.0\.hidden: image 3, step 1, token 2, channel 3: .*\(1 of \d+ values differ\)"
    with pytest.raises(Disagreement, match=place):
        next(steps)


def test_what_cannot_be_asked():
    config = small()
    for name in ("block.2.u", "head.logits", "sps.2.spikes", "block.0.proj", "", "x"):
        with pytest.raises(UserError) as error:
            check_layer(name, config)
        assert str(error.value) == (
            f"unknown layer {name!r}; expected sps.0.spikes, sps.1.spikes, sps.2.pooled, sps.u, or "
            "block.B.PART with B from 0 to 1 and PART one of x, q, k, v, y, attn, u_attn, mlp_in, hidden, u; "
            "choose one"
        )
    params = random_params(config, 0)
    golden, network, images = GoldenNetwork(params), from_params(params), images_for(config, 1)
    for target in (-1, 3):
        with pytest.raises(UserError, match="target class is out of range; expected 0..2"):
            explain(network, golden, images, targets=[target])
    with pytest.raises(UserError, match="unknown layer"):
        explain(network, golden, images, "block.7.u")
    with pytest.raises(UserError, match="expected uint8"):
        next(explain(network, golden, images[:, :4]))
