"""Verdicts on disk, one a line, and the report that is made of them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

from tests.mutation.campaign import Verdict

EQUIVALENT = Path(__file__).with_name("equivalent.json")
"""Mutants that compute the same as the original, each with the reason."""

UNNOTICED = ("survived", "uncovered")


class Log:
    """A file of verdicts that a campaign goes on with; the last verdict of a mutant counts."""

    def __init__(self, path: Path):
        self._path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = path.read_text().splitlines() if path.exists() else []
        self.verdicts = {verdict.name: verdict for verdict in (Verdict(**json.loads(line)) for line in lines)}

    def add(self, verdict: Verdict) -> None:
        self.verdicts[verdict.name] = verdict
        with self._path.open("a") as file:
            file.write(json.dumps(asdict(verdict)) + "\n")


def reasons() -> dict[str, str]:
    """Name of every mutant that is known to be equivalent, to the reason."""
    return json.loads(EQUIVALENT.read_text())


def report(verdicts: Iterable[Verdict], equivalent: dict[str, str]) -> dict:
    """Figures of a campaign, in all and by unit, and every mutant that nothing noticed.

    A mutant that its unit's own tests let pass, and that no network has run yet, waits. It counts as not
    killed.
    A mutant that was killed is not equivalent, whatever the list says: such an entry is an error.
    """
    verdicts = sorted(verdicts, key=lambda verdict: verdict.name)
    wrong = [v.name for v in verdicts if v.status == "killed" and v.name in equivalent]
    if wrong:
        raise ValueError(f"said to be equivalent, but killed: {', '.join(wrong)}")
    units = {}
    for unit in sorted({verdict.unit for verdict in verdicts}):
        units[unit] = _figures([verdict for verdict in verdicts if verdict.unit == unit], equivalent)
    kinds = {
        kind: _figures([verdict for verdict in verdicts if verdict.kind == kind], equivalent)
        for kind in sorted({verdict.kind for verdict in verdicts})
    }
    return _figures(verdicts, equivalent) | {
        "units": units,
        "kinds": kinds,
        "equivalent_because": {v.name: equivalent[v.name] for v in verdicts if v.name in equivalent},
        "survivors": [v.name for v in verdicts if _unnoticed(v, equivalent) and v.networks],
        "waiting_for_networks": [v.name for v in verdicts if _unnoticed(v, equivalent) and not v.networks],
        "killed_by": {v.name: v.by if v.how == "failed" else f"{v.by} ({v.how})" for v in verdicts if v.by},
    }


def with_layer(path: Path, layer: str, figures: dict) -> dict:
    """What a file of reports shall hold: the layers that it has, and this one in place of its old figures.

    `mutants` and `mutants_killed_percent` are those of the hardware.
    """
    layers = json.loads(path.read_text())["layers"] if path.exists() else {}
    layers[layer] = figures
    own = layers.get("hw", {})
    return {
        "mutants": own.get("mutants", 0),
        "mutants_killed_percent": own.get("killed_percent", 0.0),
        "layers": layers,
    }


def _unnoticed(verdict: Verdict, equivalent: dict[str, str]) -> bool:
    return verdict.status in UNNOTICED and verdict.name not in equivalent


def _figures(verdicts: list[Verdict], equivalent: dict[str, str]) -> dict:
    killed = sum(verdict.status == "killed" for verdict in verdicts)
    same = sum(verdict.name in equivalent for verdict in verdicts)
    waiting = sum(_unnoticed(verdict, equivalent) and not verdict.networks for verdict in verdicts)
    others = len(verdicts) - same
    return {
        "mutants": len(verdicts),
        "killed": killed,
        "equivalent": same,
        "survived": others - killed - waiting,
        "waiting": waiting,
        "killed_percent": round(100 * killed / others, 2) if others else 100.0,
    }
