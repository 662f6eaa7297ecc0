"""The accelerator without its bus: the blocks of the architecture picture and the wires between them."""

from __future__ import annotations

from amaranth import Module, Signal
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from s2tdpt.golden.bounds import Bounds
from s2tdpt.golden.params import Params
from s2tdpt.hw.attention import attention_of
from s2tdpt.hw.blocks.drain import DrainSequencer
from s2tdpt.hw.blocks.front import EventSource
from s2tdpt.hw.blocks.images import rom_images
from s2tdpt.hw.blocks.lanes import LaneArray
from s2tdpt.hw.blocks.post import PieceProbe, PostProcessor
from s2tdpt.hw.blocks.sequencer import Sequencer
from s2tdpt.hw.blocks.spike_memory import SpikeMemory
from s2tdpt.hw.blocks.step_rom import StepRecords
from s2tdpt.hw.blocks.weights import WeightRom, WeightStream
from s2tdpt.hw.bus.axi import FrameReceiver, ResultSender
from s2tdpt.hw.plan.machine import PIXEL_BITS
from s2tdpt.hw.plan.program import Program
from s2tdpt.hw.plan.records import Bus, FrameEvents, Sizes, SpikeWrite, bits_for, pixel_word_bits
from s2tdpt.hw.plan.widths import Widths


class CoreProbe(wiring.Signature):
    """Observation: what the machine computes, as it computes it (docs/interface.md).

    Members
    -------
    start, step
        A step starts, and its number.
    complete
        The oldest step that is not complete becomes so.
    fired
        Accumulates of a lane in this cycle: set mask bits over all banks.
    piece : PieceProbe
    layers, attention : SpikeWrite
        Writes into the spike memory.
    y_en, y_head, y_token, y_step, y_data
        A row of attention sums on its way to the neurons.
    """

    def __init__(self, program: Program, sizes: Sizes, widths: Widths):
        net, machine = program.network, program.machine
        super().__init__(
            {
                "start": Out(1),
                "step": Out(sizes.step),
                "complete": Out(1),
                "fired": Out(bits_for(machine.banks * net.timesteps)),
                "piece": Out(PieceProbe(program, sizes, widths)),
                "layers": Out(SpikeWrite(program, sizes)),
                "attention": Out(SpikeWrite(program, sizes)),
                "y_en": Out(1),
                "y_head": Out(bits_for(net.heads - 1)),
                "y_token": Out(bits_for(net.tokens - 1)),
                "y_step": Out(bits_for(net.timesteps - 1)),
                "y_data": Out(net.head_dim * widths.attention),
            }
        )


