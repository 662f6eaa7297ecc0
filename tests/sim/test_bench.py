"""The bench on the stand-in accelerator: transport, recording, replay, watchdog, and that each checker can
fail."""

import numpy as np
import pytest

from s2tdpt.golden.errors import UserError
from s2tdpt.sim.build import build
from s2tdpt.sim.dump import read_dump
from s2tdpt.sim.replay import replay
from s2tdpt.sim.runner import Job, run
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
    recorded = min(job["record"], frames)
    return outcome, replay(read_dump(folder, built.ports), standin.program(), recorded)


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


def test_steps_carry_cycles_and_accumulates(standin_build, tmp_path):
    lines = standin.script(standin.random_tensors(2, seed=2))
    play(standin_build, tmp_path, lines, frames=2)
    steps = read_dump(tmp_path, standin_build.ports).steps
    count = len(standin.program().steps)
    assert len(steps) == 2
    assert steps.fired == [3 * count] * 2
    for frame in range(2):
        start, complete = steps.times(frame, count)
        scripted = [
            [cycle for cycle, line in enumerate(lines[frame]) if name in line]
            for name in ("start", "complete")
        ]
        assert (start - start[0]).tolist() == [cycle - scripted[0][0] for cycle in scripted[0]]
        assert (complete - start[0]).tolist() == [cycle - scripted[0][0] for cycle in scripted[1]]
        assert np.any(start[1:] < complete[:-1])  # steps overlap


def test_recording_stops_after_the_wanted_frames(standin_build, tmp_path):
    tensors = standin.random_tensors(3, seed=3)
    _, replayed = play(standin_build, tmp_path, standin.script(tensors), record=1)
    assert replayed.frames == 1
    assert replayed.findings == []
    assert all(np.array_equal(replayed.tensors[name], tensors[name][:1]) for name in tensors)
    pieces = read_dump(tmp_path, standin_build.ports).records["piece"]
    assert len(pieces) == sum("piece_en" in line for line in standin.script(tensors)[0])


def test_more_frames_than_were_run_cannot_be_rebuilt(standin_build, tmp_path):
    play(standin_build, tmp_path, standin.script(standin.random_tensors(1, seed=3)), frames=1)
    with pytest.raises(ValueError, match="^the dump holds 1 frames; expected at least 2$"):
        replay(read_dump(tmp_path, standin_build.ports), standin.program(), 2)


def record(lines, kind, index=0, step=None):
    """The line of the second frame that holds a record of a kind, of a step if one is named."""
    found = [line for line in lines[1] if f"{kind}_en" in line]
    if step is not None:
        found = [line for line in found if line[f"{kind}_step"] == step]
    return found[index]


def drop(kind, index=0):
    def fault(lines):
        del record(lines, kind, index)[f"{kind}_en"]

    return fault


def change(kind, field, value, **which):
    def fault(lines):
        record(lines, kind, **which)[f"{kind}_{field}"] = value

    return fault


def repeat(kind, names):
    """The second record becomes what the first one was."""

    def fault(lines):
        first, second = record(lines, kind), record(lines, kind, 1)
        second.update({f"{kind}_{name}": first[f"{kind}_{name}"] for name in names})

    return fault


def toggle(kind, field, bit, index=0, step=None):
    def fault(lines):
        record(lines, kind, index, step)[f"{kind}_{field}"] ^= 1 << bit

    return fault


def idle_write(lines):
    lines[1].insert(0, {"attention_en": 1})


def double_write(lines):
    next(line for line in lines[1] if "layers_en" in line).update(attention_en=1)


def drop_pulse(name, number):
    def fault(lines):
        line = [line for line in lines[1] if name in line][number]
        del line[name]

    return fault


def late_sum(lines):
    line = next(line for line in reversed(lines[1]) if "piece_u_en" in line)
    line.update(y_en=1)


STEP_X, STEP_V = 3, 9
"""Steps that write slots without a channel: the second half of block.0.x, of v."""

