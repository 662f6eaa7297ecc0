"""Search for machines: Optuna proposes, `candidate` estimates, a storage keeps what was found.

A study of Optuna holds every proposal as a trial: estimated machines with their figures, others with the
reason why they are out of the question. Each proposal follows from the trials before it and the seed alone,
so that a search that goes on gives what an uninterrupted one would have given; several processes on one
storage share the work.
"""

from __future__ import annotations

import hashlib
import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.engine import make_url
from sqlalchemy.exc import SQLAlchemyError

from s2tdpt.golden.errors import UserError
from s2tdpt.hw.estimate.area_model import area_model
from s2tdpt.hw.estimate.area_table import Counts
from s2tdpt.hw.estimate.candidate import (
    Candidate,
    Contender,
    Limits,
    Unfit,
    candidate_from,
    estimate_candidate,
)
from s2tdpt.hw.plan.machine import Machine, load_machine, machine_from, named_machines

__all__ = ["SPACE", "Refusal", "Search"]

SPACE: dict[str, tuple[int | str, ...]] = {
    "lanes": (4, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256),
    "banks": (1, 2, 4, 8, 16),
    "post_lanes": (1, 2, 4, 8, 16, 32),
    "queue": (2, 4, 8, 16),
    "attention_steps": (1, 2, 4, 8),
    "weight_memory": ("rom", "stream"),
}
"""Values of the fields of a machine that are tried, in their order; those that must divide the lanes and do
not are passed over."""

NETWORK = "network"
"""Name of the choice between parameter files."""

PROPOSALS = 40
"""Proposals for each machine that is wanted, at most: a space may hold fewer."""


@dataclass(frozen=True)
class Refusal:
    """A machine that is out of the question, why, and how far (`candidate.Unfit`)."""

    network: str
    machine: Machine
    reason: str
    excess: float