class Core(wiring.Component):
    """Runs the layer program for every frame: pixels in, logits and class out.

    Steps follow each other without waiting where they do not depend on each other; attention, neurons,
    pooling and the head's sums work beside the accumulation. The next frame is received meanwhile.

    Latency and throughput: `cycles.frame_cycles`, exact for given spikes.
    Resources: the memories of `memory_plan` and the blocks' own.

    Parameters
    ----------
    params : Params
    program : Program
    widths : Widths
    bounds : Bounds

    Members
    -------
    pixels : In(Bus(8))
    results : Out(Bus)
    weights : In(Bus)
        Streamed weights only.
    error_short, error_long, error_weights, busy : Out(1)
        `error_weights` with streamed weights only.
    probe : Out(CoreProbe)
    events : Out(FrameEvents)
    """

    def __init__(self, params: Params, program: Program, widths: Widths, bounds: Bounds):
        self._params, self._program, self._widths = params, program, widths
        self._bounds = bounds
        net, machine = program.network, program.machine
        self._sizes = sizes = Sizes(program)
        self._sender = ResultSender(net.num_classes, machine.post_lanes, widths.combined)
        self._streams = machine.weight_memory == "stream"
        self._store = self._weight_store()
        members = {
            "pixels": In(Bus(8)),
            "results": Out(Bus(self._sender.data_width)),
            "error_short": Out(1),
            "error_long": Out(1),
            "busy": Out(1),
            "probe": Out(CoreProbe(program, sizes, widths)),
            "events": Out(FrameEvents()),
        }
        if self._streams:
            members |= {"weights": In(Bus(len(self._store.tdata))), "error_weights": Out(1)}
        super().__init__(members)

    @property
    def program(self) -> Program:
        return self._program

    def _weight_store(self):
        program, widths = self._program, self._widths
        if self._streams:
            return WeightStream(program, self._sizes, widths)
        return WeightRom(program, self._sizes, widths, rom_images(self._params, program, widths))

    def elaborate(self, platform):
        m = Module()
        program, sizes, widths = self._program, self._sizes, self._widths
        net = program.network
        records = StepRecords(program)
        m.submodules.receiver = receiver = FrameReceiver(
            net.image_height, net.image_width, net.image_channels
        )
        m.submodules.sequencer = sequencer = Sequencer(program, sizes, records)
        m.submodules.events = events = EventSource(program, sizes, records)
        m.submodules.weights = store = self._store
        m.submodules.lanes = lanes = LaneArray(program, sizes, widths)
        m.submodules.drain = drain = DrainSequencer(program, sizes, records)
        m.submodules.post = post = PostProcessor(program, sizes, widths)
        m.submodules.attention = attention = attention_of(program).unit(
            self._params, program, sizes, self._bounds
        )
        m.submodules.spikes = spikes = SpikeMemory(program, sizes)
        m.submodules.sender = sender = self._sender

        for source, sink in (
            (events.spikes, spikes.read),
            (events.head_sums, post.head_sums),
            (post.constants, store.constants),
            (post.projections, attention.projections),
            (post.write, spikes.layers),
            (attention.write, spikes.attention),
        ):
            wiring.connect(m, source, sink)
        for group, memories in zip(lanes.weights, store.weights, strict=True):
            wiring.connect(m, group, memories)
        for bank in range(program.machine.banks):
            m.d.comb += lanes.event[bank].eq(events.event[bank])
        m.d.comb += [
            *(events.step.eq(sequencer.step), events.start.eq(sequencer.start)),
            *(events.row_base.eq(sequencer.row_base), events.pixel_base.eq(sequencer.pixel_base)),
            *(sequencer.walking.eq(events.walking), sequencer.tile_ended.eq(events.final)),
            sequencer.tile_complete.eq(post.tile_complete),
            *(sequencer.blocks.eq(attention.blocks), attention.clear.eq(sequencer.frame_start)),
            *(sequencer.frame_valid.eq(receiver.frame_valid), sequencer.frame_bank.eq(receiver.frame_bank)),
            receiver.frame_release.eq(sequencer.frame_release),
            sequencer.results_busy.eq(sender.busy),
            *(lanes.end.eq(events.end), lanes.final.eq(events.final)),
            drain.arrived.eq(lanes.arrived),
            *(post.valid.eq(drain.valid), post.tag.eq(drain.tag), post.constant.eq(drain.constant)),
            post.sums.eq(lanes.sums),
            *(sender.wr_en.eq(post.results.en), sender.wr_index.eq(post.results.piece)),
            *(sender.wr_data.eq(post.results.data), sender.start.eq(sequencer.frame_complete)),
            self.busy.eq(sequencer.busy | sender.busy),
        ]
        self._connect_tiles(m, store, sequencer, lanes)
        self._store_pixels(m, receiver, events)
        self._connect_buses(m, receiver, sender, store)
        self._observe(m, sequencer, events, post, attention)
        started = Signal()
        m.d.sync += started.eq(sequencer.frame_start)
        m.d.comb += [
            *(self.events.start.eq(started), self.events.complete.eq(sequencer.frame_complete)),
            self.events.short.eq(receiver.dropped_short),
            self.events.long.eq(receiver.dropped_long),
        ]
        return m

    @staticmethod
    def _connect_tiles(m, store, sequencer, lanes):
        tiles = store.tiles
        m.d.comb += [
            *(tiles.start.eq(sequencer.tiles.start), tiles.complete.eq(sequencer.tiles.complete)),
            tiles.release.eq(lanes.released),
            *(sequencer.tiles.ready.eq(tiles.ready), sequencer.tiles.base.eq(tiles.base)),
        ]

    def _store_pixels(self, m, receiver, events):
        """Two images of pixels."""
        net = self._program.network
        depth = max(2, 2 * net.image_height * net.image_width)
        m.submodules.pixels = pixels = Memory(
            shape=pixel_word_bits(self._program),
            depth=depth,
            init=[],
            attrs={"ram_style": "block", "no_rw_check": 1},
        )
        read, write = pixels.read_port(), pixels.write_port(granularity=PIXEL_BITS)
        m.d.comb += [
            *(write.en.eq(receiver.wr_en), write.addr.eq(receiver.wr_addr), write.data.eq(receiver.wr_data)),
            *(read.en.eq(events.pixels.en), read.addr.eq(events.pixels.address)),
            events.pixels.data.eq(read.data),
        ]

    def _connect_buses(self, m, receiver, sender, store):
        m.d.comb += [
            *(receiver.tdata.eq(self.pixels.tdata), receiver.tvalid.eq(self.pixels.tvalid)),
            *(receiver.tlast.eq(self.pixels.tlast), self.pixels.tready.eq(receiver.tready)),
            *(self.results.tdata.eq(sender.tdata), self.results.tvalid.eq(sender.tvalid)),
            *(self.results.tlast.eq(sender.tlast), sender.tready.eq(self.results.tready)),
            *(self.error_short.eq(receiver.error_short), self.error_long.eq(receiver.error_long)),
        ]
        if self._streams:
            m.d.comb += [
                *(store.tdata.eq(self.weights.tdata), store.tvalid.eq(self.weights.tvalid)),
                *(store.tlast.eq(self.weights.tlast), self.weights.tready.eq(store.tready)),
                self.error_weights.eq(store.error),
            ]

    def _observe(self, m, sequencer, events, post, attention):
        probe = self.probe
        fired = sum(bit for event in events.event for bit in event.mask)
        m.d.comb += [
            *(probe.start.eq(sequencer.start), probe.step.eq(sequencer.index)),
            *(probe.complete.eq(post.tile_complete), probe.fired.eq(fired)),
            *(probe.y_en.eq(attention.y_en), probe.y_head.eq(attention.y_head)),
            *(probe.y_token.eq(attention.y_token), probe.y_step.eq(attention.y_step)),
            probe.y_data.eq(attention.y_data.as_value()),
        ]
        copies = ((post.probe, probe.piece), (post.write, probe.layers), (attention.write, probe.attention))
        for source, copy in copies:
            for path, _, value in copy.signature.flatten(copy):
                inner = source
                for part in path:
                    inner = getattr(inner, part)
                m.d.comb += value.eq(inner)
