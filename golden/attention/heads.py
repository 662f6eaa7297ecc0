"""Between the tokens of the network and the heads of the attention."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from s2tdpt.golden.config import NetworkConfig


def split_heads(x: Tensor, heads: int) -> Tensor:
    """[T, B, N, D] -> [T, B, H, N, d_h]; head h owns channels h*d_h .. (h+1)*d_h - 1."""
    return x.unflatten(-1, (heads, -1)).transpose(-2, -3)


def merge_heads(x: Tensor) -> Tensor:
    """[T, B, H, N, d_h] -> [T, B, N, D]."""
    return x.transpose(-2, -3).flatten(-2)


def attend(
    form: Callable[..., Tensor],
    config: NetworkConfig,
    values: Mapping[str, Tensor],
    q: Tensor | None,
    k: Tensor | None,
    v: Tensor | None,
) -> Tensor:
    """Y [T, B, N, D] of spikes [T, B, N, D] by a form of a mechanism: its `y` or its `streamed`."""
    parts = (None if spikes is None else split_heads(spikes, config.heads) for spikes in (q, k, v))
    return merge_heads(form(config, values, *parts))
