"""Make a failing case smaller, as long as it still fails.

Greedy: of the simpler cases of a case, in an order that begins with what costs nothing to try, the first that
fails takes its place; the end is a case of which no simpler one fails.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

from pydantic import ValidationError

from s2tdpt.sim.fuzz_case import Episode, FuzzCase


def shrink(
    case: FuzzCase,
    fails: Callable[[FuzzCase], bool],
    seconds: float = float("inf"),
    tell: Callable[[FuzzCase], None] = lambda case: None,
) -> FuzzCase:
    """The smallest case that this way leads to.

    Parameters
    ----------
    case : FuzzCase
        A case that fails.
    fails : callable
        Whether another case fails, too. One that cannot be run at all counts as it likes.
    seconds : float
        Time after which no further case is tried.
    tell : callable
        Told every case that takes the place of a larger one.
    """
    end = time.monotonic() + seconds
    tried = {case.text()}
    smaller: FuzzCase | None = case
    while smaller is not None:
        case, smaller = smaller, None
        for candidate in simpler(case):
            if time.monotonic() > end:
                return case
            if candidate.text() not in tried:
                tried.add(candidate.text())
                if fails(candidate):
                    tell(candidate)
                    smaller = candidate
                    break
    return case


def simpler(case: FuzzCase) -> Iterator[FuzzCase]:
    """Legal cases that differ from `case` in one respect, in which they are simpler."""
    for changes in _changes(case):
        try:
            yield _with_images(case, FuzzCase.model_validate(_merged(case.model_dump(mode="json"), changes)))
        except ValidationError:  # fields that do not go together: no case
            continue


def _with_images(case: FuzzCase, smaller: FuzzCase) -> FuzzCase:
    """Packets that were images are images of the smaller network, others stay as far from one."""
    difference = smaller.image_bytes - case.image_bytes
    if not difference or smaller.episode is None:
        return smaller
    episode = smaller.episode.model_dump()
    for name in ("packets", "before"):
        episode[name] = [max(1, length + difference) for length in episode[name]]
    return smaller.model_copy(update={"episode": Episode.model_validate(episode)})


def _changes(case: FuzzCase) -> Iterator[dict[str, Any]]:
    if case.episode is not None:
        for fields in _episodes(case.episode):
            yield {"episode": fields}
    yield from ({"machine": fields} for fields in _machines(case))
    yield from ({"network": fields} for fields in _networks(case))
    if case.seed:
        yield {"seed": 0}


def _episodes(episode: Episode) -> Iterator[dict[str, Any]]:
    if episode.before:
        yield {"before": [], "reset_after": None}
    for name in ("packets", "before"):
        lengths = list(getattr(episode, name))
        if len(lengths) > 1 or (lengths and name == "packets"):
            for gone in range(len(lengths)):
                yield {name: lengths[:gone] + lengths[gone + 1 :]}
    if episode.stall != "none":
        yield {"stall": "none"}
    if episode.hold > 1:
        yield {"hold": 1}
    for name in ("reset_after", "weights_end"):
        yield from ({name: value} for value in _lower(getattr(episode, name)))
    for name in ("packets", "before"):
        lengths = list(getattr(episode, name))
        for place, length in enumerate(lengths):
            for value in _lower(length):
                yield {name: [*lengths[:place], value, *lengths[place + 1 :]]}
    if episode.seed:
        yield {"seed": 0}


def _machines(case: FuzzCase) -> Iterator[dict[str, Any]]:
    machine = case.machine
    if machine.weight_memory == "stream" and not (case.episode and case.episode.weights_end):
        yield {"weight_memory": "rom"}
    parts = (machine.lanes, machine.banks, machine.post_lanes)
    for lanes in range(1, machine.lanes + 1):
        for banks in sorted({1, min(machine.banks, lanes)}):
            for post in sorted({1, min(machine.post_lanes, lanes)}):
                if (lanes, banks, post) != parts:
                    yield {"lanes": lanes, "banks": banks, "post_lanes": post}
    yield from ({"queue": n} for n in (2, 4, 8) if n < machine.queue)
    yield from ({"attention_steps": n} for n in _lower(machine.attention_steps))


def _networks(case: FuzzCase) -> Iterator[dict[str, Any]]:
    net = case.network
    for name in ("depth", "timesteps", "mlp_ratio"):
        yield from ({name: value} for value in _lower(getattr(net, name)))
    yield from ({"num_classes": value} for value in _lower(net.num_classes) if value >= 2)
    channels, pool = list(net.sps_channels), list(net.sps_pool)
    if len(channels) > 1:
        yield {"sps_channels": channels[1:], "sps_pool": [False, *pool[2:]]}
    for place, flag in enumerate(pool):
        if flag:
            yield {"sps_pool": [*pool[:place], False, *pool[place + 1 :]]}
    width = net.embed_dim // net.heads
    for heads in _lower(net.heads):
        yield {"heads": heads, "sps_channels": [*channels[:-1], heads * width]}
    for narrow in _lower(width):
        yield {"sps_channels": [*channels[:-1], net.heads * narrow]}
    for place, count in enumerate(channels[:-1]):
        for value in _lower(count):
            yield {"sps_channels": [*channels[:place], value, *channels[place + 1 :]]}
    for name in ("image_height", "image_width", "image_channels"):
        for value in _lower(getattr(net, name)):
            yield {name: value}


def _lower(value: int | None) -> Iterator[int]:
    """Smaller values from 1 on: the smallest, half, one less."""
    if value is not None and value > 1:
        yield from sorted({1, value // 2, value - 1})


def _merged(fields: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    for name, value in changes.items():
        old = fields.get(name)
        fields[name] = {**old, **value} if isinstance(value, dict) and isinstance(old, dict) else value
    return fields
