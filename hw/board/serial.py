"""The accelerator behind a serial line: what a board holds beside its clock and its pins."""

from __future__ import annotations

from typing import Annotated

from amaranth import ClockDomain, ClockSignal, DomainRenamer, Module, ResetSignal, Signal
from amaranth.hdl import Value
from amaranth.hdl._ir import PortDirection  # what rtlil.convert asks for
from amaranth.lib import wiring
from amaranth.lib.cdc import FFSynchronizer
from amaranth.lib.wiring import In, Out
from pydantic import BaseModel, ConfigDict, Field, model_validator

from s2tdpt.golden.errors import UserError
from s2tdpt.golden.link import Identity, identity_of
from s2tdpt.golden.params import Params
from s2tdpt.hw.board.responder import Responder
from s2tdpt.hw.board.uart import UartReceiver, UartTransmitter, baud_step
from s2tdpt.hw.plan.machine import Machine
from s2tdpt.hw.top import Accelerator

__all__ = ["SerialAccelerator", "SerialLine"]

SECONDS_LIFE, SECONDS_ERROR = 1.0, 0.25
"""A blink of the light that shows life; how long the other one shows a frame that was refused."""


class SerialLine(BaseModel):
    """How the accelerator is talked to.

    Attributes
    ----------
    clock : int
        Of the accelerator, Hz.
    baud : int
        Bits a second, at most a quarter of the clock; with fewer than 8 clock cycles a bit, both ends need
        the same clock.
    window : int
        Images that may be under way, 1 .. 16: enough to bridge the delays of the host's USB.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    clock: Annotated[int, Field(strict=True, ge=1000, le=10**9)]
    baud: Annotated[int, Field(strict=True, ge=300, le=12_000_000)]
    window: Annotated[int, Field(strict=True, ge=1, le=16)] = 8

    @model_validator(mode="after")
    def _reachable(self) -> SerialLine:
        baud_step(self.clock, self.baud)
        return self

    @property
    def step(self) -> int:
        """Of `UartReceiver` and `UartTransmitter`."""
        return baud_step(self.clock, self.baud)


class SerialAccelerator(wiring.Component):
    """An accelerator that answers requests on a serial line (docs/link.md).

    Latency of an image: its bytes on the line, the accelerator's, the result's bytes on the line; the three
    overlap for images that follow each other.

    Parameters
    ----------
    params : Params
    machine : Machine
        Weights on chip.
    line : SerialLine

    Members
    -------
    clk, rst : In(1)
        Clock; synchronous reset, active high.
    rx, tx : In(1), Out(1)
        The line, high when idle; `rx` need not be synchronous.
    life : Out(1)
        Blinks as long as the clock runs.
    fault : Out(1)
        High for a moment after a frame that was refused.

    Raises
    ------
    UserError
        The machine streams its weights, or the accelerator cannot be generated.
    """

    def __init__(self, params: Params, machine: Machine, line: SerialLine):
        if machine.weight_memory != "rom":
            raise UserError(
                f"machine {machine.name} streams its weights, which the serial line does not carry; expected "
                "weight_memory rom; change the machine"
            )
        self._line = line
        self._accelerator = Accelerator(params, machine)
        self.identity: Identity = identity_of(
            params,
            window=line.window,
            word_bytes=len(self._accelerator.core.results.tdata) // 8,
            clock=line.clock,
        )
        super().__init__(
            {
                "clk": In(1),
                "rst": In(1),
                "rx": In(1, init=1),
                "tx": Out(1, init=1),
                "life": Out(1),
                "fault": Out(1),
            }
        )

    def ports(self) -> dict[str, tuple[Value, PortDirection]]:
        """Ports of the generated module: name to value and direction."""
        directions = {In: PortDirection.Input, Out: PortDirection.Output}
        flat = self.signature.flatten(self)
        return {path[0]: (Value.cast(value), directions[member.flow]) for path, member, value in flat}

    def elaborate(self, platform):
        m = Module()
        # The accelerator has a domain `sync` of its own, of the same clock and reset.
        m.domains.link = ClockDomain("link")
        m.d.comb += [ClockSignal("link").eq(self.clk), ResetSignal("link").eq(self.rst)]
        around = DomainRenamer("link")
        receiver, transmitter = UartReceiver(self._line.step), UartTransmitter(self._line.step)
        responder = Responder(self.identity)
        m.submodules.accelerator = accelerator = self._accelerator
        m.submodules.receiver = around(receiver)
        m.submodules.transmitter = around(transmitter)
        m.submodules.responder = around(responder)
        m.submodules.synchronizer = FFSynchronizer(self.rx, receiver.rx, init=1, o_domain="link")
        m.d.comb += [accelerator.aclk.eq(self.clk), accelerator.aresetn.eq(~self.rst)]
        wiring.connect(m, receiver.o, responder.i)
        wiring.connect(m, responder.o, transmitter.i)
        wiring.connect(m, responder.pixels, accelerator.core.pixels)
        wiring.connect(m, accelerator.core.results, responder.results)
        m.d.comb += self.tx.eq(transmitter.tx)
        self._lights(m, responder.refused)
        return m

    def _lights(self, m, refused):
        half = max(1, round(self._line.clock * SECONDS_LIFE / 2))
        count, shown = Signal(range(half)), Signal(range(round(self._line.clock * SECONDS_ERROR) + 1))
        m.d.link += count.eq(count + 1)
        with m.If(count == half - 1):
            m.d.link += [count.eq(0), self.life.eq(~self.life)]
        with m.If(refused):
            m.d.link += shown.eq(round(self._line.clock * SECONDS_ERROR))
        with m.Elif(shown != 0):
            m.d.link += shown.eq(shown - 1)
        m.d.comb += self.fault.eq(shown != 0)
