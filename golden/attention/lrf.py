"""Local receptive field: every token adds its neighbours' V, weighted by position and channel.

A depthwise 3x3 kernel on the map of the tokens, once for every dilation (3 and 5 unless told otherwise), with
zeros outside the map. Its taps are learned; those of the dilations' centres meet in one, which is stored
once. V is 0 or 1, so that a tap is an addition of an 8-bit weight, or nothing.

Ref: LRF-SSA, "Neural Dynamics Self-Attention" (ICLR 2026, arXiv 2603.19290): dilations 3 and 5. Which of its
two printed equations holds is not clear; here the field is added to Y.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar

import numpy as np
from pydantic import Field

from s2tdpt.golden.attention.base import Mechanism, Values
from s2tdpt.golden.attention.work import Row, Work
from s2tdpt.golden.bounds import Interval
from s2tdpt.golden.layers import Kind
from s2tdpt.golden.layout import TensorLayout

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from s2tdpt.golden.bounds import Bounds
    from s2tdpt.golden.config import NetworkConfig

TAPS = "lrf.weight"
"""Name of a block's kernel in the parameter file, behind ``block.{b}.``."""
LARGEST_TAP = 127
RANDOM_TAP = 32
"""Largest tap of a network without training."""

Dilation = Annotated[int, Field(strict=True, ge=1, le=255)]


def offsets(dilations: tuple[int, ...]) -> tuple[tuple[int, int], ...]:
    """(rows, columns) from a token to each of its taps: the centre, then the ring of every dilation in turn.

    A ring is in raster order.
    """
    ring = [(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1) if (dy, dx) != (0, 0)]
    return ((0, 0), *((d * dy, d * dx) for d in dilations for dy, dx in ring))


def shifted(v: Tensor, size: tuple[int, int], rows: int, columns: int) -> Tensor:
    """V of the token `rows` below and `columns` to the right of each, 0 outside the map: [..., N, d_h]."""
    height, width = size
    maps = v.unflatten(-2, size)
    result = maps.new_zeros(maps.shape)
    top, bottom = max(0, -rows), height - max(0, rows)
    left, right = max(0, -columns), width - max(0, columns)
    if top < bottom and left < right:
        result[..., top:bottom, left:right, :] = maps[
            ..., top + rows : bottom + rows, left + columns : right + columns, :
        ]
    return result.flatten(-3, -2)


def by_head(weight: Tensor, heads: int) -> Tensor:
    """Taps [D, taps] as [taps, H, 1, d_h], to meet spikes [..., H, N, d_h]."""
    return weight.unflatten(0, (heads, -1)).permute(2, 0, 1).unsqueeze(-2)


