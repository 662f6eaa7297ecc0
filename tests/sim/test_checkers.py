"""What compares a run with the golden model, without a simulator: a right run passes, each fault is named."""

import dataclasses
import json
from types import SimpleNamespace

import numpy as np
import pytest

from s2tdpt.golden.errors import UserError
from s2tdpt.golden.network import GoldenNetwork
from s2tdpt.sim import cosim
from s2tdpt.sim.cosim import (
    Options,
    check_images,
    check_results,
    dense_cycles,
    transport_findings,
    watchdog_limit,
)
from s2tdpt.sim.report import CosimReport
from tests.sim import standin
from tests.sim.recording import COUNT, FIRST, RESULT_AFTER, built, design_of, golden_run

pytestmark = pytest.mark.usefixtures("wide_fields")

RESULT_WIDTH = 32


@pytest.fixture
def no_model(monkeypatch):
    """The cycles of the script are not those of the machine."""
    monkeypatch.setattr(cosim, "model_cycles", lambda *arguments: {})


def checked(params, images, shares) -> CosimReport:
    report = CosimReport(images=len(images))
    cosim._check(report, design_of(params), params, images, RESULT_WIDTH, shares)
    return report


# ---- values ----------------------------------------------------------------------------------------------


def test_a_right_run_is_right(params, images, shares, no_model):
    report = checked(params, images, shares)
    assert (report.findings, report.differences, report.mismatches, report.ok) == ([], [], 0, True)
    assert report.first() is None
    trace = GoldenNetwork(params).trace(images)
    seen = [name for name in trace if not name.startswith("head.")]
    assert (report.layer_images, report.tensors) == (COUNT, len(seen))
    assert report.comparisons == sum(trace[name].numel() for name in seen) + COUNT * (3 + 1)
    assert (report.logits == trace["head.logits"].numpy()).all()
    assert (report.classes == trace["head.class"].numpy()).all()
    lines = len(standin.script({name: trace[name].numpy() for name in trace})[0])
    assert report.latency == FIRST + lines + RESULT_AFTER - (FIRST - 20)
    assert len(report.steps) == 17 and len(report.frame_cycles) == COUNT


def test_differences_name_image_and_place(params, images, shares, no_model):
    """Golden numbers of another bias: of all images, in network order, with the images' own numbers."""
    name = "sps.1.bias"
    assert name in params.tensors, sorted(params.tensors)
    bias = params.tensors[name].copy()
    bias[2] += 1
    other = dataclasses.replace(params, tensors={**params.tensors, name: bias})
    report = checked(other, images, shares)
    assert report.first() == report.differences[0]
    assert report.first().startswith("sps.u: image 0, step 0, token 0, channel 2: expected ")
    u = GoldenNetwork(params).trace(images)["sps.u"], GoldenNetwork(other).trace(images)["sps.u"]
    assert f"({int((u[0] != u[1]).sum())} of {u[0].numel()} values differ)" in report.first()
    counts = [int(text.split("(")[1].split(" of")[0]) for text in report.differences]
    assert report.mismatches == sum(counts) and not report.ok and report.findings == []


def test_one_image_of_the_second_process(params, images, shares, no_model):
    """The image's number among all, not within its process."""
    words = shares[1].outcome["results"][0]["words"]
    words[1] ^= 1 << 31
    report = checked(params, images, shares)
    (text,) = report.differences
    expected = int(GoldenNetwork(params).forward(images)[1, 1])
    got = expected + (1 << 31 if expected < 0 else -(1 << 31))
    assert text == (
        f"head.logits: image 1, channel 1: expected {expected}, got {got} (1 of {COUNT * 3} values differ)"
    )
    assert report.mismatches == 1


def test_a_wrong_class(params, images, shares, no_model):
    shares[0].outcome["results"][1]["words"][-1] ^= 1
    (text,) = checked(params, images, shares).differences
    assert text.startswith("head.class: image 2: expected ")


