"""The forward pass, once, for the float network and the integer one.

Both are the same order of operations: sums of a layer, neurons, OR-pools, the attention, the residual stream.
They differ in what a layer's sums are (with a norm, or integers), in what makes them fire, and in the unit of
the stream; that is what `SpikingTransformer` leaves open.

Shapes: T steps, B images, N tokens in raster order, D channels, h heads of d_h channels.

References
----------
S2TDPT: arXiv 2511.14691 (neuron, latency code, STDP attention).
Spikingformer: arXiv 2304.11954 (pre-activation residual, SPS with SPE and SPED stages, MLP, head);
order of operations as in its public code: conv, BN with no LIF first, then LIF, [max-pool], conv, BN.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from s2tdpt.golden.attention.heads import merge_heads, split_heads
from s2tdpt.golden.config import NetworkConfig
from s2tdpt.sw.neuron import wide

Record = dict[str, Tensor]
"""Spikes, Y and U by trace name, laid out [T, B, N, C]."""


def centred_pixels(images: Tensor, config: NetworkConfig, dtype: torch.dtype) -> Tensor:
    """uint8 (or float, where augmentation blends) [B,H,W,C] pixels -> pixel - zero_point, [B,C,H,W]."""
    return images.permute(0, 3, 1, 2).to(dtype) - config.pixel_zero_point


def to_tokens(maps: Tensor, steps: int) -> Tensor:
    """[T*B, C, H, W] -> [T, B, N, C], tokens in raster order."""
    return maps.flatten(2).transpose(1, 2).unflatten(0, (steps, -1))


def or_pool(maps: Tensor) -> Tensor:
    """3x3 stride 2 padding 1 max-pool; on binary maps it is an OR."""
    return F.max_pool2d(maps, 3, stride=2, padding=1)


class SpikingTransformer(nn.Module, ABC):
    """What both networks share: from pixels to the residual stream behind the last block.

    Attributes
    ----------
    config : NetworkConfig
    timesteps : int
        T of the forward pass.
    """

    config: NetworkConfig
    timesteps: int

    @abstractmethod
    def sums(self, name: str, x: Tensor) -> Tensor:
        """A layer's sums: maps [M, Ci, H, W] -> [M, Co, H, W] (stem), tokens [..., Ci] -> [..., Co]."""

    @abstractmethod
    def fire(self, name: str, sums: Tensor, steps: int | None = None) -> Tensor:
        """Spikes of the neurons behind layer `name`, [T, ...]; with `steps`, `sums` drive every step."""

    @abstractmethod
    def write(self, name: str, sums: Tensor) -> Tensor:
        """What layer `name` adds to the residual stream, in its unit; channels last."""

    @abstractmethod
    def fire_stream(self, place: str, u: Tensor) -> Tensor:
        """Spikes, a trace called `place`, of neurons that read the residual stream U [T, B, N, D]."""

    @abstractmethod
    def attend(self, b: int, q: Tensor | None, k: Tensor | None, v: Tensor | None) -> Tensor:
        """Y [..., N, d_h] of block `b`, whole numbers in the attention's unit."""

    @abstractmethod
    def fire_attention(self, b: int, y: Tensor) -> Tensor:
        """Spikes of the neurons behind the attention of block `b`, Y [T, B, N, D]."""

    def stream(self, pixels: Tensor, record: Record) -> Tensor:
        """Centred pixels [B, C, H, W] -> U behind the last block [T, B, N, D]."""
        u = record["sps.u"] = self._stem(pixels, record)
        for b in range(self.config.depth):
            u = self._block(b, u, record)
        return u

    def _stem(self, pixels: Tensor, record: Record) -> Tensor:
        """SPS: every stage but the first is LIF, [OR-pool], conv."""
        config, steps = self.config, self.timesteps
        # The image is the same at every step, so the encoder convolution runs once (and its batch
        # statistics over T equal copies are those of one copy).
        x = self.sums("sps.0", pixels)  # [B, C, H, W]
        if config.sps_depth == 1:
            x = x.unsqueeze(0).expand(steps, -1, -1, -1, -1)
        for i in range(1, config.sps_depth):
            spikes = self.fire(f"sps.{i - 1}", x, steps if i == 1 else None).flatten(0, 1)  # [T*B, C, H, W]
            record[f"sps.{i - 1}.spikes"] = to_tokens(spikes, steps)
            if config.sps_pool[i]:
                spikes = or_pool(spikes)
                record[f"sps.{i}.pooled"] = to_tokens(spikes, steps)
            x = self.sums(f"sps.{i}", spikes).unflatten(0, (steps, -1))
        last = f"sps.{config.sps_depth - 1}"
        return wide(self.write(last, to_tokens(x.flatten(0, 1), steps)))  # U is a sum: never half precision

    def _block(self, b: int, u: Tensor, record: Record) -> Tensor:
        """U + proj(attention(LIF(U))), then U + MLP(LIF(U)). No LayerNorm (integer inference)."""
        name, heads = f"block.{b}", self.config.heads

        def fired(part: str, spikes: Tensor) -> Tensor:
            return self.fire(f"{name}.{part}", self.sums(f"{name}.{part}", spikes))

        def written(part: str, spikes: Tensor) -> Tensor:
            return self.write(f"{name}.{part}", self.sums(f"{name}.{part}", spikes))

        x = self.fire_stream(f"{name}.x", u)  # one spike input for q, k, v
        spikes = {kind: fired(kind, x) for kind in self.config.attention.projections}
        with torch.autocast(x.device.type, enabled=False):  # sums of whole numbers, kept exact
            parts = {kind: split_heads(wide(s), heads) for kind, s in spikes.items()}
            y = merge_heads(self.attend(b, *(parts.get(kind) for kind in "qkv")))
        attn = self.fire_attention(b, y)
        u = u + written("proj", attn)
        record |= {
            f"{name}.x": x,
            **{f"{name}.{kind}": s for kind, s in spikes.items()},
            f"{name}.y": y,
            f"{name}.attn": attn,
            f"{name}.u_attn": u,
        }
        mlp_in = self.fire_stream(f"{name}.mlp_in", u)
        hidden = fired("fc1", mlp_in)  # [T, B, N, mlp_ratio * D]
        u = u + written("fc2", hidden)
        record |= {f"{name}.mlp_in": mlp_in, f"{name}.hidden": hidden, f"{name}.u": u}
        return u
