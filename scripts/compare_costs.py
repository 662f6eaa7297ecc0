"""What the attentions of `s2tdpt compare` cost in hardware, by the models that the other commands use."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from s2tdpt.golden.strictjson import LARGEST_RESULT, read
from s2tdpt.scripts.output import write_json

if TYPE_CHECKING:
    from s2tdpt.golden.params import Params
    from s2tdpt.hw.plan.machine import Machine


def kept(path: Path, key: dict[str, Any], make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """The result in `path` if it was made for `key`, else a new one, which is put there."""
    try:
        found = read(path, LARGEST_RESULT)
        if found["key"] == key:
            return found["result"]
    except (OSError, ValueError, KeyError, TypeError):
        pass
    result = make()
    write_json(path, {"key": key, "result": result})
    return result


def network_costs(params: Params, machine: Machine, images: np.ndarray) -> dict[str, Any]:
    """Exact cycles, state of the attention unit, theory and counted energy of a network on `images`.

    Energies in pJ an image, cycles from image to image; of both also the part of all attentions. They work
    beside the layers: `waits` are the cycles in which the machine adds nothing because a layer needs them.
    """
    from s2tdpt.golden.activity import measure
    from s2tdpt.golden.energy import energy_report
    from s2tdpt.golden.network import GoldenNetwork
    from s2tdpt.hw.attention import attention_of
    from s2tdpt.hw.estimate.layers import count_cycles
    from s2tdpt.hw.plan.records import Sizes
    from s2tdpt.hw.plan.schedule import program_of
    from s2tdpt.hw.plan.widths import derive_widths
    from s2tdpt.hw.state import state_of
    from s2tdpt.scripts.energy import count_accesses, theory_of

    golden = GoldenNetwork(params)
    estimate = count_cycles(params, machine, images)
    counted = count_accesses(golden, machine, images, None)
    theory = energy_report(golden, measure(golden, images))
    program = program_of(params, machine, derive_widths(params, golden.bounds).head_sum)
    hardware = attention_of(program)
    unit = hardware.unit(params, program, Sizes(program), golden.bounds)
    names = [f"block.{b}.attention" for b in range(params.config.depth)]
    return {
        "cycles": estimate.interval,
        "attention_cycles": sum(attention.cycles for attention in estimate.attention),
        "waits": sum(attention.waits for attention in estimate.attention),
        "theory_pj": theory.totals["theory"],
        "attention_theory_pj": sum(theory_of(name, theory) for name in names),
        "counted_pj": counted.energy,
        "attention_counted_pj": sum(layer.energy for layer in counted.layers if layer.name in names),
        "memory_bits": sum(m.total_bits for m in hardware.own_memories(program, golden.bounds)),
        "register_bits": state_of(unit).registers,
    }


def unit_costs(kind: str, machine: Machine, tokens: list[int]) -> dict[str, Any]:
    """Cells of the unit alone (the committed table, else synthesised now), and a head by tokens."""
    from s2tdpt.hw.attention.comparison import unit_cost
    from s2tdpt.hw.estimate.area_table import count_cells
    from s2tdpt.hw.estimate.attention_area import measure_unit, read_units

    cells = read_units().get(kind) or measure_unit(kind)
    counts = count_cells(cells)
    heads = [unit_cost(kind, count, machine, registers=True) for count in tokens]
    return {
        "lut": counts.lut,
        "ff": counts.ff,
        "bram": counts.bram,
        "by_tokens": [
            {
                "tokens": head.tokens,
                "cycles": head.cycles,
                "memory_bits": head.state_bits,
                "register_bits": head.register_bits,
            }
            for head in heads
        ],
    }
