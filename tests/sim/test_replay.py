"""Reading and replaying records, without a simulator: every tensor, and that each check can fail."""

import numpy as np
import pytest

from s2tdpt.sim.dump import NEVER, UNKNOWN_DIGIT, _bits, _digits, _integer, read_dump
from s2tdpt.sim.replay import LIMIT, Replay, _signed, _unsigned, replay
from s2tdpt.sim.wrapper import Ports
from tests.sim import standin
from tests.sim.recording import FIRST, GAP, ports, record
from tests.sim.test_bench import FAULTS, differing, toggle
from tests.sim.test_bench import record as line_of


def replayed(folder, lines, frames=2):
    record(folder, lines)
    return replay(read_dump(folder, ports()), standin.program(), frames)


def test_every_tensor_comes_back(tmp_path):
    tensors = standin.random_tensors(3, seed=1)
    found = replayed(tmp_path, standin.script(tensors), 3)
    assert (found.findings, found.finding_count, found.frames) == ([], 0, 3)
    assert sorted(found.tensors) == sorted(tensors) and differing(found, tensors) == []
    fewer = replayed(tmp_path, standin.script(tensors), 1)
    assert (fewer.findings, fewer.finding_count) == ([], 0)
    assert all((fewer.tensors[name] == tensors[name][:1]).all() for name in tensors)


def test_signed_sums(tmp_path):
    tensors = standin.random_tensors(2, seed=1)
    record(tmp_path, standin.script(tensors))
    found = replay(read_dump(tmp_path, ports()), standin.program(), 2, signed_y=True)
    sums = tensors["block.0.y"]
    assert (found.tensors["block.0.y"] == np.where(sums >= 16, sums - 32, sums)).all()


@pytest.mark.parametrize("name", FAULTS)
def test_planted_fault_becomes_one_finding_in_words(tmp_path, name):
    fault, text = FAULTS[name]
    lines = standin.script(standin.random_tensors(2, seed=4))
    fault(lines)
    found = replayed(tmp_path, lines)
    assert any(finding.startswith(text) for finding in found.findings), found.findings
    assert found.finding_count == len(found.findings) <= LIMIT


def test_more_frames_than_there_are(tmp_path):
    record(tmp_path, standin.script(standin.random_tensors(1, seed=3)))
    with pytest.raises(ValueError, match="^the dump holds 1 frames; expected at least 2$"):
        replay(read_dump(tmp_path, ports()), standin.program(), 2)


# Every place has a first and a last value that exists, and one beyond each.


@pytest.mark.parametrize(
    "kind, field, value, text",
    [
        ("piece", "step", 17, "frame 1: spikes of neurons of step 17, which did not run in cycle"),
        ("piece", "piece", 3, "frame 1: sps.0[0]: position 0, piece 3 lies outside of the tile, cycle"),
        ("piece_u", "address", 12, "frame 1: sps.1[0]: position 4, piece 0 lies outside of the tile, cycle"),
        ("y", "token", 3, "frame 1: block.0.y: no attention sums of step 0, token 0, head 0"),
        ("y", "head", 1, "frame 1: block.0.y: attention sums more than once of step 0, token 0, head 1"),
    ],
)
def test_the_next_value_is_noticed(tmp_path, kind, field, value, text):
    lines = standin.script(standin.random_tensors(2, seed=4))
    line_of(lines, kind)[f"{kind}_{field}"] = value
    found = replayed(tmp_path, lines)
    assert any(finding.startswith(text) for finding in found.findings), found.findings


def test_final_of_the_last_piece_is_noticed(tmp_path):
    """That the rest of a word is not cleared where it should be."""
    lines = standin.script(standin.random_tensors(2, seed=4))
    line = next(line for line in lines[1] if line.get("attention_final"))
    line["attention_final"] = 0
    assert [finding.rsplit(",", 1)[0] for finding in replayed(tmp_path, lines).findings] == [
        "frame 1: block.0.attn: piece 3 written with final 0"
    ]


