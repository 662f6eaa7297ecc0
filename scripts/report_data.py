"""What `s2tdpt report` shows, as plain values: each part a function of what was counted; docs/report.md."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from s2tdpt.golden import strictjson
from s2tdpt.golden.activity import measure
from s2tdpt.golden.complexity import macs, parameter_count
from s2tdpt.golden.energy import EnergyReport, energy_report
from s2tdpt.golden.errors import UserError
from s2tdpt.golden.network import GoldenNetwork
from s2tdpt.hw.blocks.images import stream_width, tile_beats
from s2tdpt.hw.estimate.area_model import area_model, features
from s2tdpt.hw.estimate.counted_energy import CountedEnergy, count_energy
from s2tdpt.hw.estimate.layers import Estimate, count_cycles, image_traces
from s2tdpt.hw.estimate.memory_plan import MemoryPlan, plan_for
from s2tdpt.hw.plan.machine import Machine
from s2tdpt.hw.plan.program import Program
from s2tdpt.hw.plan.schedule import program_of
from s2tdpt.hw.plan.widths import Widths, derive_widths
from s2tdpt.scripts.energy import GROUPS, theory_of
from s2tdpt.scripts.images import Chosen
from s2tdpt.sw.explain import class_names, confusion_matrix

FORMAT = "s2tdpt-report"
NETLIST_PARTS = ("clock", "internal", "switching", "macros", "leakage", "macro_leakage")
"""Parts of a block's energy in fJ, `hw.netlist.netlist_power.BlockPower`."""
BATCH = 50
"""Images that are classified together."""


@dataclass(frozen=True)
class Counts:
    """Everything that is counted for a report, on the same images."""

    golden: GoldenNetwork
    program: Program
    widths: Widths
    plan: MemoryPlan
    cycles: Estimate
    energy: CountedEnergy
    theory: EnergyReport
    images: int

    @property
    def machine(self) -> Machine:
        return self.program.machine


def count(golden: GoldenNetwork, machine: Machine, chosen: Chosen, tell: Callable[[str], None]) -> Counts:
    """Count cycles, accesses and spikes of images."""
    widths = derive_widths(golden.params, golden.bounds)
    program = program_of(golden.params, machine, widths.head_sum)
    tell("counting cycles")
    cycles = count_cycles(golden.params, machine, chosen.images)
    tell("counting accesses")
    energy = count_energy(program, widths, golden.bounds, image_traces(golden, chosen.images))
    theory = energy_report(golden, measure(golden, chosen.images, chosen.labels))
    plan = plan_for(program, widths, golden.bounds)
    return Counts(golden, program, widths, plan, cycles, energy, theory, len(chosen.images))


def network_part(counts: Counts) -> dict[str, Any]:
    """The network in numbers."""
    config = counts.golden.config
    return {
        "name": config.name,
        "parameters": counts.golden.params.checksum()[:16],
        "image": [config.image_height, config.image_width, config.image_channels],
        "classes": config.num_classes,
        "timesteps": config.timesteps,
        "stem": list(config.sps_channels),
        "tokens": config.tokens,
        "channels": config.embed_dim,
        "heads": config.heads,
        "blocks": config.depth,
        "attention": config.attention.kind,
        "weight_bits": config.weight_bits,
        "weights": parameter_count(config),
        "macs_a_step": sum(macs(config).values()),
    }


def cycles_part(counts: Counts, clock_mhz: float) -> dict[str, Any]:
    """Cycles, layer by layer; `hw.estimate.layers.Estimate` explains the fields."""
    found = counts.cycles
    return found.as_dict() | {
        "interval": found.interval,
        "cycles": found.cycles,
        "clock_mhz": clock_mhz,
        "images_per_second": clock_mhz * 1e6 / found.interval,
    }


