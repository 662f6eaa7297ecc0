"""Energy of an image from the accesses and additions that the machine makes for it: counts times energies.

`accesses` counts, exactly; this module multiplies by what a word of each memory costs (`macro_model`) and an
adder of each width. Theory as papers count it is `golden.energy`; the power of the synthesised netlist is
`netlist_power`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from s2tdpt.golden.bounds import Bounds
from s2tdpt.golden.energy import E_ADD8, E_ADD32
from s2tdpt.hw.blocks.images import stream_width, tile_beats
from s2tdpt.hw.estimate.accesses import FRAME, AccessCounter, FrameAccesses
from s2tdpt.hw.estimate.cycles import frame_cycles
from s2tdpt.hw.estimate.layers import interval
from s2tdpt.hw.estimate.macro_model import MACRO_BITS, access_energy, area, leakage
from s2tdpt.hw.estimate.memory_plan import Memory, plan_for
from s2tdpt.hw.plan.program import Program
from s2tdpt.hw.plan.widths import Widths

__all__ = [
    "DRAM_PJ_PER_64_BITS",
    "CountedEnergy",
    "LayerCount",
    "MemoryCount",
    "adder_energy",
    "count_energy",
]

DRAM_PJ_PER_64_BITS = 1300.0
"""Low end of what 64 bits from DRAM cost (Horowitz, ISSCC 2014: 1.3 to 2.6 nJ); for streamed weights."""


def adder_energy(bits: int) -> float:
    """pJ of an integer addition: a straight line through the published 8 bits and 32 bits, and proportional
    outside of them.

    # Ref: M. Horowitz, "Computing's energy problem", ISSCC 2014: 0.03 pJ and 0.1 pJ at 45 nm
    """
    if bits <= 8:
        return E_ADD8 * bits / 8
    if bits >= 32:
        return E_ADD32 * bits / 32
    return E_ADD8 + (E_ADD32 - E_ADD8) * (bits - 8) / 24


@dataclass(frozen=True)
class MemoryCount:
    """One memory of the plan, or several that are alike; energies in pJ an image.

    Attributes
    ----------
    name : str
    words, bits, count : int
    macro : bool
        Above `macro_model.MACRO_BITS` bits; else logic, whose accesses are counted by the same law.
    reads, writes : float
        Words read; words or parts of a word written, an image.
    written_bits : int
        Bits of such a part.
    energy : float
    leakage : float
        uW of all of them; 0 where they are logic.
    area : float
        um2 of all of them, macros only.
    """

    name: str
    words: int
    bits: int
    count: int
    macro: bool
    reads: float
    writes: float
    written_bits: int
    energy: float
    leakage: float
    area: float


@dataclass(frozen=True)
class LayerCount:
    """One layer, an attention, or the image itself; a mean over images.

    Attributes
    ----------
    name : str
    additions : float
    adders : float
        pJ of the additions.
    reads, writes : dict of str to float
        By memory.
    memories : dict of str to float
        pJ by memory.
    """

    name: str
    additions: float
    adders: float
    reads: dict[str, float]
    writes: dict[str, float]
    memories: dict[str, float]

    @property
    def energy(self) -> float:
        """pJ."""
        return self.adders + sum(self.memories.values())


@dataclass(frozen=True)
class CountedEnergy:
    """Means over images.

    Attributes
    ----------
    network, machine : str
    images : int
    cycles : float
        From an image to the next, weights never late.
    layers : tuple of LayerCount
    memories : tuple of MemoryCount
    streamed_bits : int
        Weights and constants that an image streams in from outside.
    """

    network: str
    machine: str
    images: int
    cycles: float
    layers: tuple[LayerCount, ...]
    memories: tuple[MemoryCount, ...]
    streamed_bits: int

    @property
    def adders(self) -> float:
        """pJ of all additions."""
        return sum(layer.adders for layer in self.layers)

    @property
    def accesses(self) -> float:
        """pJ of all accesses."""
        return sum(memory.energy for memory in self.memories)

    @property
    def energy(self) -> float:
        """pJ an image, without leakage, clock and what is outside of the chip."""
        return self.adders + self.accesses

    @property
    def leakage(self) -> float:
        """uW of all macros."""
        return sum(memory.leakage for memory in self.memories)

    def leaked(self, clock_mhz: float) -> float:
        """pJ that the macros leak from an image to the next."""
        return self.leakage * self.cycles / clock_mhz

    @property
    def streaming(self) -> float:
        """pJ an image of reading the streamed weights from DRAM, which is outside of the chip."""
        return self.streamed_bits / 64 * DRAM_PJ_PER_64_BITS

    def as_dict(self) -> dict[str, Any]:
        """Plain values; energies in pJ an image, leakage in uW, area in um2."""
        return {
            "network": self.network,
            "machine": self.machine,
            "images": self.images,
            "cycles": self.cycles,
            "energy_pj": self.energy,
            "adders_pj": self.adders,
            "accesses_pj": self.accesses,
            "leakage_uw": self.leakage,
            "macro_area_um2": sum(memory.area for memory in self.memories),
            "streamed_bits": self.streamed_bits,
            "streaming_dram_pj": self.streaming,
            "layers": [asdict(layer) | {"energy": layer.energy} for layer in self.layers],
            "memories": [asdict(memory) for memory in self.memories],
        }


def count_energy(
    program: Program,
    widths: Widths,
    bounds: Bounds,
    traces: Iterable[Mapping[str, np.ndarray]],
    progress: Callable[[int], None] | None = None,
) -> CountedEnergy:
    """Count images (at least one) and multiply.

    Parameters
    ----------
    traces : iterable
        As for `cycles.FrameModel.frame`, one an image (`estimate.image_traces` makes them).
    progress : callable, optional
        Called with 1 after every image.
    """
    counter, total, intervals = AccessCounter(program, widths), FrameAccesses(), []
    for trace in traces:
        total.add(counter.frame(trace))
        intervals.append(interval(program, frame_cycles(program, trace).interval))
        if progress is not None:
            progress(1)
    images = len(intervals)
    plan = {memory.name: memory for memory in plan_for(program, widths, bounds).memories}
    streamed = 0
    if program.machine.weight_memory == "stream":
        streamed = sum(tile_beats(program, widths)) * stream_width(program)
    return CountedEnergy(
        network=program.network.name,
        machine=program.machine.name,
        images=images,
        cycles=sum(intervals) / images,
        layers=tuple(_layer(name, total, images, plan) for name in layer_names(program)),
        memories=tuple(_memory(memory, total, images) for memory in plan.values()),
        streamed_bits=streamed,
    )


def layer_names(program: Program) -> list[str]:
    """Layers in the order of the program, every block's attention behind its v; first the image itself."""
    names = [FRAME]
    for step in program.steps:
        if step.after_attention and f"block.{step.after_attention - 1}.attention" not in names:
            names.append(f"block.{step.after_attention - 1}.attention")
        if step.layer not in names:
            names.append(step.layer)
    return names


