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
    "Estimate": "estimate",
    "Machine": "machine",
    "Program": "program",
    "build_program": "schedule",
    "count_cycles": "estimate",
    "emit": "verilog",
    "generate": "package",
    "lint": "verilog",
    "load_machine": "machine",
    "named_machines": "machine",
    "plan_of": "memory_plan",
    "survey": "tools",
    "synthesize": "synthesis",
}

__getattr__ = lazy(__name__, _MODULES)
