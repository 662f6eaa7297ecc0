"""What several commands share: reading parameters, images and machines, and writing results."""

from __future__ import annotations

import functools
import math
import shlex
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.markup import escape

import s2tdpt.golden
from s2tdpt.golden.errors import UserError
from s2tdpt.hw.plan.machine import DEFAULT_MACHINE, Machine, load_machine, machine_from, named_machines

if TYPE_CHECKING:
    from s2tdpt.golden.params import Params

DEFAULT_MODEL = "digits"
SHIPPED = sorted(path.stem for path in (Path(s2tdpt.golden.__file__).parent / "models").glob("*.safetensors"))
"""Names of the shipped parameter files, known without reading one."""

console = Console()
notes = Console(stderr=True)
"""Progress and remarks; results alone go to standard output."""

SILENCE = 10.0
"""Seconds between two lines of progress about the same thing, without a terminal."""

params_option = click.option(
    "--params",
    "-p",
    default=DEFAULT_MODEL,
    show_default=True,
    metavar="NAME|FILE",
    help=f"Parameter file (.safetensors), or the name of a shipped one: {', '.join(SHIPPED)}.",
)
data_option = click.option(
    "--data",
    type=click.Choice(["digits", "cifar10", "cifar100"]),
    default="digits",
    show_default=True,
    help="Data set; digits is built in.",
)
folder_option = click.option(
    "--data-dir",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Folder with the official CIFAR archive or its unpacked files.",
)


force_option = click.option("--force", is_flag=True, help="Replace what an earlier run wrote.")


def trial_options(function):
    """--images, --test-images, --stem and --shrink: how much of a data set is tried, and in which form."""
    for option in (
        click.option(
            "--shrink",
            "times",
            type=click.IntRange(0, 5),
            default=0,
            show_default=True,
            help="Halve the images so often by 2x2 means: fewer tokens.",
        ),
        click.option(
            "--stem",
            type=click.Choice(["strong", "weak"]),
            default="strong",
            show_default=True,
            help="weak: one convolution, every pixel a token, so that the blocks must do the work.",
        ),
        click.option("--test-images", type=click.IntRange(2), help="Only the first N test images."),
        click.option("--images", type=click.IntRange(2), help="Only the first N training images."),
    ):
        function = option(function)
    return function


def machine_options(function):
    """--machine and --set; the command gets a `Machine` named `machine`."""

    @functools.wraps(function)
    def command(*args, machine_name: str, settings: tuple[str, ...], **kwargs):
        return function(*args, machine=read_machine(machine_name, settings), **kwargs)

    for option in (
        click.option(
            "--set",
            "settings",
            multiple=True,
            metavar="FIELD=VALUE",
            help=f"Change a field of the machine: {', '.join(list(Machine.model_fields)[1:])}. Repeatable.",
        ),
        click.option(
            "--machine",
            "-m",
            "machine_name",
            default=DEFAULT_MACHINE,
            show_default=True,
            metavar="NAME|FILE",
            help=f"Machine: one of {', '.join(named_machines())}, or a JSON file.",
        ),
    ):
        command = option(command)
    return command


def read_machine(source: str | Path, settings: Sequence[str] = ()) -> Machine:
    """A machine by name or from a file, with fields changed as by ``--set``.

    Raises
    ------
    UserError
        No such machine, an unknown field or a value out of range.
    """
    machine = load_machine(source)
    if not settings:
        return machine
    return machine_from(machine.model_dump() | read_fields(settings), f"{source} with --set")


def read_fields(settings: Sequence[str]) -> dict[str, int | str]:
    """Fields of a machine as given by ``--set``.

    Raises
    ------
    UserError
        One is not FIELD=VALUE. Whether there is such a field is for `machine_from` to say.
    """
    fields: dict[str, int | str] = {}
    for setting in settings:
        name, equals, text = setting.partition("=")
        if not equals or not name:
            raise UserError(f"--set is {setting[:60]!r}; expected FIELD=VALUE; for instance --set lanes=32")
        try:
            fields[name] = int(text)
        except ValueError:
            fields[name] = text
    return fields


def positive(context, parameter, value: float | None) -> float | None:
    """Option callback: a number above 0 and finite, or None."""
    if value is not None and not 0 < value < math.inf:
        name, example = parameter.opts[0], parameter.default or 50
        raise UserError(f"{name} is {value:g}; expected a positive number; for instance {example:g}")
    return value


def machine_words(machine: Machine) -> str:
    """A machine in a few words."""
    return (
        f"machine {machine.name}: {machine.lanes} lanes, {machine.banks} banks, "
        f"{machine.post_lanes} post lanes, weights: {machine.weight_memory}"
    )


@contextmanager
def telling(first: str) -> Iterator[Callable[[str], None]]:
    """A display of what happens; gives the function that changes it.

    On a terminal a spinner; elsewhere lines on standard error: one for everything that begins, and one from
    time to time while it goes on. What begins is what stands before a colon.
    """
    if notes.is_terminal:
        with notes.status(escape(first)) as status:
            yield lambda text: status.update(escape(text))
        return
    last, when = "", 0.0

    def tell(text: str) -> None:
        nonlocal last, when
        now = time.monotonic()
        if text.split(":")[0] != last.split(":")[0] or (now - when >= SILENCE and text != last):
            click.echo(f"s2tdpt: {text}", err=True)
            last, when = text, now

    tell(first)
    yield tell


def load_params(name: str) -> Params:
    """The value of `params_option`: a shipped parameter file by name, or any by path."""
    from s2tdpt.golden.shipped import load

    return load(name)


def command_line() -> str:
    """The command as it was typed, for provenance: the program by its name alone, and how a run began."""
    typed = [word for word in click.get_current_context().find_root().command.typed if word != "--resume"]
    return " ".join(["s2tdpt", *map(shlex.quote, typed)])
