"""What a component keeps from a cycle to the next, counted in its elaborated netlist."""

from __future__ import annotations

from typing import NamedTuple

from amaranth import Const, Value
from amaranth.hdl import Fragment
from amaranth.hdl._ir import build_netlist
from amaranth.hdl._nir import FlipFlop
from amaranth.hdl._nir import Memory as MemoryCell
from amaranth.lib import wiring

__all__ = ["State", "state_of"]


class State(NamedTuple):
    """Bits of flip-flops and bits of memories."""

    registers: int
    memories: int


def state_of(component: wiring.Component) -> State:
    """Bits that `component` keeps, everything inside of it included; seconds for an attention unit."""
    members = [Value.cast(member) for _, _, member in component.signature.flatten(component)]
    ports = [member for member in members if not isinstance(member, Const)]  # always ready
    netlist = build_netlist(Fragment.get(component, None), ports=ports)
    return State(
        sum(len(cell.data) for cell in netlist.cells if isinstance(cell, FlipFlop)),
        sum(cell.width * cell.depth for cell in netlist.cells if isinstance(cell, MemoryCell)),
    )
