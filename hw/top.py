"""The top: the core behind AXI4-Stream ports under the names that vendor tools infer."""

from __future__ import annotations

from amaranth import ClockDomain, ClockSignal, Module, ResetSignal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from s2tdpt.golden.bounds import derive_bounds
from s2tdpt.golden.params import Params
from s2tdpt.hw.config import HardwareConfig
from s2tdpt.hw.core import Core
from s2tdpt.hw.schedule import Program, build_program
from s2tdpt.hw.widths import Widths, derive_widths

BUS = {"s_": "s_axis_", "m_": "m_axis_", "w_": "s_axis_weights_"}
"""Bus prefixes of the core and of the top."""


class Accelerator(wiring.Component):
    """S2TDPT accelerator with AXI4-Stream ports.

    Parameters
    ----------
    params : Params
    hardware : HardwareConfig

    Members
    -------
    aclk, aresetn : In(1)
        Clock; synchronous reset, active low.
    s_axis_*, m_axis_*, s_axis_weights_*
        See docs/interface.md.
    error_short, error_long, error_weights, busy, probe_*
        As in `core.Core`.
    """

    def __init__(self, params: Params, hardware: HardwareConfig):
        bounds = derive_bounds(params)
        self.widths: Widths = derive_widths(params, bounds)
        self.program: Program = build_program(params.config, hardware, self.widths.head_sum)
        self.params = params
        self._core = Core(params, self.program, self.widths)
        self._names = {}
        members = {"aclk": In(1), "aresetn": In(1)}
        for name, member in self._core.signature.members.items():
            prefix = name[:2]
            outer = BUS[prefix] + name[2:] if name[2:].startswith("t") and prefix in BUS else name
            self._names[name] = outer
            members[outer] = member
        super().__init__(members)

    def elaborate(self, platform):
        m = Module()
        m.domains.sync = ClockDomain("sync")
        m.d.comb += [ClockSignal("sync").eq(self.aclk), ResetSignal("sync").eq(~self.aresetn)]
        m.submodules.core = core = self._core
        for name, outer in self._names.items():
            inner, port = getattr(core, name), getattr(self, outer)
            outward = core.signature.members[name].flow == Out
            m.d.comb += port.eq(inner) if outward else inner.eq(port)
        return m