def roofline_part(counts: Counts) -> dict[str, Any]:
    """Additions a cycle over additions for a bit of weights, for every level of the weight memory.

    On chip a bank delivers a row a cycle, which serves up to T time steps: the slanted roof is met exactly
    while every bank has an event in every cycle, and falls below the flat one by the steps that are silent.
    """
    program, machine, net = counts.program, counts.machine, counts.program.network
    word = machine.post_lanes * net.weight_bits
    read = {layer.name: layer.reads.get("weights", 0.0) * word for layer in counts.energy.layers}
    levels = [_level(counts, "weights on chip", machine.banks * machine.lanes * net.weight_bits, read)]
    if machine.weight_memory == "stream":
        width = stream_width(program)
        streamed: dict[str, float] = {}
        for step, beats in zip(program.steps, tile_beats(program, counts.widths), strict=True):
            streamed[step.layer] = streamed.get(step.layer, 0.0) + beats * width
        levels.append(_level(counts, "weight stream", width, streamed))
    return {"peak": machine.lanes * machine.banks * net.timesteps, "levels": levels}


def _level(counts: Counts, name: str, bits_a_cycle: int, bits: Mapping[str, float]) -> dict[str, Any]:
    points = [
        {
            "layer": layer.name,
            "additions_a_bit": layer.accumulates / bits[layer.name],
            "additions_a_cycle": layer.accumulates_per_cycle,
        }
        for layer in counts.cycles.layers
        if bits.get(layer.name) and layer.accumulates
    ]
    return {"name": name, "bits_a_cycle": bits_a_cycle, "points": points}


def energy_part(counts: Counts, clock_mhz: float, netlist: dict[str, Any] | None) -> dict[str, Any]:
    """Theory and count, layer by layer in pJ, and the netlist if there is one."""
    energy = counts.energy
    layers = []
    for layer in energy.layers:
        groups = {
            name: sum(layer.memories.get(memory, 0.0) for memory in memories)
            for name, memories in GROUPS.items()
        }
        groups["sums, counts"] = sum(layer.memories.values()) - sum(groups.values())
        layers.append(
            {
                "name": layer.name,
                "theory": theory_of(layer.name, counts.theory),
                "counted": layer.energy,
                "parts": {"additions": layer.adders} | groups,
            }
        )
    return {
        "theory_pj": counts.theory.totals["theory"],
        "counted_pj": energy.energy,
        "additions_pj": energy.adders,
        "accesses_pj": energy.accesses,
        "streaming_dram_pj": energy.streaming,
        "leakage_uw": energy.leakage,
        "leaked_pj": energy.leaked(clock_mhz),
        "layers": layers,
        "memories": [
            {"name": memory.name, "reads": memory.reads, "writes": memory.writes, "pj": memory.energy}
            for memory in energy.memories
        ],
        "netlist": netlist,
    }


def area_part(counts: Counts, synthesis: dict[str, Any] | None) -> dict[str, Any]:
    """LUTs by block and block RAMs by memory as estimated, and what a synthesis used."""
    model = area_model()
    found = features(counts.program, counts.widths, counts.golden.bounds)
    blocks = [
        {
            "name": name,
            "lut": model.factors["lut"][name] * value,
            "ff": model.factors["ff"][name] * value,
        }
        for name, value in found.items()
    ]
    memories = [
        {
            "name": memory.name,
            "words": memory.words,
            "bits": memory.bits,
            "count": memory.count,
            "total_bits": memory.total_bits,
            "kind": memory.kind,
            "blocks": memory.blocks,
        }
        for memory in counts.plan.memories
    ]
    used = None
    if synthesis is not None:
        used = {name: synthesis[name] for name in ("target", "used", "available", "area", "macros")}
    return {
        "lut": sum(block["lut"] for block in blocks),
        "ff": sum(block["ff"] for block in blocks),
        "bram": counts.plan.blocks,
        "rows": model.rows,
        "errors": {kind: list(errors) for kind, errors in model.errors.items()},
        "blocks": blocks,
        "memories": memories,
        "synthesis": used,
    }


def timing_part(synthesis: dict[str, Any] | None) -> dict[str, Any] | None:
    """Clock by seed and the slowest path of a placed design."""
    if synthesis is None or not synthesis["fmax"]:
        return None
    return {name: synthesis[name] for name in ("target", "frequency", "fmax", "fmax_median", "critical_path")}


