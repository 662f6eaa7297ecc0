"""Simulation helpers: Amaranth's simulator with a watchdog, and a spike memory to test clients with."""

import warnings

from amaranth import Module, Value
from amaranth.hdl import Fragment
from amaranth.hdl._ir import build_netlist
from amaranth.hdl._nir import FlipFlop
from amaranth.hdl._nir import Memory as MemoryCell
from amaranth.lib import memory, wiring
from amaranth.lib.wiring import In
from amaranth.sim import Simulator

from s2tdpt.hw.memory import SpikeMemoryClient

PERIOD = 20e-9


def simulate(dut, testbench, *, deadline, background=()):
    """Runs ``testbench(ctx)`` on a clocked `dut`.

    Parameters
    ----------
    dut : Elaboratable
    testbench : async callable
    deadline : int
        Cycles after which the watchdog raises `TimeoutError`: a hanging handshake fails, never blocks.
    background : iterable of async callables
        Monitors that run beside it.
    """
    sim = Simulator(dut)
    sim.add_clock(PERIOD)

    async def watchdog(ctx):
        await ctx.delay(deadline * PERIOD)
        raise TimeoutError(f"testbench did not end within {deadline} cycles")

    sim.add_testbench(watchdog, background=True)
    sim.add_testbench(testbench)
    for monitor in background:
        sim.add_testbench(monitor, background=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sim.run()


def evaluate(dut, testbench):
    """Runs ``testbench(ctx)`` on a combinational `dut`, which has no clock and cannot hang."""
    sim = Simulator(dut)
    sim.add_testbench(testbench)
    sim.run()


async def run_operation(ctx, operation, *, fields):
    """Sets the fields, pulses `start` and returns the number of cycles to `done`."""
    for name, value in fields.items():
        ctx.set(getattr(operation, name), value)
    ctx.set(operation.start, 1)
    await ctx.tick()
    ctx.set(operation.start, 0)
    cycles = 1
    while not ctx.get(operation.done):
        await ctx.tick()
        cycles += 1
    await ctx.tick()
    assert not ctx.get(operation.done), "done must last one cycle"
    return cycles


class MemoryBench(wiring.Component):
    """An operation with a spike memory of its own.

    Unread cycles return all ones on the read port, so that a client that uses stale data fails.

    Parameters
    ----------
    operation : Component with a ``mem`` member
    init : list of int
        Words of the memory.
    """

    def __init__(self, operation, init):
        self.operation = operation
        self.client = operation.mem.signature
        self.storage = memory.Memory(
            shape=self.client.lanes * self.client.timesteps, depth=len(init), init=init
        )
        super().__init__({})

    def elaborate(self, platform):
        m = Module()
        m.submodules.operation = self.operation
        m.submodules.storage = self.storage
        client = self.operation.mem
        read = self.storage.read_port(domain="sync")
        write = self.storage.write_port(granularity=self.client.timesteps * self.client.post_lanes)
        valid = m.submodules.valid = Delay()
        m.d.comb += [
            read.addr.eq(client.rd_addr),
            read.en.eq(client.rd_en),
            valid.i.eq(client.rd_en),
            client.rd_data.eq(read.data | ~valid.o.replicate(len(read.data))),
            write.addr.eq(client.wr_addr),
            write.data.eq(client.wr_data),
            write.en.eq(client.wr_en),
        ]
        return m

    def words(self, ctx, base, count):
        """The words ``base .. base + count - 1``."""
        return [ctx.get(self.storage.data[base + i]) for i in range(count)]


class Delay(wiring.Component):
    """One flip-flop."""

    def __init__(self):
        super().__init__({"i": In(1), "o": wiring.Out(1)})

    def elaborate(self, platform):
        m = Module()
        m.d.sync += self.o.eq(self.i)
        return m


def state_of(component):
    """``(flip-flop bits, memory bits)`` of a component, counted in its elaborated netlist."""
    ports = [Value.cast(port) for _, _, port in component.signature.flatten(component)]
    netlist = build_netlist(Fragment.get(component, None), ports=ports)
    flops = sum(len(cell.data) for cell in netlist.cells if isinstance(cell, FlipFlop))
    memories = sum(cell.width * cell.depth for cell in netlist.cells if isinstance(cell, MemoryCell))
    return flops, memories


__all__ = ["Delay", "MemoryBench", "SpikeMemoryClient", "evaluate", "run_operation", "simulate", "state_of"]
