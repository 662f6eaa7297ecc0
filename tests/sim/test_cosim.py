"""Co-simulation of generated hardware: equality on every stream pattern, and faults that must not pass."""

import re
import shutil
from dataclasses import replace

import numpy as np
import pytest

from s2tdpt.golden.errors import UserError
from s2tdpt.golden.params import Params
from s2tdpt.hw.config import HardwareConfig
from s2tdpt.hw.cycles import frame_cycles
from s2tdpt.sim.cosim import check_images, cosimulate
from s2tdpt.sim.design import generate
from s2tdpt.sim.stalls import PATTERNS
from tests.hw.core_bench import build_case, network, traces_of

HARDWARE = HardwareConfig(lanes=8, rows=2, post_lanes=4)
QUICK = "icarus" if shutil.which("iverilog") else "verilator"
"""Simulator of the planted faults: Icarus builds in a moment, and every fault is a build of its own."""


@pytest.fixture(scope="module")
def case():
    return build_case(network(), HARDWARE, seed=3, frames=5)


@pytest.fixture(scope="module")
def design(case):
    return generate(case.params, HARDWARE)


def changed(params: Params, name: str, index: tuple, value: int) -> Params:
    """Parameters with one integer replaced."""
    tensor = params.tensors[name].copy()
    tensor[index] = value
    return replace(params, tensors={**params.tensors, name: tensor})


@pytest.mark.parametrize("stall", PATTERNS)
def test_everything_is_equal(case, design, stall):
    report = cosimulate(case.params, HARDWARE, case.images, design=design, stall=stall, seed=2)
    assert (report.findings, report.differences, report.mismatches) == ([], [], 0)
    assert report.ok
    assert (report.images, report.layer_images) == (5, 5)
    assert report.classes.tolist() == case.golden["head.class"].tolist()
    assert np.array_equal(report.logits, case.golden["head.logits"])
    observed = [value for name, value in case.golden.items() if name != "head.sum"]
    assert report.tensors == len(observed) - 2
    assert report.comparisons == sum(value.size for value in observed) + 5 * len(design.program.ops)
    assert all(layer.model_error == 0 for layer in report.layers)
    assert [layer.name for layer in report.layers] == [op.name for op in design.program.ops]
    assert all(0 <= layer.utilisation <= 1 for layer in report.layers)
    assert 0 < report.utilisation < 1


def test_icarus_agrees_or_says_how_to_get_it(case, design):
    arguments = {"design": design, "simulator": "icarus"}
    if shutil.which("iverilog") is None:
        with pytest.raises(UserError, match="iverilog.*install"):
            cosimulate(case.params, HARDWARE, case.images[:2], **arguments)
        return
    report = cosimulate(case.params, HARDWARE, case.images[:2], **arguments)
    assert report.ok, report.first()
    assert report.comparisons > 0


def test_layers_of_the_first_images_only(case, design):
    report = cosimulate(case.params, HARDWARE, case.images, design=design, layers=2, jobs=2)
    assert report.ok
    assert (report.images, report.layer_images) == (5, 2)
    assert len(report.frame_cycles) == 5
    assert cosimulate(case.params, HARDWARE, case.images, design=design, layers=0).layer_images == 0


def test_streamed_weights(case):
    hardware = HARDWARE.model_copy(update={"weight_memory": "stream", "lanes": 4})  # few lanes: many tiles
    streamed = generate(case.params, hardware)
    never_late = [frame_cycles(streamed.program, trace)[1] for trace in traces_of(case)]
    for stall in ("none", "bursty"):
        report = cosimulate(case.params, hardware, case.images[:2], design=streamed, stall=stall)
        assert report.ok, report.first()
        # A stream that pauses is late at nobody knows which tile; one that does not is late as modelled.
        assert {layer.model_error for layer in report.layers} == ({0} if stall == "none" else {None})
        assert all(taken > least for taken, least in zip(report.frame_cycles, never_late, strict=False))
    # The weights are data here: another set of weights on the same hardware is noticed.
    report = cosimulate(
        changed(case.params, "block.0.v.threshold", (0,), 1), hardware, case.images, design=streamed
    )
    assert report.differences[0].startswith("block.0.v: ")


