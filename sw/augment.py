"""Training-time augmentation, on bytes, from an explicit random generator.

Drawing everything from one generator on the CPU keeps a run reproducible and exactly resumable,
whatever device the network is on.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

DIGIT_SHARE = 0.5
"""Share of digits that are moved. Resampling 8x8 pixels blurs; the rest keeps the sharp originals known."""

DIGIT_SHIFT = 0.6
"""Largest digit shift in pixels; a whole pixel of eight would cut strokes off."""

DIGIT_ANGLE = 10.0
"""Largest digit rotation in degrees."""

DIGIT_ZOOM = 0.1
"""Largest relative size change of a digit."""

CROP_PADDING = 4
"""Pixels of padding for CIFAR's random crop."""


def uniform(count: int, limit: float, generator: torch.Generator) -> Tensor:
    """`count` values from -limit to limit."""
    return (torch.rand(count, generator=generator) * 2.0 - 1.0) * limit


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
    chosen = torch.rand(count, generator=generator) < DIGIT_SHARE
    return torch.where(chosen[:, None, None, None], moved, images)


def flip_and_crop(images: Tensor, generator: torch.Generator, fill: int) -> Tensor:
    """Random horizontal flip and random crop after padding with the value that means zero.

    uint8 [B, H, W, C] -> uint8 [B, H, W, C].
    """
    count, height, width, _ = images.shape
    flip = torch.rand(count, generator=generator) < 0.5
    images = torch.where(flip[:, None, None, None], images.flip(2), images)
    padded = F.pad(images, (0, 0, CROP_PADDING, CROP_PADDING, CROP_PADDING, CROP_PADDING), value=fill)
    top, left = torch.randint(0, 2 * CROP_PADDING + 1, (2, count), generator=generator)
    rows = top[:, None] + torch.arange(height)  # [B, H]
    columns = left[:, None] + torch.arange(width)  # [B, W]
    return padded[torch.arange(count)[:, None, None], rows[:, :, None], columns[:, None, :]]


def augment(images: Tensor, generator: torch.Generator, dataset: str, fill: int) -> Tensor:
    """The augmentation that suits `dataset`; `fill` is the pixel value that means zero."""
    if dataset == "digits":
        return jitter_digits(images, generator)
    return flip_and_crop(images, generator, fill)
