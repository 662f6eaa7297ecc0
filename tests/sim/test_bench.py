"""The bench on the stand-in accelerator: transport, recording, replay, watchdog, and that each checker can
fail."""

import numpy as np
import pytest

from s2tdpt.golden.errors import UserError
from s2tdpt.sim.dump import read_dump
from s2tdpt.sim.replay import replay
from s2tdpt.sim.runner import Job, build, run
from s2tdpt.sim.stalls import PATTERNS
from tests.sim import standin

FRAME = bytes(range(standin.PIXELS))
RESULTS = [[7, -8, 2**31 - 1, 2], [-(2**31), 0, 1, 2], [5, 5, 5, 0]]


def play(built, folder, lines, frames=3, **job):
    """Run the stand-in on a script; returns the bench's result and the replay."""
    standin.write_script(folder, lines, RESULTS)
    job = {"limit": 3000, "record": frames, **job}
    outcome = run(built, Job([FRAME] * frames, **job), folder)
    if outcome["deadlock"] is not None:
        return outcome, None
    dump = read_dump(folder, built.ports)
    recorded = min(job["record"], frames)
    return outcome, replay(dump, standin.program(), recorded, standin.STEPS, standin.POST, standin.HEADS)


def differing(replayed, tensors):
    return [name for name in tensors if not np.array_equal(replayed.tensors[name], tensors[name])]


@pytest.mark.parametrize("stall", PATTERNS)
def test_every_tensor_and_result_survives_the_bench(standin_build, tmp_path, stall):
    tensors = standin.random_tensors(3, seed=1)
    outcome, replayed = play(standin_build, tmp_path, standin.script(tensors), stall=stall, seed=5)
    assert [[word & 0xFFFFFFFF for word in words] for words in RESULTS] == [
        frame["words"] for frame in outcome["results"]
    ]
    assert (outcome["extra"], outcome["violations"]) == (0, 0)
    assert replayed.findings == []
    assert sorted(replayed.tensors) == sorted(tensors)
    assert differing(replayed, tensors) == []


def test_steps_carry_cycles_and_firings(standin_build, tmp_path):
    play(standin_build, tmp_path, standin.script(standin.random_tensors(2, seed=2)), frames=2)
    steps = read_dump(tmp_path, standin_build.ports).steps
    assert steps.op.tolist() == [0, 1, 2] * 2
    assert steps.frame.tolist() == [0, 0, 0, 1, 1, 1]
    assert steps.fired.tolist() == [[2, 1]] * 6
    # start, two firings, 2 x 2 x 4 spike writes, done
    assert (steps.done - steps.start).tolist()[0] == 2 + 16 + 1


def test_recording_stops_after_the_wanted_frames(standin_build, tmp_path):
    tensors = standin.random_tensors(3, seed=3)
    _, replayed = play(standin_build, tmp_path, standin.script(tensors), record=1)
    assert replayed.frames == 1
    assert replayed.findings == []
    assert all(np.array_equal(replayed.tensors[name], tensors[name][:1]) for name in tensors)
    spikes = read_dump(tmp_path, standin_build.ports).spike
    assert len(spikes) == sum("spike_en" in line.fields for line in standin.script(tensors)[0])


def flip(field, bit):
    def fault(lines):
        line = next(line for line in lines[1] if line.fields.get(field.replace("data", "en")))
        line.fields[field] ^= 1 << bit

    return fault


def drop_word(lines):
    index = next(i for i, line in enumerate(lines[1]) if "spike_en" in line.fields)
    del lines[1][index]


def drop_residual(lines):
    index = next(i for i, line in enumerate(lines[1]) if "u_en" in line.fields)
    del lines[1][index]


def drop_sum(lines):
    index = next(i for i, line in enumerate(lines[1]) if "y_en" in line.fields)
    del lines[1][index]


def stray_address(lines):
    line = next(line for line in lines[1] if "spike_en" in line.fields)
    line.fields["spike_addr"] = 0


def unused_lane(lines):
    # Step 0 holds 6 channels in 2 words of 4 lanes: the last two lanes of every second word are free.
    writes = [line for line in lines[1] if "spike_en" in line.fields and line.fields["op"] == 0]
    next(line for line in writes if line.fields["spike_addr"] == 4 and line.fields["spike_en"] == 2).fields[
        "spike_data"
    ] |= 1 << 11


def idle_write(lines):
    lines[1].insert(0, standin.Line({"op": 0, "spike_en": 3, "spike_addr": 3}))


def wrong_step(lines):
    next(line for line in lines[1] if "u_en" in line.fields).fields["op"] = 1


def overlapping_steps(lines):
    index = next(i for i, line in enumerate(lines[1]) if "done" in line.fields)
    del lines[1][index]