def test_missing_and_odd_results(params, images):
    logits = GoldenNetwork(params).forward(images).numpy()
    words = {n: [int(x) & 0xFFFFFFFF for x in (*logits[n], logits[n].argmax())] for n in range(COUNT)}
    cases = [
        ({n: words[n] for n in (0, 2)}, ["1 image(s) gave no result"]),
        ({**words, 1: words[1][:-1]}, ["image 1: result frame of 3 words; expected 4"]),
        ({**words, 1: [*words[1], 0]}, ["image 1: result frame of 5 words; expected 4"]),
        ({}, ["3 image(s) gave no result"]),
    ]
    for results, findings in cases:
        report = CosimReport(images=COUNT)
        check_results(report, params, images, results, RESULT_WIDTH)
        assert (report.findings, report.differences) == (findings, [])
        assert [(report.logits[n] == logits[n]).all() for n in results if len(results[n]) == 4].count(
            False
        ) == 0
        assert all(report.classes[n] == -1 for n in range(COUNT) if len(results.get(n, [])) != 4)
        right = sum(len(value) == 4 for value in results.values())
        assert report.comparisons == 4 * right


def test_findings_of_a_replay_count(params, images, shares, no_model):
    """More than are put into words, each; a tensor that is not observed is one."""
    shares[0].dump.records["y"] = shares[0].dump.records["y"].take(np.arange(0))
    report = checked(params, images, shares)
    sums = 2 * standin.TOKENS * standin.STEPS * standin.HEADS
    assert len(report.findings) == cosim.LIMIT
    (difference,) = report.differences
    wrong = int(difference.split("(")[1].split(" of")[0])
    assert report.mismatches == sums + wrong
    tensors = cosim.replay(shares[1].dump, standin.program(), 1).tensors
    del tensors["block.0.y"]
    report = CosimReport(images=1)
    result = cosim.Replay(1, tensors)
    numbers, trace = cosim._check_tensors(report, params, images, [(range(1, 2), result)])
    assert report.findings == ["tensor(s) not observed: block.0.y"] and numbers == [1]
    assert (trace["head.logits"] == GoldenNetwork(params).forward(images[1:2]).numpy()).all()
    assert cosim._check_tensors(report, params, images, []) == ([], {})


def test_only_what_was_recorded_is_compared(params, images, tmp_path, no_model):
    share = golden_run(tmp_path, params, images, range(COUNT), 1)
    report = checked(params, images, [share])
    assert (report.ok, report.layer_images, len(report.frame_cycles)) == (True, 1, COUNT)


# ---- buses -----------------------------------------------------------------------------------------------


def test_findings_of_the_buses(params, shares):
    program, outcome = standin.program(), shares[0].outcome
    assert transport_findings(shares[0], program) == []
    outcome["status"] |= {"error_short": 1, "error_long": 1, "error_weights": 1}
    outcome |= {"violations": 7, "extra": 2}
    assert transport_findings(shares[0], program) == [
        "error_short was raised on frames of the right length",
        "error_long was raised on frames of the right length",
        "error_weights was raised on frames of the right length",
        "m_axis changed 7 times while it waited for tready",
        "2 result frame(s) that no image asked for",
    ]


def test_a_deadlock_names_image_step_and_streams(params, images, shares, no_model):
    program, share = standin.program(), shares[0]
    share.outcome["deadlock"] = {"frame": 1, "limit": 500}
    share.outcome["status"] |= {"s_axis_tvalid": 1, "m_axis_tready": 1}
    streams = "s_axis tvalid=1 tready=0, m_axis tvalid=0 tready=1"
    steps = share.dump.steps
    done = steps.completes[1][-1]
    assert transport_findings(share, program) == [
        f"deadlock: image 2 gave no result in 500 cycles; step 16 (head) was complete in cycle {done} and "
        f"none followed; {streams}"
    ]
    steps.completes[1] = steps.completes[1][:4]
    steps.starts[1] = steps.starts[1][:6]
    begun = steps.starts[1][4, 1]
    assert transport_findings(share, program) == [
        f"deadlock: image 2 gave no result in 500 cycles; step 4 (block.0.q[0]) started in cycle {begun} and "
        f"did not end; {streams}"
    ]
    share.outcome["deadlock"] = {"frame": 2, "limit": 500}
    assert transport_findings(share, program)[0].startswith("deadlock: image 2 gave no result")
    steps.starts.clear()
    assert transport_findings(share, program) == [
        f"deadlock: image 2 gave no result in 500 cycles; no step ever started; {streams}"
    ]


