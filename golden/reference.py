"""The network on integers, written out plainly: the definition that every other implementation must equal.

Read this first. One class, no optimisation: each operation once, in the order of evaluation, on 64-bit
integers. What an attention computes is the method `y` of its mechanism, in `golden.attention`.
`golden.network` computes the same much faster, and is what the commands use; the tests compare the two at
every trace, and both with a third, in loops, that was written from docs/parameters.md alone.

Shapes: B images, T time steps, N positions of a map (or tokens) in raster order, C channels, D channels of
the residual stream, H heads of d_h channels.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from s2tdpt.golden.attention.heads import attend
from s2tdpt.golden.bounds import derive_bounds
from s2tdpt.golden.config import NetworkConfig
from s2tdpt.golden.errors import UserError
from s2tdpt.golden.neuron import Law
from s2tdpt.golden.params import Params
from s2tdpt.golden.trace import traces


def neurons(x: Tensor, threshold: Tensor | int, law: Law) -> Tensor:
    """Neurons from a state of zero: inputs [B, T, N, C] to spikes [B, T, N, C].

    `law` says what a step brings and what is carried on (`golden.neuron`); S2TDPT's LIF neuron takes x as it
    is, and carries 0 after a spike, else floor(u / 2).
    """
    spikes, h = [], 0
    for t in range(x.shape[1]):
        u = h + law.drive(x[:, t], t)
        emitted = law.fires(u, threshold)  # u >= threshold: equality fires
        h = torch.where(emitted != 0, law.reset(u, threshold), law.keep(u, threshold))
        spikes.append(emitted.long())
    return torch.stack(spikes, dim=1)


def convolve(maps: Tensor, weight: Tensor) -> Tensor:
    """3x3, stride 1, a ring of zeros: [B, T, h, w, Ci] and [Co, Ci, 3, 3] to [B, T, h, w, Co]."""
    h, w = maps.shape[2:4]
    padded = torch.nn.functional.pad(maps, (0, 0, 1, 1, 1, 1))
    taps = [(dy, dx) for dy in range(3) for dx in range(3)]
    return sum(padded[:, :, dy : dy + h, dx : dx + w] @ weight[:, :, dy, dx].T for dy, dx in taps)


def or_pool(maps: Tensor) -> Tensor:
    """OR over 3x3 windows, stride 2: spikes [B, T, h, w, C] to [B, T, ceil(h / 2), ceil(w / 2), C]."""
    h, w = maps.shape[2:4]
    padded = torch.nn.functional.pad(maps, (0, 0, 1, 1, 1, 1))
    windows = [padded[:, :, dy : dy + h : 2, dx : dx + w : 2] for dy in range(3) for dx in range(3)]
    return torch.stack(windows).amax(dim=0)


class ReferenceNetwork:
    """Integer model of one parameter set, plainly written; the interface of `golden.network.GoldenNetwork`.

    Parameters
    ----------
    params : Params

    Attributes
    ----------
    params, config, bounds

    Raises
    ------
    UserError
        Some integer may not fit into 64 bits.
    """

    def __init__(self, params: Params) -> None:
        self.params = params
        self.config = params.config
        self.bounds = derive_bounds(params)
        widest = max(self.bounds.widths().values())
        if widest > 64:
            raise UserError(
                f"{params.label}: integers need {widest} bits; expected at most 64; reduce biases or widths"
            )

    def forward(self, images: Tensor | np.ndarray) -> Tensor:
        """Logits, int64 [B, classes], of images, uint8 [B, h, w, C]; UserError if they are no such images."""
        return self.trace(images)["head.logits"]

    __call__ = forward

    def classify(self, images: Tensor | np.ndarray) -> Tensor:
        """Classes, int64 [B]: the lowest index of the largest logit."""
        return self.trace(images)["head.class"]

    def trace(self, images: Tensor | np.ndarray) -> dict[str, Tensor]:
        """Every intermediate integer, by trace name in network order: [B, ...] as in `golden.trace`.

        uint8 for spikes, else int64; int8 for spikes of either sign.
        """
        trace: dict[str, Tensor] = {}
        u = self._stem(checked_images(images, self.config), trace)
        for b in range(self.config.depth):
            u = self._block(u, b, trace)
        self._head(u, trace)
        known = traces(self.config)
        return {name: value.to(getattr(torch, known[name].dtype)) for name, value in trace.items()}

    def _stem(self, images: Tensor, trace: dict[str, Tensor]) -> Tensor:
        """Spiking patch splitting: images [B, h, w, C] to the stream U [B, T, N, D], units of 2^-F."""
        config = self.config
        maps = images.long() - config.pixel_zero_point
        maps = maps[:, None].expand(-1, config.timesteps, -1, -1, -1)  # the same image at every step
        for i in range(config.sps_depth):
            layer = f"sps.{i}"
            if config.sps_pool[i]:
                maps = or_pool(maps)
                trace[f"{layer}.pooled"] = maps.flatten(2, 3)
            sums = convolve(maps, self._tensor(f"{layer}.weight"))  # [B, T, h, w, Co]
            if i < config.sps_depth - 1:
                currents = sums + self._tensor(f"{layer}.bias")
                law = self.params.laws[config.layer(layer).writes]
                spikes = neurons(currents.flatten(2, 3), self._tensor(f"{layer}.threshold"), law)
                maps = spikes.unflatten(2, sums.shape[2:4])
                trace[f"{layer}.spikes"] = spikes
        trace["sps.u"] = u = self._written(layer, sums.flatten(2, 3))
        return u

    def _block(self, u: Tensor, b: int, trace: dict[str, Tensor]) -> Tensor:
        """One encoder block on the stream U [B, T, N, D]: attention and MLP, each added to U."""
        block, params = f"block.{b}", self.params
        x = self._behind(f"{block}.x", u, params.residual_threshold)
        kinds = self.config.attention.projections
        spikes = {kind: self._spiking(f"{block}.{kind}", x) for kind in kinds}
        y = self._attention(b, spikes)
        attn = self._behind(f"{block}.attn", y, params.attention_threshold)
        u_attn = u + self._written(f"{block}.proj", self._project(f"{block}.proj", attn))
        mlp_in = self._behind(f"{block}.mlp_in", u_attn, params.residual_threshold)
        hidden = self._spiking(f"{block}.fc1", mlp_in)  # [B, T, N, mlp_ratio D]
        u = u_attn + self._written(f"{block}.fc2", self._project(f"{block}.fc2", hidden))
        values = {"x": x, **spikes, "y": y, "attn": attn, "u_attn": u_attn}
        values |= {"mlp_in": mlp_in, "hidden": hidden, "u": u}
        trace.update({f"{block}.{part}": value for part, value in values.items()})
        return u

    def _attention(self, b: int, spikes: Mapping[str, Tensor]) -> Tensor:
        """Y of block b: spikes of q, k and v, as far as they exist, [B, T, N, D] each to [B, T, N, D]."""
        mechanism, tensors = self.config.attention, self.params.attention(b)
        values = {name: torch.tensor(tensor, dtype=torch.int64) for name, tensor in tensors.items()}
        q, k, v = (spikes[kind].transpose(0, 1) if kind in spikes else None for kind in "qkv")
        return attend(mechanism.y, self.config, values, q, k, v).transpose(0, 1)

    def _head(self, u: Tensor, trace: dict[str, Tensor]) -> None:
        """Stream U [B, T, N, D] to sums [B, D], logits [B, classes] and classes [B]."""
        total = u.sum(dim=(1, 2))  # a mean would be a division that moves no maximum
        logits = self._project("head", total) + self._tensor("head.bias")
        best, classes = logits == logits.amax(dim=1, keepdim=True), logits.shape[1]
        trace["head.sum"], trace["head.logits"] = total, logits
        trace["head.class"] = torch.where(best, torch.arange(classes), classes).amin(dim=1)

    def _spiking(self, layer: str, spikes: Tensor) -> Tensor:
        """A projection and its neurons: spikes [B, T, N, Ci] to spikes [B, T, N, Co]."""
        currents = self._project(layer, spikes) + self._tensor(f"{layer}.bias")
        law = self.params.laws[self.config.layer(layer).writes]
        return neurons(currents, self._tensor(f"{layer}.threshold"), law)

    def _behind(self, trace: str, x: Tensor, threshold: int) -> Tensor:
        """Spikes called `trace` of neurons without thresholds of their own: [B, T, N, C] to the same."""
        law = self.params.laws[trace]
        return neurons(x, law.threshold(threshold), law)

    def _project(self, layer: str, x: Tensor) -> Tensor:
        """Sums over the input channels: [..., Ci] to [..., Co]."""
        return x @ self._tensor(f"{layer}.weight").T

    def _written(self, layer: str, sums: Tensor) -> Tensor:
        """What a writer adds to U: sums [B, T, N, D] on the grid of 2^-F, and its bias."""
        return (sums << self._tensor(f"{layer}.shift")) + self._tensor(f"{layer}.bias")

    def _tensor(self, name: str) -> Tensor:
        return torch.tensor(self.params.tensors[name], dtype=torch.int64)


def checked_images(images: Tensor | np.ndarray, config: NetworkConfig) -> Tensor:
    """`images` as a tensor, uint8 [B, h, w, C]; UserError if they are of another type or shape."""
    if isinstance(images, np.ndarray):
        images = torch.from_numpy(np.ascontiguousarray(images))
    expected = (config.image_height, config.image_width, config.image_channels)
    if images.dtype != torch.uint8 or images.dim() != 4 or tuple(images.shape[1:]) != expected:
        raise UserError(
            f"images are {str(images.dtype).removeprefix('torch.')}{list(images.shape)}; expected "
            f"uint8[batch, {', '.join(map(str, expected))}]; convert or resize them"
        )
    return images
