"""Boolean expressions of Liberty files as truth tables."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache

from s2tdpt.golden.errors import UserError

__all__ = ["LARGEST", "truth_table"]

LARGEST = 6
"""Inputs of a gate."""

_TOKENS = re.compile(r"\s*([A-Za-z_]\w*|[01]|[!~()'&*|+^])")


def truth_table(expression: str, inputs: Sequence[str]) -> int:
    """Bit i is the value where input k is bit k of i.

    Operators, tightest first: ``!a``, ``~a``, ``a'``; ``&``, ``*`` or a blank; ``^``; ``|`` and ``+``.

    Raises
    ------
    UserError
        More than `LARGEST` inputs, a name that is none of `inputs`, or no expression.
    """
    return _truth_table(expression, tuple(inputs))


@cache
def _truth_table(expression: str, inputs: tuple[str, ...]) -> int:
    if len(inputs) > LARGEST:
        raise UserError(
            f"a cell with inputs {', '.join(inputs)}; expected at most {LARGEST}; exclude it from the mapping"
        )
    return _Parser(expression, inputs).parse()


class _Parser:
    """Recursive descent; a value is a truth table."""

    def __init__(self, expression: str, inputs: tuple[str, ...]):
        self._expression = expression
        self._tokens = _TOKENS.findall(expression)
        if re.sub(r"\s", "", expression) != "".join(self._tokens):
            self._fail()
        rows = 1 << len(inputs)
        self._ones = (1 << rows) - 1
        self._values = {
            name: sum(1 << row for row in range(rows) if row >> place & 1)
            for place, name in enumerate(inputs)
        }
        self._at = 0

    def _fail(self):
        raise UserError(
            f"cannot read the function {self._expression!r} of a Liberty cell; expected names, !, &, ^, |, "
            "parentheses; correct the file"
        )

    def _peek(self) -> str:
        return self._tokens[self._at] if self._at < len(self._tokens) else ""

    def _next(self) -> str:
        token = self._peek()
        self._at += 1
        return token

    def parse(self) -> int:
        value = self._either()
        if self._peek():
            self._fail()
        return value

    def _either(self) -> int:
        value = self._exclusive()
        while self._peek() in ("|", "+"):
            self._next()
            value |= self._exclusive()
        return value

    def _exclusive(self) -> int:
        value = self._both()
        while self._peek() == "^":
            self._next()
            value ^= self._both()
        return value

    def _both(self) -> int:
        value = self._single()
        while self._peek() and self._peek() not in "|+^)":
            if self._peek() in ("&", "*"):
                self._next()
            value &= self._single()
        return value

    def _single(self) -> int:
        token = self._next()
        if token in ("!", "~"):
            return self._ones ^ self._single()
        if token == "(":
            value = self._either()
            if self._next() != ")":
                self._fail()
        elif token in ("0", "1"):
            value = self._ones * int(token)
        elif token in self._values:
            value = self._values[token]
        else:
            self._fail()
        while self._peek() == "'":
            self._next()
            value ^= self._ones
        return value
