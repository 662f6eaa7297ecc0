"""The folder of what is slow to build: entries that are whole or absent, the longest unused going first."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from s2tdpt.golden.errors import UserError

__all__ = ["KEPT", "cache_folder", "keep_log", "make_entry", "used"]

KEPT = 24
"""Entries of a kind that are kept."""

STALE = 86400
"""Seconds after which a folder in which something was being made belongs to a process that was killed."""


def cache_folder() -> Path:
    """The root: ``$S2TDPT_CACHE``, else in the user's cache folder."""
    named = os.environ.get("S2TDPT_CACHE")
    if named:
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "s2tdpt"


def used(entry: Path) -> None:
    """An entry was needed again."""
    os.utime(entry)


@contextlib.contextmanager
def make_entry(entry: Path) -> Iterator[Path]:
    """An empty folder beside `entry`, which takes its name when the block ends without an exception.

    Parameters
    ----------
    entry : Path
        ``cache_folder() / kind / key``; entries of the same kind are `KEPT`.

    Raises
    ------
    UserError
        The cache cannot be written.
    """
    try:
        entry.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix="work-", dir=entry.parent))
    except OSError as error:
        raise UserError(
            f"cannot write the build cache {entry.parent} ({error.strerror}); expected a writable folder; "
            "set S2TDPT_CACHE to one"
        ) from None
    try:
        yield work
        with contextlib.suppress(OSError):  # another process was faster with the same
            work.rename(entry)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    _prune(entry.parent)


def _prune(kind: Path) -> None:
    """Keep the newest entries; what other processes are making is theirs unless it is stale."""
    entries = []
    for path in kind.iterdir():
        try:
            entries.append((path.stat().st_mtime, path))
        except OSError:  # removed by another process
            continue
    finished = sorted(entry for entry in entries if not entry[1].name.startswith(("work-", "library-")))
    stale = [path for age, path in entries if path.name.startswith("work-") and age < time.time() - STALE]
    for path in [path for _, path in finished[:-KEPT]] + stale:
        shutil.rmtree(path, ignore_errors=True)


def keep_log(log: Path) -> Path:
    """A place for the log of what failed, which outlives its folder."""
    kept = cache_folder() / f"failed-{log.name}"
    with contextlib.suppress(OSError):
        kept.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(log, kept)
    return kept
