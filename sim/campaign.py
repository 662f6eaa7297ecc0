"""Campaigns: many random cases, each compared with the golden model; what fails is made smaller.

A design (a random network on a random machine) is generated and built once. A co-simulation of two images
compares every tensor and every cycle; one simulation passes through the other episodes of the design, in
which images are mixed with malformed packets, streams pause and resets come at any moment. An episode is
right if the results are those of its images, in order and no others, if the error flags are those of its
packets, and if the machine is at rest in the end.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from s2tdpt.golden.errors import UserError, printable
from s2tdpt.golden.network import GoldenNetwork
from s2tdpt.sim.build import build
from s2tdpt.sim.cosim import Options, cosimulate, watchdog_limit
from s2tdpt.sim.design import MODULE, Design, generate
from s2tdpt.sim.fuzz_case import EPISODES, FuzzCase, design_of, images_of, payloads, random_episode
from s2tdpt.sim.runner import EpisodeJob, run

IMAGES = 2
"""Images of the plain co-simulation of a design."""


@dataclass(frozen=True)
class Failure:
    """A case that is not right, and how."""

    case: FuzzCase
    number: int
    finding: str


def quick_simulator() -> str:
    """Icarus where it is, since a small design is built in a moment; else Verilator."""
    return "icarus" if shutil.which("iverilog") else "verilator"


def numbers_of(design: int) -> range:
    """Numbers of the cases of a design within its campaign."""
    return range(design * EPISODES, (design + 1) * EPISODES)


def case_of(campaign: int, number: int) -> FuzzCase:
    """Case `number` of the campaign with this seed."""
    design = design_of(campaign, number // EPISODES)
    return design.case(random_episode(design, campaign, number % EPISODES))


def run_campaign(campaign: int, numbers: Sequence[int], simulator: str) -> Iterator[tuple[int, str | None]]:
    """The cases of some numbers, one after the other: number and finding (None: all is right).

    Cases of one design share its build.
    """
    for number in sorted({n // EPISODES for n in numbers}):
        mine = [n for n in numbers_of(number) if n in numbers]
        cases = [case_of(campaign, n) for n in mine]
        yield from zip(mine, check_cases(cases, simulator), strict=True)


def check_cases(cases: Sequence[FuzzCase], simulator: str) -> list[str | None]:
    """What is wrong with each of some cases of one design, in a line; None where all is right.

    Whatever is raised on the way is a finding, too, of all cases that could not be run.
    """
    findings: list[str | None] = [None] * len(cases)
    plain = [i for i, case in enumerate(cases) if case.episode is None]
    others = [i for i, case in enumerate(cases) if case.episode is not None]
    try:
        design = generate(cases[0].params, cases[0].machine)
    except Exception as error:
        return [_raised(error)] * len(cases)
    for index in plain:
        findings[index] = _plain(cases[index], design, simulator)
    if others:
        for index, finding in zip(
            others, _episodes([cases[i] for i in others], design, simulator), strict=True
        ):
            findings[index] = finding
    return findings


def _plain(case: FuzzCase, design: Design, simulator: str) -> str | None:
    net = case.network
    shape = (IMAGES, net.image_height, net.image_width, net.image_channels)
    images = np.random.default_rng(case.seed).integers(0, 256, shape).astype(np.uint8)
    try:
        report = cosimulate(
            case.params, case.machine, images, Options(simulator=simulator, jobs=1), design=design
        )
    except Exception as error:
        return _raised(error)
    return None if report.ok else report.first()


def _episodes(cases: Sequence[FuzzCase], design: Design, simulator: str) -> list[str | None]:
    weights = design.weight_words()
    beats = 0 if weights is None else _beats(design)
    jobs = [_job(case, beats) for case in cases]
    limit = max(watchdog_limit(design.program, case.episode.stall) for case in cases)
    try:
        built = build(design.verilog, MODULE, simulator)
        with tempfile.TemporaryDirectory(prefix="s2tdpt-fuzz-") as folder:
            outcome = run(built, EpisodeJob(jobs, limit=limit, weights=weights), Path(folder))
        width = built.ports.width("m_axis_tdata")
        pairs = zip(cases, outcome["episodes"], strict=True)
        return [check_episode(case, seen, width) for case, seen in pairs]
    except Exception as error:
        return [_raised(error)] * len(cases)


def _beats(design: Design) -> int:
    """Beats of the weight stream of a frame."""
    from s2tdpt.hw.blocks.images import stream_width

    return len(design.weight_words()) // (stream_width(design.program) // 8)


def _job(case: FuzzCase, beats: int) -> dict[str, Any]:
    """An episode as `sim.episode_bench` reads it."""
    episode = case.episode
    before, packets = payloads(case)
    end = episode.weights_end
    images = len(images_of(case, packets))
    return {
        "before": [packet.hex() for packet in before],
        "packets": [packet.hex() for packet in packets],
        "reset_after": episode.reset_after,
        "hold": episode.hold,
        "stall": episode.stall,
        "seed": episode.seed,
        "results": 0 if end else images,
        "weights": max(images, len(images_of(case, before))) if beats else 0,
        "weights_end": None if end is None else 1 + (end - 1) % max(1, beats - 1),
    }


def expected_words(case: FuzzCase, packets: list[bytes], width: int) -> list[list[int]]:
    """Result frames of those packets that are images: logits, then the class, as words of the bus."""
    images = images_of(case, packets)
    if not len(images):
        return []
    logits = GoldenNetwork(case.params).forward(images).numpy()
    words = np.concatenate([logits, logits.argmax(axis=1)[:, None]], axis=1)
    return [[int(word) & ((1 << width) - 1) for word in frame] for frame in words]


def check_episode(case: FuzzCase, seen: dict[str, Any], width: int) -> str | None:
    """What is wrong with the outcome of an episode; `width` is that of the result bus."""
    episode, size = case.episode, case.image_bytes
    before, packets = payloads(case)
    if seen["violations"]:
        return f"m_axis changed {seen['violations']} times while it waited for tready"
    early, wanted = expected_words(case, before, width), expected_words(case, packets, width)
    if seen["before"] != early[: len(seen["before"])]:
        return f"before the reset: {_differs(early, seen['before'])}"
    if episode.weights_end is not None:
        return (
            None if seen["error_weights"] == 1 else "error_weights stayed low at a wrong tlast of the weights"
        )
    if seen["results"] != wanted[: len(seen["results"])]:
        return _differs(wanted, seen["results"])
    if seen["lost"] is not None:
        return f"deadlock: {len(seen['results'])} of {len(wanted)} results came, busy is {seen['busy']}"
    if seen["extra"]:
        return f"{seen['extra']} result frame(s) that no image asked for"
    flags = {
        "error_short": int(any(length < size for length in episode.packets)),
        "error_long": int(any(length > size for length in episode.packets)),
        "error_weights": 0,
        "busy": 0,
    }
    for name, level in flags.items():
        if seen.get(name, level) != level:
            return f"{name} is {seen[name]} in the end; expected {level}"
    return None


def _differs(wanted: list[list[int]], got: list[list[int]]) -> str:
    """The first result that is another."""
    for number, frame in enumerate(got):
        if number >= len(wanted):
            return f"result {number} has no image"
        if frame != wanted[number]:
            return f"result {number} is {frame}; expected {wanted[number]}"
    raise AssertionError("nothing differs")


def _raised(error: Exception) -> str:
    """An exception in a line: a random case is legal, so that none may come."""
    kind = "" if isinstance(error, UserError) else f"{type(error).__name__}: "
    return printable(f"{kind}{error}")[:300]


def reproduce(case: FuzzCase, simulator: str) -> str | None:
    """What is wrong with one case."""
    return check_cases([case], simulator)[0]