def written_bits(memory: Memory) -> int:
    """Bits that one counted write moves."""
    return memory.granularity or memory.bits


def _energy(memory: Memory, reads: float, writes: float) -> float:
    read = access_energy(memory.words, memory.bits)
    write = access_energy(memory.words, memory.bits, written_bits(memory))
    return reads * read + writes * write


def _layer(name: str, total: FrameAccesses, images: int, plan: Mapping[str, Memory]) -> LayerCount:
    reads, writes = (
        {memory: count / images for (layer, memory), count in counts.items() if layer == name}
        for counts in (total.reads, total.writes)
    )
    additions = {bits: count / images for (layer, bits), count in total.additions.items() if layer == name}
    return LayerCount(
        name=name,
        additions=sum(additions.values()),
        adders=sum(count * adder_energy(bits) for bits, count in additions.items()),
        reads=reads,
        writes=writes,
        memories={
            memory: _energy(plan[memory], reads.get(memory, 0), writes.get(memory, 0))
            for memory in plan
            if memory in reads or memory in writes
        },
    )


def _memory(memory: Memory, total: FrameAccesses, images: int) -> MemoryCount:
    reads, writes = (count / images for count in total.memory(memory.name))
    macro = memory.words * memory.bits > MACRO_BITS
    return MemoryCount(
        name=memory.name,
        words=memory.words,
        bits=memory.bits,
        count=memory.count,
        macro=macro,
        reads=reads,
        writes=writes,
        written_bits=written_bits(memory),
        energy=_energy(memory, reads, writes),
        leakage=memory.count * leakage(memory.words, memory.bits) if macro else 0.0,
        area=memory.count * area(memory.words, memory.bits) if macro else 0.0,
    )
