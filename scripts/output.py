"""Where results go: files that are whole or absent, JSON, and checks of a place before the work begins.

Needs click alone, so that `s2tdpt doctor` works where everything else is missing.
"""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

import click

from s2tdpt.golden.errors import UserError


def check_file(context, parameter, path: Path | None) -> Path | None:
    """Option callback: the file can be put there, known before the work begins rather than after it."""
    if path is None or str(path) == "-":
        return path
    if path.is_dir():
        raise UserError(f"{parameter.opts[0]} {path} is a folder; expected a file name; name a file in it")
    if not path.resolve().parent.is_dir():
        raise UserError(
            f"{parameter.opts[0]} {path} is in no folder; expected {path.parent} to be one; make it first"
        )
    return path


def check_folder(path: Path) -> None:
    """Refuse an output folder that cannot be made: something that is no folder stands in its way."""
    place = path.resolve()
    while not os.path.lexists(place):
        place = place.parent
    if not place.is_dir():
        raise UserError(f"cannot write {path}: {place} is no folder; expected one; choose another folder")


json_option = click.option(
    "--json",
    "json_path",
    type=click.Path(path_type=Path),
    metavar="FILE",
    callback=check_file,
    help="Also write the result as JSON ('-' for standard output instead of tables).",
)


def write_json(path: Path, data: Any) -> None:
    """JSON to a file, whole or not at all; '-' is standard output."""
    text = json.dumps(data, indent=2, default=_plain) + "\n"
    if str(path) == "-":
        click.echo(text, nl=False)
        return
    write_text(path, text)


def write_text(path: Path, text: str) -> None:
    """As `write_bytes`, of text in UTF-8."""
    write_bytes(path, text.encode("utf-8"))


def write_bytes(path: Path, data: bytes) -> None:
    """Replace a file whole or not at all; into a device or a pipe, such as /dev/null, write.

    Raises
    ------
    UserError
        The place cannot be written.
    """
    temporary = None
    try:
        if path.exists() and not path.is_file():
            with path.open("wb") as device:
                device.write(data)
            return
        handle, temporary = tempfile.mkstemp(dir=path.resolve().parent, prefix=f".{path.name}.")
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except OSError as error:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)
        raise UserError(
            f"cannot write {path}: {error.strerror}; expected a writable folder; choose another"
        ) from None


def _plain(value: Any) -> Any:
    """A number or an array of NumPy as Python's own."""
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"{type(value)} has no JSON form")


def quiet(json_path: Path | None) -> bool:
    """Whether standard output belongs to JSON."""
    return json_path is not None and str(json_path) == "-"
