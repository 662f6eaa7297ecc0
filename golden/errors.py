"""The one exception that stands for a mistake of the user, not of the program."""

from __future__ import annotations

from typing import Any

LONGEST = 60
"""Characters of a foreign value that a message shows."""


class UserError(Exception):
    """A wrong input, configuration, file or environment.

    The message is a single line that says what was wrong, what was expected and what to do. The command line
    prints it and exits with code 2; library users catch it by this type. Characters that a terminal would
    obey instead of show are escaped, wherever in the message they came from.
    """

    def __init__(self, message: str) -> None:
        super().__init__(printable(" ".join(message.splitlines())))


def printable(text: str) -> str:
    """`text` with everything that is no printable character escaped as in a Python literal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def shown(value: Any) -> str:
    """A value from a file as a message shows it: as a Python literal, printable, clipped to `LONGEST`."""
    if isinstance(value, (str, bytes)):
        value = value[: LONGEST + 1]  # before a megabyte of it is escaped
    text = printable(repr(value))
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}..."
