"""The registers of a whole accelerator in Verilog, driven by cocotbext-axi under stalls.

Equal to the twin, to the golden model and, cycle for cycle, to the cycle model; altered hardware is noticed.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import pytest

from s2tdpt.golden.register_map import MAP
from s2tdpt.golden.registers import Registers
from s2tdpt.hw.bus import registers as hardware
from s2tdpt.hw.estimate.cycles import frame_cycles
from s2tdpt.hw.plan.machine import Machine
from s2tdpt.hw.top import Accelerator
from s2tdpt.hw.verilog import emit
from s2tdpt.sim.build import build
from s2tdpt.sim.cases import build_case, network
from s2tdpt.sim.design import MODULE
from s2tdpt.sim.runner import run
from s2tdpt.sim.stalls import PATTERNS
from tests.sim.conftest import QUICK

MACHINE = Machine(lanes=8, banks=2, post_lanes=4)
IMAGES = 4


@dataclass(frozen=True)
class RegisterJob:
    """A job of `tests.sim.register_bench`."""

    frames: list[bytes]
    results: int
    stall: str
    seed: int = 1
    weights: None = None

    module: ClassVar[str] = "tests.sim.register_bench"

    def describe(self) -> dict[str, Any]:
        return {
            "frames": [frame.hex() for frame in self.frames],
            "results": self.results,
            "stall": self.stall,
            "seed": self.seed,
            "limit": 20_000,
        }


@pytest.fixture(scope="module")
def case():
    return build_case(network(), MACHINE, seed=3, frames=IMAGES)


@pytest.fixture(scope="module")
def accelerator(case):
    return Accelerator(case.params, MACHINE, registers=True)


@pytest.fixture(scope="module")
def verilog(accelerator):
    return emit(accelerator, MODULE, accelerator.ports())


def packets(case):
    """Images, and among them one that is too short and two that are too long."""
    images = [image.tobytes() for image in case.images]
    long = images[0] + b"\1\2\3"
    return [images[0], images[1], images[1][:-1], long, images[2], long, images[3]]


def by_twin(twin):
    """All registers as the bench reads them."""
    found = {}
    for register in MAP.registers:
        found[register.name] = [twin.read(register.offset + 4 * word)[0] for word in range(register.words)]
    return found


def check(case, accelerator, outcome):
    """What was read is what the twin, the golden model and the cycle model say."""
    twin = Registers(accelerator.constants)
    totals = [
        frame_cycles(
            accelerator.program,
            {name: value[i] for name, value in case.golden.items()} | {"pixels": case.images[i]},
        ).total
        for i in range(IMAGES)
    ]
    assert outcome["reset"] == outcome["closed"] == by_twin(twin)
    bits = len(accelerator.core.results.tdata)
    for number, result in enumerate(outcome["results"]):
        logits = [logit % (1 << bits) for logit in case.golden["head.logits"][number].tolist()]
        assert result["words"] == [*logits, int(case.golden["head.class"][number])]
        assert (result["frames"], result["cycles"]) == (number + 1, totals[number])
    twin.complete(totals[0])
    assert outcome["single"] == by_twin(twin)
    for total in totals[1:]:
        twin.complete(total)
    for short in (True, False, False):
        twin.drop(short)
    assert outcome["end"] == by_twin(twin)
    assert outcome["extra"] == 0 and outcome["refused"] > 10


@pytest.mark.parametrize("stall", PATTERNS)
def test_registers_on_their_bus(case, accelerator, verilog, stall, tmp_path):
    built = build(verilog, MODULE, QUICK)
    outcome = run(built, RegisterJob(packets(case), IMAGES, stall), tmp_path)
    assert len(outcome["results"]) == IMAGES
    check(case, accelerator, outcome)


def test_cycles_that_are_counted_wrongly_are_noticed(case, accelerator, monkeypatch, tmp_path):
    right = hardware.saturate
    monkeypatch.setattr(hardware, "saturate", lambda value, shape: right(value + (value[:4] == 7), shape))
    altered = Accelerator(case.params, MACHINE, registers=True)
    built = build(emit(altered, MODULE, altered.ports()), MODULE, QUICK)
    outcome = run(built, RegisterJob(packets(case), IMAGES, "none"), tmp_path)
    with pytest.raises(AssertionError, match=r"\(1, \d+\) == \(1, \d+\)"):
        check(case, accelerator, outcome)
