"""s2tdpt fuzz: random networks, machines, pauses, resets and malformed packets against the golden model."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from s2tdpt.golden.errors import UserError
from s2tdpt.golden.strictjson import parse
from s2tdpt.hw.tools.external import find_tool, versions
from s2tdpt.scripts.options import console, notes
from s2tdpt.scripts.output import check_file, json_option, quiet, write_json
from s2tdpt.sim.build import SIMULATORS

if TYPE_CHECKING:
    from s2tdpt.sim.fuzz_case import FuzzCase

FORMAT = "s2tdpt-fuzz"
CASES = 1000


@click.command(short_help="Random networks, machines and bus traffic against the golden model.")
@click.option("--cases", type=click.IntRange(1), default=None, help=f"Cases; by default {CASES}.")
@click.option("--minutes", type=click.FloatRange(0, min_open=True), default=None, help="Stop after so many.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of the whole campaign.")
@click.option(
    "--only", type=click.IntRange(0), default=None, metavar="I", help="Case I of the campaign alone."
)
@click.option("--case", "text", metavar="JSON|FILE", default=None, help="A case that a campaign printed.")
@click.option(
    "--log",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Note every case here; cases that are in it already are not run again.",
)
@click.option(
    "--simulator",
    type=click.Choice(list(SIMULATORS)),
    default=None,
    help="By default Icarus where it is, which builds a small design in a moment, else Verilator.",
)
@click.option(
    "--shrink-seconds",
    type=click.FloatRange(0),
    default=600,
    show_default=True,
    help="Time for making a failing case smaller.",
)
@json_option
def fuzz(cases, minutes, seed, only, text, log, simulator, shrink_seconds, json_path) -> None:
    """Look for a difference, a deadlock or a wrong flag where nobody expects one.

    A case is a random network on a random machine, and an episode from one reset to the next: images mixed
    with packets that are too short, too long, cut or joined, pauses on all streams, a reset at any moment, a
    weight stream that ends early. One case of every design compares all tensors and cycles of two images
    instead. Exit code 1 if a case fails; it is made smaller and printed as the command that repeats it.

    \b
    Examples:
      s2tdpt fuzz --minutes 10
      s2tdpt fuzz --cases 1000 --seed 7 --log fuzz.jsonl      (the same command goes on after an interruption)
      s2tdpt fuzz --seed 7 --only 123
    """
    from s2tdpt.sim import campaign

    simulator = simulator or campaign.quick_simulator()
    for tool in ("yosys", *(("iverilog",) if simulator == "icarus" else ("verilator", "g++", "make"))):
        find_tool(tool)
    if text is not None or only is not None:
        if None not in (text, only) or cases is not None or minutes is not None or log is not None:
            raise UserError(
                "--case and --only run one case; expected none of --cases, --minutes, --log and the other; "
                "leave them out"
            )
        case = read_case(text) if text is not None else campaign.case_of(seed, only)
        report(
            [(only, case, campaign.reproduce(case, simulator))], 1, seed, simulator, shrink_seconds, json_path
        )
        return
    if log is not None:
        check_file(None, None, log)
    numbers = range(cases or (CASES if minutes is None else 10**9))
    findings = read_log(log, seed, simulator)
    started, before = time.monotonic(), len(findings)
    end = float("inf") if minutes is None else started + 60 * minutes
    with (
        progress(None if cases is None and minutes is not None else len(numbers)) as show,
        logging(log, seed, simulator) as note,
    ):
        for design in range(-(-len(numbers) // campaign.EPISODES)):
            mine = [n for n in campaign.numbers_of(design) if n in numbers and n not in findings]
            if time.monotonic() > end:
                break
            for number, finding in campaign.run_campaign(seed, mine, simulator):
                findings[number] = finding
                note(number, finding)
                show(len(findings), sum(f is not None for f in findings.values()))
    if not findings:
        raise UserError("no time for a single case; expected more --minutes; give more")
    failed = [(n, campaign.case_of(seed, n), f) for n, f in sorted(findings.items()) if f is not None]
    notes.print(f"{len(findings) - before} cases in {time.monotonic() - started:,.0f} s")
    report(failed, len(findings), seed, simulator, shrink_seconds, json_path, sorted(findings))


def read_case(text: str) -> FuzzCase:
    """A case from its JSON text, or from a file that holds it."""
    from s2tdpt.sim.fuzz_case import case_from

    if not text.lstrip().startswith("{"):
        try:
            text = Path(text).read_text(encoding="utf-8")
        except (OSError, ValueError) as error:
            raise UserError(
                f"cannot read the case {text}: {getattr(error, 'strerror', None) or 'not text'}; expected "
                "JSON or a file of it; check the path"
            ) from None
    return case_from(text)


def read_log(log: Path | None, seed: int, simulator: str) -> dict[int, str | None]:
    """The cases that an earlier run noted: number to finding.

    Raises
    ------
    UserError
        The file is something else, or of another campaign.
    """
    if log is None or not log.exists():
        return {}
    found: dict[int, str | None] = {}
    head = {"format": FORMAT, "seed": seed, "simulator": simulator}
    try:
        lines = log.read_text(encoding="utf-8").splitlines()
        first = parse(lines[0])
        for line in lines[1:]:
            entry = parse(line)
            found[int(entry["case"])] = None if entry["finding"] is None else str(entry["finding"])
    except (OSError, ValueError, KeyError, TypeError, IndexError):
        raise UserError(
            f"{log} is no log of a campaign; expected one that `s2tdpt fuzz --log` wrote; name another file"
        ) from None
    if first != head:
        raise UserError(
            f"{log} is of another campaign; expected seed {seed} and simulator {simulator}; name another file"
        )
    return found


@contextmanager
def logging(log: Path | None, seed: int, simulator: str):
    """Gives the function that notes a case."""
    if log is None:
        yield lambda number, finding: None
        return
    fresh = not log.exists()
    with log.open("a", encoding="utf-8") as file:
        if fresh:
            print(json.dumps({"format": FORMAT, "seed": seed, "simulator": simulator}), file=file)

        def note(number: int, finding: str | None) -> None:
            print(json.dumps({"case": number, "finding": finding}), file=file, flush=True)

        yield note


@contextmanager
def progress(total: int | None) -> Iterator:
    """A bar on a terminal, a line now and then elsewhere; gives what is told cases and failures."""
    if notes.is_terminal:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=notes) as bar:
            task = bar.add_task("cases", total=total)
            yield lambda cases, failures: bar.update(
                task, completed=cases, description=f"cases, {failures} failed"
            )
        return
    last = time.monotonic()

    def show(cases: int, failures: int) -> None:
        nonlocal last
        if time.monotonic() - last >= 10:
            last = time.monotonic()
            click.echo(f"s2tdpt: {cases} of {total or 'any number of'} cases, {failures} failed", err=True)

    yield show


def report(tried, cases, seed, simulator, shrink_seconds, json_path, numbers=None) -> None:
    """Shrink and print what failed; exit code 1 if anything did. `tried`: number, case, finding."""
    from s2tdpt.sim import campaign
    from s2tdpt.sim.fuzz_case import summary
    from s2tdpt.sim.shrink import shrink

    failures = []
    for number, case, finding in tried:
        if finding is None:
            continue
        notes.print(f"case {number}: {finding}", highlight=False)
        small = shrink(case, lambda c: campaign.reproduce(c, simulator) is not None, shrink_seconds)
        again = campaign.reproduce(small, simulator) or finding
        command = f"s2tdpt fuzz --simulator {simulator} --case '{small.text()}'"
        failures.append({"case": number, "finding": again, "command": command})
        if not quiet(json_path):
            click.secho(again, fg="red")
            click.echo(command)
    kinds: dict[str, int] = {}
    for number in numbers or []:
        for name, is_so in summary(campaign.case_of(seed, number)).items():
            kinds[name] = kinds.get(name, 0) + is_so
    result = {
        "format": FORMAT,
        "seed": seed,
        "simulator": simulator,
        "cases": cases,
        "designs": len({number // campaign.EPISODES for number in numbers or [0]}),
        "of_them": kinds,
        "failures": failures,
        "tools": versions(
            ("s2tdpt", "amaranth", "yosys", "cocotb", "iverilog" if simulator == "icarus" else "verilator")
        ),
    }
    if json_path is not None:
        write_json(json_path, result)
    if not quiet(json_path):
        console.print(f"{cases} cases, {len(failures)} failed", highlight=False)
    if failures:
        raise click.exceptions.Exit(1)
