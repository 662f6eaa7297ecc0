"""Post-processing: what happens to a piece of sums until its spikes, its U or its logits are written."""

from __future__ import annotations

from amaranth import Cat, Const, Module, Mux, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from s2tdpt.golden.arith import signed_range
from s2tdpt.golden.operand import LEVELS
from s2tdpt.hw.blocks.combine import PlaneCombiner
from s2tdpt.hw.blocks.delay import delayed
from s2tdpt.hw.blocks.drain import tag_layout
from s2tdpt.hw.blocks.head import HeadSum
from s2tdpt.hw.blocks.levels import LEVELS_DELAY, LevelsPipeline
from s2tdpt.hw.blocks.lif_pipeline import LifPipeline
from s2tdpt.hw.blocks.pool import OrPool
from s2tdpt.hw.blocks.reader import ReadPort
from s2tdpt.hw.blocks.residual import ResidualStream
from s2tdpt.hw.blocks.scale import Scale
from s2tdpt.hw.blocks.step_rom import SinkField
from s2tdpt.hw.blocks.timing import SUMS_DELAY, PostTiming
from s2tdpt.hw.fixed import exact
from s2tdpt.hw.plan.program import Program
from s2tdpt.hw.plan.records import (
    WEIGHT_DELAY,
    ConstantPort,
    ProjectionPort,
    Sizes,
    SpikeWrite,
)
from s2tdpt.hw.plan.widths import Widths


class ResultPort(wiring.Signature):
    """A piece of logits, seen from the post-processing.

    Members
    -------
    en : ``Out(1)``
    piece : ``Out``
    data : ``Out(ArrayLayout(signed(combined), post_lanes))``
    """

    def __init__(self, program: Program, sizes: Sizes, widths: Widths):
        logits = data.ArrayLayout(signed(widths.combined), program.machine.post_lanes)
        super().__init__({"en": Out(1), "piece": Out(sizes.piece), "data": Out(logits)})


class PieceProbe(wiring.Signature):
    """Observation: spikes of a piece as the neurons emit them, and its U.

    Members
    -------
    en, step, position, piece, spikes
        Spikes of a piece, of whichever sink; numbers as in `ProjectionPort`.
    u_en, u_step, u_address, u_data
        A word of U as it is written, `post_lanes` x T values.
    """

    def __init__(self, program: Program, sizes: Sizes, widths: Widths):
        super().__init__(
            {
                "en": Out(1),
                "step": Out(sizes.step),
                "position": Out(sizes.position),
                "piece": Out(sizes.piece),
                "spikes": Out(program.piece_bits * program.emitted_bits),
                "u_en": Out(1),
                "u_step": Out(sizes.step),
                "u_address": Out(sizes.residual_address),
                "u_data": Out(program.piece_bits * widths.residual),
            }
        )


