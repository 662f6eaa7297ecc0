"""Firing rates that a network is wished to have: published ranges, a table within them, and its mean.

References
----------
S2TDPT, arXiv 2511.14691: a mean of about 14 % over all multiply-accumulates follows from the published energy
of 0.49 mJ (docs/energy.md).
Spikingformer-8-512, arXiv 2304.11954: ranges by layer (`PUBLISHED`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace

from s2tdpt.golden.config import NetworkConfig
from s2tdpt.golden.errors import UserError
from s2tdpt.golden.layers import Kind, Layer

PUBLISHED = {
    "convolution": (0.13, 0.26),
    "qkv": (0.18, 0.36),
    "projection": (0.09, 0.31),
    "fc1": (0.27, 0.36),
    "fc2": (0.006, 0.033),
}
"""Ranges of the published firing rates of layer inputs, by field of `Rates`."""
HIGHEST = 0.9
"""A wanted rate above this is refused: neurons that never rest carry no information and fit no threshold."""


@dataclass(frozen=True)
class Rates:
    """Wanted firing rates, 0..1: of what drives the layers, and of the spikes of q and k.

    Attributes
    ----------
    convolution : float
        Input of the stem's convolutions but the first, behind the pool where there is one.
    qkv, projection, fc1, fc2 : float
        Input of q, k and v; of proj; of fc1; of fc2.
    q, k : float
        Spikes of q and of k; those of v follow, for they drive the attention that drives proj.

    The defaults lie within the `PUBLISHED` ranges; over the multiply-accumulates of S2TDPT-4-384 they average
    14 %.
    """

    convolution: float = 0.13
    qkv: float = 0.19
    projection: float = 0.10
    fc1: float = 0.27
    fc2: float = 0.012
    q: float = 0.06
    k: float = 0.05

    def __post_init__(self) -> None:
        for entry in fields(self):
            value = getattr(self, entry.name)
            if not 0.0 < value <= HIGHEST:
                raise UserError(
                    f"firing rate {value:g} of {entry.name}; expected more than 0 and at most {HIGHEST:g}; "
                    "choose another"
                )

    def of(self, layer: Layer) -> float:
        """Rate of what drives `layer`, one that spikes drive."""
        inputs = {
            Kind.CONVOLUTION: self.convolution,
            Kind.PROJECTION: self.projection,
            Kind.FC1: self.fc1,
            Kind.FC2: self.fc2,
        }
        return inputs.get(layer.kind, self.qkv)

    def synaptic(self, config: NetworkConfig) -> float:
        """Mean over the multiply-accumulates of all layers that spikes drive, 0..1."""
        return synaptic_rate(config, {layer.reads: self.of(layer) for layer in driven(config)})

    def scaled(self, config: NetworkConfig, mean: float) -> Rates:
        """All rates by one factor, such that `synaptic` is `mean`; UserError if one exceeds `HIGHEST`."""
        values = {entry.name: getattr(self, entry.name) for entry in fields(self)}
        factor, most = mean / self.synaptic(config), HIGHEST / max(values.values())
        if not 0.0 < factor <= most:
            raise UserError(
                f"mean rate {mean:g}; expected more than 0 and at most {most * self.synaptic(config):.3f}, "
                f"where no layer of {config.name} fires more than {HIGHEST:g}; choose another"
            )
        return replace(self, **{name: factor * value for name, value in values.items()})


def driven(config: NetworkConfig) -> tuple[Layer, ...]:
    """The layers that spikes drive."""
    return tuple(layer for layer in config.layers() if layer.spike_driven)


def synaptic_rate(config: NetworkConfig, rates: Mapping[str, float]) -> float:
    """Spike-driven additions over dense multiply-accumulates, 0..1; `rates` by trace name of the inputs."""
    layers = driven(config)
    return sum(layer.macs * rates[layer.reads] for layer in layers) / sum(layer.macs for layer in layers)
