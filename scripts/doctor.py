"""s2tdpt doctor: what is installed, what is missing, and how to get it."""

from __future__ import annotations

import platform
import sys
from collections.abc import Sequence
from pathlib import Path

import click

from s2tdpt.hw.tools.external import MAIN_JOB, PROJECT, Finding, survey, versions
from s2tdpt.scripts.output import json_option, quiet, write_json


@click.command(short_help="What is installed, what is missing, and how to get it.")
@json_option
def doctor(json_path: Path | None) -> None:
    """Every program and Python package that the project uses: version, purpose, and how to install it.

    Exit code 0 if all that the main job needs is there (train, generate, co-simulate), else 1. What is
    optional is named, and its absence is no fault.

    \b
    Examples:
      s2tdpt doctor
      s2tdpt doctor --json -
    """
    found = survey()
    ready = all(one.usable for one in found if not one.optional)
    if json_path is not None:
        write_json(json_path, as_dict(found, ready))
    if not quiet(json_path):
        click.echo("\n".join(lines(found, ready)))
    if not ready:
        raise click.exceptions.Exit(1)


def as_dict(found: Sequence[Finding], ready: bool) -> dict:
    """What was found, in plain values."""
    return {
        PROJECT: versions([PROJECT])[PROJECT],
        "python": platform.python_version(),
        "executable": sys.executable,
        "ready": ready,
        "tools": [
            {
                "name": one.name,
                "kind": one.kind,
                "version": one.version,
                "usable": one.usable,
                "optional": one.optional,
                "needed_for": one.needed_for,
                "problem": one.problem,
                "install": one.install,
            }
            for one in found
        ],
    }


def lines(found: Sequence[Finding], ready: bool) -> list[str]:
    """The same for people."""
    text = [
        f"{PROJECT} {versions([PROJECT])[PROJECT]}, Python {platform.python_version()} ({sys.executable})"
    ]
    for kind, title in (("program", "programs"), ("package", "Python packages")):
        text += ["", f"{title}:"]
        for one in found:
            if one.kind != kind:
                continue
            state = "ok" if one.usable else "missing" if one.version is None else "unfit"
            purpose = one.needed_for + (" (optional)" if one.optional else "")
            text.append(f"  {state:8}{one.name:15}{one.version or '-':20}{purpose}")
            if not one.usable:
                text.append(f"          {one.problem}; install it with: {one.install}")
    faults = [one.name for one in found if not one.usable and not one.optional]
    verdict = f"Ready to {MAIN_JOB}." if ready else f"Not ready to {MAIN_JOB}: {', '.join(faults)}."
    return [*text, "", verdict]