def test_numbers_of_findings_are_exact(tmp_path):
    """A frame without any record: what is missing is counted, the first of each kind are put into words."""
    tensors = standin.random_tensors(2, seed=4)
    lines = standin.script(tensors)
    for line in lines[1]:
        line.pop("y_en", None)
        line.pop("piece_u_en", None)
    found = replayed(tmp_path, lines)
    words = {"block.0.u": 12, "block.0.u_attn": 12, "sps.u": 12}
    sums = standin.TOKENS * standin.STEPS * standin.HEADS
    assert found.finding_count == sum(words.values()) + sums
    assert len(found.findings) == 3 * 12 + LIMIT
    for name in (*words, "block.0.y"):
        assert (found.tensors[name][0] == tensors[name][0]).all() and not found.tensors[name][1].any()


def test_steps_that_ended_too_often_or_never_ran(tmp_path):
    lines = standin.script(standin.random_tensors(2, seed=4))
    lines[1].insert(-1, {"complete": 1})
    found = replayed(tmp_path, lines)
    assert found.findings == ["frame 1: 1 step(s) ended that never started"]
    lines = standin.script(standin.random_tensors(2, seed=4))
    last = [line for line in lines[1] if "start" in line][-1]
    del last["start"]
    assert "frame 1: step head never ran" in replayed(tmp_path, lines).findings


def test_records_of_a_step_are_those_from_its_start_to_its_end(tmp_path):
    """The cycle of the start and of the end belong to it, the ones before and behind do not."""
    for move, count in ((0, 0), (1, 1)):
        lines = standin.script(standin.random_tensors(1, seed=4))
        place = next(i for i, line in enumerate(lines[0]) if "piece_en" in line)
        names = [name for name in lines[0][place] if name.startswith("piece_")]
        begin = next(i for i, line in enumerate(lines[0]) if "start" in line)
        for name in names:
            lines[0][begin - move][name] = lines[0][place].pop(name)
        texts = replayed(tmp_path, lines, 1).findings
        missing = [text for text in texts if "while no step ran" in text]
        assert len(missing) == count, texts


def test_unknown_bits_are_noticed(tmp_path):
    record(tmp_path, standin.script(standin.random_tensors(2, seed=4)))
    path = tmp_path / "probe_y.txt"
    text = path.read_text().splitlines(keepends=True)
    text[30] = text[30][:-2] + "x\n"
    path.write_text("".join(text))
    found = replay(read_dump(tmp_path, ports()), standin.program(), 2)
    assert [finding.rsplit(",", 1)[0] for finding in found.findings] == [
        "frame 1: attention sums with unknown bits (X or Z)"
    ]


def test_flipped_bits_are_located(tmp_path):
    tensors = standin.random_tensors(2, seed=6)
    for kind, field, bit, tensor, where in (
        ("piece", "spikes", 4, "sps.0.spikes", (1, 1, 0, 1)),
        ("piece_u", "data", 3 * 7, "sps.u", (1, 0, 0, 1)),
        ("attention", "spikes", 0, "block.0.attn", (1, 0, 0, 0)),
        ("y", "data", 5, "block.0.y", (1, 0, 0, 1)),
    ):
        lines = standin.script(tensors)
        toggle(kind, field, bit)(lines)
        found = replayed(tmp_path, lines)
        assert differing(found, tensors) == [tensor]
        assert np.argwhere(found.tensors[tensor] != tensors[tensor]).tolist() == [list(where)]


# ---- files -----------------------------------------------------------------------------------------------


def test_steps_are_read_with_their_cycles(tmp_path):
    lines = standin.script(standin.random_tensors(2, seed=2))
    begins = record(tmp_path, lines)
    steps = read_dump(tmp_path, ports()).steps
    count = len(standin.program().steps)
    assert len(steps) == 2 and steps.fired == [3 * count] * 2
    assert begins == [FIRST, FIRST + len(lines[0]) + GAP]
    for frame, begin in enumerate(begins):
        start, complete = steps.times(frame, count)
        for name, cycles in (("start", start), ("complete", complete)):
            assert cycles.tolist() == [begin + n for n, line in enumerate(lines[frame]) if name in line]
        assert steps.first()[frame] == start[0] and steps.last()[frame] == complete[-1]
    assert all((cycles == NEVER).all() for cycles in steps.times(2, count))
    start, complete = steps.times(0, 3)
    assert len(start) == len(complete) == 3 and (start > 0).all()


