"""The accelerator as it is generated: clock, reset, AXI4-Stream ports, on request probes and registers."""

from __future__ import annotations

from amaranth import ClockDomain, ClockSignal, Module, ResetSignal
from amaranth.hdl import Value
from amaranth.hdl._ir import PortDirection  # what rtlil.convert asks for
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from s2tdpt.golden.bounds import derive_bounds
from s2tdpt.golden.params import Params
from s2tdpt.golden.register_map import MAP
from s2tdpt.golden.registers import Constants, config_hash
from s2tdpt.hw.bus.axi_lite import AxiLite
from s2tdpt.hw.bus.registers import RegisterBlock
from s2tdpt.hw.core import Core
from s2tdpt.hw.estimate.memory_plan import check_size, plan_for
from s2tdpt.hw.plan.machine import Machine
from s2tdpt.hw.plan.program import Program
from s2tdpt.hw.plan.schedule import program_of
from s2tdpt.hw.plan.widths import Widths, derive_widths

BUSES = {"pixels": "s_axis", "results": "m_axis", "weights": "s_axis_weights"}
"""Names of the core's streams on the bus."""

REGISTER_BUS = "s_axi"
"""Name of the registers' bus."""


class Accelerator(wiring.Component):
    """S2TDPT accelerator with AXI4-Stream ports.

    Parameters
    ----------
    params : Params
    machine : Machine
    observed : bool
        Give it the observation ports; the hardware inside is the same.
    registers : bool
        Give it control and status registers on AXI4-Lite (docs/registers.md), which let the images in.

    Members
    -------
    aclk, aresetn : In(1)
        Clock; synchronous reset, active low.
    core
        Members of `core.Core`. `ports` has their names in the generated Verilog (docs/interface.md).
    bus : In(AxiLite)
        With `registers` only.

    Raises
    ------
    UserError
        It has more memory than can be generated.
    """

    def __init__(self, params: Params, machine: Machine, observed: bool = False, registers: bool = False):
        bounds = derive_bounds(params)
        self.params, self.observed, self.registers = params, observed, registers
        self.widths: Widths = derive_widths(params, bounds)
        self.program: Program = program_of(params, machine, self.widths.head_sum)
        check_size(plan_for(self.program, self.widths, bounds))
        self._core = Core(params, self.program, self.widths, bounds)
        members = {"aclk": In(1), "aresetn": In(1), "core": Out(self._core.signature)}
        if registers:
            members["bus"] = In(AxiLite(MAP.address_bits))
        super().__init__(members)

    @property
    def constants(self) -> Constants:
        """What the registers say of the design."""
        network, machine = self.program.network, self.program.machine
        return Constants(
            frame_bytes=network.image_height * network.image_width * network.image_channels,
            result_words=network.num_classes + 1,
            result_word_bytes=len(self.core.results.tdata) // 8,
            config_hash=config_hash(
                network.model_dump(mode="json"), machine.model_dump(mode="json"), self.params.checksum()
            ),
        )

    def ports(self) -> dict[str, tuple[Value, PortDirection]]:
        """Ports of the generated module: name to value and direction."""
        directions = {In: PortDirection.Input, Out: PortDirection.Output}
        found = {
            "aclk": (self.aclk, PortDirection.Input),
            "aresetn": (self.aresetn, PortDirection.Input),
        }
        for path, member, value in self.core.signature.flatten(self.core):
            if path[0] == "events" or (path[0] == "probe" and not self.observed):
                continue
            name = "_".join(str(part) for part in (BUSES.get(path[0], path[0]), *path[1:]))
            found[name] = (Value.cast(value), directions[member.flow])
        if self.registers:
            for path, member, value in self.bus.signature.flatten(self.bus):
                found[f"{REGISTER_BUS}_{path[0]}"] = (Value.cast(value), directions[member.flow])
        return found

    def elaborate(self, platform):
        m = Module()
        m.domains.sync = ClockDomain("sync")
        m.d.comb += [ClockSignal("sync").eq(self.aclk), ResetSignal("sync").eq(~self.aresetn)]
        m.submodules.core = core = self._core
        pairs = zip(self.core.signature.flatten(self.core), core.signature.flatten(core), strict=True)
        for (path, member, outer), (_, _, inner) in pairs:
            if path[0] != "pixels":
                m.d.comb += outer.eq(inner) if member.flow == Out else inner.eq(outer)
        pixels = wiring.flipped(self.core.pixels)
        if self.registers:
            m.submodules.registers = block = RegisterBlock(self.constants)
            wiring.connect(m, wiring.flipped(self.bus), block.bus)
            wiring.connect(m, pixels, block.pixels)
            wiring.connect(m, core.events, block.events)
            m.d.comb += [
                *(block.busy.eq(core.busy), block.error_short.eq(core.error_short)),
                block.error_long.eq(core.error_long),
                *([block.error_weights.eq(core.error_weights)] if self._streams else []),
            ]
            pixels = block.gated
        wiring.connect(m, pixels, core.pixels)
        return m

    @property
    def _streams(self) -> bool:
        return self.program.machine.weight_memory == "stream"
