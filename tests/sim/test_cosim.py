"""Co-simulation of generated hardware: equality on every stream pattern, and faults that must not pass."""

import re
import shutil
from dataclasses import replace

import numpy as np
import pytest

from s2tdpt.golden.errors import UserError
from s2tdpt.golden.neuron import NEURONS
from s2tdpt.golden.neuron.plif import PlifLaw
from s2tdpt.golden.params import Params
from s2tdpt.hw.estimate.cycles import FrameModel
from s2tdpt.hw.plan.machine import Machine
from s2tdpt.sim.cases import build_case, network
from s2tdpt.sim.cosim import Options, check_images, cosimulate
from s2tdpt.sim.design import generate, layer_program
from s2tdpt.sim.stalls import PATTERNS

MACHINE = Machine(lanes=8, banks=2, post_lanes=4)
QUICK = "icarus" if shutil.which("iverilog") else "verilator"
"""Simulator of the planted faults: Icarus builds in a moment, and every fault is a build of its own."""


@pytest.fixture(scope="module")
def case():
    return build_case(network(), MACHINE, seed=3, frames=5)


@pytest.fixture(scope="module")
def design(case):
    return generate(case.params, MACHINE)


def changed(params: Params, name: str, index: tuple, value: int) -> Params:
    """Parameters with one integer replaced."""
    tensor = params.tensors[name].copy()
    tensor[index] = value
    return replace(params, tensors={**params.tensors, name: tensor})


@pytest.mark.parametrize("kind", sorted(set(NEURONS) - {"lif"}))
def test_every_neuron(kind):
    """A law of its own at every place: every layer and every cycle of the Verilog."""
    case = build_case(network(neuron={"kind": kind}, timesteps=3), MACHINE, seed=3)
    report = cosimulate(case.params, MACHINE, case.images, Options(simulator=QUICK))
    assert report.ok, report.first()
    assert {step.model_error for step in report.steps} == {0}


def test_neurons_of_another_law_are_located():
    config = network(neuron={"kind": "plif"}, timesteps=3)
    case = build_case(config, MACHINE, seed=3)
    laws = case.params.laws | {"block.0.mlp_in": PlifLaw(7)}  # at four times the threshold it is silent
    faulty = replace(case.params, tensors=case.params.tensors | config.neuron.tensors(config, laws))
    planted = generate(faulty, MACHINE)
    report = cosimulate(case.params, MACHINE, case.images, Options(simulator=QUICK), design=planted)
    assert report.differences[0].startswith("block.0.mlp_in: ")


@pytest.mark.parametrize("stall", PATTERNS)
def test_everything_is_equal(case, design, stall):
    report = cosimulate(case.params, MACHINE, case.images, Options(stall=stall, seed=2), design=design)
    assert (report.findings, report.differences, report.mismatches) == ([], [], 0)
    assert report.ok
    assert (report.images, report.layer_images) == (5, 5)
    assert report.classes.tolist() == case.golden["head.class"].tolist()
    assert np.array_equal(report.logits, case.golden["head.logits"])
    observed = [value for name, value in case.golden.items() if name != "head.sum"]
    assert report.tensors == len(observed) - 2
    count = len(design.program.steps)
    assert report.comparisons == sum(value.size for value in observed) + 5 * (2 * count + 1)
    assert [step.model_error for step in report.steps] == [0] * count
    assert [step.name for step in report.steps] == [step.name for step in design.program.steps]
    assert sum(step.cycles for step in report.steps) == pytest.approx(report.cycles)
    assert 0 < report.utilisation < 1
    assert report.accumulates_per_cycle > 0
    assert len(report.fired) == 5 and min(report.fired) > 0


def test_icarus_agrees_or_says_how_to_get_it(case, design):
    arguments = (case.params, MACHINE, case.images[:2], Options(simulator="icarus"))
    if shutil.which("iverilog") is None:
        with pytest.raises(UserError, match="iverilog.*install"):
            cosimulate(*arguments, design=design)
        return
    report = cosimulate(*arguments, design=design)
    assert report.ok, report.first()
    assert report.comparisons > 0


def test_layers_of_the_first_images_only(case, design):
    report = cosimulate(case.params, MACHINE, case.images, Options(layers=2, jobs=2), design=design)
    assert report.ok
    assert (report.images, report.layer_images) == (5, 2)
    assert len(report.frame_cycles) == 5
    report = cosimulate(case.params, MACHINE, case.images, Options(layers=0), design=design)
    assert (report.ok, report.layer_images, report.utilisation) == (True, 0, 0.0)


