"""Trainable neurons: S2TDPT's LIF neuron, and modules that learn a law for every place (`golden.neuron`)."""

from __future__ import annotations

from torch import nn

from s2tdpt.golden.config import NetworkConfig
from s2tdpt.golden.neuron import learned_places
from s2tdpt.sw.neuron.base import LearnedNeurons, follow
from s2tdpt.sw.neuron.glif import GlifNeurons
from s2tdpt.sw.neuron.klif import KlifNeurons
from s2tdpt.sw.neuron.lif import HALF, lif, use_fused, wide
from s2tdpt.sw.neuron.plif import PlifNeurons

__all__ = ["HALF", "LearnedNeurons", "follow", "key", "lif", "make_neurons", "use_fused", "wide"]

MODULES: dict[str, type[LearnedNeurons]] = {"plif": PlifNeurons, "klif": KlifNeurons, "glif": GlifNeurons}
"""By the neuron's kind; LIF neurons learn nothing."""


def key(place: str) -> str:
    """Name of the module of a place, given as the trace of its spikes, in the result of `make_neurons`."""
    return place.replace(".", "/")


def make_neurons(config: NetworkConfig) -> nn.ModuleDict:
    """A module for every place whose law is learned, by `key`; none for LIF neurons."""
    if config.neuron.kind not in MODULES:
        return nn.ModuleDict()
    module, law = MODULES[config.neuron.kind], config.neuron.initial(config)
    return nn.ModuleDict({key(place): module(law) for place in learned_places(config)})
