"""Measured cycles against the cycle model, and the figures that follow, without a simulator."""

import dataclasses

import numpy as np
import pytest

from s2tdpt.golden.network import GoldenNetwork
from s2tdpt.hw.estimate.cycles import FrameModel
from s2tdpt.sim.report import CosimReport
from s2tdpt.sim.timing import Times, _interval, check_cycles, collect_times, measure, model_cycles
from tests.sim import standin
from tests.sim.recording import COUNT, design_of

pytestmark = pytest.mark.usefixtures("wide_fields")


@pytest.fixture(scope="module")
def models(params, images):
    """Of images 0 and 2, one after the other."""
    trace = {name: value.numpy() for name, value in GoldenNetwork(params).trace(images).items()}
    model = FrameModel(design_of(params).program)
    found, go = {}, 100
    for number in (0, 2):
        single = {name: value[number] for name, value in trace.items()} | {"pixels": images[number]}
        found[number] = model.frame(single, go)
        go = found[number].start + found[number].interval - 1  # it may start in the next cycle
    return found


def exact(models) -> dict[int, Times]:
    """Measured as the model says."""
    return {
        number: Times(
            np.array([model.start + step.start for step in model.steps]),
            np.array([model.start + step.complete for step in model.steps]),
            sum(step.spikes for step in model.steps),
        )
        for number, model in models.items()
    }


def test_cycles_as_the_model_says(params, models):
    report, program = CosimReport(images=2), design_of(params).program
    check_cycles(report, program, exact(models), models)
    assert report.findings == [] and report.comparisons == 2 * (2 * 17 + 1)


@pytest.mark.parametrize("what", ["start", "complete"])
def test_a_cycle_more_or_less_is_noticed(params, models, what):
    times, program = exact(models), design_of(params).program
    getattr(times[2], what)[[5, 9]] += [1, -1]
    report = CosimReport(images=2)
    check_cycles(report, program, times, models)
    expected = getattr(models[2].steps[5], what)
    assert report.findings == [
        f"image 2: {what} of block.0.k[0] (step 5) in cycle {expected + 1}; the cycle model says {expected} "
        "(2 of 17 steps differ)"
    ]


def test_accumulates_are_compared(params, models):
    times, program = exact(models), design_of(params).program
    fired = times[0].fired
    times[0] = dataclasses.replace(times[0], fired=fired + 1)
    report = CosimReport(images=2)
    check_cycles(report, program, times, models)
    assert report.findings == [f"image 0: {fired + 1} accumulates of a lane; the cycle model says {fired}"]


def test_times_of_whole_images_only(shares):
    share, count = shares[0], 17
    found = collect_times(share, count)
    assert sorted(found) == [0, 2] and [found[n].fired for n in (0, 2)] == share.dump.steps.fired
    start, complete = share.dump.steps.times(1, count)
    assert (found[2].start == start).all() and (found[2].complete == complete).all()
    share.dump.steps.completes[1] = share.dump.steps.completes[1][:-1]
    assert sorted(collect_times(share, count)) == [0]
    share.dump.steps.starts[0] = share.dump.steps.starts[0][:-1]
    assert sorted(collect_times(share, count)) == []
    share.outcome["results"].clear()
    assert collect_times(share, count) == {}


def test_the_model_of_the_recorded_images(params, images, shares):
    """In the order of the stream, until the first one that was not recorded or not complete."""
    design, report = design_of(params), CosimReport(images=COUNT)
    trace = {name: value.numpy() for name, value in GoldenNetwork(params).trace(images).items()}
    numbers = [0, 1, 2]
    times = {n: Times(np.array([500 * n + 100]), np.zeros(1), 0) for n in numbers}
    found = model_cycles(report, design, images, shares, times, numbers, trace)
    assert sorted(found) == numbers
    model = FrameModel(design.program)
    for number in (0, 2):
        single = {name: value[number] for name, value in trace.items()} | {"pixels": images[number]}
        assert found[number] == model.frame(single, 500 * number + 99)
    assert found[2].start == 1100
    some = {name: value[[1, 2]] for name, value in trace.items()}
    assert sorted(model_cycles(report, design, images, shares, times, [1, 2], some)) == [1]
    del times[1]
    assert sorted(model_cycles(report, design, images, shares, times, numbers, trace)) == [0, 2]


