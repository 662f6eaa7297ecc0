"""FPGA families: how a netlist becomes a bitstream with open tools, and how pins are named."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from s2tdpt.hw.board.pll import Pll, ecp5_pll, gowin_pll, ice40_pll
from s2tdpt.hw.netlist.synthesis import ECP5_CELLS, ROUTER

TOP = "s2tdpt_board"
"""Name of the top module of a bitstream."""


@dataclass(frozen=True)
class Pin:
    """A pin of a board.

    Attributes
    ----------
    port : str
        Port of the design.
    site : str
        Name of the pin on the package.
    inverted : bool
        Whether low means on.
    attributes : tuple of (str, value)
        Electrical ones, as amaranth-boards has them for the family.
    """

    port: str
    site: str
    inverted: bool
    attributes: tuple[tuple[str, Any], ...]


@dataclass(frozen=True)
class Family:
    """How a bitstream is made.

    Attributes
    ----------
    name : str
    synth : str
        Command of Yosys.
    global_buffer : str
        Verilog that puts ``source`` on the wire ``reset`` by the network that clocks use: thousands of
        flip-flops listen to it. Empty: the family's tools do it by themselves.
    router, packer : str
        Tools (`hw.tools.external`).
    constraints : str
        Name of the file with the pins.
    bitstream : str
        Name of what is to be loaded.
    used : dict
        Resource to its name in nextpnr's report.
    part : callable
        A platform of amaranth-boards to device and package as nextpnr names them.
    pll : callable
        MHz in and MHz wanted to the fastest `Pll` that is not faster.
    pins : callable
        Pins to the text of `constraints`.
    route : callable
        Device, package to the arguments of nextpnr that are the family's own.
    pack : callable
        Device to the arguments of the packer.
    """

    name: str
    synth: str
    global_buffer: str
    router: str
    packer: str
    constraints: str
    bitstream: str
    used: dict[str, str]
    part: Callable[[Any], tuple[str, str]]
    pll: Callable[[float, float], Pll]
    pins: Callable[[tuple[Pin, ...]], str]
    route: Callable[[str, str], list[str]]
    pack: Callable[[str], list[str]]


def _lpf(pins: tuple[Pin, ...]) -> str:
    return "".join(
        f'LOCATE COMP "{pin.port}" SITE "{pin.site}";\nIOBUF PORT "{pin.port}" {_settings(pin)};\n'
        for pin in pins
    )


def _pcf(pins: tuple[Pin, ...]) -> str:
    pulled = {pin.port for pin in pins if dict(pin.attributes).get("PULLUP")}
    return "".join(
        f"set_io {'-pullup yes ' if pin.port in pulled else ''}{pin.port} {pin.site}\n" for pin in pins
    )


def _cst(pins: tuple[Pin, ...]) -> str:
    return "".join(
        f'IO_LOC "{pin.port}" {pin.site};\nIO_PORT "{pin.port}" {_settings(pin)};\n' for pin in pins
    )


def _settings(pin: Pin) -> str:
    return " ".join(f"{name}={value}" for name, value in pin.attributes)


def _ecp5_part(platform) -> tuple[str, str]:
    size = platform.device.rpartition("-")[2].rstrip("F").lower()
    return f"{size}k", platform.package.replace("BG", "CABGA", 1)


FAMILIES = {
    "ecp5": Family(
        name="ecp5",
        synth=f"synth_ecp5 -top {TOP} -json design.json",
        global_buffer="DCCA reset_tree (.CLKI({source}), .CE(1'b1), .CLKO({reset}));",
        router="nextpnr-ecp5",
        packer="ecppack",
        constraints="design.lpf",
        bitstream="design.bit",
        used=ECP5_CELLS,
        part=_ecp5_part,
        pll=ecp5_pll,
        pins=_lpf,
        route=lambda device, package: [
            *(f"--{device}", "--package", package, "--speed", "6", *ROUTER),
            *("--lpf", "design.lpf", "--textcfg", "routed.config"),
        ],
        pack=lambda device: ["--compress", "routed.config", "design.bit"],
    ),
    "ice40": Family(
        name="ice40",
        synth=f"synth_ice40 -device u -dsp -top {TOP} -json design.json",
        global_buffer="",  # nextpnr-ice40 promotes resets
        router="nextpnr-ice40",
        packer="icepack",
        constraints="design.pcf",
        bitstream="design.bin",
        used={"lut": "ICESTORM_LC", "bram": "ICESTORM_RAM", "spram": "ICESTORM_SPRAM", "dsp": "ICESTORM_DSP"},
        part=lambda platform: (platform.device.removeprefix("iCE40").lower(), platform.package.lower()),
        pll=ice40_pll,
        pins=_pcf,
        route=lambda device, package: [
            *(f"--{device}", "--package", package, "--pcf", "design.pcf", "--asc", "routed.asc"),
        ],
        pack=lambda device: ["routed.asc", "design.bin"],
    ),
    "gowin": Family(
        name="gowin",
        synth=f"synth_gowin -top {TOP} -json design.json",
        global_buffer="",
        router="nextpnr-himbaechel-gowin",
        packer="gowin_pack",
        constraints="design.cst",
        bitstream="design.fs",
        used={"lut": "LUT4", "ff": "DFF", "lutram": "RAM16SDP4", "bram": "BSRAM", "alu": "ALU"},
        part=lambda platform: (platform.part, platform.family),
        pll=gowin_pll,
        pins=_cst,
        route=lambda device, family: [
            *("--device", device, "--vopt", f"family={_gowin(family)}", "--vopt", "cst=design.cst"),
            *("--write", "routed.json"),
        ],
        pack=lambda device: [
            *("-d", "GW1N-9C", "--sspi_as_gpio", "--mspi_as_gpio", "-o", "design.fs", "routed.json"),
        ],
    ),
}


def _gowin(family: str) -> str:
    """The name of the die: that of the part without the memory in its package."""
    return family.replace("GW1NR", "GW1N").replace("GW2AR", "GW2A")
