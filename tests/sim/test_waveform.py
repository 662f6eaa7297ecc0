"""Waveforms: they hold what happened, for the steps that were asked for, and are whole."""

import random

import pytest

from s2tdpt.golden.errors import UserError
from s2tdpt.sim.bench import PERIOD
from s2tdpt.sim.build import build
from s2tdpt.sim.cases import build_case, network
from s2tdpt.sim.cosim import Options, cosimulate
from s2tdpt.sim.dump import read_dump
from s2tdpt.sim.runner import Job, run
from s2tdpt.sim.waveform import check_waveform
from tests.sim import fst, standin
from tests.sim.conftest import PRESENT, QUICK

FRAME = bytes(standin.PIXELS)
TOP = "s2tdpt_bench"


def play(simulator, folder, steps=None, frames=2):
    """Run the stand-in; returns its build, and the path of its waveform."""
    built = build(standin.verilog(), standin.MODULE, simulator, waves=True)
    lines = standin.script(standin.random_tensors(frames, seed=12))
    standin.write_script(folder, lines, [[1, 2, 3, 0]] * frames)
    path = folder / "wave.fst"
    run(built, Job([FRAME] * frames, limit=3000, record=frames, steps=steps), folder, waveform=path)
    return built, path


@pytest.mark.parametrize("simulator", PRESENT)
def test_waveform_is_whole(simulator, tmp_path):
    _, path = play(simulator, tmp_path)
    check_waveform(path)
    assert f"{TOP}.dut.probe_piece_spikes" in fst.names(path)


def test_every_piece_stands_in_the_waveform(tmp_path):
    built, path = play("verilator", tmp_path)
    wave = fst.read(path)
    pieces = read_dump(tmp_path, built.ports).records["piece"]
    assert len(pieces) > 100
    signal = {name: wave.at(f"{TOP}.dut.probe_piece_{name}") for name in ("en", "step", "piece", "spikes")}
    cycle = wave.at(f"{TOP}.bench_cycle")
    for index in random.Random(0).sample(range(len(pieces)), 50):
        # The recorder saw the values that stood before the edge, and counted the edge afterwards.
        time = next(t for t in range(wave.start, wave.end, PERIOD) if int(cycle(t), 2) == pieces.cycle[index])
        before = time + PERIOD - 1
        assert signal["en"](before) == "1"
        assert int(signal["step"](before), 2) == pieces["step"][index]
        assert int(signal["piece"](before), 2) == pieces["piece"][index]
        assert [int(bit) for bit in reversed(signal["spikes"](before))] == pieces.bits[index].tolist()


def test_only_the_steps_that_were_asked_for(tmp_path):
    built, path = play("verilator", tmp_path, steps=(3, 4), frames=1)
    wave = fst.read(path)
    start, complete = read_dump(tmp_path, built.ports).steps.times(0, 17)
    assert abs(wave.start // PERIOD - start[3]) <= 1
    assert abs(wave.end // PERIOD - complete[4]) <= 1
    steps = {int(value, 2) for _, value in wave.changes[wave.names[f"{TOP}.bench_step"]] if "x" not in value}
    assert steps == {3, 4, 5}  # step 5 starts before step 4 has ended


def test_waveform_of_a_network(tmp_path):
    case = build_case(network(), standin.MACHINE, seed=3, frames=2)
    path = tmp_path / "wave.fst"
    report = cosimulate(
        case.params, standin.MACHINE, case.images, Options(simulator=QUICK, waveform=path, steps=(0, 1))
    )
    assert (report.ok, report.images) == (True, 1)
    check_waveform(path)
    with pytest.raises(UserError, match="^steps 2 to 999 cannot be shown; expected two steps from 0 to "):
        cosimulate(case.params, standin.MACHINE, case.images, Options(waveform=path, steps=(2, 999)))
    assert path.exists()


def test_file_that_was_cut_short(tmp_path):
    _, path = play(QUICK, tmp_path)
    whole = path.read_bytes()
    for size in (0, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(UserError, match="^the waveform .*wave.fst is incomplete; expected room for all "):
            check_waveform(path)