def parameter_faults(params: Params):
    """Faults in the numbers: name -> (faulty parameters, first tensor that must differ)."""
    lut = params.lut.copy()
    theta = params.threshold("block.0.k")
    weight = params.weight("sps.1")
    return {
        "flipped LUT entry": (
            changed(params, "stdp.lut", (len(lut) // 2,), lut[len(lut) // 2] ^ 64),
            "block.0.y",
        ),
        "wrong threshold": (changed(params, "block.0.k.threshold", (1,), theta[1] + 40), "block.0.k"),
        "weight bit": (changed(params, "sps.1.weight", (2, 0, 1, 1), weight[2, 0, 1, 1] ^ 4), "sps.u"),
    }


@pytest.mark.parametrize("fault", ["flipped LUT entry", "wrong threshold", "weight bit"])
def test_planted_fault_in_the_hardware_is_located(case, fault):
    faulty, tensor = parameter_faults(case.params)[fault]
    report = cosimulate(
        case.params, HARDWARE, case.images, design=generate(faulty, HARDWARE), simulator=QUICK
    )
    assert not report.ok
    assert report.differences[0].startswith(f"{tensor}: image ")
    assert report.first() == report.differences[0]


@pytest.mark.parametrize("fault", ["flipped LUT entry", "wrong threshold", "weight bit"])
def test_planted_fault_in_the_parameter_file_is_located(case, design, tmp_path, fault):
    faulty, tensor = parameter_faults(case.params)[fault]
    faulty.save(tmp_path / "faulty.safetensors")
    report = cosimulate(Params.load(tmp_path / "faulty.safetensors"), HARDWARE, case.images, design=design)
    assert not report.ok
    assert report.differences[0].startswith(f"{tensor}: image ")


def edited(design, pattern: str, new: str):
    """The design with one piece of its Verilog text replaced."""
    text, count = re.subn(pattern, new, design.verilog)
    assert count == 1, (pattern, count)
    return replace(design, verilog=text)


def test_dropped_spike_in_the_hardware_is_located(case, design):
    # Four lanes lose the spikes of step 0 on their way into the memory: whoever reads next is wrong first.
    pattern = r"(spikes\[write__addr\]\[7:0\] <=) write__data\[7:0\];"
    broken = edited(design, pattern, r"\1 write__data[7:0] & 8'haa;")
    report = cosimulate(case.params, HARDWARE, case.images, design=broken, simulator=QUICK)
    assert not report.ok
    assert report.differences[0].startswith("sps.1.pooled: image ")
    assert "step 0, " in report.differences[0] and ": expected 1, got 0" in report.differences[0]


def test_input_stuck_not_ready_is_a_deadlock(case, design):
    broken = edited(design, r"assign tready = ~ _00_;", "assign tready = 1'b0;")
    report = cosimulate(case.params, HARDWARE, case.images, design=broken, simulator=QUICK, limit=2000)
    assert not report.ok
    assert report.findings == [
        "deadlock: image 0 gave no result in 2000 cycles; no step ever started; "
        "s_axis tvalid=1 tready=0, m_axis tvalid=0 tready=1"
    ]


def test_lost_done_is_a_deadlock_in_a_named_step(case, design):
    instance = r"(s2tdpt_accelerator__core__pool pool \([^;]*\.done\()[^)]*(\))"
    broken = edited(design, instance, r"\1\2")
    report = cosimulate(case.params, HARDWARE, case.images, design=broken, simulator=QUICK, limit=2000)
    assert re.match(
        r"deadlock: image 0 gave no result in 2000 cycles; step 1 \(sps\.1\.pool\) started in cycle \d+ "
        r"and did not end; ",
        report.findings[0],
    )


def test_sender_that_ignores_ready_loses_words(case, design):
    stuck = re.search(r"\.(tready\$\d+) \(m_axis_tready\)", design.verilog)[1]
    broken = edited(design, r"\.tready\$\d+ \(m_axis_tready\)", f".{stuck} (1'b1)")
    arguments = {"design": broken, "simulator": QUICK, "limit": 5000}
    assert cosimulate(case.params, HARDWARE, case.images, **arguments).ok
    assert not cosimulate(case.params, HARDWARE, case.images, stall="random", **arguments).ok


def test_images_of_the_wrong_shape_or_type(case):
    message = r"^images are float64\[5, 5, 4, 1\]; expected uint8\[batch, 5, 4, 1\] with at least one image; "
    with pytest.raises(UserError, match=message):
        check_images(case.images / 2.0, case.params)
    for wrong in (case.images[0], case.images[:, :4], case.images[:0]):
        with pytest.raises(UserError, match="^images are uint8"):
            check_images(wrong, case.params)


def test_unknown_stall_pattern(case, design):
    with pytest.raises(UserError, match="^unknown stall pattern 'sometimes'; expected one of none, random, "):
        cosimulate(case.params, HARDWARE, case.images, design=design, stall="sometimes")
