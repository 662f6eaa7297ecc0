"""Mutants of plain Python: one node of one function altered, and the function's code exchanged in the running
process, wherever the function is already held.

Five kinds of mutations:

========== ===================================================================================================
operator   + - * // % << >> & | ^ and comparisons become their neighbours; `and` becomes `or`; a sign, a `not`
           or a ``~`` is left out
constant   another number; True becomes False
condition  of an `if`, a loop, a conditional expression or a comprehension: inverted
statement  a call, an augmented assignment, a `continue`, `break` or `raise` is left out
========== ===================================================================================================

Texts, annotations, default values, assertions (also the `strict` of a `zip`) and what a `raise` says are left
as they are.
"""

from __future__ import annotations

import ast
import functools
import gc
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from types import CodeType, FunctionType

import s2tdpt.golden

ROOT = Path(s2tdpt.golden.__file__).parents[1]

NEIGHBOURS = {
    **{ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Add, ast.FloorDiv: ast.Mult, ast.Div: ast.Mult},
    **{ast.Mod: ast.FloorDiv, ast.LShift: ast.RShift, ast.RShift: ast.LShift, ast.BitAnd: ast.BitOr},
    **{ast.BitOr: ast.BitAnd, ast.BitXor: ast.BitOr, ast.Pow: ast.Mult, ast.And: ast.Or, ast.Or: ast.And},
    **{ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE},
    **{ast.GtE: ast.Gt, ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is},
}


@dataclass(frozen=True)
class Mutant:
    """One alteration of one node.

    Attributes
    ----------
    name : str
        Names it as long as its own source stays as it is.
    unit : str
        Module, from the package on.
    kind, change : str
        Row of the table above; what becomes of the node.
    function : str
        Qualified name of the outermost function that holds the node.
    number : int
        Of the site within its function.
    first, last : int
        Lines of the node.
    """

    name: str
    unit: str
    kind: str
    change: str
    function: str
    number: int
    first: int
    last: int

    @property
    def path(self) -> str:
        return str(_path(self.unit))


def _path(unit: str) -> Path:
    return ROOT / f"{unit.replace('.', '/')}.py"


@dataclass(frozen=True)
class _Site:
    kind: str
    change: str
    node: ast.AST
    apply: Callable[[], None]
    shown: ast.AST


def _replace(parent: ast.AST, name: str, index: int | None, new: ast.AST) -> None:
    """Put `new` in the place of a child."""
    old = getattr(parent, name) if index is None else getattr(parent, name)[index]
    ast.fix_missing_locations(ast.copy_location(new, old))
    if index is None:
        setattr(parent, name, new)
    else:
        getattr(parent, name)[index] = new


def _children(node: ast.AST) -> Iterator[tuple[str, int | None, ast.AST]]:
    for name, value in ast.iter_fields(node):
        if isinstance(value, ast.AST):
            yield name, None, value
        elif isinstance(value, list):
            yield from ((name, index, item) for index, item in enumerate(value) if isinstance(item, ast.AST))


def _sites(parent: ast.AST) -> Iterator[_Site]:
    """Sites below a node, in the order of the source."""
    for name, index, node in _children(parent):
        if name in ("annotation", "returns", "args", "decorator_list") and not isinstance(parent, ast.Call):
            continue
        if isinstance(node, (ast.JoinedStr, ast.Assert)) or getattr(node, "arg", None) == "strict":
            continue
        yield from _own_sites(parent, name, index, node)
        if not isinstance(node, ast.Raise):
            yield from _sites(node)


