"""Neural dynamics with a local receptive field: leaky dendrites carry K AND V from token to token.

Tokens pass in raster order. Every channel has 8 dendrites; for token n and dendrite m, with X_0 = X_9 = 0 and
all right-hand X those behind token n - 1:

    X_m <- X_m - (X_m >> e_m) + (X_{m-1} >> g_m) + (X_{m+1} >> g_m) + G_m (K_nc AND V_nc),   g_m = e_m + 2
    Y_nc = Q_nc ((sum over m of sg_m (X_m >> r_m)) >> 6) + field_nc

in units of 1/16 count; X has 6 bits more. One pass, 8 words a channel whatever N is, no multiplier.

Ref: LRF-Dyn, "Neural Dynamics Self-Attention" (ICLR 2026, arXiv 2603.19290): a tridiagonal linear recurrence
with 8 dendrites. The published equations do not say what a token is, nor what Q does; the above is a choice.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
from pydantic import Field

from s2tdpt.golden.attention.base import Mechanism, Values
from s2tdpt.golden.attention.lrf import LocalField
from s2tdpt.golden.attention.work import Row, Work
from s2tdpt.golden.bounds import Interval
from s2tdpt.golden.layers import Kind
from s2tdpt.golden.layout import TensorLayout

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from s2tdpt.golden.bounds import Bounds
    from s2tdpt.golden.config import NetworkConfig

DENDRITES = 8
LEAK, INPUT, SIGN, SHIFT = "dyn.leak", "dyn.input", "dyn.sign", "dyn.shift"
"""Names of a block's tensors in the parameter file, behind ``block.{b}.``: e, G, sg, r; [heads, 8] each."""
COUPLING = 2
"""g_m - e_m: what passes to each neighbour is a quarter of what leaks."""
FINE = 6
"""Bits of X below the unit of Y."""
COUNT = 16
"""Units of Y in a count."""
LARGEST_INPUT = 1024
RANDOM_SHIFT = 2
"""Largest r of a network without training: what is shifted further hardly reaches Y."""


