"""JSON without its extensions, read with suspicion; and its one canonical form.

No NaN, no infinity, no number that only few programs can hold, no key twice in an object, no nesting without
end. `read` is the one reader of small JSON files that a user names: configurations, machines, reports.
"""

from __future__ import annotations

import errno
import json
import math
import os
import re
import stat
from pathlib import Path
from typing import Any

LARGEST = 1 << 20
"""Bytes of a JSON file that a person writes."""

LARGEST_RESULT = 64 << 20
"""Bytes of one that this program wrote."""

DEEPEST = 64
"""Levels of objects and lists in each other."""

DIGITS = 300
"""Digits of a whole number; a double has no more in front of its point."""

_TOKENS = re.compile(r'"(?:[^"\\]++|\\.)*+"?|[\[\]{}]', re.DOTALL)
"""Strings, in which a bracket means nothing, and brackets; possessive: no memory for ways to go back."""


def canonical(value: Any) -> str:
    """The canonical text of a JSON value: sorted keys, no spaces, ASCII; ValueError if it has none."""
    try:
        return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def parse(text: str | bytes) -> Any:
    """The value of a JSON text, in UTF-8 if it is bytes.

    Raises
    ------
    ValueError
        Not JSON, a key twice in an object, a number that is not finite or has more than `DIGITS` digits,
        or nested deeper than `DEEPEST`; the message is short and repeats nothing of the text.
    """
    try:
        text = text if isinstance(text, str) else text.decode("utf-8")
    except UnicodeDecodeError:
        raise ValueError("not UTF-8") from None
    if _too_deep(text):
        raise ValueError("nested too deeply")
    try:
        return json.loads(
            text,
            parse_constant=_refuse,
            parse_float=_finite,
            parse_int=_whole,
            object_pairs_hook=_object,
        )
    except json.JSONDecodeError as error:
        raise ValueError(f"no JSON at line {error.lineno}, column {error.colno}") from None


def read(path: Path, largest: int = LARGEST) -> Any:
    """The value of a JSON file of at most `largest` bytes.

    Raises
    ------
    OSError
        It cannot be read, or is no regular file: nothing is read from devices and pipes.
    ValueError
        It is larger, or as `parse`.
    """
    mode = os.stat(path).st_mode
    if not stat.S_ISREG(mode):
        reason = "Is a directory" if stat.S_ISDIR(mode) else "not a regular file"
        raise OSError(errno.EINVAL, reason, str(path))
    with path.open("rb") as file:
        data = file.read(largest + 1)
    if len(data) > largest:
        raise ValueError(f"more than {largest} bytes")
    return parse(data)


def _too_deep(text: str) -> bool:
    """Whether more than `DEEPEST` brackets are open at once; looks no further than the first such place."""
    depth = 0
    for token in _TOKENS.finditer(text):
        first = token[0][0]
        if first in "[{":
            depth += 1
            if depth > DEEPEST:
                return True
        elif first in "]}":
            depth -= 1
    return False


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key stands twice in an object")
    return found


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is no JSON number")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError("a number is beyond the range of a double")
    return value


def _whole(text: str) -> int:
    if len(text) > DIGITS:
        raise ValueError(f"a number has more than {DIGITS} digits")
    return int(text)
