"""Augmentation on batches: each operation does what its name says, and nothing to the other images."""

import numpy as np
import pytest
import torch

from s2tdpt.sw.augment import augment, erase, mixup
from s2tdpt.sw.randaugment import OPERATIONS, rand_augment
from tests.sw.helpers import images_for, small

COLOUR = small(image_height=12, image_width=10, image_channels=3)


def images(count=6, seed=0):
    return torch.as_tensor(images_for(COLOUR, count, seed))


def apply(name, x, m, fill=128):
    return OPERATIONS[name](x.float(), torch.full((len(x),), float(m)), fill).round()


def generator(seed=1):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("name", ["rotate", "shear_x", "shear_y", "translate_x", "translate_y"])
def test_geometry_of_magnitude_zero_is_the_image_and_outside_is_fill(name):
    x = images()
    assert (apply(name, x, 0.0) - x.float()).abs().max() <= 1  # resampling at the same places
    flat = torch.full_like(x, 77)
    moved = apply(name, flat, 1.0, fill=77)
    assert torch.equal(moved, flat.float())
    assert (apply(name, flat, 1.0, fill=0) < 70).any()


def test_translation_moves_by_a_share_of_the_image():
    x = images()
    moved = apply("translate_x", x, 2 / 9)  # 0.9 x 2/9 = 0.2 of -1..1: one tenth of the width, one pixel
    assert (moved[:, :, :-1] - x.float()[:, :, 1:]).abs().max() <= 1 and (moved[:, :, -1] == 128).all()
    back = apply("translate_x", x, -2 / 9)
    assert (back[:, :, 1:] - x.float()[:, :, :-1]).abs().max() <= 1


def test_rotation_keeps_the_middle_and_turns_the_corners():
    x = torch.zeros(1, 9, 9, 1, dtype=torch.uint8)
    x[0, 4, 4] = x[0, 0, 4] = 200
    turned = apply("rotate", x, 1.0, fill=0)[0, ..., 0]  # 30 degrees
    assert turned[4, 4] == 200 and turned[0, 4] < 50
    other = apply("rotate", x, -1.0, fill=0)[0, ..., 0]
    assert torch.equal(turned, other.flip(1)) and not torch.equal(turned, other)


def test_colour_operations_by_hand():
    x = torch.tensor([10.0, 100.0, 200.0]).reshape(1, 1, 3, 1).expand(1, 4, 3, 3)
    assert torch.equal(apply("invert", x, 0.5), 255 - x)
    assert apply("posterize", x, 0.5)[0, 0, :, 0].tolist() == [0.0, 64.0, 192.0]  # two bits
    assert apply("solarize", x, 0.5)[0, 0, :, 0].tolist() == [10.0, 100.0, 55.0]
    assert apply("solarize_add", x, 0.5)[0, 0, :, 0].tolist() == [65.0, 155.0, 200.0]
    assert apply("brightness", x, -0.5)[0, 0, :, 0].tolist() == [6.0, 55.0, 110.0]  # 0.55 of it, 5.5 to even
    assert apply("autocontrast", x, 0.0)[0, 0, :, 0].tolist() == [0.0, 121.0, 255.0]
    assert torch.equal(apply("color", x, 0.8), x)  # gray already
    contrast = apply("contrast", x, 1.0)[0, 0, :, 0]
    assert contrast.tolist() == [round(103 + 1.9 * (v - 103)) for v in (10, 100, 200)]
    for name in ("brightness", "contrast", "color", "sharpness"):
        assert torch.equal(apply(name, images(), 0.0), images().float()), name


def test_equalize_is_pils():
    from PIL import Image, ImageOps

    x = images(4, 3)
    x[1] = (x[1].float() / 8 + 90).to(torch.uint8)  # a narrow histogram
    x[2] = 5
    mine = apply("equalize", x, 0.3).to(torch.uint8).numpy()
    for one, other in zip(x.numpy(), mine, strict=True):
        assert np.array_equal(np.asarray(ImageOps.equalize(Image.fromarray(one))), other)


def test_sharpness_is_pils():
    from PIL import Image, ImageEnhance

    x = images(3, 4)
    mine = apply("sharpness", x, 0.5).clamp(0, 255).numpy()
    for one, other in zip(x.numpy(), mine, strict=True):
        theirs = np.asarray(ImageEnhance.Sharpness(Image.fromarray(one)).enhance(1.45)).astype(float)
        assert np.abs(theirs - other).max() <= 1  # PIL truncates


def test_rand_augment_changes_about_half_and_each_by_one_operation():
    x = images(400)
    changed = rand_augment(x, generator(), 9.0, 128)
    assert changed.dtype == torch.uint8 and changed.shape == x.shape
    touched = (changed != x).flatten(1).any(1).float().mean()
    assert 0.35 < touched < 0.55
    assert torch.equal(changed, rand_augment(x, generator(), 9.0, 128))
    assert not torch.equal(changed, rand_augment(x, generator(2), 9.0, 128))


def test_an_operation_reaches_only_the_images_that_drew_it(monkeypatch):
    for name in OPERATIONS:
        monkeypatch.setitem(OPERATIONS, name, lambda x, m, fill: x * 0.0 + 7.0)
    x = images(100)
    changed = rand_augment(x, generator(), 9.0, 128)
    whole = (changed == 7).flatten(1).all(1)
    same = (changed == x).flatten(1).all(1)
    assert (whole | same).all() and 30 < int(whole.sum()) < 70


def test_erasing_replaces_one_rectangle():
    x = torch.full((300, 12, 10, 3), 99, dtype=torch.uint8)
    erased = (erase(x, generator(), 0.5) != 99).any(-1)
    touched = erased.flatten(1).any(1)
    assert 0.4 < touched.float().mean() < 0.6
    for mask in erased[touched]:
        rows, columns = mask.any(1).nonzero()[:, 0], mask.any(0).nonzero()[:, 0]
        box = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        assert box.float().mean() > 0.9 and box.numel() <= 0.5 * mask.numel()
    assert torch.equal(erase(x, generator(), 0.0), x)


def test_mixup_blends_with_the_named_share():
    x, labels = images(8), torch.arange(8)
    blend, others, share = mixup(x, labels, generator(), 0.5)
    assert 0.0 <= share <= 1.0 and sorted(others.tolist()) == labels.tolist()
    expected = (share * x.double() + (1 - share) * x[others].double()).round()
    assert (blend.double() - expected).abs().max() <= 1 and blend.dtype == torch.uint8
    shares = [mixup(x, labels, generator(seed), 0.5)[2] for seed in range(400)]
    assert abs(np.mean(shares) - 0.5) < 0.06 and abs(np.var(shares) - 0.125) < 0.03  # Beta(1/2, 1/2)


def test_the_whole_chain_keeps_bytes_and_follows_its_generator():
    one = augment(images(), generator(), "cifar10", 128, 9.0, 0.5)
    assert torch.equal(one, augment(images(), generator(), "cifar10", 128, 9.0, 0.5))
    assert one.dtype == torch.uint8 and not torch.equal(one, augment(images(), generator(), "cifar10", 128))