class Dynamics(Mechanism):
    """The dendrites alone, without the field."""

    scale_log2: Annotated[int, Field(strict=True, ge=0, le=16)] = 3

    def block_tensors(self, config: NetworkConfig) -> dict[str, TensorLayout]:
        shape = (config.heads, DENDRITES)
        return {
            LEAK: TensorLayout(np.uint8, shape, 1, 4),
            INPUT: TensorLayout(np.int16, shape, 0, LARGEST_INPUT),
            SIGN: TensorLayout(np.int8, shape, -1, 1),
            SHIFT: TensorLayout(np.uint8, shape, 0, 7),
        }

    def random_tensors(self, config: NetworkConfig, rng: np.random.Generator) -> dict[str, np.ndarray]:
        found = {}
        for b in range(config.depth):
            for name, entry in Dynamics.block_tensors(self, config).items():
                hi = RANDOM_SHIFT if name == SHIFT else entry.hi
                drawn = rng.integers(entry.lo, hi + 1, entry.shape)
                found[f"block.{b}.{name}"] = drawn.astype(entry.dtype)
            found[f"block.{b}.{SHIFT}"][found[f"block.{b}.{SIGN}"] == 0] = 7  # plays no part
        return found

    @property
    def threshold(self) -> int:
        return COUNT << self.scale_log2

    def lively_threshold(self, config: NetworkConfig, rate: float) -> int:
        return COUNT

    def _largest(self, config: NetworkConfig, values: Values) -> np.ndarray:
        """Largest X, int64 [heads, 8]: every update grows with every X and with its input, so that a spike of
        every token gives the largest of all, and the most that any token sees is attained."""
        e, gain = (values[name].astype(np.int64) for name in (LEAK, INPUT))
        x = most = np.zeros_like(gain)
        for _ in range(config.tokens):
            beside = np.pad(x, ((0, 0), (1, 1)))
            passed = (beside[:, :-2] >> (e + COUPLING)) + (beside[:, 2:] >> (e + COUPLING))
            x = x - (x >> e) + passed + gain
            most = np.maximum(most, x)
        return most

    def _soma(self, config: NetworkConfig, values: Values) -> Interval:
        """Interval of sum sg (X >> r), partial sums included, the union over heads."""
        ends = values[SIGN].astype(np.int64) * (
            self._largest(config, values) >> values[SHIFT].astype(np.int64)
        )
        lo, hi = np.minimum(ends, 0).sum(axis=1).min(), np.maximum(ends, 0).sum(axis=1).max()
        return Interval(int(lo), int(hi))

    def interval(self, config: NetworkConfig, values: Values) -> Interval:
        soma = self._soma(config, values)
        return Interval(soma.lo >> FINE, soma.hi >> FINE)

    def inner(self, config: NetworkConfig, values: Values) -> dict[str, Interval]:
        dendrite = Interval(0, int(self._largest(config, values).max()))
        return {"dendrite": dendrite, "soma": self._soma(config, values)}

    def y(
        self, config: NetworkConfig, values: Mapping[str, Tensor], q: Tensor, k: Tensor, v: Tensor
    ) -> Tensor:
        e, gain, sign, r = (values[name].to(v.dtype) for name in (LEAK, INPUT, SIGN, SHIFT))
        # X_0 .. X_9, each [T, B, H, d_h]
        before = [v.new_zeros(v[..., 0, :].shape) for _ in range(DENDRITES + 2)]
        y = v.new_zeros(v.shape)
        for n in range(v.shape[-2]):
            after = [before[0]]
            for m in range(1, DENDRITES + 1):
                leak = e[:, m - 1, None]
                x = before[m] - shifted_right(before[m], leak)
                x = x + shifted_right(before[m - 1], leak + COUPLING)
                x = x + shifted_right(before[m + 1], leak + COUPLING)
                after.append(x + gain[:, m - 1, None] * k[..., n, :] * v[..., n, :])
            before = [*after, before[-1]]
            soma = sum(
                sign[:, m, None] * shifted_right(before[m + 1], r[:, m, None]) for m in range(DENDRITES)
            )
            y[..., n, :] = q[..., n, :] * shifted_right(soma, FINE)
        return y

    def streamed(
        self, config: NetworkConfig, values: Mapping[str, Tensor], q: Tensor, k: Tensor, v: Tensor
    ) -> Tensor:
        e, gain, sign, r = (values[name].to(v.dtype)[..., None] for name in (LEAK, INPUT, SIGN, SHIFT))
        x = v.new_zeros((*v.shape[:-2], DENDRITES, v.shape[-1]))  # all dendrites of a head side by side
        y = v.new_zeros(v.shape)
        for n in range(v.shape[-2]):
            edge = x.new_zeros(x[..., :1, :].shape)
            above, below = edge.clone(), edge.clone()
            lower = _concatenate(above, x[..., :-1, :])
            upper = _concatenate(x[..., 1:, :], below)
            passed = shifted_right(lower, e + COUPLING) + shifted_right(upper, e + COUPLING)
            token = (k[..., n, :] * v[..., n, :]).unsqueeze(-2)
            x = x - shifted_right(x, e) + passed + gain * token
            soma = (sign * shifted_right(x, r)).sum(-2)
            y[..., n, :] = q[..., n, :] * shifted_right(soma, FINE)
        return y

    def rows(self, config: NetworkConfig) -> tuple[Row, ...]:
        # Three shifted additions a dendrite and token, as many of the soma's, whatever fires: dense work.
        return (Row("dyn", Kind.V, DENDRITES * config.tokens * config.embed_dim),)

    def count(self, config: NetworkConfig, q: np.ndarray, k: np.ndarray, v: np.ndarray) -> dict[str, int]:
        """``updates``: dendrites updated, all of every token. ``meetings``: tokens and channels with a spike
        of k and of v. ``reads``: spikes of q, whose soma is summed."""
        return {
            "updates": DENDRITES * v.size,
            "meetings": int(np.count_nonzero((k != 0) & (v != 0))),
            "reads": int(np.count_nonzero(q)),
        }

    def work(self, config: NetworkConfig, bounds: Bounds, counts: Mapping[str, int]) -> dict[str, Work]:
        bits = bounds.attention_inner["dendrite"].unsigned_bits
        additions = 3 * counts["updates"] + DENDRITES * (counts["meetings"] + counts["reads"])
        memory = config.timesteps * DENDRITES * config.head_dim * bits
        return {"dyn": Work(additions, bits, moved=2 * counts["updates"] * bits, memory=memory)}


class LrfDyn(LocalField, Dynamics):
    """Neural dynamics and a local receptive field.

    Attributes
    ----------
    scale_log2 : int
        The attention scale is s = 2^-scale_log2.
    """

    kind: Literal["lrf-dyn"] = "lrf-dyn"


def shifted_right(x: Tensor, shift: Tensor | int) -> Tensor:
    """floor(x / 2^shift) of whole numbers, in their type."""
    if x.dtype.is_floating_point:
        return (x * 2.0**-shift).floor()  # a power of two: exact
    return x >> shift


def _concatenate(first: Tensor, second: Tensor) -> Tensor:
    """Dendrites one behind the other, [..., m, d_h]."""
    import torch  # not at the top: options are known without it

    return torch.cat([first, second], dim=-2)
