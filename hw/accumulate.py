"""Spike-driven convolution and linear layers: sums of weight rows selected by events, no multiplier."""

from __future__ import annotations

from amaranth import Cat, Module, Mux, Signal, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out


class SpikeAccumulator(wiring.Component):
    """Adds the weight row of every event to the accumulators of its plane, in all lanes at once.

    Two banks of accumulators alternate: while one collects the sums of a position, the other is drained
    by the post-processing. A bank needs no clearing; a plane that met no event reads as zero.

    Latency: an event is in its accumulator 4 cycles after it is taken. Throughput: one event a cycle;
    the first event of a position waits until a bank is free.
    Resources: lanes adders of `width` bits; two copies of a 2 x planes-deep memory of lanes x `width` bits
    in distributed RAM.

    Parameters
    ----------
    lanes, planes, weight_bits : int
    width : int
        Proven signed width of a sum.
    event_layout : data.StructLayout
        Payload of the event stream (`scanner.SpikeScanner`).

    Members
    -------
    event : In(stream)
    weight_en, weight_row : Out
        To a memory with one cycle of latency that keeps its output while `weight_en` is low.
    weight_data : In(lanes * weight_bits)
    full : Out(1)
        The sums of the oldest position not yet released are complete.
    plane : In
        Plane to read of that position.
    sums : Out(lanes * width)
        Its signed sums, lane 0 lowest, one cycle later; they count only with `touched`.
    touched : Out(1)
        With `sums`: the plane met an event; otherwise all its sums are zero.
    release : In(1)
        That position is drained with the plane of this cycle; its bank may be used again.
    fired : Out(1)
        An accumulate happened in this cycle (for utilisation counts).
    """

    def __init__(
        self, *, lanes: int, planes: int, weight_bits: int, width: int, event_layout: data.StructLayout
    ):
        self._lanes, self._planes = lanes, planes
        self._weight_bits, self._width = weight_bits, width
        self._event = event_layout
        super().__init__(
            {
                "event": In(stream.Signature(event_layout)),
                "weight_en": Out(1),
                "weight_row": Out(event_layout["row"].width),
                "weight_data": In(lanes * weight_bits),
                "full": Out(1),
                "plane": In(event_layout["plane"].width),
                "sums": Out(lanes * width),
                "touched": Out(1),
                "release": In(1),
                "fired": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        lanes, planes, width = self._lanes, self._planes, self._width
        plane_bits = self._event["plane"].width
        depth = 2 << plane_bits
        m.submodules.banks = banks = Memory(shape=lanes * width, depth=depth, init=[])
        write = banks.write_port()
        accumulate_read = banks.read_port(domain="comb")
        drain_read = banks.read_port(domain="comb")

        # Positions whose last event was issued but which are not yet released occupy a bank each.
        occupied = Signal(2)
        within = Signal()  # between the first and the last event of a position
        event = self.event
        take = Signal()
        m.d.comb += [
            event.ready.eq(within | (occupied != 2)),
            take.eq(event.valid & event.ready),
        ]
        # The weight memory is spread over the chip: its address gets a cycle of its own.
        m.d.sync += [
            self.weight_en.eq(take & event.payload.fetch & event.payload.fire),
            self.weight_row.eq(event.payload.row),
        ]
        with m.If(take):
            m.d.sync += within.eq(~event.payload.end)
        ended = take & event.payload.end
        m.d.sync += occupied.eq(occupied + ended - self.release)

        # Stage 0: the address is out. Stage 1: the memory delivers the weights. Stage 2: they are added.
        fire_0, end_0, plane_0 = Signal(), Signal(), Signal(plane_bits)
        fire_1, end_1, plane_1 = Signal(), Signal(), Signal(plane_bits)
        fire_2, end_2, plane_2 = Signal(), Signal(), Signal(plane_bits)
        weights = Signal(lanes * self._weight_bits)
        m.d.sync += [
            fire_0.eq(take & event.payload.fire),
            end_0.eq(ended),
            plane_0.eq(event.payload.plane),
            fire_1.eq(fire_0),
            end_1.eq(end_0),
            plane_1.eq(plane_0),
            fire_2.eq(fire_1),
            end_2.eq(end_1),
            plane_2.eq(plane_1),
        ]
        with m.If(fire_1):
            m.d.sync += weights.eq(self.weight_data)

        filling, draining = Signal(), Signal()
        complete = Signal(2)
        touched = [Signal(planes, name=f"touched_{bank}") for bank in range(2)]
        # Looked up one stage ahead, for it gates every lane's adder: the plane's first event in its bank.
        fresh = Signal()
        next_filling = filling ^ end_2
        known = Mux(next_filling, touched[1], touched[0]).bit_select(plane_1, 1)
        just_now = fire_2 & ~end_2 & (plane_2 == plane_1)
        m.d.sync += fresh.eq(~(known | just_now))
        sums = []
        for lane in range(lanes):
            weight = weights.word_select(lane, self._weight_bits).as_signed()
            held = accumulate_read.data.word_select(lane, width).as_signed()
            total = Signal(signed(width), name=f"sum_{lane}")
            # The bounds prove that every partial sum fits `width` bits.
            m.d.comb += total.eq(Mux(fresh, 0, held) + weight)
            sums.append(total)
        m.d.comb += [
            accumulate_read.addr.eq(Cat(plane_2, filling)),
            write.addr.eq(Cat(plane_2, filling)),
            write.data.eq(Cat(sums)),
            write.en.eq(fire_2),
            self.fired.eq(fire_2),
        ]
        with m.If(end_2):
            m.d.sync += filling.eq(~filling)
        m.d.sync += complete.eq(complete + end_2 - self.release)
        with m.If(self.release):
            m.d.sync += draining.eq(~draining)
        # The last plane is read one cycle after the release; no event of the next position is here by then.
        read_plane, read_bank, released = Signal(plane_bits), Signal(), Signal()
        m.d.sync += [read_plane.eq(self.plane), read_bank.eq(draining), released.eq(self.release)]
        for bank in range(2):
            with m.If(released & (read_bank == bank)):
                m.d.sync += touched[bank].eq(0)
            with m.Elif(fire_2 & (filling == bank)):
                m.d.sync += touched[bank].eq(touched[bank] | (1 << plane_2)[:planes])

        m.d.comb += [
            self.full.eq(complete != 0),
            drain_read.addr.eq(Cat(read_plane, read_bank)),
            self.sums.eq(drain_read.data),
            self.touched.eq(Mux(read_bank, touched[1], touched[0]).bit_select(read_plane, 1)),
        ]
        return m
