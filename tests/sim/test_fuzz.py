"""Campaigns: what is right and wrong, one real design, planted faults that are found and made small."""

import json
from dataclasses import replace

import numpy as np
import pytest
from click.testing import CliRunner

from s2tdpt.golden.errors import UserError
from s2tdpt.golden.params import Params
from s2tdpt.hw.plan.machine import Machine
from s2tdpt.scripts.cli import main
from s2tdpt.sim import campaign
from s2tdpt.sim.campaign import case_of, check_cases, check_episode, expected_words, numbers_of
from s2tdpt.sim.cases import network
from s2tdpt.sim.fuzz_case import EPISODES, Episode, FuzzCase, case_from, images_of, payloads
from s2tdpt.sim.shrink import shrink, simpler

SIMULATOR = campaign.quick_simulator()
SMALL = FuzzCase(
    network=network(image_height=2, image_width=2, timesteps=1),
    machine=Machine(lanes=6, banks=2, post_lanes=3),
    seed=3,
)
SIZE = SMALL.image_bytes


def with_episode(**fields) -> FuzzCase:
    return SMALL.model_copy(update={"episode": Episode(**fields)})


def test_a_seed_names_the_same_case_for_ever_and_all_kinds_occur():
    cases = [case_of(5, number) for number in range(2 * EPISODES)]
    assert cases == [case_of(5, number) for number in range(2 * EPISODES)]
    assert len({case.text() for case in cases}) == len(cases)
    assert [number for number, case in enumerate(cases) if case.episode is None] == [0, EPISODES]
    episodes = [case.episode for case in cases if case.episode]
    sizes = [case.image_bytes for case in cases if case.episode]
    packets = [(length, size) for e, size in zip(episodes, sizes, strict=True) for length in e.packets]
    assert {np.sign(length - size) for length, size in packets} == {-1, 0, 1}
    assert {e.stall for e in episodes} == {"none", "random", "bursty", "starved"}
    assert any(e.reset_after for e in episodes)
    for case in cases:
        assert case_from(case.text()) == case


ONE = with_episode(packets=[1]).text()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "the case is no JSON object (no JSON at line 1, column 2); expected what `s2tdpt fuzz`"),
        ("[]", "the case is no JSON object (no object)"),
        ('{"a": 1, "a": 2}', "a key stands twice"),
        ("{}", "'network' of the case: Field required; expected what `s2tdpt fuzz` printed"),
        (ONE.replace('"packets":[1]', '"packets":[0]'), "'episode.packets.0' of the case"),
        (ONE.replace('"packets":[1]', '"before":[2]'), "before and reset_after go together"),
        (
            with_episode(packets=[4], weights_end=2).text(),
            "weights_end is given, but the weights are on chip",
        ),
    ],
)
def test_cases_that_are_none(text, words):
    with pytest.raises(UserError) as error:
        case_from(text)
    assert words in str(error.value)


def right(case: FuzzCase, width: int = 32) -> dict:
    """What the bench sees of an accelerator that is right."""
    _, packets = payloads(case)
    lengths = case.episode.packets
    return {
        "before": [],
        "results": expected_words(case, packets, width),
        "lost": None,
        "extra": 0,
        "violations": 0,
        "error_short": int(any(length < SIZE for length in lengths)),
        "error_long": int(any(length > SIZE for length in lengths)),
        "busy": 0,
    }


def test_only_packets_of_the_right_length_are_images():
    case = with_episode(packets=(SIZE, 1, SIZE, SIZE + 1), seed=4)
    _, packets = payloads(case)
    assert [len(packet) for packet in packets] == [SIZE, 1, SIZE, SIZE + 1]
    assert images_of(case, packets).tobytes() == packets[0] + packets[2]
    assert check_episode(case, right(case), 32) is None
    assert len(right(case)["results"]) == 2


