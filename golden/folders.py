"""Output folders that are whole or absent, and never replace what is not of their kind."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from s2tdpt.golden.errors import UserError
from s2tdpt.golden.strictjson import LARGEST_RESULT, read

__all__ = ["MANIFEST", "check_replaceable", "make_folder"]

MANIFEST = "manifest.json"
"""File that describes a folder, unless it has another one; its "format" tells the kind."""


def check_replaceable(folder: Path, kind: str, words: str, force: bool, manifest: str = MANIFEST) -> None:
    """Refuse a place that `make_folder` could not use, before anything is generated.

    Parameters
    ----------
    folder : Path
    kind : str
        "format" in the manifest of a folder that may be replaced.
    words : str
        What such a folder is called.
    force : bool
        Replace it.
    manifest : str
        Name of the file that describes the folder.

    Raises
    ------
    UserError
        The folder exists and is not to be replaced.
    """
    if not os.path.lexists(folder):
        return
    if not force:
        raise UserError(f"{folder} exists; expected a new folder; choose another name or use --force")
    try:
        ours = read(folder / manifest, LARGEST_RESULT).get("format") == kind
    except (OSError, ValueError, AttributeError):
        ours = False
    if not ours:
        raise UserError(
            f"{folder} is not a {words}; only such a folder is replaced; choose another name or remove it "
            "yourself"
        )


def make_folder(
    folder: Path, fill: Callable[[Path], None], force: bool, tell: Callable[[str], None] | None = None
) -> None:
    """Fill a folder under another name, then give it its own; an earlier one goes only then.

    Parameters
    ----------
    folder : Path
        As `check_replaceable` has found it.
    fill : callable
        Writes the files into an empty folder.
    force : bool
        An earlier folder may be there.
    tell : callable, optional
        Told a line a file just before the folder takes its place: if that fails (standard output on a full
        disk, say), there is no folder.

    Raises
    ------
    UserError
        It cannot be written.
    """
    try:
        temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    except OSError as error:
        raise _failed(folder, error) from error
    try:
        try:
            fill(temporary)
            temporary.chmod(0o755)  # mkdtemp makes it private
        except OSError as error:
            raise _failed(folder, error) from error
        if tell is not None:
            for file in sorted(temporary.iterdir()):
                tell(f"{folder / file.name}  ({file.stat().st_size:,} bytes)")
        try:
            _place(temporary, folder, force)
        except OSError as error:
            raise _failed(folder, error) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _place(temporary: Path, folder: Path, force: bool) -> None:
    """Rename the finished folder; an earlier one goes only when the new one is in its place."""
    if not (force and folder.exists()):
        temporary.rename(folder)
        return
    old = Path(tempfile.mkdtemp(prefix=f".{folder.name}.old.", dir=folder.parent))
    folder.rename(old)
    try:
        temporary.rename(folder)
    except BaseException:  # an interruption too
        old.rename(folder)
        raise
    shutil.rmtree(old)


def _failed(folder: Path, error: OSError) -> UserError:
    """The error in words."""
    if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
        return UserError(f"{folder} appeared meanwhile; expected a new folder; choose another name")
    return UserError(
        f"cannot write {folder}: {error.strerror}; expected a writable place; choose another folder"
    )
