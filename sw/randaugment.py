"""RandAugment on a batch of bytes: one random operation an image, of one magnitude.

The operations and ranges are those of the published recipe (magnitude m of 30, n = 1, in timm's "increasing"
set), each written for a batch: an operation is applied to the images that drew it.

References
----------
RandAugment: Cubuk et al., arXiv 1909.13719. Recipe (m9-n1): Spikingformer, arXiv 2304.11954.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

LEVELS = 30.0
PROBABILITY = 0.5
"""Share of the images that an operation is applied to; the others stay."""
GRAY = (0.299, 0.587, 0.114)


def _affine(images: Tensor, matrix: Tensor, fill: int) -> Tensor:
    """Resample float [B, H, W, C] by inverse maps `matrix` [B, 2, 3] in the image's -1..1 coordinates."""
    maps = images.permute(0, 3, 1, 2) - fill  # outside is zero, that is `fill`
    grid = F.affine_grid(matrix.to(maps.dtype), list(maps.shape), align_corners=False)
    moved = F.grid_sample(maps, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    return (moved + fill).permute(0, 2, 3, 1)


def _identity(count: int, device) -> Tensor:
    return torch.eye(2, 3, device=device).repeat(count, 1, 1)


def _rotate(x: Tensor, m: Tensor, fill: int) -> Tensor:
    angle, matrix = m * math.radians(30.0), _identity(len(x), x.device)
    matrix[:, 0, 0] = matrix[:, 1, 1] = torch.cos(angle)
    matrix[:, 0, 1], matrix[:, 1, 0] = torch.sin(angle), -torch.sin(angle)
    return _affine(x, matrix, fill)


def _shift(row: int, column: int, largest: float) -> Callable:
    def change(x: Tensor, m: Tensor, fill: int) -> Tensor:
        matrix = _identity(len(x), x.device)
        matrix[:, row, column] += m * largest
        return _affine(x, matrix, fill)

    return change


def _gray(x: Tensor) -> Tensor:
    if x.shape[-1] != 3:
        return x.mean(-1, keepdim=True)
    return (x * torch.tensor(GRAY, device=x.device, dtype=x.dtype)).sum(-1, keepdim=True)


def _blend(base: Tensor, x: Tensor, m: Tensor) -> Tensor:
    """From `base` (factor 0) through `x` (1) to beyond: factor 1 + 0.9 m."""
    return base + (1.0 + 0.9 * m[:, None, None, None]) * (x - base)


def _contrast(x: Tensor, m: Tensor, fill: int) -> Tensor:
    return _blend(_gray(x).mean((1, 2, 3), keepdim=True).round(), x, m)


def _sharpness(x: Tensor, m: Tensor, fill: int) -> Tensor:
    channels = x.shape[-1]
    kernel = torch.ones(3, 3, device=x.device, dtype=x.dtype)
    kernel[1, 1] = 5.0
    smooth = x.clone()
    inner = F.conv2d(
        x.permute(0, 3, 1, 2), (kernel / 13.0).expand(channels, 1, 3, 3).contiguous(), groups=channels
    )
    smooth[:, 1:-1, 1:-1] = inner.permute(0, 2, 3, 1)  # the border stays, as in PIL
    return _blend(smooth, x, m)


def _autocontrast(x: Tensor, m: Tensor, fill: int) -> Tensor:
    low, high = x.amin((1, 2), keepdim=True), x.amax((1, 2), keepdim=True)
    return torch.where(high > low, (x - low) * (255.0 / (high - low).clamp_min(1.0)), x)


def _equalize(x: Tensor, m: Tensor, fill: int) -> Tensor:
    """Each channel's values spread so that their histogram is flat."""
    count, height, width, channels = x.shape
    values = x.permute(0, 3, 1, 2).reshape(count * channels, -1).long()
    histogram = torch.zeros(len(values), 256, device=x.device, dtype=torch.long)
    histogram.scatter_add_(1, values, torch.ones_like(values))
    last = histogram.gather(1, values.amax(1, keepdim=True))
    step = (height * width - last) // 255  # of a flat image, and of few pixels, 0: unchanged
    below = histogram.cumsum(1) - histogram
    table = ((below + step // 2) // step.clamp_min(1)).clamp(0, 255)
    changed = torch.where(step > 0, table.gather(1, values), values)
    return changed.reshape(count, channels, height, width).permute(0, 2, 3, 1).to(x.dtype)


def _posterize(x: Tensor, m: Tensor, fill: int) -> Tensor:
    keep = (4.0 - (m.abs() * 4.0).floor()).clamp(1.0, 8.0)  # bits
    step = torch.exp2(8.0 - keep)[:, None, None, None]
    return torch.floor(x / step) * step


def _solarize(x: Tensor, m: Tensor, fill: int) -> Tensor:
    return torch.where(x < (256.0 - 256.0 * m.abs())[:, None, None, None], x, 255.0 - x)


def _solarize_add(x: Tensor, m: Tensor, fill: int) -> Tensor:
    return torch.where(x < 128.0, x + 110.0 * m.abs()[:, None, None, None], x)


OPERATIONS: dict[str, Callable[[Tensor, Tensor, int], Tensor]] = {
    "autocontrast": _autocontrast,
    "equalize": _equalize,
    "invert": lambda x, m, fill: 255.0 - x,
    "rotate": _rotate,
    "posterize": _posterize,
    "solarize": _solarize,
    "solarize_add": _solarize_add,
    "color": lambda x, m, fill: _blend(_gray(x), x, m),
    "contrast": _contrast,
    "brightness": lambda x, m, fill: _blend(torch.zeros_like(x), x, m),
    "sharpness": _sharpness,
    "shear_x": _shift(0, 1, 0.3),
    "shear_y": _shift(1, 0, 0.3),
    "translate_x": _shift(0, 2, 0.9),
    "translate_y": _shift(1, 2, 0.9),
}
"""Name: change of float images [B, H, W, C] in 0..255, given signed magnitudes [B] in -1..1 and the fill."""


def rand_augment(images: Tensor, generator: torch.Generator, magnitude: float, fill: int) -> Tensor:
    """One operation for about half of the images.

    Parameters
    ----------
    images : uint8 [B, H, W, C]
    generator : torch.Generator
        On the images' device.
    magnitude : float
        0..30; half a level of noise is added for each image.
    fill : int
        Pixel value outside the image.

    Returns
    -------
    uint8 [B, H, W, C]
    """
    count, device = len(images), generator.device
    which = torch.randint(len(OPERATIONS), (count,), generator=generator, device=device)
    applied = torch.rand(count, generator=generator, device=device) < PROBABILITY
    noise = torch.randn(count, generator=generator, device=device) * 0.5
    sign = torch.where(torch.rand(count, generator=generator, device=device) < 0.5, -1.0, 1.0)
    level = ((magnitude + noise).clamp(0.0, LEVELS) / LEVELS) * sign
    result = images.clone()
    for number, change in enumerate(OPERATIONS.values()):
        chosen = torch.nonzero(applied & (which == number))[:, 0]
        if len(chosen):
            changed = change(images[chosen].float(), level[chosen], fill)
            result[chosen] = changed.round().clamp(0, 255).to(torch.uint8)
    return result
