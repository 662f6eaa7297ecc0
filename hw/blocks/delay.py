"""Values a few cycles later: registers in a row."""

from __future__ import annotations

from amaranth import Module, ShapeLike, Signal, Value
from amaranth.lib import data

__all__ = ["delayed"]


def delayed(
    m: Module,
    value: Value | data.View,
    cycles: int = 1,
    name: str = "later",
    *,
    shape: ShapeLike | None = None,
    init: int | None = None,
) -> Value | data.View:
    """`value`, `cycles` cycles later.

    Data has no reset: something beside it says when it means anything. A reset of a wide register is a net to
    every bit of it, which place and route has to bring there, and keeps it out of slices of other registers.
    What acts by itself has one.

    Parameters
    ----------
    m : Module
    value : Value or View
    cycles : int
        0 or more.
    name : str
        Of the registers; a number is appended if there are several.
    shape : ShapeLike or None
        Of the registers, where it is not that of `value`.
    init : int or None
        What the registers hold after a reset; None: they are not reset.
    """
    shape = value.shape() if shape is None else shape
    options = {"reset_less": True} if init is None else {"init": init}
    for cycle in range(1, cycles + 1):
        register = Signal(shape, name=name if cycles == 1 else f"{name}_{cycle}", **options)
        m.d.sync += register.eq(value)
        value = register
    return value