def test_an_image_that_is_lost_is_a_finding(params, images, shares, no_model):
    share = shares[0]
    share.outcome["deadlock"] = {"frame": 1, "limit": 500}
    share.outcome["results"].pop()
    report = checked(params, images, shares)
    assert len(report.findings) == 1 and report.findings[0].startswith("deadlock: image 2 ")
    assert (report.mismatches, report.ok, report.layer_images) == (1, False, 2)


def test_bad_images_and_ranges(params, images):
    assert check_images(images, params) is images
    for wrong in (images[:0], images[0], images.astype(np.int64), images[:, :3], images[:, :, :2]):
        with pytest.raises(UserError, match=r"expected uint8\[batch, 4, 3, 1\] with at least one image"):
            check_images(wrong, params)
    program = standin.program()
    for steps in ((0, 0), (0, 16), (16, 16), (3, 9)):
        cosim._check_range(Options(steps=steps), program)
    for steps in ((-1, 3), (2, 1), (0, 17)):
        with pytest.raises(
            UserError, match=f"^steps {steps[0]} to {steps[1]} cannot be shown; .* from 0 to 16"
        ):
            cosim._check_range(Options(steps=steps), program)
    assert len(cosim._check_options(Options(waveform="a.fst"), images)) == 1
    assert cosim._check_options(Options(), images) is images


def test_images_are_shared_out(params, images):
    design = design_of(params)
    shares = cosim._shares(design, images, 2, Options(jobs=2, seed=5, stall="random"), cosim.Path("root"))
    assert [list(share.images) for share in shares] == [[0, 2], [1]]
    assert [(share.job.record, share.job.seed, share.job.stall) for share in shares] == [
        (1, 5, "random"),
        (1, 6, "random"),
    ]
    assert [share.job.frames for share in shares] == [
        [images[0].tobytes(), images[2].tobytes()],
        [images[1].tobytes()],
    ]
    assert [share.work.name for share in shares] == ["run0", "run1"]
    assert {share.job.limit for share in shares} == {watchdog_limit(design.program, "random")}
    (one,) = cosim._shares(design, images, 3, Options(waveform="a.fst", jobs=3, limit=9), cosim.Path("root"))
    assert (list(one.images), one.job.record, one.job.limit) == ([0, 1, 2], 3, 9)
    # Fewer images than would keep two processes busy.
    assert len(cosim._shares(design, images, 3, Options(), cosim.Path("root"))) == 1


def test_the_watchdog_is_slower_than_the_slowest_image(params):
    """Formula of the docstrings: written down once more."""
    program = standin.program()
    dense = 0
    for step in program.steps:
        rows = step.tile_rows(program.machine) + step.subgroups(program.machine) + 16
        cycles = step.positions * step.passes * (rows + step.kernel**2 * step.packing_in.groups)
        assert dense_cycles(program, step) == cycles
        dense += cycles
    dense += 2 * 4 * (3 * (4 + 2) + 32)
    beats = 12 + program.rows + 16 * program.const_words
    assert watchdog_limit(program, "none") == 4 * dense + 2 * beats + 10_000
    assert watchdog_limit(program, "bursty") == 4 * dense + 16 * beats + 10_000


# ---- the processes ---------------------------------------------------------------------------------------


@pytest.fixture
def processes(params, images, monkeypatch):
    """Simulators that do as the golden model says, and are looked at twice before they have ended."""
    started = []

    class Process:
        def __init__(self, simulation, job, work, waveform):
            assert simulation.ports == built().ports and waveform is None
            self.looks, self.open, self.job = 2, False, job
            frames = [np.frombuffer(frame, np.uint8).reshape(images.shape[1:]) for frame in job.frames]
            self.share = golden_run(work, params, np.array(frames), range(len(frames)), job.record)
            started.append(self)

        def __enter__(self):
            self.open = True
            return self

        def __exit__(self, *_):
            self.open = False

        def running(self):
            self.looks -= 1
            return self.looks >= 0

        def outcome(self):
            assert self.open and self.looks < 0
            return self.share.outcome

        def progress(self):
            return 0, 0, 0

    monkeypatch.setattr(cosim, "Run", Process)
    monkeypatch.setattr(cosim, "LOOK", 0)
    monkeypatch.setattr(cosim, "build", lambda *arguments, **options: built())
    return started