FAULTS = {
    "a changed logit": (lambda s: s["results"][1].__setitem__(0, 12345), "result 1 is [12345, "),
    "a result lost": (lambda s: s.update(results=s["results"][:1], lost=1), "deadlock: 1 of 2 results came"),
    "results swapped": (lambda s: s["results"].reverse(), "result 0 is "),
    "a result too many": (lambda s: s.update(extra=1), "1 result frame(s) that no image asked for"),
    "a result without an image": (lambda s: s["before"].append([1, 2]), "before the reset: result 0 has no"),
    "a flag missing": (lambda s: s.update(error_short=0), "error_short is 0 in the end; expected 1"),
    "a flag too many": (lambda s: s.update(error_long=1), "error_long is 1 in the end; expected 0"),
    "busy for ever": (lambda s: s.update(busy=1), "busy is 1 in the end; expected 0"),
    "an unstable output": (lambda s: s.update(violations=2), "m_axis changed 2 times"),
    "an unknown level": (lambda s: s.update(busy="x"), "busy is x in the end"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_planted_fault_in_what_is_seen(fault):
    change, words = FAULTS[fault]
    case = with_episode(packets=(SIZE, 1, SIZE), seed=4)
    seen = right(case)
    assert check_episode(case, seen, 32) is None
    change(seen)
    assert words in check_episode(case, seen, 32)


def test_early_end_of_the_weights_must_be_flagged():
    streamed = SMALL.machine.model_copy(update={"weight_memory": "stream"})
    case = with_episode(packets=(SIZE,), weights_end=3).model_copy(update={"machine": streamed})
    seen = right(case) | {"error_weights": 1, "results": []}
    assert check_episode(case, seen, 32) is None
    assert "error_weights stayed low" in check_episode(case, seen | {"error_weights": 0}, 32)


def some_cases(machine: Machine) -> list[FuzzCase]:
    """A case of every kind, of one design."""
    episodes = [
        None,
        Episode(packets=(SIZE, SIZE - 1, SIZE, 2 * SIZE, SIZE), stall="random", seed=1),
        Episode(before=(SIZE, SIZE), reset_after=150, packets=(3 * SIZE + 1, SIZE), stall="bursty", seed=2),
        Episode(before=(SIZE,), reset_after=3, hold=4, packets=(1, SIZE), seed=3),
    ]
    if machine.weight_memory == "stream":
        episodes.append(Episode(packets=(SIZE,), weights_end=7, seed=4))
        episodes.append(Episode(packets=(SIZE,), seed=5))  # after the error and a reset all is well
    return [SMALL.model_copy(update={"machine": machine, "episode": episode}) for episode in episodes]


@pytest.mark.parametrize("memory", ["rom", "stream"])
def test_a_real_design(memory):
    cases = some_cases(SMALL.machine.model_copy(update={"weight_memory": memory}))
    assert check_cases(cases, SIMULATOR) == [None] * len(cases)


def test_planted_fault_in_the_hardware_is_found(monkeypatch):
    """One threshold of another network, in every case but those without an image."""

    def generate(params: Params, machine: Machine):
        bias = params.tensors["head.bias"].copy()
        bias[1] += 1
        return sound(replace(params, tensors={**params.tensors, "head.bias": bias}), machine)

    sound = campaign.generate
    monkeypatch.setattr(campaign, "generate", generate)
    cases = some_cases(SMALL.machine)
    cases.append(SMALL.model_copy(update={"episode": Episode(packets=(1,))}))
    *found, without_image = check_cases(cases, SIMULATOR)
    assert without_image is None
    assert found[0].startswith("head.logits: image 0")
    assert all(text.startswith("result 0 is ") for text in found[1:])


def test_whatever_is_raised_is_a_finding(monkeypatch):
    def generate(params, machine):
        raise RuntimeError("planted\nfault")

    monkeypatch.setattr(campaign, "generate", generate)
    assert check_cases(some_cases(SMALL.machine), SIMULATOR) == ["RuntimeError: planted\\nfault"] * 4


def loses_the_image_behind_a_long_packet(case: FuzzCase) -> bool:
    """A planted fault: with two time steps or more, on two banks or more."""
    if case.episode is None or case.network.timesteps < 2 or case.machine.banks < 2:
        return False
    lengths = case.episode.packets
    pairs = zip(lengths, lengths[1:], strict=False)
    return any(a > case.image_bytes and b == case.image_bytes for a, b in pairs)


def test_planted_fault_is_made_small():
    large = next(
        case for number in range(10**4) if loses_the_image_behind_a_long_packet(case := case_of(1, number))
    )
    steps = []
    small = shrink(large, loses_the_image_behind_a_long_packet, tell=steps.append)
    assert small == steps[-1] and all(map(loses_the_image_behind_a_long_packet, steps))
    assert not any(map(loses_the_image_behind_a_long_packet, simpler(small)))
    net, machine, episode = small.network, small.machine, small.episode
    assert (net.image_height, net.image_width, net.image_channels, net.timesteps) == (1, 1, 1, 2)
    assert (net.depth, net.heads, net.embed_dim, net.num_classes, net.mlp_ratio) == (1, 1, 1, 2, 1)
    assert (machine.lanes, machine.banks, machine.post_lanes, machine.queue) == (2, 2, 1, 2)
    assert episode == Episode(packets=(2, 1))
    assert small.seed == 0


def test_shrinking_stops_in_time():
    large = case_of(1, 1)
    assert shrink(large, lambda case: True, seconds=-1) == large


@pytest.fixture
def planted(monkeypatch):
    """A campaign over machines that lose images; nothing is simulated."""

    def check(cases, simulator):
        return ["an image was lost" if loses_the_image_behind_a_long_packet(c) else None for c in cases]

    monkeypatch.setattr(campaign, "check_cases", check)


def invoke(*words):
    return CliRunner().invoke(main, ["fuzz", *map(str, words)])


def test_command_prints_what_repeats_the_failure(planted, tmp_path):
    log = tmp_path / "log.jsonl"
    first = invoke("--cases", 100, "--seed", 1, "--log", log, "--json", tmp_path / "first.json")
    assert first.exit_code == 1
    found = json.loads((tmp_path / "first.json").read_text())
    assert found["cases"] == 100 and found["designs"] == 4 and found["of_them"]["malformed"] > 20
    failure = found["failures"][0]
    assert failure["command"] in first.stdout
    text = failure["command"].split("'")[1]
    assert simpler(case_from(text)) and loses_the_image_behind_a_long_packet(case_from(text))
    assert invoke("--case", text).exit_code == 1
    (tmp_path / "case.json").write_text(text)
    assert invoke("--case", tmp_path / "case.json").exit_code == 1
    assert invoke("--seed", 1, "--only", failure["case"]).exit_code == 1
    good = next(n for n in range(100) if n not in {f["case"] for f in found["failures"]})
    assert invoke("--seed", 1, "--only", good).exit_code == 0


def test_command_goes_on_where_it_was(planted, tmp_path, monkeypatch):
    log = tmp_path / "log.jsonl"
    invoke("--cases", 30, "--seed", 1, "--log", log, "--shrink-seconds", 0)
    lines = log.read_text().splitlines()
    assert len(lines) == 31
    run, asked = campaign.run_campaign, []

    def noted(seed, numbers, simulator):
        asked.extend(numbers)
        return run(seed, numbers, simulator)

    monkeypatch.setattr(campaign, "run_campaign", noted)
    invoke("--cases", 60, "--seed", 1, "--log", log, "--shrink-seconds", 0)
    assert asked == list(range(30, 60)) and len(log.read_text().splitlines()) == 61
    wrong = invoke("--cases", 60, "--seed", 2, "--log", log)
    assert wrong.exit_code == 2 and "is of another campaign; expected seed 2" in wrong.stderr
    log.write_text("{}\n{")
    wrong = invoke("--cases", 60, "--log", log)
    assert wrong.exit_code == 2 and "is no log of a campaign" in wrong.stderr


def test_command_refuses_what_does_not_go_together():
    for words in (["--only", 1, "--cases", 5], ["--case", "{}", "--only", 1], ["--minutes", 0]):
        assert invoke(*words).exit_code == 2
    wrong = invoke("--case", "missing.json")
    assert "cannot read the case missing.json: No such file" in wrong.stderr


@pytest.mark.wide
def test_a_campaign():
    """A few designs of a seed that nothing else uses."""
    for design in range(4):
        found = dict(campaign.run_campaign(77, numbers_of(design), SIMULATOR))
        assert {number: finding for number, finding in found.items() if finding} == {}