def _own_sites(parent, name, index, node) -> Iterator[_Site]:
    def replaced(kind, change, new):
        shown = parent if isinstance(node, ast.Constant) and hasattr(parent, "lineno") else node
        return _Site(kind, change, node, lambda: _replace(parent, name, index, new), shown)

    match node:
        case ast.BinOp(op=op) | ast.BoolOp(op=op) | ast.AugAssign(op=op) if type(op) in NEIGHBOURS:
            new = NEIGHBOURS[type(op)]
            change = f"{type(op).__name__} becomes {new.__name__}"
            yield _Site("operator", change, node, lambda: setattr(node, "op", new()), node)
        case ast.Compare(ops=[op]):
            new = NEIGHBOURS[type(op)]
            change = f"{type(op).__name__} becomes {new.__name__}"
            yield _Site("operator", change, node, lambda: setattr(node, "ops", [new()]), node)
        case ast.UnaryOp(op=op, operand=operand) if not isinstance(op, ast.UAdd):
            yield replaced("operator", f"{type(op).__name__} left out", operand)
        case ast.Constant(value=bool(value)):
            yield replaced("constant", f"{value} becomes {not value}", ast.Constant(not value))
        case ast.Constant(value=int(value)):
            yield replaced("constant", f"{value} becomes {value + 1}", ast.Constant(value + 1))
    if name == "test" or (name == "ifs" and isinstance(parent, ast.comprehension)):
        yield replaced("condition", "inverted", ast.UnaryOp(ast.Not(), node))
    if index is not None and name in ("body", "orelse", "finalbody"):
        call = isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)
        if call or isinstance(node, (ast.AugAssign, ast.Continue, ast.Break, ast.Raise)):
            yield replaced("statement", "left out", ast.Pass())


def _functions(tree: ast.Module) -> Iterator[tuple[str, ast.FunctionDef]]:
    """Outermost functions with their qualified names."""

    def within(body, prefix):
        for node in body:
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                yield prefix + node.name, node
            elif isinstance(node, ast.ClassDef):
                yield from within(node.body, f"{prefix}{node.name}.")

    return within(tree.body, "")


@cache
def _source(unit: str) -> str:
    return _path(unit).read_text(encoding="utf-8")


def catalogue(units: Iterable[str]) -> list[Mutant]:
    """All mutants of some modules, in the order of the source."""
    found, names = [], Counter()
    for unit in units:
        source = _source(unit)
        for function, node in _functions(ast.parse(source)):
            for number, site in enumerate(_sites(node)):
                text = " ".join(ast.get_source_segment(source, site.shown).split())
                text = text if len(text) <= 100 else text[:97] + "..."
                name = f"{unit}: {function}: {text}: {site.change}"
                names[name] += 1
                if names[name] > 1:
                    name += f" ({names[name]})"
                lines = site.node.lineno, site.node.end_lineno
                found.append(Mutant(name, unit, site.kind, site.change, function, number, *lines))
    return found


def altered(mutant: Mutant) -> ast.Module:
    """The whole module with one node altered."""
    tree = ast.parse(_source(mutant.unit))
    node = next(node for name, node in _functions(tree) if name == mutant.function)
    list(_sites(node))[mutant.number].apply()
    return tree


def _codes(code: CodeType) -> Iterator[CodeType]:
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield constant
            yield from _codes(constant)


def plant(mutant: Mutant) -> Callable[[], int]:
    """From now on the altered function runs; returns how many functions were exchanged."""
    import_module(f"s2tdpt.{mutant.unit}")
    module = compile(altered(mutant), mutant.path, "exec", dont_inherit=True)
    new = next(code for code in _codes(module) if code.co_qualname == mutant.function)
    exchanged = 0
    for thing in gc.get_objects():
        if type(thing) is FunctionType:
            old = thing.__code__
            if old.co_filename == mutant.path and old.co_qualname == mutant.function:
                thing.__code__ = new
                exchanged += 1
        elif type(thing) is functools._lru_cache_wrapper:
            thing.cache_clear()
    return lambda: exchanged


def observer(known: list[Mutant]) -> Callable[[], Callable[[], set[str]]]:
    """For `campaign.Campaign`: notes whose lines run."""
    paths = {mutant.path for mutant in known}

    def observe():
        lines: set[tuple[str, int]] = set()

        def within(frame, event, argument):
            if event == "line":
                lines.add((frame.f_code.co_filename, frame.f_lineno))
            return within

        def enter(frame, event, argument):
            return within if frame.f_code.co_filename in paths else None

        sys.settrace(enter)

        def met():
            sys.settrace(None)
            return {
                mutant.name
                for mutant in known
                if any((mutant.path, line) in lines for line in range(mutant.first, mutant.last + 1))
            }

        return met

    return observe
