"""The accelerator as cells of a library: synthesis with blocks kept apart, large memories kept as macros.

Yosys maps every block on its own, so that no optimisation crosses from block to block and every cell belongs
to one. Memories above `macro_model.MACRO_BITS` bits that are read with a clock stay what they are; the others
become flip-flops and gates.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from s2tdpt.golden.errors import UserError
from s2tdpt.hw.estimate.macro_model import MACRO_BITS
from s2tdpt.hw.netlist.circuit import Bit, Macro, ReadPort, WritePort
from s2tdpt.hw.tools.cache import cache_folder, make_entry, used
from s2tdpt.hw.tools.external import find_tool, run_tool

__all__ = [
    "Instance",
    "Netlist",
    "blocks_of",
    "map_to_cells",
    "mapped_module",
    "number_of",
]

_COARSE = """\
read_verilog -sv design.sv
hierarchy -top {top}
setattr -mod -set keep_hierarchy 1 {blocks}
synth -top {top} -flatten -run begin:fine
setattr -unset init w:*
write_rtlil coarse.il
json -noscopeinfo -o memories.json t:$mem_v2
"""

# Flip-flops of a library have no initial value; the reset gives every register its value.
_FINE = """\
read_rtlil coarse.il
opt -fast -full
{memory_map}
opt -undriven -fine
techmap
opt -fast
dfflibmap -liberty cells.lib
opt -fast
abc -liberty cells.lib
opt_clean
setattr -mod -unset keep_hierarchy *
flatten
opt_clean
write_json -compat-int netlist.json
"""


@dataclass(frozen=True)
class Instance:
    """A cell of the library.

    Attributes
    ----------
    name : str
        Hierarchical, with dots.
    kind : str
        Cell of the library.
    pins : dict of str to Bit
    """

    name: str
    kind: str
    pins: dict[str, Bit]


@dataclass(frozen=True)
class Netlist:
    """Attributes
    ----------
    top : str
    ports : dict of str to (direction, bits)
    cells : tuple of Instance
    macros : tuple of Macro
    blocks : tuple of str
        Paths of the blocks that were kept apart, the longest first.
    """

    top: str
    ports: dict[str, tuple[str, tuple[Bit, ...]]]
    cells: tuple[Instance, ...]
    macros: tuple[Macro, ...]
    blocks: tuple[str, ...]

    def block(self, name: str) -> str:
        """Block of a cell or macro."""
        return next((block for block in self.blocks if name.startswith(block + ".")), self.top)


def blocks_of(verilog: str, top: str) -> list[str]:
    """Modules that are mapped by themselves: the core of an accelerator and its parts."""
    names = re.findall(r"^module (\w+)\(", verilog, re.MULTILINE)
    core = f"{top}__core"
    parts = [name for name in names if name.startswith(f"{core}__") and "__" not in name[len(core) + 2 :]]
    return [name for name in names if name == core] + parts


Module = dict[str, Any]
"""A mapped module as Yosys' JSON has it: `ports`; `cells` with type, parameters and connections."""


def unchanged(module: Module) -> Module:
    """No planted fault."""
    return module


def map_to_cells(
    verilog: str,
    top: str,
    liberty: str,
    *,
    change: Callable[[Module], Module] = unchanged,
    step: Callable[[str], None] = lambda text: None,
) -> Netlist:
    """Synthesise a design onto a library, or take it from the cache; minutes.

    Parameters
    ----------
    verilog : str
        As `hw.verilog.emit` writes it.
    liberty : str
        Text of the library.
    change : callable
        Alters the mapped module: for planting faults.
    step : callable
        Told in words what begins.

    Raises
    ------
    UserError
        Yosys fails (a `hw.tools.external.ToolError`); a cell that is none of the library.
    """
    blocks = blocks_of(verilog, top)
    texts = (verilog, top, liberty, _COARSE, _FINE, str(MACRO_BITS))
    data = mapped_module(texts, lambda work: _synthesise(work, verilog, top, liberty, blocks, step))
    paths = sorted((name.removeprefix(f"{top}__").replace("__", ".") for name in blocks), key=len)
    return _netlist(change(data), top, tuple(reversed(paths)))


def mapped_module(texts: Sequence[str], make: Callable[[Path], Module]) -> Module:
    """A mapped module from the cache, or made in an empty folder.

    Parameters
    ----------
    texts : sequence of str
        Everything that the module follows from; the version of Yosys is added.
    make : callable
    """
    key = hashlib.sha256(chr(0).join((*texts, find_tool("yosys").version)).encode()).hexdigest()[:24]
    entry, file = cache_folder() / "netlists" / key, "netlist.json.gz"
    if (entry / file).is_file():
        used(entry)
        return json.loads(gzip.decompress((entry / file).read_bytes()))
    with make_entry(entry) as work, tempfile.TemporaryDirectory() as folder:
        module = make(Path(folder))
        kept = ("type", "parameters", "connections")
        cells = {name: {key: cell[key] for key in kept} for name, cell in module["cells"].items()}
        data = {"ports": module["ports"], "cells": cells}
        (work / file).write_bytes(gzip.compress(json.dumps(data).encode(), 1))
    return data


