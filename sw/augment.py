"""Training-time augmentation, on bytes, a batch at a time, on the device that the images are on.

Everything is drawn from one explicit generator, which travels with the checkpoint: a resumed run draws on
where the interrupted one stopped.

References
----------
Random erasing: Zhong et al., arXiv 1708.04896. Mixup: Zhang et al., arXiv 1710.09412.
"""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from s2tdpt.sw.names import CROP_PADDING
from s2tdpt.sw.randaugment import rand_augment

DIGIT_SHARE = 0.5
"""Share of digits that are moved. Resampling 8x8 pixels blurs; the rest keeps the sharp originals known."""

DIGIT_SHIFT = 0.6
"""Largest digit shift in pixels; a whole pixel of eight would cut strokes off."""

DIGIT_ANGLE = 10.0
"""Largest digit rotation in degrees."""

DIGIT_ZOOM = 0.1
"""Largest relative size change of a digit."""


def uniform(count: int, limit: float, generator: torch.Generator) -> Tensor:
    """`count` values from -limit to limit."""
    return (draw(count, generator) * 2.0 - 1.0) * limit


def draw(count: int, generator: torch.Generator) -> Tensor:
    """`count` values from 0 to 1, on the generator's device."""
    return torch.rand(count, generator=generator, device=generator.device)


def jitter_digits(images: Tensor, generator: torch.Generator) -> Tensor:
    """Small random shift, rotation and zoom of a share of the images, bicubic, empty outside.

    uint8 [B, H, W, C] -> uint8 [B, H, W, C].
    """
    count, height, width, _ = images.shape
    angle = uniform(count, math.radians(DIGIT_ANGLE), generator)
    zoom = 1.0 + uniform(count, DIGIT_ZOOM, generator)
    shift_x = uniform(count, 2.0 * DIGIT_SHIFT / width, generator)  # the image spans -1..1
    shift_y = uniform(count, 2.0 * DIGIT_SHIFT / height, generator)
    cos, sin = torch.cos(angle) * zoom, torch.sin(angle) * zoom
    theta = torch.stack([torch.stack([cos, -sin, shift_x], 1), torch.stack([sin, cos, shift_y], 1)], 1)
    maps = images.permute(0, 3, 1, 2).float()
    grid = F.affine_grid(theta, list(maps.shape), align_corners=False)
    moved = F.grid_sample(maps, grid, mode="bicubic", padding_mode="zeros", align_corners=False)
    moved = moved.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1)
    chosen = draw(count, generator) < DIGIT_SHARE
    return torch.where(chosen[:, None, None, None], moved, images)


def flip_and_crop(
    images: Tensor,
    generator: torch.Generator,
    fill: int,
    padding: int = CROP_PADDING,
    mirrored: Tensor | None = None,
) -> Tensor:
    """Horizontal flip and random crop after padding with the value that means zero.

    `mirrored` [B] says which images to flip; without it half of them are, at random.

    uint8 [B, H, W, C] -> uint8 [B, H, W, C].
    """
    count, height, width, _ = images.shape
    flip = draw(count, generator) < 0.5 if mirrored is None else mirrored
    images = torch.where(flip[:, None, None, None], images.flip(2), images)
    padded = F.pad(images, (0, 0, padding, padding, padding, padding), value=fill)
    device = generator.device
    top, left = torch.randint(0, 2 * padding + 1, (2, count), generator=generator, device=device)
    rows = top[:, None] + torch.arange(height, device=device)  # [B, H]
    columns = left[:, None] + torch.arange(width, device=device)  # [B, W]
    return padded[torch.arange(count, device=device)[:, None, None], rows[:, :, None], columns[:, None, :]]


def erase(images: Tensor, generator: torch.Generator, probability: float) -> Tensor:
    """Replace one rectangle of a share of the images by noise (uniform bytes).

    The rectangle has 2 % to 33 % of the area and an aspect ratio of 0.3 to 3.3, as far as the image allows.

    uint8 [B, H, W, C] -> uint8 [B, H, W, C].
    """
    count, height, width, _ = images.shape
    chosen = draw(count, generator) < probability
    area = (0.02 + 0.31 * draw(count, generator)) * height * width
    ratio = torch.exp(uniform(count, math.log(3.3), generator))
    high = (area * ratio).sqrt().clamp(1.0, height)
    wide = (area / ratio).sqrt().clamp(1.0, width)
    top, left = draw(count, generator) * (height - high), draw(count, generator) * (width - wide)
    rows = torch.arange(height, device=generator.device)[None, :]
    columns = torch.arange(width, device=generator.device)[None, :]
    in_rows = (rows >= top[:, None]) & (rows < (top + high)[:, None])
    in_columns = (columns >= left[:, None]) & (columns < (left + wide)[:, None])
    inside = chosen[:, None, None] & in_rows[:, :, None] & in_columns[:, None, :]
    noise = torch.randint(
        0, 256, images.shape, generator=generator, device=generator.device, dtype=torch.uint8
    )
    return torch.where(inside[..., None], noise, images)


def mixup(images: Tensor, labels: Tensor, generator: torch.Generator, alpha: float):
    """Blend every image with another of the batch; one share lambda ~ Beta(alpha, alpha) for all.

    Returns
    -------
    uint8 [B, H, W, C], the other images' labels [B], and lambda, the share of an image's own label.
    """
    seed = int(torch.randint(2**62, (1,), generator=generator, device=generator.device))
    share = float(np.random.default_rng(seed).beta(alpha, alpha))
    other = torch.randperm(len(images), generator=generator, device=generator.device)
    blend = images.float().mul_(share).add_(images[other].float(), alpha=1.0 - share)
    return blend.round_().to(torch.uint8), labels[other], share


def augment(
    images: Tensor,
    generator: torch.Generator,
    dataset: str,
    fill: int,
    randaugment: float = 0.0,
    erasing: float = 0.0,
    padding: int = CROP_PADDING,
    mirrored: Tensor | None = None,
) -> Tensor:
    """The augmentation that suits `dataset`; `fill` is the pixel value that means zero.

    Digits are moved a little. CIFAR images are flipped and cropped, then, if asked for, changed by one random
    operation of magnitude `randaugment` and erased in part with probability `erasing`.
    """
    if dataset == "digits":
        return jitter_digits(images, generator)
    images = flip_and_crop(images, generator, fill, padding, mirrored)
    if randaugment:
        images = rand_augment(images, generator, randaugment, fill)
    return erase(images, generator, erasing) if erasing else images
