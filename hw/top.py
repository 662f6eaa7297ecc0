"""The accelerator as it is generated: clock, reset, AXI4-Stream ports, observation on request."""

from __future__ import annotations

from amaranth import ClockDomain, ClockSignal, Module, ResetSignal
from amaranth.hdl import Value
from amaranth.hdl._ir import PortDirection  # what rtlil.convert asks for
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from s2tdpt.golden.bounds import derive_bounds
from s2tdpt.golden.params import Params
from s2tdpt.hw.core import Core
from s2tdpt.hw.machine import Machine
from s2tdpt.hw.memory_plan import check_size, plan_for
from s2tdpt.hw.program import Program, build_program
from s2tdpt.hw.widths import Widths, derive_widths

BUSES = {"pixels": "s_axis", "results": "m_axis", "weights": "s_axis_weights"}
"""Names of the core's streams on the bus."""


class Accelerator(wiring.Component):
    """S2TDPT accelerator with AXI4-Stream ports.

    Parameters
    ----------
    params : Params
    machine : Machine
    observed : bool
        Give it the observation ports; the hardware inside is the same.

    Members
    -------
    aclk, aresetn : In(1)
        Clock; synchronous reset, active low.
    core
        Members of `core.Core`. `ports` has their names in the generated Verilog (docs/interface.md).

    Raises
    ------
    UserError
        It has more memory than can be generated.
    """

    def __init__(self, params: Params, machine: Machine, observed: bool = False):
        bounds = derive_bounds(params)
        self.params, self.observed = params, observed
        self.widths: Widths = derive_widths(params, bounds)
        self.program: Program = build_program(params.config, machine, self.widths.head_sum, params.laws)
        check_size(plan_for(self.program, self.widths, bounds))
        self._core = Core(params, self.program, self.widths, bounds)
        super().__init__({"aclk": In(1), "aresetn": In(1), "core": Out(self._core.signature)})

    def ports(self) -> dict[str, tuple[Value, PortDirection]]:
        """Ports of the generated module: name to value and direction."""
        found = {
            "aclk": (self.aclk, PortDirection.Input),
            "aresetn": (self.aresetn, PortDirection.Input),
        }
        for path, member, value in self.core.signature.flatten(self.core):
            if path[0] == "probe" and not self.observed:
                continue
            name = "_".join(str(part) for part in (BUSES.get(path[0], path[0]), *path[1:]))
            direction = PortDirection.Output if member.flow == Out else PortDirection.Input
            found[name] = (Value.cast(value), direction)
        return found

    def elaborate(self, platform):
        m = Module()
        m.domains.sync = ClockDomain("sync")
        m.d.comb += [ClockSignal("sync").eq(self.aclk), ResetSignal("sync").eq(~self.aresetn)]
        m.submodules.core = core = self._core
        wiring.connect(m, wiring.flipped(self.core), core)
        return m
