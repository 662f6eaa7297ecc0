"""The whole float network: spiking patch splitting, S2TDP encoder blocks, head.

Two forms of one class. As trained, every convolution and projection is followed by a BatchNorm whose
statistics run over time and batch jointly; folded (``folded=True``), the norms are gone and each layer
has a plain bias (see `sw.fold`). The integer network that the hardware computes is `sw.quantize`.

Shapes: T steps, B images, N tokens in raster order, D channels, h heads of d_h channels.

References
----------
S2TDPT: arXiv 2511.14691 (neuron, latency code, STDP attention).
Spikingformer: arXiv 2304.11954 (pre-activation residual, SPS with SPE and SPED stages, MLP, head);
order of operations as in its public code: conv, BN with no LIF first, then LIF, [max-pool], conv, BN.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from s2tdpt.golden.config import NetworkConfig
from s2tdpt.sw.attention import DEFAULT_HALF_WIDTH, DEFAULT_VARIANT, make_attention
from s2tdpt.sw.neuron import lif, wide

PIXEL_SCALE = 1.0 / 64.0
"""Real value of one pixel step: inputs are (pixel - zero_point) / 64, so zero padding is the integer 0."""

Record = dict[str, Tensor]


def centred_pixels(images: Tensor, config: NetworkConfig, dtype: torch.dtype) -> Tensor:
    """uint8 (or float, where augmentation blends) [B,H,W,C] pixels -> pixel - zero_point, [B,C,H,W]."""
    return images.permute(0, 3, 1, 2).to(dtype) - config.pixel_zero_point


def to_tokens(maps: Tensor, steps: int) -> Tensor:
    """[T*B, C, H, W] -> [T, B, N, C], tokens in raster order."""
    return maps.flatten(2).transpose(1, 2).unflatten(0, (steps, -1))


def to_maps(tokens: Tensor, size: tuple[int, int]) -> Tensor:
    """[T, B, N, C] -> [T*B, C, H, W]."""
    return tokens.flatten(0, 1).transpose(1, 2).unflatten(2, size)


def split_heads(x: Tensor, heads: int) -> Tensor:
    """[T, B, N, D] -> [T, B, h, N, d_h]; head h owns channels h*d_h .. (h+1)*d_h - 1."""
    return x.unflatten(-1, (heads, -1)).transpose(-2, -3)


def merge_heads(x: Tensor) -> Tensor:
    """[T, B, h, N, d_h] -> [T, B, N, D]."""
    return x.transpose(-2, -3).flatten(-2)


def or_pool(maps: Tensor) -> Tensor:
    """3x3 stride 2 padding 1 max-pool; on binary maps it is an OR."""
    return F.max_pool2d(maps, 3, stride=2, padding=1)


class NormedConv(nn.Module):
    """3x3 convolution s1 p1 and its norm: [M, Ci, H, W] -> [M, Co, H, W]."""

    def __init__(self, inputs: int, outputs: int, folded: bool):
        super().__init__()
        self.map = nn.Conv2d(inputs, outputs, 3, padding=1, bias=folded)
        self.norm = nn.Identity() if folded else nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.map(x))


class NormedLinear(nn.Module):
    """1x1 convolution over tokens and its norm: [T, B, N, Ci] -> [T, B, N, Co]."""

    def __init__(self, inputs: int, outputs: int, bias: bool, folded: bool):
        super().__init__()
        self.map = nn.Linear(inputs, outputs, bias=bias or folded)
        self.norm = nn.Identity() if folded else nn.BatchNorm1d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.map(x.flatten(0, 2))).unflatten(0, x.shape[:3])


class PatchSplitting(nn.Module):
    """SPS: image -> residual stream U0. Every stage but the first is LIF, [OR-pool], conv, BN."""

    def __init__(self, config: NetworkConfig, folded: bool):
        super().__init__()
        self.config = config
        sizes = (config.image_channels, *config.sps_channels)
        self.stages = nn.ModuleList(
            NormedConv(sizes[i], sizes[i + 1], folded) for i in range(config.sps_depth)
        )

    def forward(self, pixels: Tensor, steps: int, record: Record) -> Tensor:
        """[B, C, H, W] -> U0 [T, B, N, D], T = `steps`."""
        config = self.config
        # The image is the same at every step, so the encoder convolution runs once (and its batch
        # statistics over T equal copies are those of one copy).
        x = self.stages[0](pixels * PIXEL_SCALE)  # [B, C, H, W]
        if config.sps_depth == 1:
            x = x.unsqueeze(0).expand(steps, -1, -1, -1, -1)
        for i in range(1, config.sps_depth):
            spikes = lif(x, 2.0 * config.v_threshold, steps=steps if i == 1 else None)
            spikes = spikes.flatten(0, 1)  # [T*B, C, H, W]
            record[f"sps.{i - 1}.spikes"] = to_tokens(spikes, steps)
            if config.sps_pool[i]:
                spikes = or_pool(spikes)
                record[f"sps.{i}.pooled"] = to_tokens(spikes, steps)
            x = self.stages[i](spikes).unflatten(0, (steps, -1))
        return wide(to_tokens(x.flatten(0, 1), steps))  # U is a sum: never half precision


class Block(nn.Module):
    """Encoder block: U + proj(attention(LIF(U))), then U + MLP(LIF(U)). No LayerNorm (integer inference)."""

    def __init__(self, config: NetworkConfig, folded: bool, variant: str, half_width: float, seed: int):
        super().__init__()
        width, hidden = config.embed_dim, config.hidden_dim
        self.config = config
        self.q, self.k, self.v = (NormedLinear(width, width, False, folded) for _ in range(3))
        self.attention = make_attention(config, variant, half_width, seed)
        self.proj = NormedLinear(width, width, True, folded)
        self.fc1 = NormedLinear(width, hidden, True, folded)
        self.fc2 = NormedLinear(hidden, width, True, folded)

    def forward(self, u: Tensor, record: Record, name: str) -> Tensor:
        """U [T, B, N, D] -> U [T, B, N, D]; `name` prefixes the recorded spikes."""
        theta, heads = 2.0 * self.config.v_threshold, self.config.heads
        x = lif(u, theta)  # one spike input for q, k, v
        q, k, v = (lif(layer(x), theta) for layer in (self.q, self.k, self.v))
        with torch.autocast(q.device.type, enabled=False):  # sums of table entries: whole numbers, kept exact
            y = merge_heads(self.attention(*(split_heads(wide(s), heads) for s in (q, k, v))))
        # Y stays in integer steps; the paper's threshold 0.5 (1.0 undoubled) is `threshold` of them.
        attn = lif(y, self.attention.threshold, 1.0 / self.attention.threshold)
        u = u + self.proj(attn)
        record |= {
            f"{name}.x": x,
            f"{name}.q": q,
            f"{name}.k": k,
            f"{name}.v": v,
            f"{name}.y": y,
            f"{name}.attn": attn,
            f"{name}.u_attn": u,
        }
        mlp_in = lif(u, theta)
        hidden = lif(self.fc1(mlp_in), theta)  # [T, B, N, mlp_ratio * D]
        u = u + self.fc2(hidden)
        record |= {f"{name}.mlp_in": mlp_in, f"{name}.hidden": hidden, f"{name}.u": u}
        return u


class Network(nn.Module):
    """S2TDPT in floating point.

    Parameters
    ----------
    config : NetworkConfig
    variant : str
        Attention and its gradient, one of `sw.attention.VARIANTS`.
    half_width : float
        Half-width in counts of the window surrogate (variant "window").
    folded : bool
        Layers with bias instead of layers with BatchNorm.
    attention_seed : int
        Seed of the "random" control.

    Attributes
    ----------
    timesteps : int
        T of the forward pass; the configuration's, but training may start with fewer. The weights do not
        depend on it, nor on the size of the images.
    """

    logit_scale = 1.0
    """Real value of one unit of the logits (the integer network has another)."""

    def __init__(
        self,
        config: NetworkConfig,
        variant: str = DEFAULT_VARIANT,
        half_width: float = DEFAULT_HALF_WIDTH,
        folded: bool = False,
        attention_seed: int = 0,
    ):
        super().__init__()
        self.config, self.variant, self.half_width, self.folded = config, variant, half_width, folded
        self.attention_seed, self.timesteps = attention_seed, config.timesteps
        self.sps = PatchSplitting(config, folded)
        self.blocks = nn.ModuleList(
            Block(config, folded, variant, half_width, attention_seed + b) for b in range(config.depth)
        )
        self.head = nn.Linear(config.embed_dim, config.num_classes)

    def layer(self, name: str) -> nn.Module:
        """The module of a layer of `config.layer_names()`, e.g. ``sps.0``, ``block.1.fc2``, ``head``."""
        kind, *rest = name.split(".")
        if kind == "head":
            return self.head
        return self.sps.stages[int(rest[0])] if kind == "sps" else getattr(self.blocks[int(rest[0])], rest[1])

    def forward(self, images: Tensor, record: Record | None = None) -> Tensor:
        """Logits [B, K] of images [B, H, W, C] (pixels 0..255).

        `record`, if given, receives every spike tensor and U by trace name, laid out [T, B, N, C] and
        still attached to the graph.
        """
        record = {} if record is None else record
        pixels = centred_pixels(images, self.config, self.head.weight.dtype)
        u = self.sps(pixels, self.timesteps, record)
        record["sps.u"] = u
        for b, block in enumerate(self.blocks):
            u = block(u, record, f"block.{b}")
        return self.head(u.mean(dim=(0, 2)))  # raw U, mean over T and tokens


def parameter_count(network: nn.Module) -> int:
    """Number of trainable values."""
    return sum(p.numel() for p in network.parameters())
