"""Post-processing: what happens to a position's sums until its spikes are in memory."""

from __future__ import annotations

from amaranth import Array, Cat, Module, Mux, Signal, Value, signed, unsigned
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from s2tdpt.golden.arith import signed_range, unsigned_bits
from s2tdpt.hw.combine import PlaneCombiner
from s2tdpt.hw.config import PIXEL_PLANES
from s2tdpt.hw.lif import LifCell
from s2tdpt.hw.operation import OperationLayout, Sink, Source
from s2tdpt.hw.residual import ResidualStream
from s2tdpt.hw.schedule import Program
from s2tdpt.hw.widths import Widths

PIPELINE = 5
"""Cycles from the issue of a micro-step to the end of its last write."""


def times(value: Value, factor: int) -> Value:
    """Product with a constant as shifts and additions."""
    terms = [value << bit for bit in range(factor.bit_length()) if factor >> bit & 1]
    return sum(terms[1:], terms[0])


class PostProcessor(wiring.Component):
    """Drains the accumulators: bias and scale, membrane stream, LIF, spike words; or the logits.

    A position is drained in micro-steps, one a cycle, for each group of `post_lanes` channels:

    ==========  ==============================================
    source      micro-steps of a group
    ==========  ==============================================
    spikes      T (one a time step)
    pixels      8 bit planes, then T (the sum is the same for every step)
    head sum    8 bit planes, then 1 (the bias, or nothing before the last slice)
    ==========  ==============================================

    Latency: 5 cycles from a micro-step to the end of its write. Throughput: one micro-step a cycle, with no
    gap between groups or positions.
    Resources: post_lanes x (shifter, adder, U adder, LIF, Horner adder), the U memory.

    Parameters
    ----------
    program : Program
    layout : OperationLayout
    widths : Widths

    Members
    -------
    op, start, done
        Operation record, stable from `start` to `done`.
    full_{r}, release_{r}, sums_{r}, touched_{r}, plane
        Accumulators of row r (`accumulate.SpikeAccumulator`).
    const_en, const_address, bias, shift
        Constant memory, one cycle of latency.
    threshold_en, threshold_address, threshold
        Threshold memory, one cycle of latency.
    tile_done : Out(1)
        The constants and weights of the oldest tile are no longer needed.
    wr_en, wr_addr, wr_data
        Spike memory write port, one enable a lane group.
    head_add, head_clear, head_address, head_value
        To `head.HeadSum`.
    result_en, result_index, result_data
        Logits, `post_lanes` at a time.
    probe_u_en, probe_u_addr, probe_u_data
        Every word written to U.
    """

    def __init__(self, program: Program, layout: OperationLayout, widths: Widths, *, address_width: int):
        self._program, self._layout, self._widths = program, layout, widths
        net, hw = program.network, program.hardware
        self._groups_u = -(-net.embed_dim // hw.lanes)
        self._u_depth = net.tokens * self._groups_u * hw.subgroups * net.timesteps
        self._planes = max(net.timesteps, PIXEL_PLANES)
        self._stream = hw.weight_memory == "stream"
        self._const_depth = max(2, 2 * hw.subgroups if self._stream else program.const_words)
        w, p, lanes = widths, hw.post_lanes, hw.lanes
        const_address = range(self._const_depth)
        head_groups = -(-net.num_classes // hw.lanes) * hw.subgroups
        self._head_groups = head_groups
        members = {
            "op": In(layout),
            "start": In(1),
            "done": Out(1),
            "plane": Out(unsigned_bits(self._planes - 1)),
            "const_en": Out(1),
            "const_address": Out(const_address),
            "bias": In(p * w.bias),
            "shift": In(p * w.shift),
            "threshold_en": Out(1),
            "threshold_address": Out(const_address),
            "threshold": In(p * w.threshold),
            "tile_done": Out(1),
            "wr_en": Out(hw.subgroups),
            "wr_addr": Out(address_width),
            "wr_data": Out(lanes * net.timesteps),
            "head_add": Out(1),
            "head_clear": Out(1),
            "head_address": Out(range(max(2, self._groups_u * hw.subgroups))),
            "head_value": Out(p * w.value),
            "result_en": Out(1),
            "result_index": Out(range(max(2, head_groups))),
            "result_data": Out(p * w.combined),
            "probe_u_en": Out(1),
            "probe_u_addr": Out(range(max(2, self._u_depth))),
            "probe_u_data": Out(p * w.residual),
        }
        for r in range(hw.rows):
            members |= {
                f"full_{r}": In(1),
                f"release_{r}": Out(1),
                f"sums_{r}": In(lanes * w.accumulator),
                f"touched_{r}": In(1),
            }
        super().__init__(members)

    def elaborate(self, platform):
        m = Module()
        net, hw, w = self._program.network, self._program.hardware, self._widths
        op, layout = self.op, self._layout
        steps, post = net.timesteps, hw.post_lanes

        # ---- issue: which micro-step comes next ---------------------------------------------------------
        busy = Signal()
        group = Signal(layout["out_groups"].width)
        position = Signal(layout["positions"].width)
        row = Signal(range(max(2, hw.rows)))
        subgroup = Signal(range(max(2, hw.subgroups)))
        step = Signal(range(max(2, steps)))
        plane = Signal(range(PIXEL_PLANES), init=PIXEL_PLANES - 1)
        in_planes = Signal()  # draining bit planes, not yet time steps
        const_row = Signal(range(self._const_depth))
        spike_address = Signal(len(self.wr_addr))
        u_row, u_offset = Signal(range(max(2, self._u_depth))), Signal(range(max(2, self._u_depth)))

        by_planes = op.source != Source.SPIKES.value
        to_logits = op.sink == Sink.LOGITS.value
        last_group = group == op.out_groups - 1
        subgroups = Mux(last_group, op.last_subgroups, op.subgroups)
        issue, tail = Signal(), Signal()
        last_step, group_end, position_end, all_end = Signal(), Signal(), Signal(), Signal()
        m.d.comb += [
            issue.eq(busy & Array(getattr(self, f"full_{r}") for r in range(hw.rows))[row]),
            tail.eq(issue & ~in_planes),  # a time step, or the head's bias
            last_step.eq(tail & (to_logits | (step == steps - 1))),
            group_end.eq(last_step & (subgroup == subgroups - 1)),
            position_end.eq(group_end & (position == op.positions - 1)),
            all_end.eq(position_end & last_group),
            self.plane.eq(Mux(in_planes, plane, step)),
        ]
        for r in range(hw.rows):
            m.d.comb += getattr(self, f"release_{r}").eq(group_end & (row == r))
        with m.If(self.start):
            m.d.sync += [
                busy.eq(1),
                group.eq(0),
                position.eq(0),
                row.eq(0),
                subgroup.eq(0),
                step.eq(0),
                plane.eq(PIXEL_PLANES - 1),
                in_planes.eq(by_planes),
                spike_address.eq(op.dst_base),
                u_row.eq(0),
                u_offset.eq(0),
            ]
            if not self._stream:
                m.d.sync += const_row.eq(op.const_base)
        with m.Elif(issue):
            with m.If(in_planes):
                m.d.sync += [plane.eq(plane - 1), in_planes.eq(plane != 0)]
            with m.Else():
                m.d.sync += [step.eq(Mux(last_step, 0, step + 1)), u_offset.eq(u_offset + 1)]
            with m.If(last_step):
                m.d.sync += [
                    plane.eq(PIXEL_PLANES - 1),
                    in_planes.eq(by_planes),
                    subgroup.eq(Mux(group_end, 0, subgroup + 1)),
                ]
            with m.If(group_end):
                m.d.sync += [
                    position.eq(Mux(position_end, 0, position + 1)),
                    row.eq(Mux(position_end | (row == hw.rows - 1), 0, row + 1)),
                    spike_address.eq(spike_address + op.out_groups),
                    u_row.eq(u_row + self._groups_u * hw.subgroups * steps),
                    u_offset.eq(0),
                ]
            with m.If(position_end):
                m.d.sync += [
                    busy.eq(~last_group),
                    group.eq(group + 1),
                    spike_address.eq(op.dst_base + group + 1),
                ]
                if self._stream:
                    m.d.sync += const_row.eq(Mux(const_row == 0, hw.subgroups, 0))
                else:
                    m.d.sync += const_row.eq(const_row + op.subgroups)
                m.d.sync += u_row.eq(times(group + 1, hw.subgroups * steps))

        def delayed(value, stages: int, name: str):
            for n in range(1, stages + 1):
                following = Signal.like(value, name=f"{name}_{n}")
                m.d.sync += following.eq(value)
                value = following
            return value

        # ---- stage 0: the accumulators and constants are read ---------------------------------------------
        final = delayed(subgroup == subgroups - 1, 1, "final")
        u_address = delayed(u_row + u_offset, 1, "u_address")
        first_plane = delayed(plane == PIXEL_PLANES - 1, 1, "first_plane")
        first_step = delayed(step == 0, 1, "first_step")
        first_slice = delayed(position == 0, 1, "first_slice")
        last_slice = delayed(position == op.positions - 1, 1, "last_slice")
        const_address = delayed(const_row + subgroup, 1, "const_address")
        issue, tail = delayed(issue, 1, "issue"), delayed(tail, 1, "tail")
        last_step = delayed(last_step, 1, "last_step")
        all_end, position_end = delayed(all_end, 1, "all_end"), delayed(position_end, 1, "position_end")
        group, subgroup = delayed(group, 1, "group"), delayed(subgroup, 1, "subgroup")
        row = delayed(row, 1, "row")
        step, spike_address = delayed(step, 1, "step"), delayed(spike_address, 1, "spike_address")
        m.d.comb += [self.const_en.eq(issue), self.const_address.eq(const_address)]

        # ---- stage 1: one group of lanes ------------------------------------------------------------------
        sums = Signal(post * w.accumulator)
        rows = Array(getattr(self, f"sums_{r}") for r in range(hw.rows))
        row_sums = Signal(hw.lanes * w.accumulator)
        m.d.comb += row_sums.eq(rows[row])
        parts = Array(row_sums.word_select(s, post * w.accumulator) for s in range(hw.subgroups))
        touched = Array(getattr(self, f"touched_{r}") for r in range(hw.rows))[row]
        m.d.sync += sums.eq(Mux(touched, parts[subgroup], 0))
        issue_1, tail_1 = delayed(issue, 1, "issue"), delayed(tail, 1, "tail")
        first_plane_1 = delayed(first_plane, 1, "first_plane")
        last_slice_1 = delayed(last_slice, 1, "last_slice")
        signed_pixels = int(net.pixel_zero_point != 0)
        negate = first_plane & Mux(to_logits, first_slice, signed_pixels)
        combiner_group_1 = delayed(subgroup + times(group, hw.subgroups), 1, "combiner_group")
        m.submodules.combiner = combiner = PlaneCombiner(
            lanes=post, groups=self._head_groups, sum_width=w.accumulator, bias_width=w.bias, width=w.combined
        )
        bias_1 = self.bias
        m.d.comb += [
            combiner.en.eq(issue_1 & Mux(tail_1, to_logits & last_slice_1, 1)),
            combiner.first.eq(first_plane_1),
            combiner.resume.eq(to_logits & ~delayed(first_slice, 1, "first_slice")),
            combiner.negate.eq(delayed(negate, 1, "negate")),
            combiner.add_bias.eq(tail_1),
            combiner.save.eq(tail_1 & to_logits & ~last_slice_1),
            combiner.group.eq(combiner_group_1),
            combiner.sums.eq(sums),
            combiner.bias.eq(bias_1),
        ]
        values = []
        for lane in range(post):
            total = combiner.total.word_select(lane, w.combined).as_signed()
            own = sums.word_select(lane, w.accumulator).as_signed()
            shift = self.shift.word_select(lane, w.shift)
            bias = bias_1.word_select(lane, w.bias).as_signed()
            value = Signal(signed(w.value), name=f"value_{lane}")
            # Proven: the scaled and biased sum fits `value` bits, so arithmetic modulo 2^value is exact.
            source = Signal(signed(w.value), name=f"source_{lane}")
            scaled = Signal(signed(w.value), name=f"scaled_{lane}")
            m.d.comb += [source.eq(Mux(by_planes, total, own)), scaled.eq(source << shift)]
            m.d.sync += value.eq(scaled + bias)
            values.append(value)

        # ---- stage 2: membrane stream, or the logits ------------------------------------------------------
        to_residual = op.sink == Sink.RESIDUAL.value
        value_step_1 = tail_1 & ~to_logits
        value_step_2 = delayed(value_step_1, 1, "value_step")
        m.submodules.residual = residual = ResidualStream(
            lanes=post, depth=self._u_depth, value_width=w.value, width=w.residual
        )
        m.d.comb += [
            residual.read_en.eq(value_step_1 & to_residual),
            residual.address.eq(delayed(u_address, 1, "u_address")),
            residual.update.eq(value_step_2 & to_residual),
            residual.keep.eq(~op.first_writer),
            residual.value.eq(Cat(values)),
            self.threshold_en.eq(value_step_2),
            self.threshold_address.eq(delayed(const_address, 2, "threshold_address")),
            self.probe_u_en.eq(residual.update),
            self.probe_u_addr.eq(residual.write_address),
            self.probe_u_data.eq(
                Cat(residual.result.word_select(i, w.value)[: w.residual] for i in range(post))
            ),
            self.result_en.eq(delayed(tail_1 & to_logits & last_slice_1, 1, "result")),
            self.result_index.eq(delayed(combiner_group_1, 1, "result_index")),
            self.result_data.eq(combiner.total),
        ]

        # ---- stage 3: LIF ---------------------------------------------------------------------------------
        value_step_3 = delayed(value_step_2, 1, "value_step_2")
        first_step_3 = delayed(first_step, 3, "first_step")
        m.submodules.lif = lif = LifCell(
            post, signed(w.value), membrane=signed_range(w.membrane), threshold=unsigned(w.threshold)
        )
        drive = delayed(residual.result, 1, "drive")
        m.d.comb += [
            lif.en.eq(value_step_3),
            lif.first.eq(first_step_3),
            lif.x.eq(drive),
            lif.threshold.eq(self.threshold),
            self.head_add.eq(value_step_3 & op.sums_head),
            self.head_clear.eq(first_step_3 & delayed(first_slice, 3, "first_position")),
            self.head_address.eq(delayed(subgroup + times(group, hw.subgroups), 3, "head_address")),
            self.head_value.eq(drive),
        ]

        # ---- stage 4: a word of spikes --------------------------------------------------------------------
        fired = Signal(post * steps)
        step_3 = delayed(step, 3, "step")
        for t in range(steps):
            with m.If(value_step_3 & (step_3 == t)):
                m.d.sync += [fired[lane * steps + t].eq(lif.spikes[lane]) for lane in range(post)]
        last_step_4 = delayed(
            last_step & ~to_logits & (op.writes_spikes | (op.sink == Sink.SPIKES.value)), 4, "word"
        )
        subgroup_4 = delayed(subgroup, 4, "subgroup")
        final_4 = delayed(final, 4, "final")
        m.d.comb += self.wr_addr.eq(delayed(spike_address, 4, "spike_address"))
        for s in range(hw.subgroups):
            own = subgroup_4 == s
            # The last group of a word also clears the lanes above it, which hold an older tensor.
            m.d.comb += [
                self.wr_en[s].eq(last_step_4 & (own | (final_4 & (subgroup_4 < s)))),
                self.wr_data.word_select(s, post * steps).eq(Mux(own, fired, 0)),
            ]
        m.d.comb += [
            self.done.eq(delayed(all_end, PIPELINE - 1, "all_end")),
            self.tile_done.eq(delayed(position_end, PIPELINE - 1, "position_end")),
        ]
        return m
