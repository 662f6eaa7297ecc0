"""The network on the integer grid: quantisation-aware training whose evaluation is the integer network.

Every value in the forward pass is an integer held in a float: integer weights by straight-through
rounding, integer biases, ceiled thresholds, floor leak, the STDP table. What the hardware computes is
therefore what is trained; there is no later conversion that could change an answer.

Scales are fixed when the folded network is quantised. A LIF-fed layer has one free scale a channel, which
its threshold and bias absorb (no requantiser). A writer of the residual stream U, whose grid is 2^-F, has
a power of two, 2^(shift - F), so that aligning it is a left shift and every addition is exact.

References
----------
Jacob et al., arXiv 1712.05877 (quantisation-aware training with straight-through rounding).
S2TDPT: arXiv 2511.14691, Eqs. 7-9 (neuron). floor(y/2) = floor(floor(y)/2) makes the floor leak exact.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from s2tdpt.golden.config import NetworkConfig
from s2tdpt.golden.errors import UserError
from s2tdpt.golden.neuron import LIF, Law, places
from s2tdpt.golden.parameter_file import MAX_SHIFT
from s2tdpt.sw.attention import make_attention
from s2tdpt.sw.attention.base import rounded
from s2tdpt.sw.forward import Record, SpikingTransformer, centred_pixels
from s2tdpt.sw.names import KernelGradient
from s2tdpt.sw.network import PIXEL_SCALE, Network
from s2tdpt.sw.neuron import follow, key, lif, make_neurons, wide

INT32_MAX = 2**31 - 1
EXACT_FLOAT32 = 2**24
"""float32 holds every integer below this magnitude, so sums that stay below it are exact in any order."""

FINEST_STEP = 2.0**-16
"""No LIF-fed channel gets a step finer than this part of its threshold: a dead channel (gain near 0)
would otherwise ask for a threshold beyond int32, and a finer step changes nothing."""


def weight_limit(bits: int) -> int:
    """Largest weight magnitude: 127 for 8 bits, 7 for 4 (symmetric)."""
    return 2 ** (bits - 1) - 1


def best_scale(rows: Tensor, limit: int, candidates: Tensor) -> Tensor:
    """Per row, the candidate step with the least squared rounding error.

    rows [Co, fan-in] float64, candidates [n, Co]; returns [Co]. The first of equals wins.
    """
    errors = torch.stack(
        [
            ((rows / s[:, None]).round().clamp(-limit, limit) * s[:, None] - rows).square().sum(1)
            for s in candidates
        ]
    )
    return candidates.gather(0, errors.argmin(0, keepdim=True))[0]


def exactly(
    law: Law, current: Tensor, threshold: Tensor | int, scale: Tensor | float, steps: int | None = None
) -> Tensor:
    """Spikes of neurons of a law on whole numbers; the LIF neurons of them may run fused."""
    if law == LIF:
        return lif(current, threshold, scale, floor_leak=True, steps=steps)
    return follow(law, current, threshold, scale, steps)


class QuantLayer(nn.Module):
    """One layer in integers: weights, bias, and either a threshold (LIF-fed) or a shift (writer).

    Parameters are kept in units in which one learning rate suits all layers: `weight` as a fraction of the
    full integer range, in [-1, 1]; `bias` in real units.

    Attributes
    ----------
    scale : float64 [Co]
        Real value of one integer step of the layer's sum (head: of the weight, one for all rows).
    unit : float64 [Co]
        Real value of one integer step of the bias: `scale`, but 2^-F for a writer.
    threshold : float64 [Co] or None
        Integers >= 1; u >= threshold fires.
    gain : float64 [Co] or None
        2^shift of a writer.
    """

    def __init__(self, shape: tuple[int, ...], bits: int, writer: bool, fires: bool):
        super().__init__()
        channels = shape[0]
        self.limit = weight_limit(bits)
        self.weight = nn.Parameter(torch.zeros(shape))
        self.bias = nn.Parameter(torch.zeros(channels, dtype=torch.float64))
        ones = torch.ones(channels, dtype=torch.float64)
        self.register_buffer("scale", ones.clone())
        self.register_buffer("unit", ones.clone())
        self.register_buffer("threshold", ones.clone() if fires else None)
        self.register_buffer("gain", ones.clone() if writer else None)

    def integer_weight(self) -> Tensor:
        """Weights as integers in float32, |w| <= limit."""
        return rounded(self.weight.clamp(-1.0, 1.0) * self.limit)

    def integer_bias(self) -> Tensor:
        """Bias as integers in float64, within int32 unless it is the head's."""
        bias = rounded(self.bias / self.unit)
        return bias if self.threshold is None and self.gain is None else bias.clamp(-INT32_MAX, INT32_MAX)

    def set_real(self, weight: Tensor, bias: Tensor) -> None:
        """Take real weights [Co, ...] and bias [Co] at the present scales; what does not fit is clipped."""
        column = self.scale.reshape(-1, *[1] * (weight.dim() - 1))
        with torch.no_grad():
            self.weight.copy_((weight.double() / (column * self.limit)).clamp(-1.0, 1.0))
            self.bias.copy_(bias)

    def sum_bound(self, largest_input: int) -> float:
        """Largest |sum + bias| over channels for inputs up to `largest_input`, in the layer's output unit."""
        rows = self.integer_weight().detach().double().abs().flatten(1).sum(1) * largest_input
        return float(
            ((rows * self.gain if self.gain is not None else rows) + self.integer_bias().detach().abs()).max()
        )

    def convolve(self, x: Tensor) -> Tensor:
        """3x3 s1 p1 sums [M, Co, H, W] of integers [M, Ci, H, W].

        Evaluation adds nine matrix products: sums of products in some order, exact whatever the order.
        A library convolution may pick Winograd or FFT, which are not.
        """
        weight = self.integer_weight().to(x.dtype)
        if self.training:
            return wide(F.conv2d(x, weight, padding=1))
        height, width = x.shape[2:]
        padded = F.pad(x, (1, 1, 1, 1))
        total = 0.0
        for dy in range(3):
            for dx in range(3):
                window = padded[:, :, dy : dy + height, dx : dx + width].flatten(2)
                total = total + weight[:, :, dy, dx] @ window
        return total.unflatten(2, (height, width))

    def project(self, x: Tensor) -> Tensor:
        """1x1 sums [..., Co] of integers [..., Ci]."""
        return wide(x @ self.integer_weight().to(x.dtype).t())

    def fire(self, total: Tensor, law: Law, channels: int, steps: int | None) -> Tensor:
        """Spikes of a neuron layer for sums [T, ...] (or, with `steps`, [...]); see `_along`."""
        bias, threshold, scale = (
            self._along(v, total, channels) for v in (self.integer_bias(), self.threshold, self.scale)
        )
        return exactly(law, total + bias, threshold, scale, steps)

    def write(self, total: Tensor) -> Tensor:
        """A writer's contribution to U of sums [..., Co]."""
        return total * self.gain.to(total.dtype) + self.integer_bias().to(total.dtype)

    @staticmethod
    def _along(values: Tensor, total: Tensor, channels: int) -> Tensor:
        """One value a channel, shaped to meet axis `channels` (negative) of `total`, in its type."""
        return values.to(total.dtype).reshape(-1, *[1] * (-1 - channels))