def test_what_comes_before_the_first_step_is_a_frame_of_its_own(tmp_path):
    lines = standin.script(standin.random_tensors(1, seed=2))
    record(tmp_path, [[{"complete": 1}, {"start": 1, "step": 3}, {"end": 1}], *lines])
    steps = read_dump(tmp_path, ports()).steps
    assert len(steps) == 2
    assert steps.starts[0].tolist() == [[3, FIRST + 1]] and steps.completes[0].tolist() == [FIRST]


def test_an_end_before_any_start_is_no_frame(tmp_path):
    lines = standin.script(standin.random_tensors(1, seed=2))
    record(tmp_path, [[{"complete": 1}, {"end": 1}], *lines])
    steps = read_dump(tmp_path, ports()).steps
    assert len(steps) == 1 and len(steps.completes[0]) == len(standin.program().steps)


def test_ports_that_do_not_exist_are_a_bit_that_is_zero(tmp_path):
    """Such as the sums of a network without any: the recorder writes a digit for each."""
    few = Ports("few", {}, {"probe_start": 1, "probe_complete": 1})
    (tmp_path / "probe_y.txt").write_text("0000002a 0 0 0 0\n")
    sums = read_dump(tmp_path, few).records["y"]
    assert sums.cycle.tolist() == [42] and sums.bits.tolist() == [[0]]
    assert {name: sums[name].tolist() for name in ("head", "token", "step")} == dict.fromkeys(
        ("head", "token", "step"), [0]
    )


def test_a_file_that_was_cut_short(tmp_path):
    """Or that is not there: whole lines count."""
    path = tmp_path / "table.txt"
    path.write_text("0a f\n1B 3\n2")
    first, second = _digits(path, [8, 3])
    assert _integer(first).tolist() == [10, 27] and _integer(second).tolist() == [15, 3]
    assert [len(digits) for digits in _digits(tmp_path / "none.txt", [8, 3])] == [0, 0]


def test_digits():
    digits = np.array([[1, 15, 0], [UNKNOWN_DIGIT, 2, 9]], dtype=np.uint8)
    assert _integer(digits).tolist() == [0x1F0, 0x29]
    assert _bits(digits[:1], 10).tolist() == [[0, 0, 0, 0, 1, 1, 1, 1, 1, 0]]
    wide = np.array([[15] * 15], dtype=np.uint8)
    assert _integer(wide).tolist() == [(1 << 60) - 1]


def test_unknown_digits(tmp_path):
    lines = standin.script(standin.random_tensors(1, seed=2))
    record(tmp_path, lines)
    path = tmp_path / "probe_piece.txt"
    text = path.read_text()
    path.write_text(text[:-2] + "Z\n")
    records = read_dump(tmp_path, ports()).records["piece"]
    assert records.unknown.tolist() == [False] * (len(records) - 1) + [True]


def test_fields_of_words():
    bits = np.array([[1, 0, 1, 1, 1, 1]], dtype=np.uint8)
    assert _unsigned(bits, 2).tolist() == [[5, 7]] and _signed(bits, 2).tolist() == [[-3, -1]]
    assert _signed(np.array([[0, 1, 0]], dtype=np.uint8), 1).tolist() == [[2]]


def test_findings_are_counted_beyond_those_in_words():
    result = Replay(1)
    result.find(np.arange(LIMIT + 5), lambda i: f"number {i}")
    result.say("one", "two")
    assert result.finding_count == LIMIT + 7
    assert result.findings == [*(f"number {i}" for i in range(LIMIT)), "one", "two"]