FAULTS = {
    "dropped piece": (drop("piece"), "frame 1: sps.0.spikes: the hardware did not emit token 0, piece 0"),
    "repeated piece": (
        repeat("piece", ["position", "piece"]),
        "frame 1: sps.0.spikes: the hardware did more than once emit token 0, piece 0",
    ),
    "piece of another tile": (
        change("piece", "piece", 2),
        "frame 1: sps.0[0]: position 0, piece 2 lies outside of the tile, cycle",
    ),
    "piece of a position that does not exist": (
        change("piece", "position", 12),
        "frame 1: sps.0[0]: position 12, piece 0 lies outside of the tile, cycle",
    ),
    "piece of a step that does not run": (
        change("piece", "step", 4),
        "frame 1: spikes of neurons of step 4, which did not run in cycle",
    ),
    "spike in a slot without a channel": (
        toggle("piece", "spikes", 3, step=STEP_V, index=1),
        "frame 1: block.0.v: spike in slot 7 without a channel, token 0",
    ),
    "dropped word of U": (drop("piece_u"), "frame 1: sps.u: the hardware did not update token 0, piece 0"),
    "word of U of another tile": (
        change("piece_u", "address", 5),
        "frame 1: sps.1[0]: position 1, piece 2 lies outside of the tile, cycle",
    ),
    "dropped write": (drop("layers"), "frame 1: sps.1.pooled: the hardware did not write token 0, piece 0"),
    "write outside of the region": (
        change("layers", "address", 30),
        "frame 1: sps.0[0]: position 15, piece 0 lies outside of the tile, cycle",
    ),
    "rest of a word not cleared": (
        change("layers", "final", 1),
        "frame 1: sps.1.pooled: piece 0 written with final 1, cycle",
    ),
    "write without a piece": (
        drop("piece", 8),  # the first window of the pool ends with it
        "frame 1: spike memory, from the layers, of no piece, cycle",
    ),
    "memory and neurons differ": (
        toggle("layers", "spikes", 4, index=12),
        "frame 1: block.0.x: step 1, token 0, channel 1: the memory holds another spike than the neuron",
    ),
    "dropped attention": (
        drop("attention"),
        "frame 1: block.0.attn: the hardware did not write token 0, piece 0",
    ),
    "attention outside of its region": (
        change("attention", "address", 31),
        "frame 1: block.0.attn: token 15 of 4 lies outside of the region, cycle",
    ),
    "spike of the attention without a channel": (
        toggle("attention", "spikes", 5, index=1),
        "frame 1: block.0.attn: spike in slot 3 without a channel, token 0",
    ),
    "dropped sums": (drop("y"), "frame 1: block.0.y: no attention sums of step 0, token 0, head 0"),
    "repeated sums": (
        repeat("y", ["step"]),
        "frame 1: block.0.y: attention sums more than once of step 0, token 0, head 0",
    ),
    "sums of a step that does not exist": (
        change("y", "step", 3),
        "frame 1: attention sums of token 0, head 0, step 3, which does not exist",
    ),
    "sums after the attention": (
        late_sum,
        "frame 1: attention sums after the attention of the last block was read, cycle",
    ),
    "write between frames": (
        idle_write,
        "spike memory, from the attention, recorded while no step ran, cycle",
    ),
    "two writes in a cycle": (
        double_write,
        "layers and attention wrote into the spike memory in the same cycle, ",
    ),
    "missing start": (drop_pulse("start", 5), "frame 1: step 6 started where step 5 was due"),
    "missing end": (drop_pulse("complete", 16), "frame 1: step head did not end after its start"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_planted_fault_becomes_a_finding(standin_build, tmp_path, name):
    fault, text = FAULTS[name]
    lines = standin.script(standin.random_tensors(2, seed=4))
    fault(lines)
    _, replayed = play(standin_build, tmp_path, lines, frames=2)
    assert replayed.finding_count >= 1
    assert any(finding.startswith(text) for finding in replayed.findings), replayed.findings


@pytest.mark.parametrize(
    ("kind", "field", "bit", "tensor", "where"),
    [
        ("piece", "spikes", 4, "sps.0.spikes", (1, 1, 0, 1)),  # lane 1, step 1
        ("piece_u", "data", 3 * 7, "sps.u", (1, 0, 0, 1)),  # lowest bit of the second channel
        ("layers", "spikes", 2, "sps.1.pooled", (1, 2, 0, 0)),
        ("attention", "spikes", 0, "block.0.attn", (1, 0, 0, 0)),
        ("y", "data", 5, "block.0.y", (1, 0, 0, 1)),
    ],
)
def test_flipped_bit_shows_up_where_it_was_planted(standin_build, tmp_path, kind, field, bit, tensor, where):
    tensors = standin.random_tensors(2, seed=6)
    lines = standin.script(tensors)
    toggle(kind, field, bit)(lines)
    _, replayed = play(standin_build, tmp_path, lines, frames=2)
    assert differing(replayed, tensors) == [tensor]
    assert np.argwhere(replayed.tensors[tensor] != tensors[tensor]).tolist() == [list(where)]


def test_watchdog_stops_a_deadlock_and_tells_the_step(standin_build, tmp_path):
    lines = standin.script(standin.random_tensors(2, seed=7))
    lines[1] = [line for line in lines[1] if "end" not in line]
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