class QatNetwork(SpikingTransformer):
    """S2TDPT in integers; trainable.

    In evaluation mode ``forward`` returns exactly the logits of the golden integer network, as float64
    integers [B, K]; times `logit_scale` they estimate the float network's logits.

    Parameters
    ----------
    config : NetworkConfig
        Its `weight_bits` decides the weight grid.
    gradient : KernelGradient
        As in `sw.network.Network`.
    """

    def __init__(self, config: NetworkConfig, gradient: KernelGradient = KernelGradient()):  # noqa: B008
        super().__init__()
        self.config, self.gradient = config, gradient
        self.timesteps = config.timesteps
        self.layers = nn.ModuleDict()
        for layer in config.layers():
            self.layers[layer.name.replace(".", "/")] = QuantLayer(
                layer.weight_shape, config.weight_bits, layer.writer, layer.lif_fed
            )
        self.neurons = make_neurons(config)
        self.attentions = nn.ModuleList(make_attention(config, gradient) for _ in range(config.depth))
        self.residual_threshold = config.residual_threshold
        self.attention_threshold = config.attention_threshold
        self._laws: dict[str, Law] = {}
        self.register_load_state_dict_post_hook(lambda module, keys: module._laws.clear())

    @property
    def laws(self) -> dict[str, Law]:
        """The law of the neurons of every place; fixed when the network is quantised."""
        if not self._laws:
            first = self.config.neuron.initial_laws(self.config)
            for place in places(self.config):
                module = self.neurons[key(place)] if key(place) in self.neurons else None
                self._laws[place] = first[place] if module is None else module.law()
        return self._laws

    @classmethod
    def from_folded(cls, folded: Network, weight_bits: int = 8) -> QatNetwork:
        """Quantise a folded network; the result's config carries `weight_bits`."""
        if not folded.folded:
            raise UserError("the network still has BatchNorm; expected a folded one; call sw.fold.fold first")
        config = folded.config.model_copy(update={"weight_bits": weight_bits})
        network = cls(config, folded.gradient)
        for module, block in zip(network.attentions, folded.blocks, strict=True):
            module.load_state_dict(block.attention.state_dict())
        network.neurons.load_state_dict(folded.neurons.state_dict())
        network._laws.clear()
        step = 2.0**-config.residual_fraction_bits
        theta = 2.0 * config.v_threshold
        for place in config.layers():
            layer, source, head = network.layer(place.name), folded.layer(place.name), place.head
            linear = source if head else source.map
            weight = linear.weight.detach().double()
            if place.reads_pixels:
                weight = weight * PIXEL_SCALE  # the sum's unit becomes one pixel step
            rows, limit = weight.flatten(1), layer.limit
            if layer.gain is not None:  # writer: a power of two on the grid of U
                shifts = torch.arange(MAX_SHIFT + 1, dtype=torch.float64, device=rows.device)
                candidates = (step * torch.exp2(shifts))[:, None].expand(-1, len(rows))
                layer.scale.copy_(best_scale(rows, limit, candidates))
                layer.gain.copy_(layer.scale / step)
                layer.unit.fill_(step)
            else:
                rows = rows.reshape(1, -1) if head else rows  # classes are compared: one scale for all
                largest = rows.abs().amax(1).clamp_min(1e-12 if head else theta * FINEST_STEP * limit) / limit
                fractions = torch.linspace(1.0, 0.4, 31, dtype=torch.float64, device=rows.device)[:, None]
                floor = 0.0 if head else theta * FINEST_STEP
                layer.scale.copy_(best_scale(rows, limit, (fractions * largest).clamp_min(floor)))
                layer.unit.copy_(layer.scale)
                if head:
                    layer.unit.mul_(step / (config.timesteps * config.tokens))
                else:
                    over, under = network.laws[place.writes].factor
                    fires = theta * over / under
                    layer.threshold.copy_(torch.ceil(fires / layer.scale).clamp(1, INT32_MAX))
            layer.set_real(weight, linear.bias.detach().double())
        return network.to(folded.head.weight.device)

    def layer(self, name: str) -> QuantLayer:
        """The layer called `name` in `config.layer_names()`."""
        return self.layers[name.replace(".", "/")]

    @property
    def logit_scale(self) -> float:
        """Real value of one unit of the logits."""
        return float(self.layer("head").unit[0])

    def clip_(self) -> None:
        """Bring weights back into their range after an optimiser step, so that none is stuck outside."""
        with torch.no_grad():
            for layer in self.layers.values():
                layer.weight.clamp_(-1.0, 1.0)

    def magnitude_bound(self) -> float:
        """No value before the head's sum can exceed this magnitude (LIF membranes: twice their input)."""
        config, residual, bound = self.config, 0.0, self._attention_bound()
        growth = max(law.growth(config.timesteps) for law in self.laws.values())
        thresholds = [
            float(layer.threshold.max()) for layer in self.layers.values() if layer.threshold is not None
        ]
        if any(law.subtracts for law in self.laws.values()):
            stream = max(law.threshold(self.residual_threshold) for law in self.laws.values())
            bound = max(bound, growth * max(stream, *thresholds))
        pixel = max(255 - config.pixel_zero_point, config.pixel_zero_point)
        for place in config.layers()[:-1]:
            layer = self.layer(place.name)
            largest = layer.sum_bound(pixel if place.reads_pixels else 1)
            if layer.gain is not None:
                residual += largest
            bound = max(bound, growth * largest, growth * residual)
        return bound

    def _attention_bound(self) -> float:
        """What no value of an attention, and no membrane behind one, can exceed."""
        mechanism, derived = self.config.attention, self.config.attention.derived_tensors(self.config)
        bound = 0
        for module in self.attentions:
            values = derived | {
                name: tensor.detach().cpu().numpy() for name, tensor in module.integers().items()
            }
            kept = mechanism.inner(self.config, values).values()
            y = mechanism.interval(self.config, values).magnitude
            for law in self.laws.values():
                largest = max(y, law.threshold(self.attention_threshold) * law.subtracts)
                bound = max(bound, law.growth(self.config.timesteps) * largest)
            bound = max([bound, *(interval.magnitude for interval in kept)])
        return float(bound)

    def exact_dtype(self) -> torch.dtype:
        """float32 where it provably holds every integer of the forward pass, else float64."""
        plain = torch.get_float32_matmul_precision() == "highest"  # TF32 products would round
        return torch.float32 if plain and self.magnitude_bound() < EXACT_FLOAT32 else torch.float64

    def forward(self, images: Tensor, record: Record | None = None) -> Tensor:
        """Integer logits [B, K] (float64) of images [B, H, W, C] with pixels 0..255.

        `record`, if given, receives spikes, Y and U by trace name as integers, laid out [T, B, N, C].
        """
        record = {} if record is None else record
        dtype = torch.float32 if self.training else self.exact_dtype()
        u = self.stream(centred_pixels(images, self.config, dtype), record)
        total = u.double().sum(dim=(0, 2))  # [B, D], beyond float32
        head = self.layer("head")
        with torch.autocast(u.device.type, enabled=False):
            logits = total @ head.integer_weight().double().t() + head.integer_bias()
        record["head.sum"], record["head.logits"] = total, logits
        return logits

    def sums(self, name: str, x: Tensor) -> Tensor:
        layer = self.layer(name)
        return layer.convolve(x) if name.startswith("sps.") else layer.project(x)

    def fire(self, name: str, sums: Tensor, steps: int | None = None) -> Tensor:
        law = self.laws[self.config.layer(name).writes]
        return self.layer(name).fire(sums, law, -3 if name.startswith("sps.") else -1, steps)

    def write(self, name: str, sums: Tensor) -> Tensor:
        return self.layer(name).write(sums)

    def fire_stream(self, place: str, u: Tensor) -> Tensor:
        law = self.laws[place]
        step = 2.0**-self.config.residual_fraction_bits
        return exactly(law, u, law.threshold(self.residual_threshold), step)

    def attend(self, b: int, q: Tensor | None, k: Tensor | None, v: Tensor | None) -> Tensor:
        return self.attentions[b](q, k, v)

    def fire_attention(self, b: int, y: Tensor) -> Tensor:
        law = self.laws[f"block.{b}.attn"]
        threshold = law.threshold(self.attention_threshold)
        if self.config.attention.binary and law.passes_spikes(threshold):
            return y  # and so passes the gradient
        return exactly(law, y, threshold, 1.0 / self.attention_threshold)

    @torch.no_grad()
    def trace(self, images: Tensor) -> dict[str, Tensor]:
        """Every named intermediate value as int64: [B, T, N, C], and head.sum, head.logits, head.class."""
        was_training, record = self.training, {}
        self.eval()(images, record)
        self.train(was_training)
        trace = {
            name: (value.transpose(0, 1) if value.dim() == 4 else value).long().contiguous()
            for name, value in record.items()
        }
        # The lowest index of the maximum; torch.argmax does not promise which of equals it returns.
        logits = trace["head.logits"]
        index = torch.arange(logits.shape[1], device=logits.device)
        top = logits == logits.amax(1, keepdim=True)
        trace["head.class"] = torch.where(top, index, logits.shape[1]).amin(1)
        return trace
