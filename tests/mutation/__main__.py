"""Mutation campaigns from the command line: `scripts/mutate`."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import click
import pytest
from rich.console import Console
from rich.table import Table

from s2tdpt.scripts.output import write_json
from tests.mutation import mutants
from tests.mutation.campaign import Campaign, Verdict
from tests.mutation.layers import LAYERS, Layer, Stage
from tests.mutation.results import UNNOTICED, Log, reasons, report, with_layer


@click.command()
@click.option(
    "--layer",
    "layer_name",
    type=click.Choice(list(LAYERS)),
    default="hw",
    show_default=True,
    help="What is altered.",
)
@click.option("--count", type=int, help="Mutants, about; every unit has its share of them.")
@click.option("--seed", default=1, show_default=True, help="Which of all mutants are taken.")
@click.option("--unit", "units", multiple=True, metavar="NAME", help="Only this module; may be repeated.")
@click.option("--only", default="", metavar="TEXT", help="Only mutants whose name holds this text.")
@click.option("-j", "--jobs", default=1, show_default=True, help="Mutants at a time.")
@click.option(
    "--log", "path", type=click.Path(path_type=Path), help="Verdicts so far.  [build/mutation/LAYER.jsonl]"
)
@click.option("--again", is_flag=True, help="Try again what nothing noticed the last time.")
@click.option("--report", "report_only", is_flag=True, help="Run nothing; report what the log holds.")
@click.option(
    "--json",
    "json_path",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Also write the report here; a file of reports keeps those of the other layers.",
)
def main(layer_name, count, seed, units, only, jobs, path, again, report_only, json_path):
    """Alter hardware or checkers, run the tests that cover each alteration, report what they do not notice.

    A campaign that was interrupted goes on where it was. Of the hardware, the unit's own tests come first;
    what they let pass goes through whole networks against the golden model.
    """
    console, layer = Console(stderr=True), LAYERS[layer_name]
    log = Log(path or Path("build/mutation") / f"{layer_name}.jsonl")
    known = layer.catalogue()
    if not report_only:
        names = {m.name for m in mutants.sample(known, count or layer.count, seed, layer.least)}
        if again:
            unnoticed = {name for name, verdict in log.verdicts.items() if verdict.status in UNNOTICED}
            names = names - set(reasons()) | unnoticed - set(reasons())
        chosen = [m for m in known if m.name in names]
        chosen = [m for m in chosen if (not units or m.unit in units) and only in m.name]
        for number, stage in enumerate(layer.stages):
            if number:
                chosen = [m for m in chosen if _waits(log.verdicts[m.name])]
            _run(chosen, layer, stage, log, jobs, again or number > 0, console)
    # What the source does not hold any more is not counted.
    there = {m.name for m in known}
    figures = report([v for v in log.verdicts.values() if v.name in there], reasons())
    if json_path is not None:
        commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True)
        command = {
            "command": f"scripts/mutate --layer {layer_name} --count {count or layer.count} --seed {seed}"
        }
        figures = command | {"commit": commit.stdout.strip()} | figures
        write_json(json_path, with_layer(json_path, layer_name, figures))
    _show(figures, console)
    sys.exit(1 if figures["survivors"] or figures["waiting_for_networks"] else 0)


def _waits(verdict: Verdict) -> bool:
    return verdict.status in UNNOTICED and not verdict.networks


def _run(
    chosen: list, layer: Layer, stage: Stage, log: Log, jobs: int, again: bool, console: Console
) -> None:
    repeat = UNNOTICED if again else ()
    waiting = [m for m in chosen if m.name not in log.verdicts or log.verdicts[m.name].status in repeat]
    if not waiting:
        return
    began, done = time.monotonic(), 0

    def finish(verdict: Verdict) -> None:
        nonlocal done
        done += 1
        verdict.networks = stage is layer.stages[-1]
        log.add(verdict)
        if verdict.status in UNNOTICED or done % 20 == 0 or done == len(waiting):
            rest = (time.monotonic() - began) / done * (len(waiting) - done) / 60
            line = f"{stage.name}: {done} of {len(waiting)}, {rest:.0f} minutes left; {verdict.status}: "
            console.print(line + verdict.name, markup=False, highlight=False)

    files = sorted({prefix.split("::")[0] for mutant in waiting for prefix in stage.tests_of(mutant)})
    plugin = Campaign(
        waiting, layer.plant, layer.observer(waiting), stage.tests_of, finish, jobs, stage.seconds
    )
    options = ["-q", "-p", "no:cacheprovider", "--no-header", "--no-summary"]
    if pytest.main([*options, *files], plugins=[plugin]) != pytest.ExitCode.OK:
        raise click.ClickException(f"pytest could not run {' '.join(files)}")
    if plugin.failures:
        raise click.ClickException(f"without a mutant, these fail: {', '.join(plugin.failures)}")


def _show(figures: dict, console: Console) -> None:
    table = Table("unit", "mutants", "killed", "equivalent", "waiting", "survived", "% killed")
    for unit, own in [*figures["units"].items(), ("all", figures)]:
        keys = ("mutants", "killed", "equivalent", "waiting", "survived", "killed_percent")
        table.add_row(unit, *(str(own[key]) for key in keys))
    console.print(table)
    for name in figures["survivors"]:
        console.print(f"survived: {name}", markup=False, highlight=False)


if __name__ == "__main__":
    main()
