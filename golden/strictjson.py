"""JSON without its extensions: no NaN, no infinity, no nesting without end; and its one canonical form."""

from __future__ import annotations

import json
import math
from typing import Any


def canonical(value: Any) -> str:
    """The canonical text of a JSON value: sorted keys, no spaces, ASCII; ValueError if it has none."""
    try:
        return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def parse(text: str | bytes) -> Any:
    """The value of a JSON text.

    Raises
    ------
    ValueError
        Not JSON, a number that is not finite, or nested too deeply; the message is short.
    """
    try:
        return json.loads(text, parse_constant=_refuse, parse_float=_finite)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"no JSON at line {error.lineno}, column {error.colno}") from None
    except UnicodeDecodeError:
        raise ValueError("not UTF-8") from None


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is no JSON number")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError("a number is beyond the range of a double")
    return value
