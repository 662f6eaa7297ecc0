"""Where in the generator's source a piece of hardware was written, to the column.

Amaranth notes a file and a line for every value and statement. Mutants need more: two operators on one line
are two mutants, and what a helper of Amaranth built belongs to the line that called it. `trace` replaces that
note for the process.
"""

from __future__ import annotations

import itertools
import linecache
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import NamedTuple

from amaranth import tracer

import s2tdpt.hw

HARDWARE = str(Path(s2tdpt.hw.__file__).parent)


class Place(NamedTuple):
    """Source of an expression or statement.

    Attributes
    ----------
    module : str
        Name of the module in `hw`, with those of the packages it lies in.
    function : str
        Qualified name, without the marks of nested functions.
    line, column, end_line, end_column : int
        Columns count from 0, in bytes of UTF-8.
    """

    module: str
    function: str
    line: int
    column: int
    end_line: int
    end_column: int

    @property
    def text(self) -> str:
        """The source between its ends, on one line."""
        path = f"{HARDWARE}/{self.module.replace('.', '/')}.py"
        lines = [linecache.getline(path, n).encode() for n in range(self.line, self.end_line + 1)]
        lines[-1] = lines[-1][: self.end_column]
        lines[0] = lines[0][self.column :]
        return " ".join(b" ".join(lines).decode().split())

    @property
    def head(self) -> str:
        """The same, but a condition without what depends on it: Python takes the two for one place."""
        text = self.text
        return text[: text.index(": ")] if text.startswith("with ") else text


class Location(tuple):
    """``(file, line)`` as Amaranth keeps it, with the place of a piece of hardware."""

    place: Place | None = None


@cache
def _locate(code, instruction: int) -> Location:
    positions = next(itertools.islice(code.co_positions(), instruction // 2, None))
    line, end_line, column, end_column = positions
    found = Location((code.co_filename, line))
    if code.co_filename.startswith(HARDWARE) and None not in positions:
        parts = [part for part in code.co_qualname.split(".") if not part.startswith("<")]
        name = ".".join(Path(code.co_filename).relative_to(HARDWARE).with_suffix("").parts)
        found.place = Place(name, ".".join(parts), line, column, end_line, end_column)
    return found


def _source(src_loc_at: int = 0) -> Location:
    """Location of the nearest caller in the hardware; without one, that which Amaranth would note."""
    frame = sys._getframe(1)
    usual = None
    depth = -1
    while frame is not None:
        if depth == src_loc_at + 1:
            usual = frame
        if frame.f_code.co_filename.startswith(HARDWARE):
            return _locate(frame.f_code, frame.f_lasti)
        frame = frame.f_back
        depth += 1
    return Location((usual.f_code.co_filename, usual.f_lineno)) if usual else Location(("<unknown>", 0))


def trace() -> None:
    """From now on every value and statement that is built knows its place."""
    tracer.get_src_loc = _source


@contextmanager
def traced() -> Iterator[None]:
    """`trace`, for a while."""
    before = tracer.get_src_loc
    trace()
    try:
        yield
    finally:
        tracer.get_src_loc = before


def place_of(thing) -> Place | None:
    """Place of a value or statement; None where it was not written in the hardware."""
    return getattr(thing.src_loc, "place", None)
