"""One case of a campaign: a network, a machine and what is done to them, all from a few numbers.

A case is written as JSON, so that a failure is one command that repeats it, and that anybody can make smaller
by hand. Everything random in it (parameters, pixels, pauses) follows from its seeds.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from s2tdpt.golden.config import NetworkConfig
from s2tdpt.golden.errors import UserError, shown
from s2tdpt.golden.params import Params
from s2tdpt.golden.strictjson import canonical, parse
from s2tdpt.hw.plan.machine import Machine
from s2tdpt.hw.plan.schedule import build_program
from s2tdpt.sim.cases import build_case, random_machine, random_network
from s2tdpt.sim.cosim import dense_cycles
from s2tdpt.sim.stalls import PATTERNS

EPISODES = 25
"""Episodes of a design: a generated accelerator is built once and used for so many cases."""

LARGEST = 20_000
"""Cycles of an image, if every neuron fired, of the largest design: many small cases find more."""

HEAD_SUM = 16
"""Width of the head's sums that the estimate takes; the real one follows from the weights."""

Seed = Annotated[int, Field(strict=True, ge=0, lt=2**63)]
Packet = Annotated[int, Field(strict=True, ge=1, le=1 << 16)]
Packets = Annotated[tuple[Packet, ...], Field(max_length=64)]


class Episode(BaseModel):
    """What is done to an accelerator from one reset to the next: frames good and bad, pauses, a reset.

    Attributes
    ----------
    packets : tuple of int
        Lengths in bytes of the packets on ``s_axis``, in order, without a gap but for pauses. One as long as
        an image is one and gives a result; a shorter or longer one is malformed and gives none.
    before : tuple of int
        The same, sent before `packets` and cut off by a reset.
    reset_after : int or None
        Clock cycles from the start of `before` to that reset; None: there is none.
    hold : int
        Clock cycles that every reset lasts.
    stall : str
        Pattern of `sim.stalls` on all streams.
    seed : int
        Of the pixels and of the pauses.
    weights_end : int or None
        Only with streamed weights: ``tlast`` stands too early, on the beat of this number. The flag must
        rise; results mean nothing.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    packets: Packets = ()
    before: Packets = ()
    reset_after: Annotated[int, Field(strict=True, ge=1, le=1 << 24)] | None = None
    hold: Annotated[int, Field(strict=True, ge=1, le=64)] = 1
    stall: Literal[PATTERNS] = "none"
    seed: Seed = 0
    weights_end: Annotated[int, Field(strict=True, ge=1)] | None = None

    @model_validator(mode="after")
    def _belongs(self) -> Episode:
        if (self.reset_after is None) != (not self.before):
            raise ValueError("before and reset_after go together; expected both or none; add or remove one")
        return self


class FuzzCase(BaseModel):
    """A network with random parameters on a machine, and one episode.

    Attributes
    ----------
    network : NetworkConfig
    machine : Machine
    seed : int
        Of the parameters.
    episode : Episode or None
        None: a co-simulation of two images in which every tensor and every cycle is compared.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    network: NetworkConfig
    machine: Machine
    seed: Seed = 0
    episode: Episode | None = None

    @property
    def image_bytes(self) -> int:
        """Length of a packet that is an image."""
        net = self.network
        return net.image_height * net.image_width * net.image_channels

    @cached_property
    def params(self) -> Params:
        """The parameters that belong to the case."""
        return build_case(self.network, self.machine, seed=self.seed).params

    def text(self) -> str:
        """The case as JSON in one line, without what has its default value."""
        return canonical(self.model_dump(mode="json", exclude_defaults=True))


def case_from(text: str) -> FuzzCase:
    """A case from its JSON text.

    Raises
    ------
    UserError
        Not JSON, or a field is wrong; one line.
    """
    try:
        fields = parse(text)
        if not isinstance(fields, dict):
            raise ValueError("no object")
    except ValueError as error:
        raise UserError(
            f"the case is no JSON object ({error}); expected what `s2tdpt fuzz` printed; copy it whole"
        ) from None
    try:
        case = FuzzCase.model_validate(fields)
        if case.episode is not None and case.episode.weights_end and case.machine.weight_memory != "stream":
            raise UserError(
                "weights_end is given, but the weights are on chip; expected streamed ones; change either"
            )
        return case
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        problem = str(first["ctx"]["error"]) if first["type"] == "value_error" else first["msg"]
        raise UserError(
            f"{shown(where)} of the case: {problem}; expected what `s2tdpt fuzz` printed; correct it"
        ) from None


