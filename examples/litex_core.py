"""A generated accelerator as a core of LiteX.

    from litex_core import S2tdpt, add_registers

    self.s2tdpt = S2tdpt(platform, "build/digits")             # the folder of `s2tdpt generate --registers`
    add_registers(self, "s2tdpt", self.s2tdpt, 0x9000_0000)    # in a SoC

The streams are LiteX endpoints, for instance for its DMA engines: an image is one packet of bytes, a result
one of logits and the class (docs/interface.md). The registers are those of docs/registers.md; the C header of
the package is for the firmware.
"""

import json
from pathlib import Path

from litex.gen import LiteXModule
from litex.soc.integration.soc import SoCRegion
from litex.soc.interconnect import axi, stream
from migen import ClockSignal, Instance, ResetSignal, Signal

STREAMS = {"sink": "s_axis", "source": "m_axis", "weights": "s_axis_weights"}
"""Endpoints of the core, and the ports that they are made of; `weights` with streamed weights only."""

CHANNELS = {
    "aw": {"addr": "awaddr", "prot": "awprot"},
    "w": {"data": "wdata", "strb": "wstrb"},
    "b": {"resp": "bresp"},
    "ar": {"addr": "araddr", "prot": "arprot"},
    "r": {"data": "rdata", "resp": "rresp"},
}
"""Fields of an AXI4-Lite channel in LiteX, and the ports ``s_axi_*``."""


class S2tdpt(LiteXModule):
    """The accelerator of a package.

    Parameters
    ----------
    platform
        Gets the Verilog file.
    package : path
        Folder of `s2tdpt generate`.

    Attributes
    ----------
    sink, source, weights : stream.Endpoint
        Images, results; weights with streamed weights only.
    bus : axi.AXILiteInterface
        Registers; with ``--registers`` only.
    busy, error_short, error_long, error_weights : Signal
        Whichever of them the accelerator has.
    """

    def __init__(self, platform, package):
        package = Path(package).resolve()
        manifest = json.loads((package / "manifest.json").read_text())
        self._ports = {port["name"]: port for port in manifest["ports"]}
        self._pins = {"i_aclk": ClockSignal("sys"), "i_aresetn": ~ResetSignal("sys")}
        for attribute, prefix in STREAMS.items():
            if f"{prefix}_tdata" in self._ports:
                setattr(self, attribute, self._endpoint(prefix))
        if "s_axi_awaddr" in self._ports:
            self.bus = self._registers()
        for name in self._ports:
            if name.startswith(("busy", "error_")):
                setattr(self, name, Signal(name=name))
                self._pin(name, getattr(self, name))
        missing = {name for name in self._ports if not self._known(name) and not name.startswith("probe_")}
        if missing:
            raise ValueError(
                f"{package} has ports that this core does not know: {', '.join(sorted(missing))}"
            )
        self.specials += Instance(manifest["top"], **self._pins)
        platform.add_source(str(package / f"{manifest['top']}.sv"))

    def _known(self, name):
        return f"i_{name}" in self._pins or f"o_{name}" in self._pins

    def _pin(self, name, signal):
        self._pins[f"{self._ports[name]['direction'][0]}_{name}"] = signal

    def _endpoint(self, prefix):
        endpoint = stream.Endpoint([("data", self._ports[f"{prefix}_tdata"]["width"])])
        for field in ("data", "valid", "ready", "last"):
            self._pin(f"{prefix}_t{field}", getattr(endpoint, field))
        return endpoint

    def _registers(self):
        bits = self._ports["s_axi_awaddr"]["width"]
        bus = axi.AXILiteInterface(data_width=32, address_width=32)
        for name, fields in CHANNELS.items():
            channel = getattr(bus, name)
            for field, port in fields.items():
                signal = getattr(channel, field)
                self._pin(f"s_axi_{port}", signal[:bits] if field == "addr" else signal)
            for field in ("valid", "ready"):
                self._pin(f"s_axi_{name}{field}", getattr(channel, field))
        return bus


def add_registers(soc, name, core, origin):
    """Put the registers of a core into the address space of a SoC, uncached."""
    soc.bus.add_slave(name, core.bus, SoCRegion(origin=origin, size=0x1000, cached=False))