def test_streamed_weights(case):
    machine = MACHINE.model_copy(update={"weight_memory": "stream", "lanes": 4})  # few lanes: many tiles
    streamed = generate(case.params, machine)
    program, _ = layer_program(case.params, machine)
    traces = [
        {name: value[i] for name, value in case.golden.items()} | {"pixels": case.images[i]} for i in range(2)
    ]
    never_late = [FrameModel(program).frame(trace).total for trace in traces]
    for stall in ("none", "bursty"):
        report = cosimulate(case.params, machine, case.images[:2], Options(stall=stall), design=streamed)
        assert report.ok, report.first()
        # A stream that pauses is late at nobody knows which tile; one that does not is late as modelled.
        assert {step.model_error for step in report.steps} == ({0} if stall == "none" else {None})
        assert all(taken > least for taken, least in zip(report.frame_cycles, never_late, strict=False))
    # The weights are data here: another set of weights on the same hardware is noticed.
    faulty = changed(case.params, "block.0.v.threshold", (0,), 1)
    report = cosimulate(faulty, machine, case.images, design=streamed)
    assert report.differences[0].startswith("block.0.v: ")


def parameter_faults(params: Params):
    """Faults in the numbers: name -> (faulty parameters, first tensor that must differ)."""
    lut = params.tensors["stdp.lut"].copy()
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
    broken = generate(faulty, MACHINE)
    report = cosimulate(case.params, MACHINE, case.images, Options(simulator=QUICK), design=broken)
    assert not report.ok
    assert report.differences[0].startswith(f"{tensor}: image ")
    assert report.first() == report.differences[0]


@pytest.mark.parametrize("fault", ["flipped LUT entry", "wrong threshold", "weight bit"])
def test_planted_fault_in_the_parameter_file_is_located(case, design, tmp_path, fault):
    faulty, tensor = parameter_faults(case.params)[fault]
    faulty.save(tmp_path / "faulty.safetensors")
    report = cosimulate(Params.load(tmp_path / "faulty.safetensors"), MACHINE, case.images, design=design)
    assert not report.ok
    assert report.differences[0].startswith(f"{tensor}: image ")


def edited(design, pattern: str, new: str):
    """The design with one piece of its Verilog text replaced."""
    text, count = re.subn(pattern, new, design.verilog)
    assert count == 1, (pattern, count)
    return replace(design, verilog=text)


def cut(design, module: str, port: str):
    """The design with the wire at a port of a part of the core cut: whoever reads it, sees 0."""
    pattern = rf"(  s2tdpt_accelerator__core__{module} {module} \([^;]*\.{port}\()([^)]*)(\)[^;]*;)"
    return edited(design, pattern, r"\1\3 assign \2 = 1'b0;")


def held(design, module: str, port: str, value: str):
    """The design with an input of a part of the core held at a value."""
    pattern = rf"(  s2tdpt_accelerator__core__{module} {module} \([^;]*\.{port}\()[^)]*(\))"
    return edited(design, pattern, rf"\g<1>{value}\g<2>")


def broken_run(case, broken, **options):
    return cosimulate(case.params, MACHINE, case.images, Options(simulator=QUICK, **options), design=broken)


def test_dropped_spikes_in_the_memory_are_located(case, design):
    # The memory loses the spikes of four lanes in step 0: the reader is the first who is wrong.
    pattern = r"(words\[\S+\]\[7:0\] <=) (\S+)\[7:0\];"
    report = broken_run(case, edited(design, pattern, r"\1 \2[7:0] & 8'haa;"))
    assert not report.ok
    assert report.differences[0].startswith("sps.u: image ")


def test_input_stuck_not_ready_is_a_deadlock(case, design):
    report = broken_run(case, cut(design, "receiver", "tready"), limit=2000)
    assert not report.ok
    assert re.match(
        r"deadlock: image 0 gave no result in 2000 cycles; no step ever started; s_axis tvalid=1 tready=0, "
        r"m_axis tvalid=0 tready=1",
        report.findings[0],
    )


def test_lost_end_of_a_step_is_a_deadlock_in_a_named_step(case, design):
    # Steps that only follow the one before start without it.
    report = broken_run(case, held(design, "sequencer", "tile_complete", "1'b0"), limit=2000)
    assert re.match(
        r"deadlock: image 0 gave no result in 2000 cycles; step 2 \(block\.0\.q\) was complete in cycle "
        r"\d+ and none followed; ",
        report.findings[0],
    )


def test_sender_that_ignores_ready_loses_words(case, design):
    broken = held(design, "sender", "tready", "1'b1")
    arguments = (case.params, MACHINE, case.images)
    assert cosimulate(*arguments, Options(simulator=QUICK, limit=5000), design=broken).ok
    stalled = Options(simulator=QUICK, limit=5000, stall="random")
    assert not cosimulate(*arguments, stalled, design=broken).ok


def test_images_of_the_wrong_shape_or_type(case):
    message = r"^images are float64\[5, 5, 4, 1\]; expected uint8\[batch, 5, 4, 1\] with at least one image; "
    with pytest.raises(UserError, match=message):
        check_images(case.images / 2.0, case.params)
    for wrong in (case.images[0], case.images[:, :4], case.images[:0]):
        with pytest.raises(UserError, match="^images are uint8"):
            check_images(wrong, case.params)


def test_unknown_stall_pattern(case, design):
    with pytest.raises(UserError, match="^unknown stall pattern 'sometimes'; expected one of none, random, "):
        cosimulate(case.params, MACHINE, case.images, Options(stall="sometimes"), design=design)
