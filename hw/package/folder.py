"""The folder that `s2tdpt generate` writes: Verilog with all that its user needs, and a manifest.

The folder is complete or absent: it is filled under a temporary name beside its place and renamed. Equal
inputs and tools give equal bytes; the manifest holds no date and no path.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from s2tdpt.golden.errors import UserError
from s2tdpt.golden.folders import MANIFEST, check_replaceable, make_folder
from s2tdpt.golden.register_map import MAP
from s2tdpt.golden.register_texts import c_header, python_driver
from s2tdpt.hw.package.constraints import FREQUENCY, check_frequency, constraint_files
from s2tdpt.hw.package.fusesoc import core_file
from s2tdpt.hw.package.testbench import WEIGHTS, chosen_image, testbench_files
from s2tdpt.hw.plan.machine import Machine
from s2tdpt.hw.tools.external import versions
from s2tdpt.hw.verilog import LINT_WAIVERS, Port, emit, read_ports

if TYPE_CHECKING:
    import numpy as np

    from s2tdpt.golden.params import Params
    from s2tdpt.hw.top import Accelerator

__all__ = ["check_package", "default_name", "describe", "generate", "instantiation", "write_package"]

FORMAT = "s2tdpt-package"

TOOLS = ("amaranth", "yosys")
"""What the Verilog depends on, beside this program."""

# What a Verilog module may be called without an escape; keywords that anyone would choose excluded.
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,63}")
_KEYWORDS = {"always", "begin", "case", "design", "end", "input", "logic", "module", "output", "reg", "wire"}


def default_name(params: Params) -> str:
    """Name of the top module unless told: that of the configuration, as part of a Verilog name."""
    return "s2tdpt_" + "".join(c if c.isalnum() else "_" for c in params.config.name)[:57]


def generate(
    params: Params,
    machine: Machine,
    folder: Path | str,
    name: str | None = None,
    *,
    probes: bool = False,
    registers: bool = False,
    frequency: float = FREQUENCY,
    image: np.ndarray | None = None,
    force: bool = False,
    tell: Callable[[str], None] | None = None,
) -> Path:
    """Generate the accelerator of a network on a machine into a new folder; see `write_package`.

    Parameters
    ----------
    params : Params
    machine : Machine
    folder : path
        Folder to create; its parent must exist.
    name : str, optional
        Name of the top module; by default `default_name`.
    probes : bool
        Give it the observation ports (docs/interface.md).
    registers : bool
        Give it control and status registers on AXI4-Lite (docs/registers.md), and their drivers.
    frequency : float
        Clock that the constraints ask for, MHz.
    image : ndarray, optional
        uint8 [H, W, C], which the testbench plays; by default that of `testbench.chosen_image`.
    force : bool
        Replace the folder if it is an earlier package.
    tell : callable, optional
        See `write_package`.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    UserError
        It has more memory than can be generated, the image does not fit, or as `write_package`; nothing is
        left behind.
    """
    from s2tdpt.hw.top import Accelerator

    top = default_name(params) if name is None else name
    check_frequency(frequency)
    check_package(Path(folder), top, force)
    image = chosen_image(params.config, image)
    accelerator = Accelerator(params, machine, observed=probes, registers=registers)
    manifest = describe(accelerator)
    files = memory_images(accelerator) | testbench_files(accelerator, top, image)
    if registers:
        files |= register_files()
    return write_package(
        folder, accelerator, top, manifest=manifest, files=files, frequency=frequency, force=force, tell=tell
    )


def memory_images(accelerator: Accelerator) -> dict[str, str]:
    """The beats of an image's weight stream as hexadecimal text, one a line (``$readmemh``), by file name.

    Nothing with weights on chip: they are inside the Verilog.
    """
    from s2tdpt.hw.blocks.images import stream_beats, stream_width

    params, program, widths = accelerator.params, accelerator.program, accelerator.widths
    if program.machine.weight_memory != "stream":
        return {}
    digits = -(-stream_width(program) // 4)
    beats = stream_beats(params, program, widths)
    return {WEIGHTS: "".join(f"{beat:0{digits}x}\n" for beat in beats)}


def register_files() -> dict[str, str]:
    """The register map and what is made from it, by file name."""
    return {
        "registers.json": MAP.model_dump_json(indent=2) + "\n",
        "s2tdpt_registers.h": c_header(MAP),
        "s2tdpt_registers.py": python_driver(MAP),
    }


def describe(accelerator: Accelerator) -> dict[str, Any]:
    """Sections of the manifest: network, machine, parameters, widths, registers (if any), program."""
    program, constants = accelerator.program, accelerator.constants
    registers = {
        "frame_bytes": constants.frame_bytes,
        "result_words": constants.result_words,
        "result_word_bytes": constants.result_word_bytes,
        "config_hash": constants.config_hash.hex(),
    }
    return {
        "network": program.network.model_dump(mode="json"),
        "machine": program.machine.model_dump(mode="json"),
        "parameters": {
            "sha256": accelerator.params.checksum(),
            "residual_threshold": accelerator.params.residual_threshold,
            "attention_threshold": accelerator.params.attention_threshold,
        },
        "widths": accelerator.widths.as_dict(),
        **({"registers": registers} if accelerator.registers else {}),
        "program": {
            "spike_words": program.spike_words,
            "weight_rows": program.rows,
            "constant_words": program.const_words,
            "largest_tile_rows": program.max_tile_rows,
            "pixel_passes": program.pixel_passes,
            "head_passes": program.head_passes,
            "steps": [
                {
                    "index": index,
                    "name": step.name,
                    "layer": step.layer,
                    "group": step.group,
                    "source": step.source.name.lower(),
                    "sink": step.sink.name.lower(),
                    "height": step.height,
                    "width": step.width,
                    "after": step.after,
                    "after_attention": step.after_attention,
                }
                for index, step in enumerate(program.steps)
            ],
        },
    }


def instantiation(name: str, ports: list[Port]) -> str:
    """Text to paste into a design: a declaration for every port and the instance."""
    width = max(len(port.name) for port in ports)
    lines = [f"// Instantiation template of {name}.", ""]
    for port in ports:
        bits = f"[{port.width - 1}:0]" if port.width > 1 else ""
        lines.append(f"wire {bits:>8} {port.name};".ljust(width + 18) + f"// {port.direction}")
    pins = ",\n".join(f"  .{port.name.ljust(width)} ({port.name})" for port in ports)
    return "\n".join([*lines, "", f"{name} u_{name} (", pins, ");", ""])


def write_package(
    folder: Path | str,
    component,
    name: str,
    *,
    manifest: Mapping[str, Any] | None = None,
    force: bool = False,
    files: Mapping[str, str] | None = None,
    frequency: float = FREQUENCY,
    tell: Callable[[str], None] | None = None,
) -> Path:
    """Generate a component and write everything that its user needs into a new folder.

    | file | content |
    |---|---|
    | ``{name}.sv`` | the whole design, SystemVerilog; memory contents are inside |
    | ``{name}.f`` | file list: what has to be compiled |
    | ``{name}_inst.sv`` | instantiation template |
    | ``{name}.sdc``, ``{name}.lpf`` | constraints of the clock and the ports |
    | ``{name}.core`` | core description for FuseSoC |
    | ``lint.vlt`` | Verilator's warnings that mean nothing here |
    | whatever `files` names | for instance memory images |
    | ``manifest.json`` | `manifest`, ports, SHA-256 of the other files, versions of the generators |

    Parameters
    ----------
    folder : path
        Folder to create; its parent must exist.
    component : amaranth.lib.wiring.Component
        The design, for instance `hw.top.Accelerator`.
    name : str
        Name of the top module.
    manifest : mapping, optional
        More sections of the manifest, such as `describe` gives for an accelerator.
    files : mapping, optional
        More files of the package: name to text.
    frequency : float
        Clock that the constraints ask for, MHz.
    force : bool
        Replace the folder if it is an earlier package. Any other folder is never touched.
    tell : callable, optional
        Told a line a file just before the folder takes its place: if that fails (standard output on a full
        disk, say), there is no folder.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    UserError
        If the name is no Verilog name, the folder exists or cannot be written.
    """
    folder = Path(folder)
    check_package(folder, name, force)
    own = getattr(component, "ports", None)
    verilog = emit(component, name) if own is None else emit(component, name, own())
    ports = read_ports(verilog, name)
    texts = {
        f"{name}.sv": verilog,
        f"{name}.f": f"{name}.sv\n",
        f"{name}_inst.sv": instantiation(name, ports),
        **constraint_files(name, ports, frequency),
        LINT_WAIVERS.name: LINT_WAIVERS.read_text(encoding="utf-8"),
        **(files or {}),
    }
    texts[f"{name}.core"] = core_file(name, versions(("s2tdpt",))["s2tdpt"], texts)
    content = {
        "format": FORMAT,
        "version": 1,
        "top": name,
        **(manifest or {}),
        "ports": [{"name": port.name, "direction": port.direction, "width": port.width} for port in ports],
        "files": {file: hashlib.sha256(text.encode()).hexdigest() for file, text in texts.items()},
        "tools": versions(("s2tdpt", *TOOLS)),
    }
    texts[MANIFEST] = json.dumps(content, indent=2) + "\n"

    def fill(place: Path) -> None:
        for file, text in texts.items():
            (place / file).write_text(text)

    make_folder(folder, fill, force, tell)
    return folder


def check_package(folder: Path, name: str, force: bool = False) -> None:
    """Refuse a name or a place that `write_package` could not use, before anything is generated.

    Raises
    ------
    UserError
        The name is no Verilog name, or the folder exists and is not to be replaced.
    """
    if not _NAME.fullmatch(name) or name in _KEYWORDS:
        raise UserError(
            f"{name!r} cannot be a module name; expected a letter, then letters, digits or "
            "underscores, at most 64, and no keyword; choose another name"
        )
    check_replaceable(folder, FORMAT, "generated package", force)