class Search:
    """A study of machines, new or gone on with.

    Parameters
    ----------
    contenders : sequence of Contender
        Networks that a machine may compute; the search chooses among several.
    limits : Limits
    fixed : mapping
        Fields of the machine that do not vary.
    storage : str or None
        URL that Optuna takes; None: memory.
    name : str
        Of the study in the storage.
    seed : int

    Raises
    ------
    UserError
        A fixed field is unknown or out of range; the storage does not answer; it holds a study of this name
        that asked something else.
    """

    def __init__(
        self,
        contenders: Sequence[Contender],
        limits: Limits,
        fixed: Mapping[str, Any] | None = None,
        storage: str | None = None,
        name: str = "explore",
        seed: int = 0,
    ):
        self._contenders = {contender.name: contender for contender in contenders}
        self._limits, self._seed, self._url = limits, seed, storage
        self._fixed = dict(fixed or {})
        self._base = _base_machine(self._fixed)
        steps = max(contender.params.config.timesteps for contender in contenders)
        self.space = {field: values for field, values in SPACE.items() if field not in self._fixed}
        if "attention_steps" in self.space:
            self.space["attention_steps"] = tuple(n for n in SPACE["attention_steps"] if n == 1 or n <= steps)
        if len(contenders) > 1:
            self.space = {NETWORK: tuple(self._contenders)} | self.space
        self.question = self._ask()
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        warnings.filterwarnings("ignore", module="optuna")
        with self._storage():
            self._study = optuna.create_study(
                storage=storage,
                study_name=name,
                directions=["maximize", "minimize", "minimize"],
                load_if_exists=True,
            )
            asked = self._study.user_attrs.get("question")
            if asked is None:
                self._study.set_user_attr("question", self.question)
                self._enqueue()
        if asked not in (None, self.question):
            different = sorted(key for key in self.question if asked.get(key) != self.question[key])
            raise UserError(
                f"study {name!r} in {shown_url(storage)} was asked something else: {', '.join(different)}; "
                "expected the same question; repeat its options, or give another --study"
            )

    def _ask(self) -> dict[str, Any]:
        """What decides the figures, as plain values: two studies that differ in it do not mix."""
        return {
            "networks": {
                name: {"checksum": contender.params.checksum()[:16], "images": _digest(contender.traces)}
                for name, contender in self._contenders.items()
            },
            "random": any(contender.drawn for contender in self._contenders.values()),
            "clock_mhz": self._limits.clock_mhz,
            "device": self._limits.device,
            "fps": self._limits.fps,
            "fixed": self._fixed,
            "area_rows": area_model().rows,
        }

    @contextmanager
    def _storage(self) -> Iterator[None]:
        """Whatever a storage raises, as one line."""
        try:
            yield
        except (UserError, KeyboardInterrupt):
            raise
        except ImportError as error:
            raise UserError(
                f"storage {shown_url(self._url)} needs a driver that is missing ({error}); expected it to be "
                "installed; pip install it, or use sqlite:///FILE"
            ) from None
        except (SQLAlchemyError, optuna.exceptions.OptunaError, OSError, ValueError, RuntimeError) as error:
            cause = error.__cause__ or error
            reason = str(getattr(cause, "orig", None) or cause).splitlines()[0][:200]
            raise UserError(
                f"storage {shown_url(self._url)} cannot be used: {reason}; expected a URL that Optuna takes "
                "and that answers; for instance sqlite:///machines.db"
            ) from None

    def _enqueue(self) -> None:
        """The named machines are tried first, on every network."""
        for network in self._contenders:
            for machine in map(load_machine, named_machines()):
                fields = machine.model_dump() | {NETWORK: network}
                possible = all(fields[name] in values for name, values in self.space.items())
                if possible and all(fields[name] == value for name, value in self._fixed.items()):
                    places = {name: values.index(fields[name]) for name, values in self.space.items()}
                    self._study.enqueue_trial(places, skip_if_exists=True)

    def run(self, points: int, told: Callable[[int], bool]) -> None:
        """Go on until the study has `points` machines, estimated or refused.

        Parameters
        ----------
        told : callable
            Told the machines so far, before each proposal; False ends the search.
        """
        size = math.prod(map(len, self.space.values()))
        for _ in range(PROPOSALS * points):
            with self._storage():
                trials = self._study.get_trials(deepcopy=False)
            seen = {_key(trial) for trial in trials if trial.state.is_finished()}
            count = len({_key(trial) for trial in trials if "machine" in trial.user_attrs})
            if not told(count) or count >= points or len(seen) >= size:
                return
            with self._storage():
                self._propose(trials, seen)

    def _propose(self, trials: Sequence[FrozenTrial], seen: set[tuple]) -> None:
        """One proposal and its answer."""
        seed = (self._seed + 1_000_003 * len(trials)) % (1 << 32)
        repeated = bool(trials) and trials[-1].state == TrialState.FAIL
        samplers = optuna.samplers  # after a repetition at random, lest it repeat itself for ever
        self._study.sampler = samplers.RandomSampler(seed) if repeated else samplers.TPESampler(seed=seed)
        trial = self._study.ask()
        # Places in the lists instead of values: neighbours are near each other, on every scale.
        fields: dict[str, Any] = {
            name: values[trial.suggest_int(name, 0, len(values) - 1)] for name, values in self.space.items()
        }
        if tuple(sorted(trial.params.items())) in seen:
            self._study.tell(trial, state=TrialState.FAIL)
            return
        contender = self._contenders[fields.pop(NETWORK, next(iter(self._contenders)))]
        try:
            machine = machine_from(self._base.model_dump() | fields, "proposed")
        except UserError as error:
            trial.set_user_attr("reason", str(error))
            self._study.tell(trial, state=TrialState.PRUNED)
            return
        trial.set_user_attr("network", contender.name)
        trial.set_user_attr("machine", machine.model_dump(mode="json"))
        try:
            found = estimate_candidate(contender, machine, self._limits)
        except Unfit as unfit:
            trial.set_user_attr("reason", str(unfit))
            trial.set_user_attr("excess", unfit.excess)
            self._study.tell(trial, state=TrialState.PRUNED)
            return
        trial.set_user_attr("candidate", found.as_dict())
        self._study.tell(trial, found.objectives)

    def candidates(self) -> list[Candidate]:
        """Estimated machines, in the order of the study, each once."""
        with self._storage():
            trials = self._study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        return list({_key(trial): candidate_from(trial.user_attrs["candidate"]) for trial in trials}.values())

    def refusals(self) -> list[Refusal]:
        """Machines that are out of the question."""
        with self._storage():
            trials = self._study.get_trials(deepcopy=False, states=(TrialState.PRUNED,))
        attrs = [trial.user_attrs for trial in trials if "machine" in trial.user_attrs]
        return [
            Refusal(a["network"], Machine.model_validate(a["machine"]), a["reason"], a["excess"])
            for a in attrs
        ]

    def measured(self, candidate: Candidate) -> Counts | None:
        """What a synthesis of the candidate counted, if there was one."""
        with self._storage():
            found = self._study.user_attrs.get(_synthesis_key(candidate))
        return None if found is None else Counts(**found)

    def keep(self, candidate: Candidate, counts: Counts) -> None:
        """Keep what a synthesis of the candidate counted."""
        with self._storage():
            kept = {"lut": counts.lut, "ff": counts.ff, "bram": counts.bram}
            self._study.set_user_attr(_synthesis_key(candidate), kept)


