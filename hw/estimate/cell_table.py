"""A committed table of synthesis runs: cells by type of each, and the version of the tool."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from s2tdpt.golden import strictjson
from s2tdpt.golden.errors import UserError
from s2tdpt.hw.tools.external import find_tool

__all__ = ["cell_table", "read_cell_table"]


def cell_table(form: str, rows: Mapping[str, Mapping[str, int]]) -> dict[str, Any]:
    """The table as plain values; `form` is its ``format``."""
    return {
        "format": form,
        "tools": {"yosys": find_tool("yosys").version},
        "rows": {name: dict(cells) for name, cells in rows.items()},
    }


def read_cell_table(path: Path, form: str, what: str, command: str) -> dict[str, dict[str, int]]:
    """Rows of a table of the format `form`: name to cells by type.

    Raises
    ------
    UserError
        The file is none; the message says `what` was expected and which `command` writes it.
    """
    try:
        found = strictjson.read(path)
        if found["format"] == form:
            return found["rows"]
    except (OSError, ValueError, KeyError, TypeError):
        pass
    raise UserError(f"{path} is no table of {what}; expected JSON that `{command}` wrote; check the path")