FAULTS = {
    "dropped spike word": (drop_word, "frame 1: sps.0 did not write frame"),
    "dropped residual word": (
        drop_residual,
        "block.0.proj did not write frame 1, token 0, subgroup 0, step 0",
    ),
    "dropped attention sum": (drop_sum, "block.0.attention did not write frame 1, step 0, token 0, head 0"),
    "write outside the region": (
        stray_address,
        "frame 1: sps.0 wrote spike word -3 of 8, outside its region",
    ),
    "spike in an unused lane": (unused_lane, "frame 1: sps.0 spiked in an unused lane at token 0"),
    "write between operations": (idle_write, "spike write outside of a running operation, cycle"),
    "record of another step": (wrong_step, "residual write outside of a running operation, cycle"),
    "missing done": (overlapping_steps, "step 1 started in cycle"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_planted_fault_becomes_a_finding(standin_build, tmp_path, name):
    fault, text = FAULTS[name]
    lines = standin.script(standin.random_tensors(2, seed=4))
    fault(lines)
    _, replayed = play(standin_build, tmp_path, lines, frames=2)
    assert replayed.finding_count >= 1
    wanted = text.removeprefix("frame 1: ") if "did not write" in text else text
    assert any(wanted in finding for finding in replayed.findings), replayed.findings


@pytest.mark.parametrize(
    ("field", "bit", "tensor", "where"),
    [
        ("spike_data", 4, "sps.0.spikes", (1, 1, 0, 1)),  # lane 1, step 1
        ("u_data", 7, "block.0.u_attn", (1, 0, 0, 1)),  # lowest bit of the second channel
        ("y_data", 3, "block.0.y", (1, 0, 0, 0)),
    ],
)
def test_flipped_bit_shows_up_where_it_was_planted(standin_build, tmp_path, field, bit, tensor, where):
    tensors = standin.random_tensors(2, seed=6)
    lines = standin.script(tensors)
    flip(field, bit)(lines)
    _, replayed = play(standin_build, tmp_path, lines, frames=2)
    assert differing(replayed, tensors) == [tensor]
    assert np.argwhere(replayed.tensors[tensor] != tensors[tensor]).tolist() == [list(where)]


def test_watchdog_stops_a_deadlock_and_tells_the_step(standin_build, tmp_path):
    lines = standin.script(standin.random_tensors(2, seed=7))
    lines[1] = [line for line in lines[1] if "end" not in line.fields and line.fields.get("op", 0) < 2]
    outcome, _ = play(standin_build, tmp_path, lines, frames=2, limit=400)
    assert outcome["deadlock"] == {"frame": 1, "limit": 400}
    assert outcome["status"]["busy"] == 1
    assert len(outcome["results"]) == 1
    assert outcome["cycles"] < 1000


def test_short_and_long_frames_are_reported_and_skipped(standin_build, tmp_path):
    tensors = standin.random_tensors(2, seed=8)
    standin.write_script(tmp_path, standin.script(tensors), RESULTS)
    frames = [FRAME, FRAME[:2], FRAME + b"\0", FRAME]
    outcome = run(standin_build, Job(frames, results=2, record=2, limit=3000), tmp_path)
    assert (outcome["status"]["error_short"], outcome["status"]["error_long"]) == (1, 1)
    assert (len(outcome["results"]), outcome["extra"]) == (2, 0)


def test_result_that_nobody_expects_is_counted(standin_build, tmp_path):
    standin.write_script(tmp_path, standin.script(standin.random_tensors(2, seed=9)), RESULTS)
    outcome = run(standin_build, Job([FRAME, FRAME], results=1, limit=3000, drain=300), tmp_path)
    assert outcome["extra"] == 1


def test_unstable_output_breaks_the_stream_rule(tmp_path):
    built = build(standin.verilog("unstable"), standin.MODULE)
    outcome, _ = play(built, tmp_path, standin.script(standin.random_tensors(3, seed=10)), stall="starved")
    assert outcome["violations"] > 0


def test_input_that_is_never_ready_is_a_deadlock(tmp_path):
    built = build(standin.verilog("deaf"), standin.MODULE)
    outcome, _ = play(built, tmp_path, standin.script(standin.random_tensors(3, seed=11)), limit=200)
    assert outcome["deadlock"] == {"frame": 0, "limit": 200}
    assert outcome["status"]["s_axis_tready"] == 0


def test_waveform_on_request(tmp_path):
    built = build(standin.verilog(), standin.MODULE, waves=True)
    standin.write_script(tmp_path, standin.script(standin.random_tensors(1, seed=12)), RESULTS)
    run(built, Job([FRAME], limit=3000), tmp_path, waveform=tmp_path / "wave.vcd")
    assert "s2tdpt_bench" in (tmp_path / "wave.vcd").read_text()


def test_build_error_is_one_line_with_the_log(tmp_path, monkeypatch):
    monkeypatch.setenv("S2TDPT_CACHE", str(tmp_path))
    broken = standin.verilog().replace("assign busy = pending;", "assign busy = nowhere_declared[3];")
    with pytest.raises(UserError, match=r"^verilator could not build the design: %Error.*; see .*\.log$"):
        build(broken, standin.MODULE)


def test_simulation_that_dies_is_one_line_with_the_log(standin_build, tmp_path):
    # Without script files the run itself works; a job that cannot be decoded ends it in Python.
    with pytest.raises(
        UserError, match=r"^the simulation ended without a result \(.*\); expected one; see .*\.log$"
    ):
        run(standin_build, Job([FRAME], stall="sideways"), tmp_path)


def test_unknown_simulator():
    with pytest.raises(UserError, match="^unknown simulator 'modelsim'; expected one of verilator, icarus$"):
        build(standin.verilog(), standin.MODULE, "modelsim")