def front(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Those that no other one beats, fewest LUTs first; of equals the first."""

    def beats(one: Candidate, other: Candidate) -> bool:
        pairs = list(zip(_costs(one), _costs(other), strict=True))
        return all(mine <= theirs for mine, theirs in pairs) and any(mine < theirs for mine, theirs in pairs)

    best = {
        candidate.objectives: candidate
        for candidate in reversed(candidates)
        if not any(beats(other, candidate) for other in candidates)
    }
    return sorted(best.values(), key=lambda candidate: (candidate.lut, candidate.cycles, candidate.energy))


def answer(found: Sequence[Candidate], limits: Limits) -> Candidate | None:
    """Which machine of a front: the smallest that keeps to a wanted speed, else most frames/s for a LUT."""
    if not found:
        return None
    if limits.fps:
        return min(found, key=lambda candidate: (candidate.lut, candidate.energy))
    return max(found, key=lambda candidate: candidate.fps / candidate.lut)


def shown_url(url: str | None) -> str:
    """A storage URL without its password."""
    try:
        return "memory" if url is None else make_url(url).render_as_string(hide_password=True)
    except SQLAlchemyError:
        return repr(url[:60])


def _base_machine(fixed: Mapping[str, Any]) -> Machine:
    """A machine with the fixed fields and whatever goes with them.

    Raises
    ------
    UserError
        A field is unknown or out of range, or fields do not go together.
    """
    fields = {"name": "explored", "banks": 1, "post_lanes": 1} | dict(fixed)
    parts = (fields["banks"], fields["post_lanes"])
    if "lanes" not in fields and all(isinstance(part, int) for part in parts):
        fields["lanes"] = math.lcm(*parts) or 1
    return machine_from(fields, "with --set")


def _costs(candidate: Candidate) -> tuple[float, float, float]:
    fps, lut, energy = candidate.objectives
    return -fps, lut, energy


def _key(trial: FrozenTrial) -> tuple:
    """What a trial chose."""
    return tuple(sorted(trial.params.items()))


def _synthesis_key(candidate: Candidate) -> str:
    fields = sorted(candidate.machine.model_dump(exclude={"name"}).items())
    return f"synthesis {candidate.network} {fields}"


def _digest(traces: Sequence[Mapping[str, Any]]) -> str:
    """Of everything that a contender's figures depend on beside its parameters."""
    digest = hashlib.sha256()
    for trace in traces:
        for name in sorted(trace):
            digest.update(name.encode() + trace[name].tobytes())
    return digest.hexdigest()[:16]
