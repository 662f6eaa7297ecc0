"""Runs the tests that cover a mutant until one fails, in a process of its own.

pytest collects the tests once. Every mutant is then planted in a fork of that process, which runs the tests
that build the altered place, the quickest first, so that a mutant costs little more than the test that kills
it.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from typing import Any, Protocol

import pytest
from _pytest.runner import runtestprotocol

START_SECONDS, PATIENCE = 1, 4
"""CPU time of a test: what it takes without a mutant times the one, and the other beside it. What needs more
hangs."""


GROUP_BUDGETS = 4
"""Of a group of tests, as many are measured as take so many times the budget of a mutant."""


class Planter(Protocol):
    """Alters the process; what is returned says afterwards how often the place was met."""

    def __call__(self, mutant: Any) -> Callable[[], int]: ...


@dataclass
class Baseline:
    """A test without a mutant.

    Attributes
    ----------
    seconds : float
        Of CPU time.
    met : frozenset of str
        Names of the mutants whose place it builds or runs.
    """

    seconds: float
    met: frozenset[str]


@dataclass
class Verdict:
    """What became of a mutant.

    Attributes
    ----------
    status : str
        "killed", "survived", or "uncovered" where no test met its place.
    by : str
        The test that noticed, or that hung.
    how : str
        "failed", "hung" or "died".
    seconds : float
        CPU time.
    """

    name: str
    unit: str
    kind: str
    status: str
    by: str = ""
    how: str = ""
    seconds: float = 0.0
    tests: int = 0
    networks: bool = False


@dataclass
class Campaign:
    """A pytest plugin that runs mutants in place of the tests.

    Parameters
    ----------
    mutants : list
        With `name`, `unit`, `kind`.
    plant : Planter
    observe : callable() -> callable() -> set of str
        Begins to note which mutants' places a test meets; the result is asked for afterwards.
    tests_of : callable(mutant) -> list of str
        Beginnings of the node ids of a mutant's tests, in groups that are run one after the other.
    done : callable(Verdict)
    jobs : int
    budget : float
        CPU seconds of a mutant's tests: of those that would take longer together, the longest are left out.
    """

    mutants: list
    plant: Planter
    observe: Callable[[], Callable[[], set[str]]]
    tests_of: Callable[[Any], list[str]]
    done: Callable[[Verdict], None]
    jobs: int = 1
    budget: float = 6.0
    baselines: dict[str, Baseline] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        items = {item.nodeid: item for item in session.items}
        waiting = list(self.mutants)
        running: dict[int, tuple[Any, str, float]] = {}
        while waiting or running:
            while waiting and len(running) < self.jobs:
                mutant = waiting.pop(0)
                chosen = self._tests(items, mutant)
                if not chosen:
                    self.done(Verdict(mutant.name, mutant.unit, mutant.kind, "uncovered"))
                    continue
                pid, path = _fork(lambda out, m=mutant, c=chosen: self._try(m, c, out), START_SECONDS)
                running[pid] = mutant, path
            if running:
                pid, status, usage = os.wait4(-1, 0)
                mutant, path = running.pop(pid)
                self.done(_verdict(mutant, path, status, usage.ru_utime + usage.ru_stime))
        return True

    def _tests(self, items: dict[str, pytest.Item], mutant) -> list[pytest.Item]:
        """Covering tests in the order of the groups, the quickest of each first."""
        found = []
        for prefix in self.tests_of(mutant):
            group = [item for name, item in items.items() if name.startswith(prefix) and item not in found]
            group = self._measured(group)
            covering = [item for item in group if mutant.name in self.baselines[item.nodeid].met]
            found += sorted(covering, key=lambda item: self.baselines[item.nodeid].seconds)
        spent = list(accumulate(self.baselines[item.nodeid].seconds for item in found))
        return [item for item, seconds in zip(found, spent, strict=True) if seconds < self.budget] or found[
            :1
        ]

    def _measured(self, group: list[pytest.Item]) -> list[pytest.Item]:
        """Tests with a baseline; of a group that takes many times the budget, the first ones."""
        known, spent = [], 0.0
        for item in group:
            if item.nodeid not in self.baselines:
                if spent > GROUP_BUDGETS * self.budget:
                    break
                self.baselines[item.nodeid] = self._measure(item)
            spent += self.baselines[item.nodeid].seconds
            known.append(item)
        return known

    def _measure(self, item: pytest.Item) -> Baseline:
        pid, path = _fork(lambda out: self._watch(item, out), 600)
        _, status, _ = os.wait4(pid, 0)
        seen = _read(path)
        if status or not seen or not seen[-1]["passed"]:
            self.failures.append(item.nodeid)
            return Baseline(0.0, frozenset())
        return Baseline(seen[-1]["seconds"], frozenset(seen[-1]["met"]))

    def _watch(self, item: pytest.Item, out) -> None:
        met, began = self.observe(), time.process_time()
        passed = _passes(item)
        _write(out, {"passed": passed, "seconds": time.process_time() - began, "met": sorted(met())})

    def _try(self, mutant, chosen: list[pytest.Item], out) -> None:
        met = self.plant(mutant)
        for item in chosen:
            _write(out, {"test": item.nodeid})
            usual = self.baselines[item.nodeid].seconds
            _limit(time.process_time() + START_SECONDS + PATIENCE * usual)
            if not _passes(item):
                _write(out, {"failed": item.nodeid})
                return
        _write(out, {"met": met()})


def _passes(item: pytest.Item) -> bool:
    reports = runtestprotocol(item, log=False, nextitem=None)
    return not any(report.failed for report in reports)


def _fork(work: Callable[[Any], None], seconds: float) -> tuple[int, str]:
    """Runs `work` on a file, in a process with a limit on its CPU time; returns both."""
    handle, path = tempfile.mkstemp(prefix="mutant-")
    pid = os.fork()
    if pid:
        os.close(handle)
        return pid, path
    code = 1
    try:
        _limit(seconds)
        with os.fdopen(handle, "w") as out:
            work(out)
        code = 0
    finally:
        os._exit(code)


def _limit(seconds: float) -> None:
    """On the CPU time of this process, from its beginning."""
    resource.setrlimit(resource.RLIMIT_CPU, (int(seconds) + 1, resource.RLIM_INFINITY))


def _write(out, fields: dict) -> None:
    out.write(json.dumps(fields) + "\n")
    out.flush()


def _read(path: str) -> list[dict]:
    lines = Path(path).read_text().splitlines()
    Path(path).unlink()
    return [json.loads(line) for line in lines]


def _verdict(mutant, path: str, status: int, seconds: float) -> Verdict:
    said = _read(path)
    tests = [line["test"] for line in said if "test" in line]
    verdict = Verdict(
        mutant.name, mutant.unit, mutant.kind, "killed", seconds=round(seconds, 2), tests=len(tests)
    )
    verdict.by = tests[-1] if tests else ""
    last = said[-1] if said else {}
    if "failed" in last:
        verdict.how = "failed"
    elif "met" in last:
        verdict.status, verdict.by = ("survived" if last["met"] else "uncovered"), ""
    else:
        limit = os.WIFSIGNALED(status) and os.WTERMSIG(status) in (signal.SIGXCPU, signal.SIGKILL)
        verdict.how = "hung" if limit else "died"
    return verdict
