"""The accelerator: machines, layer program, hardware description, Verilog, cycles, synthesis.

    import s2tdpt.golden as golden
    import s2tdpt.hw as hw

    params, machine = golden.load("digits"), hw.load_machine("digits")
    hw.generate(params, machine, "build/digits")    # a folder with everything that its user needs
    hw.count_cycles(params, machine, images)        # exact, without simulation

docs/library.md shows more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from s2tdpt.golden.exports import lazy

if TYPE_CHECKING:
    from s2tdpt.hw.estimate.layers import Estimate, count_cycles
    from s2tdpt.hw.estimate.memory_plan import plan_of
    from s2tdpt.hw.netlist.synthesis import synthesize
    from s2tdpt.hw.package.folder import generate
    from s2tdpt.hw.plan.machine import Machine, load_machine, named_machines
    from s2tdpt.hw.plan.program import Program
    from s2tdpt.hw.plan.schedule import build_program
    from s2tdpt.hw.tools.external import survey
    from s2tdpt.hw.top import Accelerator
    from s2tdpt.hw.verilog import emit, lint

__all__ = [
    "Accelerator",
    "Estimate",
    "Machine",
    "Program",
    "build_program",
    "count_cycles",
    "emit",
    "generate",
    "lint",
    "load_machine",
    "named_machines",
    "plan_of",
    "survey",
    "synthesize",
]

_MODULES = {
    "Accelerator": "top",
    "Estimate": "estimate.layers",
    "Machine": "plan.machine",
    "Program": "plan.program",
    "build_program": "plan.schedule",
    "count_cycles": "estimate.layers",
    "emit": "verilog",
    "generate": "package.folder",
    "lint": "verilog",
    "load_machine": "plan.machine",
    "named_machines": "plan.machine",
    "plan_of": "estimate.memory_plan",
    "survey": "tools.external",
    "synthesize": "netlist.synthesis",
}

__getattr__ = lazy(__name__, _MODULES)
