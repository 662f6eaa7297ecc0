"""Every memory of an accelerator before anything is generated, and what it takes of an FPGA.

The sizes are those that the blocks give their memories; `hw.plan.memory` says what a memory becomes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from s2tdpt.golden.bounds import Bounds, derive_bounds
from s2tdpt.golden.errors import UserError
from s2tdpt.golden.params import Params
from s2tdpt.hw.attention import attention_of
from s2tdpt.hw.blocks.images import constant_width
from s2tdpt.hw.blocks.reader import slice_layout
from s2tdpt.hw.blocks.residual import ROW_DEPTH
from s2tdpt.hw.blocks.step_rom import StepRecords
from s2tdpt.hw.blocks.totals import ROW_DEPTH as TOTALS_DEPTH
from s2tdpt.hw.bus.axi import REGISTER_SUBGROUPS, result_subgroups
from s2tdpt.hw.plan.machine import PIXEL_BITS, Machine
from s2tdpt.hw.plan.memory import Memory
from s2tdpt.hw.plan.program import Program
from s2tdpt.hw.plan.records import Sizes, constant_words, pixel_word_bits, weight_rows
from s2tdpt.hw.plan.schedule import program_of
from s2tdpt.hw.plan.widths import Widths, derive_widths

BLOCKS = {"ecp5-25k": 56, "ecp5-45k": 108, "ecp5-85k": 208}
"""Block RAMs of 18 kbit (DP16KD) of a device."""

LARGEST = 3 << 25
"""Bits of memory that are generated: Amaranth handles them one by one, with 60 bytes and 4 us each."""


@dataclass(frozen=True)
class MemoryPlan:
    """All memories of one network on one machine.

    Attributes
    ----------
    network, machine : str
        Names.
    memories : tuple of Memory
    """

    network: str
    machine: str
    memories: tuple[Memory, ...]

    @property
    def blocks(self) -> int:
        """Block RAMs."""
        return sum(memory.blocks for memory in self.memories)

    @property
    def bits(self) -> int:
        """Bits of all memories."""
        return sum(memory.count * memory.words * memory.bits for memory in self.memories)

    def verdict(self, device: str) -> str:
        """Whether it fits, or by how much not and what helps; one line."""
        available = BLOCKS[device]
        if self.blocks <= available:
            return f"fits: {self.blocks} of {available} block RAMs of {device}"
        largest = sorted(self.memories, key=lambda memory: memory.blocks, reverse=True)[:3]
        parts = [
            f"{memory.name} {memory.blocks} ({', '.join(memory.helps)})"
            for memory in largest
            if memory.blocks
        ]
        return (
            f"over by {self.blocks - available}: {self.blocks} of {available} block RAMs of {device}; "
            f"the largest, and the fields that help: {'; '.join(parts)}"
        )

    def fits(self, device: str) -> bool:
        return self.blocks <= BLOCKS[device]

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {"blocks": self.blocks, "memories": [memory.as_dict() for memory in self.memories]}


def check_plan(plan: MemoryPlan, device: str) -> None:
    """Refuse a machine whose memories a device does not have.

    Raises
    ------
    UserError
        It is over; the message says by how much and which fields help.
    """
    if not plan.fits(device):
        raise UserError(
            f"{plan.network} on machine {plan.machine} does not fit: {plan.verdict(device)}; "
            "--force goes on nevertheless"
        )


def check_size(plan: MemoryPlan) -> None:
    """Refuse memories that no computer generates in reasonable time and memory.

    Raises
    ------
    UserError
        More than `LARGEST` bits; the message names the largest memory and the fields that help.
    """
    if plan.bits > LARGEST:
        largest = max(plan.memories, key=lambda memory: memory.count * memory.words * memory.bits)
        helps = ", ".join(largest.helps) or "a smaller network"
        raise UserError(
            f"{plan.network} on machine {plan.machine} has {plan.bits:,} bits of memory, most of them in "
            f"{largest.name}; expected at most {LARGEST:,}; change {helps}"
        )


def plan_of(params: Params, machine: Machine) -> MemoryPlan:
    """The memories for these parameters, exactly as they will be generated."""
    bounds = derive_bounds(params)
    widths = derive_widths(params, bounds)
    return plan_for(program_of(params, machine, widths.head_sum), widths, bounds)


def plan_for(program: Program, widths: Widths, bounds: Bounds) -> MemoryPlan:
    """The memories of a program."""
    memories = (
        *_stores(program, widths),
        *_post_processing(program, widths),
        *attention_of(program).memories(program, bounds),
        *_control(program),
    )
    return MemoryPlan(program.network.name, program.machine.name, memories)


def _stores(program: Program, widths: Widths) -> list[Memory]:
    """Pixels, spikes, weights and constants."""
    net, machine = program.network, program.machine
    pixels = max(2, 2 * net.image_height * net.image_width)
    rom = machine.weight_memory == "rom"
    helps = ("lanes", "banks") if not rom else ("weight_memory=stream", "weight_bits")
    return [
        Memory(
            "pixels",
            pixels,
            pixel_word_bits(program),
            style="block",
            granularity=PIXEL_BITS,
            helps=("image_height", "image_width"),
        ),
        Memory(
            "spikes",
            program.spike_words,
            machine.lanes * net.timesteps,
            style="block",
            granularity=program.piece_bits,
            helps=("lanes", "sps_channels"),
        ),
        Memory(
            "weights",
            weight_rows(program),
            machine.post_lanes * net.weight_bits,
            count=machine.banks * machine.subgroups,
            style="block",
            rom=rom,
            helps=helps,
        ),
        Memory(
            "constants",
            constant_words(program),
            constant_width(program, widths),
            style="block" if rom else "distributed",
            rom=rom,
            helps=("post_lanes",),
        ),
    ]


def _post_processing(program: Program, widths: Widths) -> list[Memory]:
    """The stream U, the pool's row buffer, totals of the head and of bit planes, logits."""
    net, machine = program.network, program.machine
    word = program.piece_bits * widths.residual
    depth = net.tokens * program.residual_pieces
    full, rest = divmod(depth, ROW_DEPTH)
    helps = ("residual_fraction_bits", "post_lanes")
    found = [Memory("residual U", ROW_DEPTH, word, count=full, style="block", helps=helps)] if full else []
    if rest:
        name = "residual U, rest" if full else "residual U"
        found.append(Memory(name, max(2, rest), word, style="block", helps=helps))
    columns = (max([step.width for step in program.steps if step.pooled], default=1) + 1) // 2
    subgroups = machine.subgroups
    place = max(2, columns << (subgroups - 1).bit_length())
    found.append(Memory("pool, a row", place, program.piece_bits, helps=("lanes",)))
    if subgroups > 1:
        found.append(Memory("pool, a window", subgroups, program.piece_bits, style="distributed"))
    kept = max(1, widths.combined - net.timesteps)
    found += _totals("totals of planes", subgroups, machine.post_lanes * kept)
    found += _totals("totals of the head", program.residual_pieces, machine.post_lanes * widths.head_sum)
    results = result_subgroups(net.num_classes, machine.post_lanes)
    if results > REGISTER_SUBGROUPS:
        found.append(Memory("logits", results, machine.post_lanes * widths.combined, style="distributed"))
    return found


def _totals(name: str, depth: int, bits: int) -> list[Memory]:
    """`totals.RunningTotals`."""
    if depth == 1:
        return []
    full, rest = divmod(depth, TOTALS_DEPTH)
    found = [Memory(name, TOTALS_DEPTH, bits, count=full, style="distributed")] if full else []
    if rest:
        found.append(Memory(f"{name}, rest" if full else name, max(2, rest), bits, style="distributed"))
    return found


def _control(program: Program) -> list[Memory]:
    """Queues of the banks, records of the steps."""
    machine, records = program.machine, StepRecords(program)
    layout = slice_layout(Sizes(program), machine.slice_channels, program.network.timesteps)
    steps = max(2, len(program.steps))
    return [
        Memory("queues", machine.queue, layout.size, machine.banks, "distributed"),
        Memory("records of walks", steps, records.walk_layout.size, rom=True),
        Memory("records of drains", steps, records.drain_layout.size, rom=True),
    ]