class PostProcessor(wiring.Component):
    """Planes, scale and bias, membrane stream, neurons, pooling; or the logits.

    Nothing here stalls: every part has a constant delay, and a tag travels beside each piece.

    Latency: `timing.written_at` from a piece's tag to its write; throughput: one piece a cycle.
    Resources: those of the parts, and the delays of the tags.

    Parameters
    ----------
    program : Program
    sizes : Sizes
    widths : Widths

    Members
    -------
    valid, tag, constant : In
        From `drain.DrainSequencer`.
    sums : In
        From `lanes.LaneArray`, one cycle after the tag.
    constants : Out(ConstantPort)
    write : Out(SpikeWrite)
    projections : Out(ProjectionPort)
    results : Out(ResultPort)
    head_sums : In(ReadPort)
    tile_complete : Out(1)
        A tile's last write is in memory from the next cycle on.
    probe : Out(PieceProbe)
    """

    def __init__(self, program: Program, sizes: Sizes, widths: Widths):
        self._program, self._sizes, self._widths = program, sizes, widths
        self.timing = PostTiming(program)
        net, machine = program.network, program.machine
        lanes, steps = machine.post_lanes, net.timesteps
        self._combiner = PlaneCombiner(
            lanes=lanes,
            planes=steps,
            subgroups=machine.subgroups,
            sum_width=widths.accumulator,
            width=widths.combined,
        )
        self._residual = ResidualStream(
            lanes=lanes,
            timesteps=steps,
            depth=net.tokens * program.residual_pieces,
            value_width=widths.value,
            width=widths.residual,
        )
        self._lif = LifPipeline(
            lanes=lanes,
            timesteps=steps,
            x_width=widths.value,
            threshold_width=widths.threshold,
            membrane=signed_range(widths.membrane),
            laws=program.laws[:-1] if program.has_levels else program.laws,
        )
        self._levels = None
        if program.has_levels:
            self._levels = LevelsPipeline(
                lanes=lanes, timesteps=steps, x_width=widths.value, threshold_width=widths.threshold
            )
        self._head = HeadSum(
            lanes=lanes,
            timesteps=steps,
            pieces=program.residual_pieces,
            value_width=widths.value,
            width=widths.head_sum,
            passes=program.head_passes,
        )
        pooled_widths = [step.width for step in program.steps if step.pooled]
        self._pool = OrPool(
            piece_bits=program.piece_bits,
            subgroups=machine.subgroups,
            max_width=max(pooled_widths, default=1),
            min_width=min(pooled_widths, default=1),
        )
        sums = data.ArrayLayout(signed(widths.accumulator), steps)
        super().__init__(
            {
                "valid": In(1),
                "tag": In(tag_layout(sizes)),
                "constant": In(sizes.constant),
                "sums": In(data.ArrayLayout(sums, lanes)),
                "constants": Out(ConstantPort(program, sizes, widths)),
                "write": Out(SpikeWrite(program, sizes)),
                "projections": Out(ProjectionPort(program, sizes)),
                "results": Out(ResultPort(program, sizes, widths)),
                "head_sums": In(ReadPort(sizes, program.piece_bits)),
                "tile_complete": Out(1),
                "probe": Out(PieceProbe(program, sizes, widths)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        tags = [self.tag]
        valid = [self.valid]
        for stage in range(1, self.timing.written_at + 1):
            tags.append(delayed(m, tags[-1], name=f"tag_{stage}"))
            valid.append(delayed(m, valid[-1], name=f"valid_{stage}", init=0))
        thresholds = self._fetch_constants(m, valid)
        self._combine_and_scale(m, tags, valid)
        self._membranes(m, tags, valid, thresholds)
        self._outputs(m, tags, valid, thresholds)
        return m

    def _fetch_constants(self, m, valid):
        """Asks for a piece's constants in time to scale it; returns its thresholds beside the membranes."""
        used = self.timing.value_at - 1  # with the number about to be scaled
        asked = used - WEIGHT_DELAY
        address = delayed(m, self.constant, asked, "constant")
        m.d.comb += [self.constants.en.eq(valid[asked]), self.constants.address.eq(address)]
        threshold = Cat(c.threshold for c in self.constants.data)
        return delayed(m, threshold, self.timing.membrane_at - used, "threshold")

    def _combine_and_scale(self, m, tags, valid):
        m.submodules.combiner = combiner = self._combiner
        m.submodules.scale = scale = Scale(self._program, self._widths)
        tag = tags[SUMS_DELAY]
        sums = delayed(m, self.sums, combiner.delay, "sums")
        m.d.comb += [
            combiner.en.eq(valid[SUMS_DELAY] & tag.by_planes),
            combiner.first.eq(tag.first_pass),
            combiner.negate.eq(tag.first_pass & tag.signed_planes),
            combiner.subgroup.eq(tag.subgroup),
            combiner.sums.eq(self.sums),
            scale.by_planes.eq(tags[self.timing.scaled_at].by_planes),
            scale.sums.eq(sums),
            scale.total.eq(combiner.total),
            scale.constants.eq(self.constants.data),
        ]
        # Logits: the number and its bias at full width.
        at = self.timing.value_at - 1
        totals = delayed(m, combiner.total, name="total")
        result, tag = self.results, tags[at]
        is_logit = valid[at] & tag.last_pass & (tag.sink == SinkField.LOGITS)
        m.d.sync += result.en.eq(is_logit)
        m.d.comb += result.piece.eq(delayed(m, tag.piece, name="result_piece"))
        for lane in range(self._program.machine.post_lanes):
            logit = exact(totals[lane] + self.constants.data[lane].bias, signed(self._widths.combined))
            m.d.comb += result.data[lane].eq(delayed(m, logit, name=f"logit_{lane}"))
        m.d.comb += self._residual.value.eq(scale.value)

    def _membranes(self, m, tags, valid, thresholds):
        """U, its sums for the head, and the neurons."""
        m.submodules.residual = residual = self._residual
        m.submodules.head = head = self._head
        m.submodules.lif = lif = self._lif
        if hasattr(lif, "law"):
            m.d.comb += lif.law.eq(tags[self.timing.membrane_at].law)
        early, now = self.timing.value_at - residual.read_lead, self.timing.value_at

        def writes_u(at):
            return valid[at] & tags[at].last_pass & (tags[at].sink == SinkField.RESIDUAL)

        after = tags[self.timing.membrane_at]
        m.d.comb += [
            residual.read_en.eq(writes_u(early) & ~tags[early].first_writer),
            residual.read_address.eq(tags[early].residual_address),
            residual.update.eq(writes_u(now)),
            head.add.eq(writes_u(self.timing.membrane_at) & after.sums_head),
            head.clear.eq(after.first_position),
            head.piece.eq(after.piece),
            head.values.eq(residual.result),
            head.read_en.eq(self.head_sums.en),
            head.read_piece.eq(self.head_sums.address),
            head.read_pass.eq(self.head_sums.plane_pass),
            self.head_sums.data.eq(head.read_data),
            lif.x.eq(residual.result),
            lif.threshold.eq(thresholds),
            self.probe.u_en.eq(residual.write_en),
            self.probe.u_step.eq(after.step),
            self.probe.u_address.eq(residual.write_address),
            self.probe.u_data.eq(residual.write_data),
        ]

    def _emitted(self, m, tag, thresholds):
        """Of a piece, when `spikes_at` has come: which neurons fire, and what they emit."""
        program, lif = self._program, self._lif
        stages = self.timing.spikes_at - self.timing.membrane_at
        spikes = delayed(m, lif.spikes, stages - lif.delay, "fired")
        if program.emitted_bits == 1:
            return spikes, spikes
        numbers = [Cat(spike) for spike in spikes]
        if hasattr(lif, "signs"):
            signs = delayed(m, lif.signs, stages - lif.delay, "sign")
            numbers = [Cat(pair) for pair in zip(spikes, signs, strict=True)]
        if self._levels is not None:
            m.submodules.levels = levels = self._levels
            m.d.comb += [levels.x.eq(lif.x), levels.threshold.eq(thresholds)]
            late = delayed(m, levels.levels.as_value(), stages - LEVELS_DELAY, "level")
            graded = tag.law == len(program.laws) - 1
            numbers = [
                Mux(graded, late.word_select(n, LEVELS.bits), number) for n, number in enumerate(numbers)
            ]
        whole = [Cat(number, Const(0, program.emitted_bits))[: program.emitted_bits] for number in numbers]
        return spikes, Cat(whole)

    def _outputs(self, m, tags, valid, thresholds):
        """Spikes into the memory, through the pool or past it, or to the attention."""
        m.submodules.pool = pool = self._pool
        write, projections = self.write, self.projections
        tag, probe = tags[self.timing.spikes_at], self.probe
        fired, emitted = self._emitted(m, tag, thresholds)
        fires = valid[self.timing.spikes_at] & tag.last_pass
        is_projection = fires & (tag.sink == SinkField.ATTENTION)
        m.d.comb += [
            pool.en.eq(fires & tag.pooled),
            pool.subgroup.eq(tag.subgroup),
            pool.column.eq(tag.column),
            *(
                pool_flag.eq(flag)
                for pool_flag, flag in (
                    (pool.odd_x, tag.odd_x),
                    (pool.last_x, tag.last_x),
                    (pool.first_y, tag.first_y),
                    (pool.odd_y, tag.odd_y),
                    (pool.last_y, tag.last_y),
                )
            ),
            pool.spikes.eq(fired),
            projections.en.eq(is_projection),
            projections.projection.eq(tag.projection),
            projections.token.eq(tag.position),
            projections.piece.eq(tag.piece),
            projections.spikes.eq(emitted),
            probe.en.eq(fires & (tag.writes_spikes | is_projection)),
            probe.step.eq(tag.step),
            probe.position.eq(tag.position),
            probe.piece.eq(tag.piece),
            probe.spikes.eq(emitted),
        ]
        m.d.sync += [
            projections.ready.eq(is_projection & tag.tile_end & (tag.heads_ready != 0)),
            projections.heads.eq(tag.heads_ready),
            projections.base.eq(tag.base),
        ]
        last = tags[self.timing.written_at]
        spikes = delayed(m, fired, pool.delay, "spikes")
        writes = valid[self.timing.written_at] & last.last_pass & last.writes_spikes
        m.d.comb += [
            write.en.eq(writes & (~last.pooled | pool.out_en)),
            write.address.eq(last.address),
            write.subgroup.eq(last.subgroup),
            write.final.eq(last.final),
            write.spikes.eq(Mux(last.pooled, pool.out, spikes)),
            self.tile_complete.eq(valid[self.timing.written_at] & last.tile_end),
        ]
