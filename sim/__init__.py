"""Co-simulation: the generated Verilog against the golden model, value by value.

    import s2tdpt.sim as sim

    report = sim.cosimulate(params, machine, images)
    assert report.ok, report.first()

docs/library.md shows more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from s2tdpt.golden.exports import lazy

if TYPE_CHECKING:
    from s2tdpt.sim.cosim import Options, cosimulate
    from s2tdpt.sim.design import Design, generate
    from s2tdpt.sim.report import CosimReport

__all__ = [
    "CosimReport",
    "Design",
    "Options",
    "cosimulate",
    "generate",
]

_MODULES = {
    "CosimReport": "report",
    "Design": "design",
    "Options": "cosim",
    "cosimulate": "cosim",
    "generate": "design",
}

__getattr__ = lazy(__name__, _MODULES)