def accuracy_part(golden: GoldenNetwork, chosen: Chosen) -> dict[str, Any]:
    """Confusion matrix of the integer network: rows true, columns predicted."""
    batches = range(0, len(chosen.images), BATCH)
    classes = [golden.classify(chosen.images[first : first + BATCH]).numpy() for first in batches]
    matrix = confusion_matrix(chosen.labels, np.concatenate(classes), golden.config.num_classes)
    total, correct = int(matrix.sum()), int(np.trace(matrix))
    return {
        "images": total,
        "correct": correct,
        "accuracy": correct / total,
        "data": chosen.description,
        "classes": class_names(chosen.data, golden.config.num_classes),
        "matrix": matrix.tolist(),
    }


def read_netlist(path: Path, network: str, machine: Machine) -> dict[str, Any]:
    """The netlist's part of what ``s2tdpt energy --liberty FILE --json`` wrote for this network and machine.

    Raises
    ------
    UserError
        It cannot be read, is none, or is that of another network or machine.
    """
    data = _read(path, "s2tdpt energy --liberty LIB --json")
    found = data.get("netlist")
    try:
        frames = {
            name: {
                "energy_pj": float(frame["energy_pj"]),
                "counted_pj": float(frame["counted_pj"]),
                "cycles": int(frame["cycles"]),
                "clock_mhz": float(frame["clock_mhz"]),
                "annotated_share": float(frame["annotated_share"]),
                "totals": {key: float(value) for key, value in frame["totals"].items()},
                "blocks": {
                    block: {key: float(value) for key, value in parts.items()}
                    for block, parts in frame["blocks"].items()
                },
            }
            for name, frame in found["frames"].items()
        }
        real = frames["real"]
        for block in (real["totals"], *real["blocks"].values()):
            for part in (*NETLIST_PARTS, "cells", "flops", "area", "macro_area"):
                block[part]
        fields = data["counted"]["fields"] if data["counted"] else None
        liberty = str(found["liberty"])
    except (TypeError, KeyError, ValueError, AttributeError):
        raise UserError(
            f"{path} has no netlist's energy; expected JSON of `s2tdpt energy --liberty LIB --json`; make it"
        ) from None
    _check_same(path, "network", data.get("config"), network)
    if fields is not None:
        _check_same(path, "machine", _unnamed(fields), _unnamed(machine.model_dump(mode="json")))
    return {"liberty": liberty, "frames": frames}


def read_synthesis(path: Path, golden: GoldenNetwork, machine: Machine) -> dict[str, Any]:
    """What ``s2tdpt synth --json`` wrote for this network and machine.

    Raises
    ------
    UserError
        It cannot be read, is none, or is that of another network or machine.
    """
    data = _read(path, "s2tdpt synth --json")
    shape = {"target": str, "used": dict, "available": dict, "fmax": dict, "critical_path": dict}
    if any(not isinstance(data.get(name), kind) for name, kind in shape.items()) or any(
        name not in data for name in ("fmax_median", "frequency", "area", "macros", "machine", "parameters")
    ):
        raise UserError(
            f"{path} is no synthesis report; expected JSON of `s2tdpt synth --json`; make it with that"
        )
    _check_same(path, "network", data.get("network"), golden.config.name)
    _check_same(path, "parameters", data["parameters"], golden.params.checksum()[:16])
    _check_same(path, "machine", _unnamed(data["machine"]), _unnamed(machine.model_dump(mode="json")))
    return data


def _read(path: Path, command: str) -> dict[str, Any]:
    try:
        data = strictjson.read(path, strictjson.LARGEST_RESULT)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"cannot read {path}: {reason}; expected JSON of `{command}`; check it") from None
    if not isinstance(data, dict):
        raise UserError(f"{path} holds no JSON object; expected that of `{command}`; check the path")
    return data


def _unnamed(fields: Any) -> Any:
    """A machine without its name, which decides nothing."""
    return (
        {key: value for key, value in fields.items() if key != "name"} if isinstance(fields, dict) else None
    )


def _check_same(path: Path, what: str, found: Any, wanted: Any) -> None:
    if found != wanted:
        raise UserError(
            f"{path} is of another {what}: {str(found)[:120]}; expected {str(wanted)[:120]}; make it anew, "
            "or report on that one"
        )