class LocalField(Mechanism):
    """Adds a local receptive field to another attention with V: ``(Y << y_shift) + (field << tap_shift)``.

    Attributes
    ----------
    lrf : tuple of int
        Dilations, rising.
    tap_shift : int
        A step of a tap is 2^tap_shift of the unit of Y.
    y_shift : int
        The unit of Y is 2^-y_shift of the other attention's.
    """

    y_shift: ClassVar[int] = 0
    lrf: Annotated[tuple[Dilation, ...], Field(min_length=1, max_length=4)] = (3, 5)
    tap_shift: Annotated[int, Field(strict=True, ge=0, le=8)] = 0

    def check(self, config: NetworkConfig) -> None:
        super().check(config)
        if list(self.lrf) != sorted(set(self.lrf)):
            raise ValueError(f"attention.lrf is {list(self.lrf)}; expected rising dilations; sort them")

    def block_tensors(self, config: NetworkConfig) -> dict[str, TensorLayout]:
        shape = (config.embed_dim, len(offsets(self.lrf)))
        own = {TAPS: TensorLayout(np.int8, shape, -LARGEST_TAP, LARGEST_TAP)}
        return super().block_tensors(config) | own

    def random_tensors(self, config: NetworkConfig, rng: np.random.Generator) -> dict[str, np.ndarray]:
        tensors = super().random_tensors(config, rng)
        for b in range(config.depth):
            shape = self.block_tensors(config)[TAPS].shape
            tensors[f"block.{b}.{TAPS}"] = rng.integers(-RANDOM_TAP, RANDOM_TAP + 1, shape).astype(np.int8)
        return tensors

    @property
    def threshold(self) -> int:
        return super().threshold << self.y_shift

    def lively_threshold(self, config: NetworkConfig, rate: float) -> int:
        return max(1, super().lively_threshold(config, rate)) << self.y_shift

    def interval(self, config: NetworkConfig, values: Values) -> Interval:
        y, field = super().interval(config, values), field_interval(values[TAPS])
        return Interval(
            (y.lo << self.y_shift) + (field.lo << self.tap_shift),
            (y.hi << self.y_shift) + (field.hi << self.tap_shift),
        )

    def inner(self, config: NetworkConfig, values: Values) -> dict[str, Interval]:
        return super().inner(config, values) | {"field": field_interval(values[TAPS])}

    def y(
        self,
        config: NetworkConfig,
        values: Mapping[str, Tensor],
        q: Tensor | None,
        k: Tensor | None,
        v: Tensor,
    ) -> Tensor:
        return self._sum(super().y(config, values, q, k, v), field(config, self.lrf, values[TAPS], v))

    def streamed(
        self,
        config: NetworkConfig,
        values: Mapping[str, Tensor],
        q: Tensor | None,
        k: Tensor | None,
        v: Tensor,
    ) -> Tensor:
        local = scattered_field(config, self.lrf, values[TAPS], v)
        return self._sum(super().streamed(config, values, q, k, v), local)

    def rows(self, config: NetworkConfig) -> tuple[Row, ...]:
        taps = sum(int(reached.sum()) for reached in reach(config, self.lrf))
        return (*super().rows(config), Row("lrf", Kind.V, taps * config.embed_dim))

    def count(
        self, config: NetworkConfig, q: np.ndarray | None, k: np.ndarray | None, v: np.ndarray
    ) -> dict[str, int]:
        """``taps``: taps inside the map that a value spike meets; beside what the other attention counts."""
        taps = sum(reach(config, self.lrf))  # [N]
        spikes = v.sum(axis=tuple(range(v.ndim - 2)), dtype=np.int64).sum(-1)  # [N]
        return super().count(config, q, k, v) | {"taps": int((spikes * taps).sum())}

    def work(self, config: NetworkConfig, bounds: Bounds, counts: Mapping[str, int]) -> dict[str, Work]:
        bits = bounds.attention.signed_bits
        return super().work(config, bounds, counts) | {"lrf": Work(counts["taps"], bits)}

    def _sum(self, y: Tensor, local: Tensor) -> Tensor:
        return y * (1 << self.y_shift) + local * (1 << self.tap_shift)


def field(config: NetworkConfig, dilations: tuple[int, ...], weight: Tensor, v: Tensor) -> Tensor:
    """The field as it is defined: every token gathers its taps. V [T, B, H, N, d_h] to sums of that shape."""
    taps = zip(offsets(dilations), by_head(weight.to(v.dtype), config.heads), strict=True)
    return sum(tap * shifted(v, config.map_size(-1), *offset) for offset, tap in taps)


def scattered_field(config: NetworkConfig, dilations: tuple[int, ...], weight: Tensor, v: Tensor) -> Tensor:
    """The same sums token by token: every token with a spike adds its taps to the tokens that see it."""
    height, width = config.map_size(-1)
    taps = list(zip(offsets(dilations), by_head(weight.to(v.dtype), config.heads)[..., 0, :], strict=True))
    sums = v.new_zeros(v.shape)
    for n in range(height * width):
        for (rows, columns), tap in taps:
            row, column = n // width - rows, n % width - columns
            if 0 <= row < height and 0 <= column < width:
                sums[..., row * width + column, :] += tap * v[..., n, :]
    return sums


def reach(config: NetworkConfig, dilations: tuple[int, ...]) -> list[np.ndarray]:
    """For every tap, 1 for the tokens that have a token whose tap they are inside the map: int64 [N] each."""
    height, width = config.map_size(-1)
    row, column = np.divmod(np.arange(height * width), width)
    found = []
    for rows, columns in offsets(dilations):
        y, x = row - rows, column - columns
        found.append(((y >= 0) & (y < height) & (x >= 0) & (x < width)).astype(np.int64))
    return found


def field_interval(weight: np.ndarray) -> Interval:
    """Interval of the field and of its partial sums over any of the taps, the union over channels."""
    whole = weight.astype(np.int64)
    return Interval(
        int(np.minimum(whole, 0).sum(axis=1).min(initial=0)),
        int(np.maximum(whole, 0).sum(axis=1).max(initial=0)),
    )
