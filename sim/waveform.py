"""Whether a waveform file is whole: a disk that was full leaves one that no viewer can open."""

from __future__ import annotations

import struct
from pathlib import Path

from s2tdpt.golden.errors import UserError

_PREFIX = struct.Struct(">BQ")  # type of a block, and its length from here on
_HEADER, _HIERARCHIES = 0, (4, 6, 7)


def check_waveform(path: Path) -> None:
    """Walk through the blocks of an FST file.

    Raises
    ------
    UserError
        A block is cut short, or the names of the signals are missing.
    """
    kinds = []
    with open(path, "rb") as file:
        size = file.seek(0, 2)
        place = 0
        while place + _PREFIX.size <= size:
            file.seek(place)
            kind, length = _PREFIX.unpack(file.read(_PREFIX.size))
            if length < 8:
                break
            kinds.append(kind)
            place += 1 + length
    if place != size or kinds[:1] != [_HEADER] or not set(kinds) & set(_HIERARCHIES):
        raise UserError(
            f"the waveform {path} is incomplete; expected room for all of it; free some or show fewer steps"
        )


def remove_waveform(path: Path) -> None:
    """Remove a waveform and what Icarus keeps beside it while it writes one."""
    for part in (path, path.with_name(path.name + ".hier")):
        part.unlink(missing_ok=True)
