"""The whole float network: spiking patch splitting, S2TDP encoder blocks, head.

Two forms of one class. As trained, every convolution and projection is followed by a BatchNorm whose
statistics run over time and batch jointly; folded (``folded=True``), the norms are gone and each layer
has a plain bias (see `sw.fold`). The integer network that the hardware computes is `sw.quantize`; the order
of operations, the same for both, is `sw.forward`.

References
----------
S2TDPT: arXiv 2511.14691. Spikingformer: arXiv 2304.11954 (layers, head).
"""

from __future__ import annotations

from torch import Tensor, nn

from s2tdpt.golden.config import NetworkConfig
from s2tdpt.golden.neuron import prescribed
from s2tdpt.sw.attention import make_attention
from s2tdpt.sw.forward import Record, SpikingTransformer, centred_pixels
from s2tdpt.sw.names import KernelGradient
from s2tdpt.sw.neuron import follow, key, lif, make_neurons

PIXEL_SCALE = 1.0 / 64.0
"""Real value of one pixel step: inputs are (pixel - zero_point) / 64, so zero padding is the integer 0."""


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
    """The convolutions of the stem and their norms."""

    def __init__(self, config: NetworkConfig, folded: bool):
        super().__init__()
        sizes = (config.image_channels, *config.sps_channels)
        self.stages = nn.ModuleList(
            NormedConv(sizes[i], sizes[i + 1], folded) for i in range(config.sps_depth)
        )


class Block(nn.Module):
    """The layers of an encoder block and its attention."""

    def __init__(self, config: NetworkConfig, folded: bool, gradient: KernelGradient):
        super().__init__()
        width, hidden = config.embed_dim, config.hidden_dim
        for kind in config.attention.projections:
            setattr(self, kind.value, NormedLinear(width, width, False, folded))
        self.attention = make_attention(config, gradient)
        self.proj = NormedLinear(width, width, True, folded)
        self.fc1 = NormedLinear(width, hidden, True, folded)
        self.fc2 = NormedLinear(hidden, width, True, folded)


class Network(SpikingTransformer):
    """S2TDPT in floating point.

    Parameters
    ----------
    config : NetworkConfig
    gradient : KernelGradient
        Of an attention's kernel over spike counts.
    folded : bool
        Layers with bias instead of layers with BatchNorm.

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
        gradient: KernelGradient = KernelGradient(),  # noqa: B008 (frozen)
        folded: bool = False,
    ):
        super().__init__()
        self.config, self.gradient, self.folded = config, gradient, folded
        self.timesteps = config.timesteps
        self.sps = PatchSplitting(config, folded)
        self.neurons = make_neurons(config)
        self.blocks = nn.ModuleList(Block(config, folded, gradient) for _ in range(config.depth))
        self.head = nn.Linear(config.embed_dim, config.num_classes)

    def layer(self, name: str) -> nn.Module:
        """The module of a layer of `config.layer_names()`, e.g. ``sps.0``, ``block.1.fc2``, ``head``."""
        layer = self.config.layer(name)
        if layer.head:
            return self.head
        return self.sps.stages[layer.index] if layer.stem else getattr(self.blocks[layer.index], layer.kind)

    def forward(self, images: Tensor, record: Record | None = None) -> Tensor:
        """Logits [B, K] of images [B, H, W, C] (pixels 0..255).

        `record`, if given, receives every spike tensor and U by trace name, laid out [T, B, N, C] and
        still attached to the graph.
        """
        record = {} if record is None else record
        pixels = centred_pixels(images, self.config, self.head.weight.dtype)
        u = self.stream(pixels * PIXEL_SCALE, record)
        return self.head(u.mean(dim=(0, 2)))  # raw U, mean over T and tokens

    def sums(self, name: str, x: Tensor) -> Tensor:
        return self.layer(name)(x)

    def fire(self, name: str, sums: Tensor, steps: int | None = None) -> Tensor:
        return self.neurons_at(self.config.layer(name).writes, sums, steps)

    def write(self, name: str, sums: Tensor) -> Tensor:
        return sums

    def fire_stream(self, place: str, u: Tensor) -> Tensor:
        return self.neurons_at(place, u)

    def neurons_at(self, place: str, current: Tensor, steps: int | None = None) -> Tensor:
        """Spikes, a trace called `place`, of neurons driven by `current`, in real units; as `fire`."""
        return self._at(place, current, 2.0 * self.config.v_threshold, 1.0, steps)

    def _at(self, place: str, current: Tensor, threshold: float, scale: float, steps: int | None) -> Tensor:
        """The neurons of a place: its module has learned a law, its attention prescribes one, or LIF."""
        if key(place) in self.neurons:
            return self.neurons[key(place)](current, threshold, scale, steps)
        if (law := prescribed(self.config).get(place)) is not None:
            over, under = law.factor
            return follow(law, current, threshold * over / under, scale, steps, floor_leak=False)
        return lif(current, threshold, scale, steps=steps)

    def attend(self, b: int, q: Tensor | None, k: Tensor | None, v: Tensor | None) -> Tensor:
        return self.blocks[b].attention(q, k, v)

    def fire_attention(self, b: int, y: Tensor) -> Tensor:
        # Y stays in integer steps; the paper's threshold 0.5 (1.0 undoubled) is `threshold` of them.
        threshold, place = self.blocks[b].attention.threshold, f"block.{b}.attn"
        if self.config.attention.binary and threshold == 1:  # spikes pass, and so does the gradient
            return y
        return self._at(place, y, threshold, 1.0 / threshold, None)


def parameter_count(network: nn.Module) -> int:
    """Number of trainable values."""
    return sum(p.numel() for p in network.parameters())
