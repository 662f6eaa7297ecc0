"""What a network will take on a machine, before synthesis and without its weights' spikes: from firing rates.

Spikes are drawn at random with the rates given, and the exact cycle model counts them (`estimate` counts real
ones). Real spikes crowd in some channels and places, so that banks are less even than here: docs/machines.md
has the difference. Memories follow the plan, LUTs and flip-flops the model of `area_model`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from s2tdpt.golden.bounds import Bounds
from s2tdpt.golden.config import NetworkConfig
from s2tdpt.golden.errors import UserError
from s2tdpt.golden.rates import Rates
from s2tdpt.golden.trace import HEAD_SUM, spike_traces, traces
from s2tdpt.hw.blocks.images import stream_width, tile_beats
from s2tdpt.hw.estimate.area_model import area_model, features
from s2tdpt.hw.estimate.cycles import FrameModel
from s2tdpt.hw.estimate.layers import interval, step_cycles
from s2tdpt.hw.estimate.memory_plan import plan_for
from s2tdpt.hw.plan.program import Program
from s2tdpt.hw.plan.widths import Widths

__all__ = ["PredictedLayer", "Prediction", "check_rates", "default_rates", "predict", "random_trace"]


@dataclass(frozen=True)
class PredictedLayer:
    """One layer.

    Attributes
    ----------
    name : str
    cycles : int
        Between the ends of the last positions of the step before and of its own.
    share : float
        Of the interval, 0..1.
    accumulates : int
        Useful additions.
    """

    name: str
    cycles: int
    share: float
    accumulates: int


@dataclass(frozen=True)
class Prediction:
    """One image at the given rates.

    Attributes
    ----------
    network, machine : str
    layers : tuple of PredictedLayer
    cycles, interval : int
        Of an image; from image to image, weights never late.
    accumulates_per_cycle : float
        Useful additions a cycle.
    utilisation : float
        Channels with a spike x output channels / (lanes x banks x cycles), 0..1.
    memories : dict of str to int
        Bits by memory.
    bram : int
        Block RAMs of 18 kbit.
    stream_bits : int
        Weights and constants streamed an image.
    lut, ff : float
        ECP5, predicted.
    area_rows : int
        Synthesis runs behind the prediction.
    area_errors : dict of str to (float, float)
        Mean and largest error of machines left out, 0..1, for ``lut`` and ``ff``.
    """

    network: str
    machine: str
    layers: tuple[PredictedLayer, ...]
    cycles: int
    interval: int
    accumulates_per_cycle: float
    utilisation: float
    memories: dict[str, int]
    bram: int
    stream_bits: int
    lut: float
    ff: float
    area_rows: int
    area_errors: dict[str, tuple[float, float]]

    def as_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def default_rates(config: NetworkConfig) -> dict[str, float]:
    """Published rates by trace (`golden.rates`): of what drives the layers, and of q, k and v."""
    rates = Rates()
    found = {}
    for layer in config.layers():
        if layer.spike_driven:
            found[layer.reads] = rates.of(layer)
    for block in range(config.depth):
        found |= {f"block.{block}.q": rates.q, f"block.{block}.k": rates.k, f"block.{block}.v": rates.q}
    return {name: rate for name, rate in found.items() if name in spike_traces(config)}


def check_rates(config: NetworkConfig, rates: Mapping[str, float]) -> dict[str, float]:
    """Rates of every trace that matters; k may be left out, for no cycle depends on it.

    Raises
    ------
    UserError
        A trace that the network does not have, one that is missing, or a number that is no rate.
    """
    known, wanted = set(spike_traces(config)), set(default_rates(config))
    wrong = sorted(set(rates) - known)
    missing = sorted(name for name in wanted - set(rates) if not name.endswith(".k"))
    if wrong or missing:
        problem = f"has {wrong[0]!r}, which is none" if wrong else f"lacks {missing[0]!r}"
        raise UserError(
            f"the rate profile {problem} of {config.name}'s spikes; expected rates of "
            f"{', '.join(sorted(wanted))}; measure this network's with `s2tdpt energy --json`"
        )
    for name, rate in rates.items():
        if isinstance(rate, bool) or not isinstance(rate, int | float) or not 0 <= rate <= 1:
            raise UserError(f"the rate of {name} is {rate!r:.40}; expected a number from 0 to 1; correct it")
    return {name: float(rates.get(name, rates.get(name[:-1] + "q", 0.0))) for name in wanted}


def random_trace(program: Program, rates: Mapping[str, float], seed: int = 0) -> dict[str, np.ndarray]:
    """Spikes drawn independently at the rates; pixels and head sums with every bit as often set as not."""
    net, rng = program.network, np.random.default_rng(seed)
    shapes = traces(net)
    found: dict[str, np.ndarray] = {
        name: rng.random(shapes[name].shape, np.float32) < rate for name, rate in sorted(rates.items())
    }
    shape = (net.image_height, net.image_width, net.image_channels)
    half = program.head_passes * net.timesteps - 1
    sums = rng.integers(-(1 << min(half, 60)), 1 << min(half, 60), net.embed_dim)
    return found | {"pixels": rng.integers(0, 256, shape).astype(np.uint8), HEAD_SUM: sums}


def predict(program: Program, widths: Widths, bounds: Bounds, rates: Mapping[str, float]) -> Prediction:
    """Predict from `rates` (`check_rates`); a moment for small networks, seconds for large ones."""
    machine = program.machine
    frame = FrameModel(program).frame(random_trace(program, rates))
    total = interval(program, frame.interval)
    cycles = step_cycles(frame)
    useful = sum(count.events * step.channels for step, count in zip(program.steps, frame.steps, strict=True))
    plan = plan_for(program, widths, bounds)
    memories: dict[str, int] = {}
    for memory in plan.memories:
        memories[memory.name] = memories.get(memory.name, 0) + memory.total_bits
    model, found = area_model(), features(program, widths, bounds)
    streams = machine.weight_memory == "stream"
    layers = []
    for layer in dict.fromkeys(step.layer for step in program.steps):
        own = [at for at, step in enumerate(program.steps) if step.layer == layer]
        taken = int(cycles[own].sum())
        added = sum(frame.steps[at].accumulates for at in own)
        layers.append(PredictedLayer(layer, taken, taken / total, added))
    return Prediction(
        network=program.network.name,
        machine=machine.name,
        layers=tuple(layers),
        cycles=frame.total,
        interval=total,
        accumulates_per_cycle=frame.accumulates / total,
        utilisation=useful / (machine.lanes * machine.banks * total),
        memories=memories,
        bram=plan.blocks,
        stream_bits=sum(tile_beats(program, widths)) * stream_width(program) if streams else 0,
        lut=model.predict("lut", found),
        ff=model.predict("ff", found),
        area_rows=model.rows,
        area_errors=model.errors,
    )
