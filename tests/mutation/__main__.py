"""Mutation campaigns from the command line: `scripts/mutate`."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import click
import pytest
from rich.console import Console
from rich.table import Table

from s2tdpt.scripts.output import json_option, write_json
from tests.mutation import hardware, mutants
from tests.mutation.campaign import Campaign, Verdict
from tests.mutation.results import UNNOTICED, Log, reasons, report

OWN_SECONDS, NETWORK_SECONDS = 6.0, 30.0
"""CPU time of the tests of a mutant that nothing notices."""

LOG = Path("build/mutation/hardware.jsonl")


@click.command()
@click.option(
    "--count", default=620, show_default=True, help="Mutants, about; every unit has its share of them."
)
@click.option("--seed", default=1, show_default=True, help="Which of all mutants are taken.")
@click.option(
    "--unit", "units", multiple=True, metavar="NAME", help="Only this module of hw; may be repeated."
)
@click.option("--only", default="", metavar="TEXT", help="Only mutants whose name holds this text.")
@click.option("-j", "--jobs", default=1, show_default=True, help="Mutants at a time.")
@click.option(
    "--log", "path", default=LOG, show_default=True, type=click.Path(path_type=Path), help="Verdicts so far."
)
@click.option("--again", is_flag=True, help="Try again what nothing noticed the last time.")
@click.option("--report", "report_only", is_flag=True, help="Run nothing; report what the log holds.")
@json_option
def main(count, seed, units, only, jobs, path, again, report_only, json_path):
    """Alter the hardware, run the tests that cover each alteration, and report what they do not notice.

    A campaign that was interrupted goes on where it was. The unit's own tests come first; what they let pass
    goes through whole networks against the golden model.
    """
    console = Console(stderr=True)
    log = Log(path)
    if not report_only:
        chosen = mutants.sample(hardware.all_mutants(), count, seed)
        chosen = [m for m in chosen if (not units or m.unit in units) and only in m.name]
        _run(chosen, hardware.own_tests, "own tests", log, jobs, again, console)
        left = [
            m
            for m in chosen
            if log.verdicts[m.name].status in UNNOTICED and not log.verdicts[m.name].networks
        ]
        _run(left, hardware.network_tests, "networks", log, jobs, True, console)
    figures = report(log.verdicts.values(), reasons())
    if json_path is not None:
        write_json(json_path, figures)
    _show(figures, console)
    sys.exit(1 if figures["survivors"] else 0)


def _run(chosen, tests_of, stage, log: Log, jobs: int, again: bool, console: Console) -> None:
    repeat = UNNOTICED if again else ()
    waiting = [m for m in chosen if m.name not in log.verdicts or log.verdicts[m.name].status in repeat]
    if not waiting:
        return
    began, done = time.monotonic(), 0

    def finish(verdict: Verdict) -> None:
        nonlocal done
        done += 1
        verdict.networks = stage == "networks"
        log.add(verdict)
        if verdict.status in UNNOTICED or done % 20 == 0 or done == len(waiting):
            rest = (time.monotonic() - began) / done * (len(waiting) - done) / 60
            line = f"{stage}: {done} of {len(waiting)}, {rest:.0f} minutes left; {verdict.status}: "
            console.print(line + verdict.name, markup=False, highlight=False)

    files = sorted({prefix.split("::")[0] for mutant in waiting for prefix in tests_of(mutant)})
    budget = NETWORK_SECONDS if stage == "networks" else OWN_SECONDS
    plugin = Campaign(waiting, mutants.plant, hardware.observer(waiting), tests_of, finish, jobs, budget)
    options = ["-q", "-p", "no:cacheprovider", "--no-header", "--no-summary"]
    if pytest.main([*options, *files], plugins=[plugin]) != pytest.ExitCode.OK:
        raise click.ClickException(f"pytest could not run {' '.join(files)}")
    if plugin.failures:
        raise click.ClickException(f"without a mutant, these fail: {', '.join(plugin.failures)}")


def _show(figures: dict, console: Console) -> None:
    table = Table("unit", *(("mutants", "killed", "equivalent", "survived", "% killed")))
    for unit, own in [*figures["units"].items(), ("all", figures)]:
        keys = ("mutants", "killed", "equivalent", "survived", "killed_percent")
        table.add_row(unit, *(str(own[key]) for key in keys))
    console.print(table)
    for name in figures["survivors"]:
        console.print(f"survived: {name}", markup=False, highlight=False)


if __name__ == "__main__":
    main()
