"""The accelerator without its bus: memories, units, and the sequencer that runs the layer program."""

from __future__ import annotations

from amaranth import Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from s2tdpt.golden.arith import unsigned_bits
from s2tdpt.golden.params import Params
from s2tdpt.hw.axi import FrameReceiver, ResultSender
from s2tdpt.hw.config import PIXEL_PLANES
from s2tdpt.hw.engine import AccumulateEngine
from s2tdpt.hw.head import HeadSum
from s2tdpt.hw.images import rom_images
from s2tdpt.hw.operation import Kind, OperationLayout, Sink, Source
from s2tdpt.hw.pool import OrPool
from s2tdpt.hw.schedule import Program
from s2tdpt.hw.stdp import StdpAttention
from s2tdpt.hw.weights import WeightRom, WeightStream, stream_width
from s2tdpt.hw.widths import Widths


class Core(wiring.Component):
    """Runs the layer program for every frame: pixels in, logits and class out.

    One operation runs at a time; between two the sequencer takes `cycles.SEQUENCER_CYCLES` cycles. The
    next frame is received while the current one is computed.

    Latency and throughput: `cycles.frame_cycles`, exact for given spikes.
    Resources: the memories of `Program` and the units' own.

    Parameters
    ----------
    params : Params
    program : Program
    widths : Widths

    Members
    -------
    s_tdata, s_tvalid, s_tready, s_tlast
        Pixel bytes (`axi.FrameReceiver`).
    m_tdata, m_tvalid, m_tready, m_tlast
        Logits and class (`axi.ResultSender`).
    w_tdata, w_tvalid, w_tready, w_tlast, error_weights
        Weight stream (only with streamed weights).
    error_short, error_long, busy
    probe_*
        Observation port, see docs/interface.md.
    """

    def __init__(self, params: Params, program: Program, widths: Widths):
        self._params, self._program, self._widths = params, program, widths
        net, hw = program.network, program.hardware
        self._layout = OperationLayout(program)
        self._address = unsigned_bits(program.spike_words - 1)
        self._engine = AccumulateEngine(program, self._layout, widths)
        self._attention = StdpAttention(
            head_dim=net.head_dim,
            heads=net.heads,
            tokens=net.tokens,
            timesteps=net.timesteps,
            lut=params.tensors["stdp.lut"].tolist(),
            threshold=params.attention_threshold,
            addr_width=self._address,
            lanes=hw.lanes,
            post_lanes=hw.post_lanes,
        )
        assert self._attention.y_shape.width == widths.attention
        self._sender = ResultSender(net.num_classes, hw.post_lanes, widths.combined)
        y = self._attention.signature.members
        u = self._engine.signature.members
        members = {
            "s_tdata": In(8),
            "s_tvalid": In(1),
            "s_tready": Out(1),
            "s_tlast": In(1),
            "m_tdata": Out(self._sender.data_width),
            "m_tvalid": Out(1),
            "m_tready": In(1),
            "m_tlast": Out(1),
            "error_short": Out(1),
            "error_long": Out(1),
            "busy": Out(1),
            "probe_op": Out(range(max(2, len(program.ops)))),
            "probe_start": Out(1),
            "probe_done": Out(1),
            "probe_acc": Out(hw.rows),
            "probe_spike_en": Out(hw.subgroups),
            "probe_spike_addr": Out(self._address),
            "probe_spike_data": Out(hw.lanes * net.timesteps),
            "probe_u_en": Out(1),
            "probe_u_addr": u["probe_u_addr"],
            "probe_u_data": u["probe_u_data"],
            "probe_y_en": Out(1),
            "probe_y_token": y["y_token"],
            "probe_y_t": y["y_t"],
            "probe_y_head": y["y_head"],
            "probe_y_data": Out(net.head_dim * widths.attention),
        }
        if hw.weight_memory == "stream":
            members |= {
                "w_tdata": In(stream_width(program)),
                "w_tvalid": In(1),
                "w_tready": Out(1),
                "w_tlast": In(1),
                "error_weights": Out(1),
            }
        super().__init__(members)

    @property
    def program(self) -> Program:
        return self._program

    def _store(self):
        program, widths = self._program, self._widths
        if program.hardware.weight_memory == "stream":
            return WeightStream(program, widths)
        images = rom_images(self._params, program, widths)
        return WeightRom(
            program, widths, rows=images.rows, scales=images.scales, thresholds=images.thresholds
        )

    def elaborate(self, platform):
        m = Module()
        program, w = self._program, self._widths
        net, hw = program.network, program.hardware
        m.submodules.engine = engine = self._engine
        m.submodules.attention = attention = self._attention
        m.submodules.sender = sender = self._sender
        m.submodules.receiver = receiver = FrameReceiver(
            net.image_height, net.image_width, net.image_channels
        )
        m.submodules.weights = store = self._store()
        m.submodules.head_sum = head_sum = HeadSum(
            lanes=hw.post_lanes,
            depth=-(-net.embed_dim // hw.lanes) * hw.subgroups,
            value_width=w.value,
            width=w.head_sum,
            slices=program.head_slices,
            read_ports=hw.rows,
        )
        pools = any(op.kind == "pool" for op in program.ops)
        pool = None
        if pools:
            m.submodules.pool = pool = OrPool(
                max_height=net.image_height,
                max_width=net.image_width,
                max_groups=max(op.packing_in.groups for op in program.ops if op.kind == "pool"),
                addr_width=self._address,
                lanes=hw.lanes,
                timesteps=net.timesteps,
                post_lanes=hw.post_lanes,
            )

        # ---- sequencer ----------------------------------------------------------------------------------
        layout = self._layout
        words = layout.words()
        m.submodules.program = rom = Memory(shape=layout.size, depth=max(2, len(words)), init=words)
        rom_port = rom.read_port()
        op = Signal(layout)
        index = Signal(range(max(2, len(words))))
        start, done, last = Signal(), Signal(), Signal()
        m.d.comb += [
            rom_port.addr.eq(index),
            last.eq(index == len(words) - 1),
            done.eq(engine.done | attention.done | (pool.done if pools else 0)),
            sender.start.eq(done & last),
            receiver.frame_release.eq(
                done & (op.kind == Kind.ACCUMULATE.value) & (op.source == Source.PIXELS.value)
            ),
        ]
        with m.FSM():
            with m.State("IDLE"):
                m.d.sync += index.eq(0)
                with m.If(receiver.frame_valid):
                    m.next = "FETCH"
            with m.State("FETCH"):
                m.next = "LATCH"
            with m.State("LATCH"):
                m.d.sync += op.eq(rom_port.data)
                m.next = "START"
            with m.State("START"):
                # The previous frame's logits must have left before new ones are written.
                with m.If(~(sender.busy & (op.sink == Sink.LOGITS.value))):
                    m.d.comb += start.eq(1)
                    m.next = "RUN"
            with m.State("RUN"):
                with m.If(done):
                    with m.If(last):
                        m.d.sync += index.eq(0)
                        m.next = "IDLE"
                    with m.Else():
                        m.d.sync += index.eq(index + 1)
                        m.next = "FETCH"
        busy = Signal()
        with m.If(start):
            m.d.sync += busy.eq(1)
        with m.Elif(done & last):
            m.d.sync += busy.eq(0)

        m.d.comb += [
            engine.op.eq(op),
            engine.pixel_bank.eq(receiver.frame_bank),
            engine.start.eq(start & (op.kind == Kind.ACCUMULATE.value)),
            attention.start.eq(start & (op.kind == Kind.ATTENTION.value)),
            attention.q_base.eq(op.src_base),
            attention.k_base.eq(op.k_base),
            attention.v_base.eq(op.v_base),
            attention.dst_base.eq(op.dst_base),
        ]
        if pools:
            m.d.comb += [
                pool.start.eq(start & (op.kind == Kind.POOL.value)),
                pool.src_base.eq(op.src_base),
                pool.dst_base.eq(op.dst_base),
                pool.in_h.eq(op.height),
                pool.in_w.eq(op.width),
                pool.groups.eq(op.groups),
            ]

        # ---- spike memory: one operation owns it at a time ------------------------------------------------
        word = hw.lanes * net.timesteps
        m.submodules.spikes = spikes = Memory(shape=word, depth=max(2, program.spike_words), init=[])
        write = spikes.write_port(granularity=word // hw.subgroups)
        clients = [(Kind.ATTENTION, attention.mem), *([(Kind.POOL, pool.mem)] if pools else [])]
        wr_en, wr_addr, wr_data = engine.wr_en, engine.wr_addr, engine.wr_data
        for kind, mem in clients:
            owns = op.kind == kind.value
            wr_en, wr_addr, wr_data = (
                Mux(owns, theirs, ours)
                for theirs, ours in ((mem.wr_en, wr_en), (mem.wr_addr, wr_addr), (mem.wr_data, wr_data))
            )
        m.d.comb += [write.en.eq(wr_en), write.addr.eq(wr_addr), write.data.eq(wr_data)]
        from_spikes = op.source == Source.SPIKES.value
        for r in range(hw.rows):
            port = spikes.read_port()
            en, addr = getattr(engine, f"rd_en_{r}"), getattr(engine, f"rd_addr_{r}")
            rd_en, rd_addr = en & from_spikes, addr
            if r == 0:
                for kind, mem in clients:
                    owns = op.kind == kind.value
                    rd_en, rd_addr = Mux(owns, mem.rd_en, rd_en), Mux(owns, mem.rd_addr, rd_addr)
                    m.d.comb += mem.rd_data.eq(port.data)
            m.d.comb += [
                port.en.eq(rd_en),
                port.addr.eq(rd_addr),
                getattr(engine, f"spike_data_{r}").eq(port.data),
            ]

        # ---- pixel memory and head sums -------------------------------------------------------------------
        positions = net.image_height * net.image_width
        m.submodules.pixels = pixels = Memory(
            shape=net.image_channels * PIXEL_PLANES, depth=max(2, 2 * positions), init=[]
        )
        pixel_write = pixels.write_port(granularity=PIXEL_PLANES)
        m.d.comb += [
            pixel_write.en.eq(receiver.wr_en),
            pixel_write.addr.eq(receiver.wr_addr),
            pixel_write.data.eq(receiver.wr_data),
            head_sum.add.eq(engine.head_add),
            head_sum.clear.eq(engine.head_clear),
            head_sum.address.eq(engine.head_address),
            head_sum.value.eq(engine.head_value),
        ]
        for r in range(hw.rows):
            en, addr = getattr(engine, f"rd_en_{r}"), getattr(engine, f"rd_addr_{r}")
            port = pixels.read_port()
            m.d.comb += [
                port.en.eq(en & (op.source == Source.PIXELS.value)),
                port.addr.eq(addr),
                getattr(engine, f"pixel_data_{r}").eq(port.data),
                getattr(head_sum, f"read_en_{r}").eq(en & (op.source == Source.HEAD_SUM.value)),
                getattr(head_sum, f"read_address_{r}").eq(addr),
                getattr(head_sum, f"read_slice_{r}").eq(getattr(engine, f"rd_slice_{r}")),
                getattr(engine, f"head_data_{r}").eq(getattr(head_sum, f"read_data_{r}")),
                getattr(store, f"row_en_{r}").eq(getattr(engine, f"row_en_{r}")),
                getattr(store, f"row_address_{r}").eq(getattr(engine, f"row_address_{r}")),
                getattr(engine, f"row_data_{r}").eq(getattr(store, f"row_data_{r}")),
            ]

        # ---- weights, bus, observation --------------------------------------------------------------------
        for name in ("const_en", "const_address", "threshold_en", "threshold_address", "tile_done"):
            m.d.comb += getattr(store, name).eq(getattr(engine, name))
        for name in ("bias", "shift", "threshold", "loaded"):
            m.d.comb += getattr(engine, name).eq(getattr(store, name))
        m.d.comb += [
            sender.wr_en.eq(engine.result_en),
            sender.wr_index.eq(engine.result_index),
            sender.wr_data.eq(engine.result_data),
            receiver.tdata.eq(self.s_tdata),
            receiver.tvalid.eq(self.s_tvalid),
            receiver.tlast.eq(self.s_tlast),
            self.s_tready.eq(receiver.tready),
            self.m_tdata.eq(sender.tdata),
            self.m_tvalid.eq(sender.tvalid),
            self.m_tlast.eq(sender.tlast),
            sender.tready.eq(self.m_tready),
            self.error_short.eq(receiver.error_short),
            self.error_long.eq(receiver.error_long),
            self.busy.eq(busy | sender.busy),
            self.probe_op.eq(index),
            self.probe_start.eq(start),
            self.probe_done.eq(done),
            self.probe_acc.eq(engine.fired),
            self.probe_spike_en.eq(wr_en),
            self.probe_spike_addr.eq(wr_addr),
            self.probe_spike_data.eq(wr_data),
            self.probe_u_en.eq(engine.probe_u_en),
            self.probe_u_addr.eq(engine.probe_u_addr),
            self.probe_u_data.eq(engine.probe_u_data),
            self.probe_y_en.eq(attention.y_en),
            self.probe_y_token.eq(attention.y_token),
            self.probe_y_t.eq(attention.y_t),
            self.probe_y_head.eq(attention.y_head),
            self.probe_y_data.eq(attention.y_data.as_value()),
        ]
        if hw.weight_memory == "stream":
            m.d.comb += [
                store.tdata.eq(self.w_tdata),
                store.tvalid.eq(self.w_tvalid),
                store.tlast.eq(self.w_tlast),
                self.w_tready.eq(store.tready),
                self.error_weights.eq(store.error),
            ]
        return m
