"""Gates: neurons on spike counts that let a row or a column of spikes pass, or not.

A gate counts spikes and is a LIF neuron over the time steps like all others, with a whole threshold. At the
published threshold (0.5, that is one spike) it has no memory and is an OR: one spike fires it and resets it,
no spike leaves nothing. Higher thresholds (`gate_threshold`) keep it from being always open when neurons fire
often, and give it the memory of a neuron.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Literal

from s2tdpt.golden.attention.base import SpikingMechanism, Values
from s2tdpt.golden.attention.work import Work
from s2tdpt.golden.bounds import Interval, neuron_interval

if TYPE_CHECKING:
    from torch import Tensor

    from s2tdpt.golden.config import NetworkConfig


class Gated(SpikingMechanism):
    """Base of the attentions that pass spikes through a gate: Y is spikes.

    Attributes
    ----------
    gate_threshold : {1, 2, 4, 8}
        Threshold of the gates' neurons, in spikes.
    """

    gate_threshold: Literal[1, 2, 4, 8] = 1

    @abstractmethod
    def most(self, config: NetworkConfig) -> int:
        """Largest count of a gate in one step."""

    def inner(self, config: NetworkConfig, values: Values) -> dict[str, Interval]:
        count = Interval(0, self.most(config))
        return {"count": count, "gate": neuron_interval(count, self.gate_threshold, config.timesteps)}

    def gate(self, counts: Tensor) -> Tensor:
        """Spikes [T, ...] of gates that count `counts` [T, ...]."""
        from s2tdpt.golden.neuron.lif import lif

        return lif(counts, self.gate_threshold)

    def opened(self, bits: int, spikes: int, gates: int, most: int) -> Work:
        """Work of a gate row: `bits` positions that are gathered, `spikes` of them set, into `gates` gates.

        At threshold 1 ORs of bits; else an increment for every spike, and two additions for a gate's neuron.
        """
        if self.gate_threshold == 1:
            return Work(bit_operations=bits)
        return Work(spikes + 2 * gates, (most + self.gate_threshold).bit_length())
