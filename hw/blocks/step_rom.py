"""The layer program as bits: two records a step, one for the walk over its words, one for its drain.

The walk of a step begins while the step before it still drains, so each side has its own small ROM and goes
through it at its own pace. Every field is just wide enough for the program.
"""

from __future__ import annotations

from amaranth import Module, Signal, unsigned
from amaranth.lib import data, enum, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from s2tdpt.hw.blocks.overlap import settle_cycles
from s2tdpt.hw.plan.program import WINDOW, Program, Sink, Source, Step
from s2tdpt.hw.plan.records import FETCH_CYCLES, bits_for


class SourceField(enum.Enum, shape=unsigned(2)):
    """`program.Source` as bits."""

    SPIKES = Source.SPIKES.value
    PIXELS = Source.PIXELS.value
    HEAD_SUM = Source.HEAD_SUM.value


class SinkField(enum.Enum, shape=unsigned(2)):
    """`program.Sink` as bits."""

    SPIKES = Sink.SPIKES.value
    RESIDUAL = Sink.RESIDUAL.value
    ATTENTION = Sink.ATTENTION.value
    LOGITS = Sink.LOGITS.value


def walk_fields(step: Step, program: Program, settle: int | None = None) -> dict[str, int]:
    """Field values of the walk over a step's words.

    ``last_*`` are the largest values of counters; `stride` is the address step from one position to the
    next, `line` from one row of the map to the next, `word_rows`, `tap_rows` and `line_rows` the weight rows
    of an input word, of a tap and of a row of taps. `after` counts the steps that must be complete; a step
    that `follows` the one before need not wait for that, but `settle` cycles once it has ended.
    """
    machine = program.machine
    return {
        "source": step.source.value,
        "kernel3": int(step.kernel == WINDOW),
        "last_x": step.width - 1,
        "last_y": step.height - 1,
        "last_word": step.packing_in.groups - 1,
        "last_pass": step.passes - 1,
        "stride": step.stride,
        "line": step.stride * step.width,
        "word_rows": step.word_rows(machine),
        "tap_rows": step.tap_rows(machine),
        "line_rows": WINDOW * step.tap_rows(machine),
        "src_base": step.src_base,
        "tile_base": step.tile_base,
        "cooldown": step.subgroups(machine) - 1,
        "final_cooldown": step.subgroups(machine) + FETCH_CYCLES - 1,
        "after": step.after + 1,
        "follows": int(settle is not None),
        "settle": settle or 0,
        "after_attention": step.after_attention,
    }


def drain_fields(step: Step, program: Program) -> dict[str, int]:
    """Field values of what happens to a step's sums.

    `first_piece` is the number of the tile's first piece among the pieces of a token, `dst_stride` the
    address step between positions (between pooled positions where `pooled`).
    """
    machine = program.machine
    return {
        "sink": step.sink.value,
        "by_planes": int(step.source is not Source.SPIKES),
        "signed_planes": int(
            step.source is Source.HEAD_SUM
            or (step.source is Source.PIXELS and program.network.pixel_zero_point != 0)
        ),
        "last_pass": step.passes - 1,
        "last_x": step.width - 1,
        "last_y": step.height - 1,
        "last_subgroup": step.subgroups(machine) - 1,
        "last_group": int(step.group == step.packing_out.groups - 1),
        "first_piece": step.group * machine.subgroups,
        "dst_base": step.dst_base + (step.group if step.sink is not Sink.ATTENTION else 0),
        "dst_stride": step.packing_out.groups,
        "const_base": step.const_base,
        "pooled": int(step.pooled),
        "first_writer": int(step.first_writer),
        "writes_spikes": int(step.writes_spikes and step.sink in (Sink.SPIKES, Sink.RESIDUAL)),
        "sums_head": int(step.sums_head),
        "projection": step.projection,
        "heads_ready": step.heads_ready,
    } | ({"law": step.law} if len(program.laws) > 1 else {})


class StepRecords:
    """Layouts and contents of the two ROMs of one program.

    Attributes
    ----------
    walk_layout, drain_layout : data.StructLayout
    walk_words, drain_words : list of int
    """

    def __init__(self, program: Program):
        settle = settle_cycles(program)
        self.walk_layout, self.walk_words = self._encode(
            [walk_fields(step, program, cycles) for step, cycles in zip(program.steps, settle, strict=True)]
        )
        self.drain_layout, self.drain_words = self._encode([drain_fields(s, program) for s in program.steps])

    @staticmethod
    def _encode(records: list[dict[str, int]]) -> tuple[data.StructLayout, list[int]]:
        widths = {name: bits_for(max(record[name] for record in records)) for name in records[0]}
        if "source" in widths:
            widths["source"] = SourceField
        if "sink" in widths:
            widths["sink"] = SinkField
        layout = data.StructLayout(widths)
        words = []
        for record in records:
            words.append(sum(value << layout[name].offset for name, value in record.items()))
        return layout, words


class StepRom(wiring.Component):
    """Records in program order, one ahead: `record` is the next step's.

    Latency: `valid` is low for two cycles after `advance`, for one after reset. `record` and `index` are
    there a cycle before it rises, so that what depends on them can stand in registers. After the last record
    it begins anew.
    Resources: a ROM of the record's width, a register behind it.

    Parameters
    ----------
    layout : data.StructLayout
    words : list of int

    Members
    -------
    record : Out(layout)
    index : Out
        Its step.
    valid : Out(1)
    advance : In(1)
        Pulse while `valid`: go to the next record.
    """

    def __init__(self, layout: data.StructLayout, words: list[int]):
        self._words = words
        self._layout = layout
        super().__init__(
            {
                "record": Out(layout),
                "index": Out(bits_for(len(words) - 1)),
                "valid": Out(1),
                "advance": In(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        depth = len(self._words)
        padded = [*self._words, *([0] * (2 - depth))]
        m.submodules.words = memory = Memory(shape=self._layout.size, depth=max(2, depth), init=padded)
        port = memory.read_port()
        record = Signal(self._layout.size, init=self._words[0])
        following = Signal.like(self.index, init=1 % depth)  # the ROM is read ahead of `advance`
        stale = Signal()
        m.d.comb += [port.addr.eq(following), port.en.eq(1), self.record.as_value().eq(record)]
        with m.If(self.advance):
            m.d.sync += [self.valid.eq(0), stale.eq(1)]
        with m.Elif(stale):
            m.d.sync += [record.eq(port.data), self.index.eq(following), stale.eq(0)]
            with m.If(following == depth - 1):
                m.d.sync += following.eq(0)
            with m.Else():
                m.d.sync += following.eq(following + 1)
        with m.Else():
            m.d.sync += self.valid.eq(1)
        return m
