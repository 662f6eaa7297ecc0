"""Gated leaky integrate-and-fire: every place learns how it leaks, integrates and resets.

    u[t] = h[t-1] + floor(x[t] / 2^conduct[t]);   S = (u >= threshold)
    h = decay(u), less what a soft reset takes from a neuron that fired; 0 where a hard one does

Three gates of the published neuron are 0 or 1 here:

* leak: exponential, decay(u) = floor(leak u / 8), or linear, decay(u) = u - floor(threshold / 2^linear);
* integration: conductances that differ from step to step, powers of two, or none;
* reset: hard, h = 0 (less the linear leak), or soft, decay(u) - floor(threshold / 2^(soft - 1)).

The published linear leak is taken from the first step on; here nothing has leaked before it. Leaks and resets
are parts of the threshold: one constant serves neurons of every scale.

Ref: Yao et al., arXiv 2210.13768 (GLIF); public code: Ikarosy/Gated-LIF, SpikingJelly's GatedLIFNode (a tie
fires).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from s2tdpt.golden.layout import TensorLayout
from s2tdpt.golden.neuron.base import GAIN, LEAKS, WHOLE, Law, Neuron, Number, leaked, shifted
from s2tdpt.golden.neuron.klif import LARGEST_GAIN
from s2tdpt.golden.neuron.plif import checked_leak

if TYPE_CHECKING:
    from s2tdpt.golden.config import NetworkConfig

LARGEST_LINEAR, LARGEST_SOFT, LARGEST_CONDUCT = 7, 4, 3


@dataclass(frozen=True)
class GlifLaw(Law):
    """See above.

    Attributes
    ----------
    leak : {0, 2, 4, 6, 7, 8}
        Eighths that stay; 8: all, and the leak is linear.
    linear : 0..7 or None
        The linear leak is threshold >> linear; None where the leak is exponential.
    soft : 0..4
        0: hard reset; else a spike takes threshold >> (soft - 1).
    conduct : tuple of 0..3
        Inputs of step t are shifted right by conduct[t].
    gain : 1..255
        Sixteenths; 16 leaves the threshold as it is.
    """

    leak: int
    linear: int | None
    soft: int
    conduct: tuple[int, ...]
    gain: int = GAIN

    def keep(self, u: Number, threshold: Number) -> Number:
        decayed = leaked(u, self.leak)
        return decayed if self.linear is None else decayed - shifted(threshold, self.linear)

    def reset(self, u: Number, threshold: Number) -> Number:
        if self.soft:
            return self.keep(u, threshold) - shifted(threshold, self.soft - 1)
        return self.keep(u * 0, threshold)

    def drive(self, x: Number, t: int) -> Number:
        return shifted(x, self.conduct[t]) if self.conduct[t] else x

    @property
    def factor(self) -> tuple[int, int]:
        return GAIN, self.gain

    def passes_spikes(self, threshold: int) -> bool:
        return threshold == 1 and not self.subtracts and not any(self.conduct)

    def growth(self, steps: int) -> int:
        return 3 * steps


class Glif(Neuron):
    """GLIF, a law a place, gates rounded to 0 or 1; training begins as `lif`."""

    kind: Literal["glif"] = "glif"

    def initial(self, config: NetworkConfig) -> GlifLaw:
        return self.neutral(config)

    def neutral(self, config: NetworkConfig) -> GlifLaw:
        return GlifLaw(4, None, 0, (0,) * config.timesteps, GAIN)

    def fields(self, config: NetworkConfig) -> dict[str, TensorLayout]:
        return {
            "leak": TensorLayout(np.uint8, (), 0, WHOLE),
            "linear": TensorLayout(np.uint8, (), 0, LARGEST_LINEAR),
            "soft": TensorLayout(np.uint8, (), 0, LARGEST_SOFT),
            "conduct": TensorLayout(np.uint8, (config.timesteps,), 0, LARGEST_CONDUCT),
            "gain": TensorLayout(np.uint8, (), 1, LARGEST_GAIN),
        }

    def law(self, values: Mapping[str, np.ndarray]) -> GlifLaw:
        leak, linear = checked_leak(int(values["leak"]), (*LEAKS, WHOLE)), int(values["linear"])
        if leak != WHOLE and linear:
            raise ValueError(f"linear leak is {linear} beside a leak of {leak} eighths; expected 0")
        conduct = tuple(int(step) for step in values["conduct"])
        linear = linear if leak == WHOLE else None
        return GlifLaw(leak, linear, int(values["soft"]), conduct, int(values["gain"]))

    def values(self, law: GlifLaw, config: NetworkConfig) -> dict[str, np.ndarray | int]:
        own = {name: getattr(law, name) for name in ("leak", "soft", "gain")}
        return own | {"linear": law.linear or 0, "conduct": np.array(law.conduct)}

    def random_law(self, config: NetworkConfig, rng: np.random.Generator) -> GlifLaw:
        linear = rng.random() < 0.5
        return GlifLaw(
            leak=WHOLE if linear else int(rng.choice(LEAKS)),
            linear=int(rng.integers(1, 6)) if linear else None,
            soft=int(rng.integers(0, LARGEST_SOFT)),
            conduct=tuple(int(step) for step in rng.integers(0, 3, config.timesteps) * (rng.random() < 0.6)),
            gain=int(rng.integers(10, 33)),
        )