def test_from_generation_to_report(params, images, processes, no_model, monkeypatch):
    """What happens is told in this order; a design that is given is not made again."""
    made = []
    monkeypatch.setattr(cosim, "generate", lambda *made_of: made.append(made_of) or design_of(params))
    told = []
    options = Options(jobs=2, layers=2)
    report = cosim.cosimulate(params, standin.MACHINE, images, options, step=told.append)
    assert told == [
        "generating Verilog",
        "building the simulation (verilator)",
        f"simulating: {COUNT} image(s)",
        "comparing with the golden model",
    ]
    assert report.ok and (report.images, report.layer_images) == (COUNT, 2), report
    assert [len(process.job.frames) for process in processes] == [2, 1]
    assert not any(process.open for process in processes) and made == [(params, standin.MACHINE)]
    assert cosim.cosimulate(params, standin.MACHINE, images[:1], design=design_of(params)).ok
    assert len(made) == 1 and len(processes) == 3


@pytest.mark.parametrize("layers, compared", [(None, 3), (-1, 0), (0, 0), (2, 2), (9, 3)])
def test_layers_are_those_of_the_first_images(params, images, processes, no_model, layers, compared):
    options = Options(layers=layers, jobs=1)
    report = cosim.cosimulate(params, standin.MACHINE, images, options, design=design_of(params))
    assert (report.layer_images, report.images, report.findings) == (compared, COUNT, [])


def test_progress_in_words(params, monkeypatch):
    """Once a second; the time that is left from the images done and the part of those under way."""
    program, now, told = standin.program(), [100.0], []
    monkeypatch.setattr(cosim.time, "perf_counter", lambda: now[0])
    work = [dense_cycles(program, step) for step in program.steps]
    shares = [SimpleNamespace(images=range(4)), SimpleNamespace(images=range(2))]
    meter = cosim._Meter(shares, program)

    def runs(*progress):
        return [SimpleNamespace(progress=lambda p=p: p) for p in progress]

    now[0] = 100.5
    meter.show(runs((1, 0, 0), (0, 0, 0)), [False, False], told.append)
    assert told == []
    now[0] = 101.0
    meter.show(runs((0, 0, 0), (0, 0, 0)), [False, False], told.append)
    assert told.pop() == "simulating: 0 of 6 image(s)"
    now[0] = 120.0
    meter.show(runs((1, 3, 0), (0, 2, 0)), [False, True], told.append)
    part = 1 + sum(work[:3]) / sum(work) + 2
    assert told.pop() == f"simulating: 3 of 6 image(s), about {20 * (6 - part) / part:,.0f} s left"
    now[0] = 120.9
    meter.show(runs((4, 16, 0), (1, 17, 0)), [False, False], told.append)
    assert told == []
    now[0] = 200.0
    # All images of one are done; a step that does not exist counts as nothing.
    meter.show(runs((4, 16, 0), (1, 17, 0)), [False, False], told.append)
    assert told.pop() == "simulating: 5 of 6 image(s), about 20 s left"


# ---- the report ------------------------------------------------------------------------------------------


def test_report_in_numbers():
    report = CosimReport(images=6, seconds=2.0, frame_cycles=[10, 20], findings=["b"])
    assert (report.cycles, report.images_per_second, report.first()) == (15.0, 3.0, "b")
    report.differences.append("a")
    assert report.first() == "a" and report.ok
    report.mismatches = 1
    assert not report.ok
    empty = CosimReport(images=6)
    assert (empty.cycles, empty.images_per_second, empty.first()) == (0.0, 0.0, None)
    data = json.loads(json.dumps(report.to_json()))
    assert (data["cycles"], data["images_per_second"], data["ok"], data["steps"]) == (15.0, 3.0, False, [])
    names = {field.name for field in dataclasses.fields(CosimReport)}
    assert set(data) == names - {"logits"} | {"cycles", "images_per_second", "ok"}
