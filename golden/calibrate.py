"""Parameters of any network without training, whose layers fire at given rates on given images.

For machines, not for classifying: speed and energy of a spike-driven machine depend on how often its neurons
fire, not on what they mean. Weights are random; then, layer by layer in the order of evaluation, the bias of
every channel is set so that its neurons fire at the wanted rate on the images. That is exact counting, not an
estimate: the spikes of a layer are those that the golden model gives, and the next layer is set on them.

The proven intervals stay as narrow as those of trained networks, for the weights are narrow (a normal
distribution, cut off at the range) and every writer moves U by a fraction of its threshold.

The rates themselves, and where they are from: `golden.rates`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from s2tdpt.golden.attention.heads import attend
from s2tdpt.golden.config import NetworkConfig
from s2tdpt.golden.conv import conv3x3
from s2tdpt.golden.errors import UserError
from s2tdpt.golden.layers import Attention, Kind, Layer, StreamNeurons
from s2tdpt.golden.linear import linear
from s2tdpt.golden.neuron import LIF, Law, prescribed
from s2tdpt.golden.parameter_file import MAX_SHIFT
from s2tdpt.golden.params import Params
from s2tdpt.golden.pool import or_pool
from s2tdpt.golden.rates import Rates, driven, synaptic_rate
from s2tdpt.golden.residual import scale_of

SPREAD, LEAST_SPREAD = 0.25, 0.5
"""Standard deviation of weights over their limit, and at least in steps: narrow, as trained weights are."""
STEM_SHARE, WRITER_SHARE = 0.5, 0.25
"""Standard deviation of what a writer adds to U, over the threshold: the first, and all that follow."""
ATTENTION_VALUES = 0.3
"""Rate of v that must suffice for the attention neurons to reach theirs; else their threshold is lowered."""
INT32_MAX = 2**31 - 1
MEMORY = 1 << 31
"""Bytes that the windows of one convolution over all images may take."""


@dataclass(frozen=True)
class Calibration:
    """Result of :func:`calibrate`: parameters, and the rates reached on the images by trace name."""

    params: Params
    rates: dict[str, float]

    @property
    def synaptic_rate(self) -> float:
        """Mean rate over the multiply-accumulates of the layers that spikes drive, 0..1."""
        return synaptic_rate(self.params.config, self.rates)


def calibrate(
    config: NetworkConfig,
    images: np.ndarray,
    rates: Rates | None = None,
    seed: int = 0,
    provenance: Mapping[str, object] | None = None,
    progress: Callable[[str], None] | None = None,
) -> Calibration:
    """Random parameters of `config` whose layers fire at `rates` on `images`.

    Parameters
    ----------
    config : NetworkConfig
    images : uint8 [B, h, w, C]
        At least one, of the network's shape; as many of the first as fit into `MEMORY` are used. Few values
        (one image, one position) allow only few different rates; the nearest is taken.
    rates : Rates, optional
    seed : int
        The same seed, images and rates give the same parameters.
    provenance : mapping, optional
        Added to what the file says about itself.
    progress : callable, optional
        Called with the name of every layer just set.

    Raises
    ------
    UserError
        The images do not fit the network, or it is too large for one image.
    """
    shape = (config.image_height, config.image_width, config.image_channels)
    if images.dtype != np.uint8 or images.shape[1:] != shape or not len(images):
        raise UserError(
            f"images are {images.dtype}{list(images.shape)}; expected uint8[batch, {shape[0]}, {shape[1]}, "
            f"{shape[2]}] with at least one; choose others"
        )
    largest = 8 * config.timesteps * max(_window(layer) * layer.positions for layer in config.layers())
    if largest > MEMORY:
        raise UserError(
            f"{config.name}: one image takes {largest / 2**30:.1f} GiB; expected at most {MEMORY >> 30}; "
            "reduce the image or the channels"
        )
    images = images[: MEMORY // largest]
    return _Calibrator(config, images, rates or Rates(), seed, progress).run(provenance or {})


class _Calibrator:
    """The walk over the network. Tensors are time first, [T, B, N, C], as in `golden.network`."""

    def __init__(self, config: NetworkConfig, images: np.ndarray, rates: Rates, seed: int, progress) -> None:
        self.config, self.wanted, self.seed, self.progress = config, rates, seed, progress
        self.rng = np.random.default_rng(seed)
        # float32 holds whole numbers below 2^24, and U stays within a few hundred thresholds.
        self.dtype = torch.float32 if config.residual_threshold <= 1 << 14 else torch.float64
        pixels = torch.from_numpy(np.ascontiguousarray(images)).to(self.dtype) - config.pixel_zero_point
        self.values: dict[str, Tensor] = {"pixels": pixels.flatten(1, 2)[None]}  # [1, B, N, C]
        self.tensors: dict[str, np.ndarray] = {}
        self.rates: dict[str, float] = {}
        self.attention_threshold = config.attention_threshold
        self.stream = ""  # trace name of the latest U
        self.attention_tensors = config.attention.random_tensors(config, self.rng)
        self.laws = config.neuron.initial_laws(config)
        parts = config.parts()
        self.reader = {part.reads: part for part in parts if isinstance(part, StreamNeurons)}
        self.pooled = {part.pools: part for part in parts if isinstance(part, Layer) and part.pools}
        self.driven = {layer.reads: self.wanted.of(layer) for layer in driven(config)}
        # The rate of an attention's spikes is set by the last of the projections that it reads.
        self.attention = {part.reads[-1]: part for part in parts if isinstance(part, Attention)}

    @torch.inference_mode()
    def run(self, provenance: Mapping[str, object]) -> Calibration:
        for part in self.config.parts():
            match part:
                case Layer(head=True):
                    self._head(part)
                case Layer():
                    self._layer(part)
                case Attention():
                    self._put(part.writes, self._attend(part, self.values[part.reads[-1]]))
                case StreamNeurons():
                    law = self.laws[part.writes]
                    theta = law.threshold(self.config.residual_threshold)
                    self._put(part.writes, law.spikes(self.values[part.reads], theta))
        self.tensors |= self.attention_tensors | self.config.neuron.tensors(self.config, self.laws)
        rates = {name: round(rate, 6) for name, rate in self.rates.items()}
        known = {
            "purpose": "calibrated firing rates on random weights, for measuring machines; never trained, it "
            "classifies nothing",
            "seed": self.seed,
            "firing_rates": rates,
            "synaptic_rate": round(synaptic_rate(self.config, self.rates), 6),
        }
        params = Params(
            config=self.config,
            tensors=self.tensors,
            attention_threshold=self.attention_threshold,
            provenance={**known, **provenance},
        )
        return Calibration(params, rates)

    def _put(self, name: str, spikes: Tensor) -> None:
        """Keep spikes for the layers that read them."""
        self.values[name] = spikes
        self.rates[name] = float((spikes != 0).mean(dtype=torch.float64))

    # Layers -------------------------------------------------------------------------------------------------

    def _layer(self, layer: Layer) -> None:
        if layer.pools is not None:
            self._put(layer.reads, self._pool(layer, self.values[layer.pools]))
        source = self.values[layer.reads]
        share = STEM_SHARE if layer.starts_stream else WRITER_SHARE
        step = share * self.config.residual_threshold  # wanted spread of what a writer adds
        weight = self._weights(
            layer, float(source.square().mean(dtype=torch.float64)), step if layer.writer else np.inf
        )
        sums = self._sums(layer, source, self._tensor(weight))
        spread = _deviation(sums)
        if layer.writer:
            self._write(layer, sums, step / np.maximum(spread, 1e-9))
        else:
            law = self.laws[layer.writes]
            over, under = prescribed(self.config).get(layer.writes, LIF).factor
            threshold = np.maximum(np.rint(spread * over / under), 1).astype(np.int32)
            bias = self._fit(sums, self._tensor(threshold), law, self._rate(layer), self._measure(layer))
            self.tensors[f"{layer.name}.threshold"] = threshold
            self.tensors[f"{layer.name}.bias"] = bias.astype(np.int32)
            spikes = law.spikes(self._steps(sums) + self._tensor(bias), self._tensor(threshold))
            self._put(layer.writes, spikes)
        if self.progress is not None:
            self.progress(layer.name)

    def _weights(self, layer: Layer, power: float, spread: float) -> np.ndarray:
        """Integer weights, normally distributed, narrow enough for sums of standard deviation `spread`.

        `power` is the mean square of the inputs.
        """
        fan_in = layer.weights // layer.outputs
        narrow = spread / np.sqrt(fan_in * max(power, 1e-9))
        deviation = max(min(SPREAD * self.config.weight_limit, narrow), LEAST_SPREAD)
        limit = self.config.weight_limit
        weight = np.rint(self.rng.normal(0.0, deviation, layer.weight_shape)).clip(-limit, limit)
        self.tensors[f"{layer.name}.weight"] = weight.astype(np.int8)
        return weight

    def _sums(self, layer: Layer, source: Tensor, weight: Tensor) -> Tensor:
        """[T, B, N, Ci] to [T, B, N, Co]; one step where the input is the same at all."""
        if not layer.stem:
            return linear(source, weight)
        maps = source.flatten(0, 1).unflatten(1, layer.size)
        return conv3x3(maps, weight).flatten(1, 2).unflatten(0, source.shape[:2])

    def _tensor(self, values: np.ndarray) -> Tensor:
        return torch.tensor(values).to(self.dtype)

    def _steps(self, sums: Tensor) -> Tensor:
        return sums.expand(self.config.timesteps, -1, -1, -1)

    def _pool(self, layer: Layer, spikes: Tensor) -> Tensor:
        """OR-pool of the spikes [T, B, N, C] in front of `layer`."""
        size = self.config.layers()[layer.index - 1].size
        maps = or_pool(spikes.flatten(0, 1).unflatten(1, size))
        return maps.flatten(1, 2).unflatten(0, spikes.shape[:2])

    def _write(self, layer: Layer, sums: Tensor, gain: np.ndarray) -> None:
        """Shift below `gain`, and the bias with which the neurons that read the new U fire as wanted."""
        shift = np.floor(np.log2(np.maximum(gain, 1.0))).clip(0, MAX_SHIFT).astype(np.uint8)
        u = self._steps(sums) * scale_of(torch.tensor(shift), sums.dtype)
        if not layer.starts_stream:
            u = u + self.values[self.stream]
        reader = self.reader.get(layer.writes)
        bias = np.zeros(layer.outputs, np.int64)  # nothing but the head reads the last U
        if reader is not None:
            law = self.laws[reader.writes]
            theta = np.full(layer.outputs, law.threshold(self.config.residual_threshold))
            bias = self._fit(u, self._tensor(theta), law, self.driven[reader.writes], _mean_rate)
        self.stream = layer.writes
        self.values = {layer.writes: u + self._tensor(bias)}
        self.tensors[f"{layer.name}.shift"] = shift
        self.tensors[f"{layer.name}.bias"] = bias.astype(np.int32)

    def _head(self, layer: Layer) -> None:
        self._weights(layer, 1.0, np.inf)
        self.tensors[f"{layer.name}.bias"] = np.zeros(layer.outputs, np.int64)

    # Attention ----------------------------------------------------------------------------------------------

    def _attend(self, part: Attention, last: Tensor) -> Tensor:
        """Attention spikes [T, B, N, D] for spikes `last` of the last projection; those before are known."""
        config, known = self.config, self.values | {part.reads[-1]: last}
        tensors = config.attention.values(config, self.attention_tensors, part.index)
        values = {name: self._tensor(tensor) for name, tensor in tensors.items()}
        spikes = (known[name] if name else None for name in (part.q, part.k, part.v))
        y, law = attend(config.attention.y, config, values, *spikes), self.laws[part.writes]
        return law.spikes(y, law.threshold(self.attention_threshold))

    def _lower_threshold(self, part: Attention) -> None:
        """Halve the threshold until a rate of `ATTENTION_VALUES` in the last projection suffices for proj."""
        shape = (self.config.timesteps, self.values[self.stream].shape[1], part.tokens, part.channels)
        values = torch.rand(shape, generator=torch.Generator().manual_seed(self.seed))
        values = (values < ATTENTION_VALUES).to(self.dtype)
        while self.attention_threshold > 1:
            if float(self._attend(part, values).mean()) >= self.driven[part.writes]:
                return
            self.attention_threshold //= 2

    # Rates --------------------------------------------------------------------------------------------------

    def _rate(self, layer: Layer) -> float:
        """Wanted rate of what `_measure` sees."""
        if layer.writes in self.pooled:
            return self.driven[self.pooled[layer.writes].reads]
        if layer.writes in self.attention:
            return self.driven[self.attention[layer.writes].writes]
        if layer.kind in (Kind.Q, Kind.K):
            return self.wanted.q if layer.kind is Kind.Q else self.wanted.k
        return self.driven[layer.writes]

    def _measure(self, layer: Layer) -> Callable[[Tensor], np.ndarray]:
        """Rate by channel of what the layer's spikes become: pooled, or seen through the attention."""
        if layer.writes in self.pooled:
            pooling = self.pooled[layer.writes]
            return lambda spikes: _mean_rate(self._pool(pooling, spikes))
        if layer.writes in self.attention:
            part = self.attention[layer.writes]
            if layer.index == 0:
                self._lower_threshold(part)
            return lambda spikes: _mean_rate(self._attend(part, spikes))
        return _mean_rate

    def _fit(
        self,
        sums: Tensor,
        threshold: Tensor,
        law: Law,
        rate: float,
        measure: Callable[[Tensor], np.ndarray],
    ) -> np.ndarray:
        """Biases with which `measure` of the spikes is near `rate` in every channel, and nearer in the mean.

        More bias means more spikes in every channel, hence a search by halving: for the largest bias whose
        rate is at most the wanted one. One more goes above it; each channel takes the side that brings the
        mean of the channels so far nearer to `rate`.
        """
        largest = sums.flatten(0, 2).abs().amax(dim=0).double().numpy() + threshold.double().numpy()
        reach = np.minimum(2 * largest + 1, INT32_MAX).astype(np.int64)
        low, high = -reach, reach
        current = self._steps(sums)

        def at(bias: np.ndarray) -> np.ndarray:
            return measure(law.spikes(current + self._tensor(bias), threshold))

        below, above = np.zeros(len(low)), np.ones(len(low))
        while (high - low > 1).any():
            middle = np.where(high - low > 1, (low + high) // 2, low)
            found = at(middle)
            inside = found <= rate
            below, above = np.where(inside, found, below), np.where(inside, above, found)
            low, high = np.where(inside, middle, low), np.where(inside, high, middle)
        excess = 0.0
        for c in range(len(low)):
            excess += below[c] - rate
            if abs(excess + above[c] - below[c]) < abs(excess):
                excess, low[c] = excess + above[c] - below[c], high[c]
        return low


def _mean_rate(spikes: Tensor) -> np.ndarray:
    """Share of spikes by channel, [T, B, N, C] to float64 [C]."""
    return (spikes != 0).flatten(0, 2).mean(dim=0, dtype=torch.float64).numpy()


def _deviation(sums: Tensor) -> np.ndarray:
    """Standard deviation by channel, [T, B, N, C] to float64 [C]; from exact sums, the same anywhere."""
    flat = sums.flatten(0, 2).double()
    mean, square = (value.sum(dim=0).numpy() / len(flat) for value in (flat, flat.square()))
    return np.sqrt(np.maximum(square - mean * mean, 0.0))


def _window(layer: Layer) -> int:
    """Values that a position of `layer` keeps at once: its inputs under the kernel, or its outputs."""
    return max(layer.kernel * layer.kernel * layer.inputs, layer.outputs)