@dataclass(frozen=True)
class Design:
    """What the cases of one build share; `number` counts the designs of a campaign."""

    number: int
    network: NetworkConfig
    machine: Machine
    seed: int

    def case(self, episode: Episode | None) -> FuzzCase:
        """The case of this design with an episode."""
        return FuzzCase(network=self.network, machine=self.machine, seed=self.seed, episode=episode)


@cache
def design_of(campaign: int, number: int) -> Design:
    """Design `number` of the campaign with this seed: the first random one that is not too large."""
    for attempt in itertools.count():
        seed = int(np.random.SeedSequence([campaign, number, attempt]).generate_state(1)[0])
        network = random_network(seed)
        machine = random_machine(seed, network)
        program = build_program(network, machine, HEAD_SUM)
        if sum(dense_cycles(program, step) for step in program.steps) <= LARGEST:
            return Design(number, network, machine, seed)
    raise AssertionError("no end of seeds")


def random_episode(design: Design, campaign: int, number: int) -> Episode | None:
    """Episode `number`, 0 .. `EPISODES` - 1, of a design: the first one is the plain co-simulation."""
    if number == 0:
        return None
    rng = np.random.default_rng([campaign, design.number, number])
    size = design.case(None).image_bytes
    before, reset_after, weights_end = (), None, None
    if rng.random() < 0.4:
        before = _packets(rng, size)
        reset_after = round(math.exp(rng.uniform(0, math.log(4000))))
    elif design.machine.weight_memory == "stream" and rng.random() < 0.15:
        weights_end = round(math.exp(rng.uniform(0, math.log(1000))))
    packets = (size,) if weights_end else _packets(rng, size)
    return Episode(
        packets=packets,
        before=before,
        reset_after=reset_after,
        hold=int(rng.integers(1, 9)),
        stall=PATTERNS[rng.integers(len(PATTERNS))],
        seed=int(rng.integers(1 << 31)),
        weights_end=weights_end,
    )


def _packets(rng: np.random.Generator, size: int) -> tuple[int, ...]:
    """Lengths of one to five packets: images, and among them shorter, longer, split and joined ones."""
    lengths: list[int] = []
    for _ in range(rng.integers(1, 5)):
        cut = int(rng.integers(1, size)) if size > 1 else 1
        kinds = (
            (0.62, [size]),
            (0.72, [cut] if size > 1 else [size]),  # short
            (0.82, [size + cut]),  # long
            (0.88, [cut, size - cut] if size > 1 else [2]),  # tlast in the middle
            (0.94, [2 * size]),  # tlast missing once
            (1.00, rng.integers(1, 3 * size + 2, rng.integers(1, 4)).tolist()),  # anything
        )
        draw = rng.random()
        lengths += next(found for limit, found in kinds if draw < limit)
    return tuple(lengths)


def payloads(case: FuzzCase) -> tuple[list[bytes], list[bytes]]:
    """The bytes of the packets of `before` and of `packets`."""
    rng = np.random.default_rng(case.episode.seed)
    before = [rng.bytes(length) for length in case.episode.before]
    return before, [rng.bytes(length) for length in case.episode.packets]


def images_of(case: FuzzCase, packets: list[bytes]) -> np.ndarray:
    """Those packets that are images: uint8 [B, H, W, C]."""
    net = case.network
    good = [np.frombuffer(packet, np.uint8) for packet in packets if len(packet) == case.image_bytes]
    return np.array(good, np.uint8).reshape(-1, net.image_height, net.image_width, net.image_channels)


def summary(case: FuzzCase) -> dict[str, Any]:
    """What a list of cases shows of one."""
    episode = case.episode
    return {
        "streamed": case.machine.weight_memory == "stream",
        "reset": episode is not None and episode.reset_after is not None,
        "stalled": episode is not None and episode.stall != "none",
        "malformed": episode is not None
        and any(length != case.image_bytes for length in episode.before + episode.packets),
    }
