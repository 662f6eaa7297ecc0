"""Everything in an elaborated unit that can be altered, and how.

A unit's statements are walked as Amaranth elaborated them, before anything is optimised or named: the mutant
is what a slip in the generator would have made. Five kinds of mutations:

========== ===================================================================================================
operator   & | ^ + - and comparisons become their neighbours, ``~`` is left out, an operand is ignored, the
           arms of a multiplexer are swapped, a 1-bit signal is inverted
constant   another number
enable     a condition is inverted, always or never true; an assignment never happens; a signal is stuck
width      the top bit of what is assigned is lost
reset      another initial value; a register that the reset does not reach
========== ===================================================================================================
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from amaranth import Cat, Const, Value
from amaranth.hdl import Fragment, Shape
from amaranth.hdl._ast import (
    Assign,
    Concat,
    Operator,
    Part,
    Signal,
    Slice,
    Switch,
    SwitchValue,
    _StatementList,
)
from amaranth.hdl._ir import Instance
from amaranth.hdl._mem import MemoryInstance

from tests.mutation.places import Place, place_of

NEIGHBOURS = {
    "&": "|",
    "|": "&",
    "^": "|",
    "+": "-",
    "-": "+",
    "==": "!=",
    "!=": "==",
    "<": "<=",
    "<=": "<",
    ">": ">=",
    ">=": ">",
    "r|": "r&",
    "r&": "r|",
    "b": "r&",
}

CONTROL_BITS = 4
"""A register of as many bits or fewer, or with an initial value that is not 0, holds control, and its reset
matters. The others hold data, which nothing looks at before it was written."""


@dataclass(frozen=True)
class Site:
    """One way to alter one place of a fragment.

    Attributes
    ----------
    place : Place
    kind : str
        Row of the table above.
    change : str
        What becomes of it, in words.
    apply : callable()
        Alters the fragment.
    """

    place: Place
    kind: str
    change: str
    apply: Callable[[], None]


def sites_of(fragment: Fragment, wanted: Callable[[Place], bool] = lambda place: True) -> list[Site]:
    """All sites of a fragment at the places that are wanted, in the order of its statements; submodules have
    their own.
    """
    if isinstance(fragment, (Instance, MemoryInstance)):
        return []
    walker = _Walker(fragment, wanted)
    return [*walker.statements(), *walker.values(), *walker.registers()]


class _Walker:
    def __init__(self, fragment: Fragment, wanted: Callable[[Place], bool]):
        self._fragment, self._wanted = fragment, wanted

    def _place(self, place: Place | None) -> Place | None:
        return place if place is not None and self._wanted(place) else None

    def _all(self) -> Iterator[tuple[str, Assign | Switch]]:
        def go(domain, statements):
            for statement in statements:
                yield domain, statement
                if isinstance(statement, Switch):
                    for _, inner, _ in statement.cases:
                        yield from go(domain, inner)

        for domain, statements in self._fragment.statements.items():
            yield from go(domain, statements)

    # Statements

    def statements(self) -> Iterator[Site]:
        for domain, statement in self._all():
            if isinstance(statement, Switch):
                yield from self._conditions(statement)
            elif isinstance(statement, Assign) and (place := self._place(place_of(statement))):
                for kind, change, value in self._assigned(statement, domain):
                    new = [] if value is None else [Assign(statement.lhs, value)]
                    yield Site(place, kind, change, lambda s=statement, n=new: self._rewrite({id(s): n}))

    @staticmethod
    def _assigned(statement: Assign, domain: str) -> Iterator[tuple[str, str, Value | None]]:
        """Kind, change and right side of the mutants of an assignment; None: it is left out."""
        right, width = statement.rhs, len(statement.lhs)
        yield "enable", "never happens", None
        if isinstance(right, Const):
            # Combinational logic is 0 where nothing is assigned: a 1 becomes what "never happens" is.
            if width > 1 or domain != "comb":
                yield "constant", "another constant", _other(right, width)
            return
        if width == 1:
            yield "operator", "inverted", ~right[:1]
            yield "enable", "stuck at 1", Const(1, 1)
        else:
            kept = right[: min(len(right), width) - 1]
            kept = kept.as_signed() if right.shape().signed and len(right) <= width else kept
            yield "width", "loses its top bit", kept

    def _conditions(self, switch: Switch) -> Iterator[Site]:
        """The conditions of an If with its Elifs."""
        tests = switch.test.parts if isinstance(switch.test, Concat) else (switch.test,)
        conditional = all(
            patterns is None
            or (len(patterns) == 1 and patterns[0].count("1") == 1 and "0" not in patterns[0])
            for patterns, _, _ in switch.cases
        )
        if not conditional or any(len(test) != 1 for test in tests):
            return
        for index, (patterns, _, location) in enumerate(switch.cases):
            place = self._place(getattr(location, "place", None))
            if patterns is None or place is None:
                continue
            changes = {"inverted": ~tests[index][:1], "always": Const(1, 1), "never": Const(0, 1)}
            for change, value in changes.items():
                test = Cat(*tests[:index], value, *tests[index + 1 :])
                new = Switch(test, switch.cases, src_loc=switch.src_loc)
                yield Site(place, "enable", change, lambda s=switch, n=new: self._rewrite({id(s): [n]}))

    # Values

    def values(self) -> Iterator[Site]:
        seen: set[int] = set()
        for _, statement in self._all():
            root = statement.rhs if isinstance(statement, Assign) else statement.test
            for value in _nodes(root, seen):
                if (place := self._place(place_of(value))) is None:
                    continue
                for kind, change, new in _altered(value):
                    new = _fit(new, value.shape())
                    yield Site(place, kind, change, lambda v=value, n=new: self._rewrite({id(v): n}))

    # Registers

    def registers(self) -> Iterator[Site]:
        seen: dict[int, Signal] = {}
        for domain, statement in self._all():
            if domain != "comb" and isinstance(statement, Assign):
                for signal in statement._lhs_signals():
                    seen.setdefault(id(signal), signal)
        for signal in seen.values():
            place = self._place(place_of(signal))
            control = len(signal) <= CONTROL_BITS or signal.init
            if place is None or signal.reset_less or not control:
                continue
            name = signal.name.replace("$signal", "a register")
            yield Site(place, "reset", f"{name} begins otherwise", lambda s=signal: _begin_otherwise(s))
            yield Site(
                place, "reset", f"{name} is not reset", lambda s=signal: setattr(s, "_reset_less", True)
            )

    def _rewrite(self, replace: dict[int, Value | list]) -> None:
        writer = _Rewriter(replace)
        for domain, statements in self._fragment.statements.items():
            self._fragment.statements[domain] = writer.statements(statements)


def _begin_otherwise(signal: Signal) -> None:
    value = Const(signal.init ^ 1, signal.shape()).value
    signal._init = value


def _other(constant: Const, width: int) -> Const:
    """Another constant of `width` bits: inverted, or one more."""
    if width == 1:
        return Const(~constant.value & 1, 1)
    shape = Shape(width, constant.shape().signed)
    return Const(constant.value + 1, shape)


def _altered(value: Value) -> Iterator[tuple[str, str, Value]]:
    """Kind, change and replacement of the mutants of one node."""
    if isinstance(value, Operator):
        operator, operands = value.operator, value.operands
        if operator in ("r|", "r&", "b") and len(operands[0]) == 1:
            return
        if operator == "-" and len(operands) == 1:
            return
        if operator in NEIGHBOURS:
            neighbour = NEIGHBOURS[operator]
            yield "operator", f"{operator} becomes {neighbour}", Operator(neighbour, operands)
        if operator in "&|":
            yield "operator", "left side only", operands[0]
            yield "operator", "right side only", operands[1]
        if operator == "~":
            yield "operator", "not inverted", operands[0]
        for index, operand in enumerate(operands):
            if isinstance(operand, Const) and operator not in "&|^~us":
                other = (
                    Const(operand.value + 1)
                    if operand.value >= 0
                    else Const(operand.value + 1, operand.shape())
                )
                new = [*operands[:index], other, *operands[index + 1 :]]
                side = "left" if index < len(operands) - 1 else "right"
                yield "constant", f"the constant on the {side} is one more", Operator(operator, new)
    elif isinstance(value, SwitchValue) and len(value.cases) == 2:
        (first, low), (second, high) = value.cases
        yield "operator", "arms swapped", SwitchValue(value.test, [(first, high), (second, low)])
        for index, arm in enumerate((low, high)):
            if isinstance(arm, Const):
                other = _other(arm, max(len(value), 1))
                arms = [other, high] if index == 0 else [low, other]
                new = SwitchValue(value.test, list(zip((first, second), arms, strict=True)))
                yield "constant", f"another constant in arm {index}", new


def _fit(value: Value, shape: Shape) -> Value:
    """`value` with the width and sign of what it replaces, so that nothing else changes."""
    missing = shape.width - len(value)
    if missing > 0:
        fill = value[-1].replicate(missing) if value.shape().signed and len(value) else Const(0, missing)
        value = Cat(value, fill)
    elif missing < 0:
        value = value[: shape.width]
    return value.as_signed() if shape.signed else value.as_unsigned()


def _children(value: Value) -> tuple[Value, ...]:
    if isinstance(value, Operator):
        return value.operands
    if isinstance(value, Slice):
        return (value.value,)
    if isinstance(value, Part):
        return value.value, value.offset
    if isinstance(value, Concat):
        return tuple(value.parts)
    if isinstance(value, SwitchValue):
        return value.test, *(arm for _, arm in value.cases)
    return ()


def _nodes(root: Value, seen: set[int]) -> Iterator[Value]:
    """All nodes below `root` that were not seen yet, each once; operands before what they are part of."""
    if id(root) in seen:
        return
    seen.add(id(root))
    for child in _children(root):
        yield from _nodes(child, seen)
    yield root


class _Rewriter:
    """Statements with some of their nodes replaced, wherever these are used."""

    def __init__(self, replace: dict[int, Value | list]):
        self._replace = replace
        self._done: dict[int, Value] = {}

    def statements(self, statements) -> _StatementList:
        found = _StatementList()
        for statement in statements:
            if id(statement) in self._replace:
                found.extend(self._replace[id(statement)])
            elif isinstance(statement, Assign):
                found.append(Assign(statement.lhs, self.value(statement.rhs)))
            elif isinstance(statement, Switch):
                cases = [
                    (patterns, self.statements(inner), where) for patterns, inner, where in statement.cases
                ]
                found.append(Switch(self.value(statement.test), cases, src_loc=statement.src_loc))
            else:
                found.append(statement)
        return found

    def value(self, value: Value) -> Value:
        if id(value) in self._replace:
            return self._replace[id(value)]
        if id(value) not in self._done:
            self._done[id(value)] = self._rebuilt(value)
        return self._done[id(value)]

    def _rebuilt(self, value: Value) -> Value:
        before = _children(value)
        after = [self.value(child) for child in before]
        if all(old is new for old, new in zip(before, after, strict=True)):
            return value
        if isinstance(value, Operator):
            return Operator(value.operator, after)
        if isinstance(value, Slice):
            return Slice(after[0], value.start, value.stop)
        if isinstance(value, Part):
            return Part(after[0], after[1], value.width, value.stride)
        if isinstance(value, Concat):
            return Concat(after)
        arms = zip((patterns for patterns, _ in value.cases), after[1:], strict=True)
        return SwitchValue(after[0], list(arms))