def test_streamed_weights_with_pauses_have_no_model(params, images, shares):
    design = design_of(params)
    streamed = dataclasses.replace(
        design, machine=design.machine.model_copy(update={"weight_memory": "stream"})
    )
    report = CosimReport(images=COUNT, stall="random")
    assert model_cycles(report, streamed, images, shares, {}, [], {}) == {}
    trace = {name: value.numpy() for name, value in GoldenNetwork(params).trace(images).items()}
    times = {n: Times(np.array([100]), np.zeros(1), 0) for n in range(COUNT)}
    found = model_cycles(report, design, images, shares, times, [0, 1, 2], trace)
    assert sorted(found) == [0, 1, 2]  # on-chip weights: pauses of the other streams do not matter


def test_figures_of_steps_and_images(params, shares, models):
    design, times = design_of(params), exact(models)
    report = CosimReport(images=2)
    measure(report, design, shares[:1], times, models)
    a, b = models[0], models[2]
    assert report.frame_cycles == [a.total, b.total] == [m.steps[-1].complete for m in (a, b)]
    assert report.fired == [times[0].fired, times[2].fired] and report.cycles == (a.total + b.total) / 2
    assert report.interval == b.start - a.start == a.interval
    useful, accumulates = 0.0, 0.0
    for number, (entry, step) in enumerate(zip(report.steps, design.program.steps, strict=True)):
        x, y = a.steps[number], b.steps[number]
        assert (entry.name, entry.sink, entry.model_error) == (step.name, step.sink.name.lower(), 0)
        assert (entry.start, entry.complete) == ((x.start + y.start) / 2, (x.complete + y.complete) / 2)
        ends = [m.steps[number + 1].start if number < 16 else m.steps[16].complete for m in (a, b)]
        assert entry.cycles == (ends[0] - x.start + ends[1] - y.start) / 2
        assert (entry.events, entry.accumulates) == (
            (x.events + y.events) / 2,
            (x.accumulates + y.accumulates) / 2,
        )
        assert entry.utilisation == pytest.approx(
            entry.events * step.channels / (4 * entry.cycles), rel=1e-12
        )
        useful += entry.events * step.channels
        accumulates += entry.accumulates
    assert report.utilisation == pytest.approx(useful / (4 * report.cycles), rel=1e-12)
    assert report.accumulates_per_cycle == pytest.approx(accumulates / report.interval, rel=1e-12)


def test_the_error_of_the_model_is_the_largest(params, shares, models):
    times, report = exact(models), CosimReport(images=2)
    times[0].start[3] += 2
    times[2].complete[3] -= 5
    times[2].start[4] -= 3
    measure(report, design_of(params), shares[:1], times, models)
    assert [entry.model_error for entry in report.steps[2:6]] == [0, 5, 3, 0]


def test_figures_without_a_model_or_times(params, shares, models):
    report = CosimReport(images=2)
    measure(report, design_of(params), shares, {}, {})
    assert (report.steps, report.frame_cycles, report.cycles) == ([], [], 0.0)
    measure(report, design_of(params), shares, exact(models), {})
    assert (report.utilisation, report.accumulates_per_cycle) == (0.0, 0.0)
    assert all(entry.model_error is None and entry.utilisation == 0 for entry in report.steps)
    # One of two images has a model: the figures that need it are of that one.
    report = CosimReport(images=2)
    measure(report, design_of(params), shares, exact(models), {2: models[2]})
    assert [entry.events for entry in report.steps] == [step.events for step in models[2].steps]
    useful = sum(e.events * s.channels for e, s in zip(report.steps, standin.program().steps, strict=True))
    assert report.utilisation == pytest.approx(useful / (4 * models[2].total), rel=1e-12)


def test_interval_of_images_that_follow_each_other(shares, models):
    times = {n: Times(np.array([at]), np.zeros(1), 0) for n, at in ((0, 100), (1, 150), (2, 340))}
    assert _interval(shares, times, models) == 240  # 0 and 2 are of one process
    del times[2]
    assert _interval(shares, times, models) == (models[0].interval + models[2].interval) / 2
    assert _interval(shares, times, {}) == 0.0