def _synthesise(work: Path, verilog: str, top: str, liberty: str, blocks: Sequence[str], tell) -> Module:
    """Coarse synthesis, then the mapping to cells."""
    (work / "design.sv").write_text(verilog)
    (work / "cells.lib").write_text(liberty)
    tell("yosys: coarse synthesis, which takes minutes")
    (work / "coarse.ys").write_text(_COARSE.format(top=top, blocks=" ".join(blocks or [top])))
    run_tool("yosys", ["-q", "coarse.ys"], cwd=work)
    modules = json.loads((work / "memories.json").read_text())["modules"]
    small = [
        # A backslash would escape what follows it in a pattern.
        f"memory_map {module}/{name}".replace("\\", "?")
        for module, content in modules.items()
        for name, cell in content["cells"].items()
        if not _stays(cell["parameters"])
    ]
    tell("yosys: mapping to cells, which takes minutes")
    (work / "fine.ys").write_text(_FINE.format(memory_map="\n".join(small)))
    run_tool("yosys", ["-q", "fine.ys"], cwd=work)
    return json.loads((work / "netlist.json").read_text())["modules"][top]


def number_of(value: int | str) -> int:
    """A parameter's number; what is undefined in it counts as 0."""
    return value if isinstance(value, int) else int(value.replace("x", "0") or "0", 2)


def _number(parameters: Mapping[str, Any], name: str) -> int:
    return number_of(parameters[name])


def _stays(parameters: Mapping[str, Any]) -> bool:
    """Whether a memory is a macro: large, every read clocked, no read sees a write of its own cycle."""
    ports = _number(parameters, "RD_PORTS")
    clocked = _number(parameters, "RD_CLK_ENABLE") == (1 << ports) - 1
    bits = _number(parameters, "SIZE") * _number(parameters, "WIDTH")
    return bits > MACRO_BITS and clocked and not _number(parameters, "RD_TRANSPARENCY_MASK")


def _netlist(module: Mapping[str, Any], top: str, blocks: tuple[str, ...]) -> Netlist:
    cells, macros = [], []
    for name, cell in module["cells"].items():
        if cell["type"] == "$mem_v2":
            macros.append(_macro(name.replace("\\", ""), cell))
        elif not cell["type"].startswith("$"):
            pins = {pin: bits[0] for pin, bits in cell["connections"].items()}
            path = name.removeprefix("$flatten").replace("\\", "")  # of a cell that Yosys named
            cells.append(Instance(path, cell["type"], pins))
        elif cell["type"] != "$scopeinfo":
            raise UserError(
                f"the netlist has a cell {cell['type']} that is not in the library; expected gates and "
                "flip-flops of it; choose a library with DFFs and basic gates"
            )
    ports = {name: (port["direction"], tuple(port["bits"])) for name, port in module["ports"].items()}
    return Netlist(top, ports, tuple(cells), tuple(macros), blocks)


def _macro(name: str, cell: Mapping[str, Any]) -> Macro:
    parameters, wires = cell["parameters"], cell["connections"]
    words, bits, width = (_number(parameters, name) for name in ("SIZE", "WIDTH", "ABITS"))

    def slices(name: str, size: int, count: int) -> list[tuple[Bit, ...]]:
        return [tuple(wires[name][port * size : (port + 1) * size]) for port in range(count)]

    count = _number(parameters, "RD_PORTS")
    reset_value, over = _number(parameters, "RD_SRST_VALUE"), _number(parameters, "RD_CE_OVER_SRST")
    reads = tuple(
        ReadPort(
            wires["RD_EN"][port],
            address,
            data,
            wires["RD_SRST"][port],
            reset_value >> port * bits & ((1 << bits) - 1),
            bool(over >> port & 1),
        )
        for port, (address, data) in enumerate(
            zip(slices("RD_ADDR", width, count), slices("RD_DATA", bits, count), strict=True)
        )
    )
    count = _number(parameters, "WR_PORTS")
    writes = tuple(
        WritePort(*parts)
        for parts in zip(
            slices("WR_EN", bits, count),
            slices("WR_ADDR", width, count),
            slices("WR_DATA", bits, count),
            strict=True,
        )
    )
    return Macro(name, words, bits, _number(parameters, "INIT"), reads, writes)
