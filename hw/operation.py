"""The layer program as bits: one record an operation, held in a small ROM.

`OperationLayout` sizes every field for one program; `encode` is its twin that turns an
`schedule.Operation` into the integer stored in the ROM.
"""

from __future__ import annotations

import enum

from amaranth.lib import data

from s2tdpt.golden.arith import unsigned_bits
from s2tdpt.hw.schedule import Operation, Program


class Kind(enum.Enum):
    ACCUMULATE = 0
    POOL = 1
    ATTENTION = 2


class Source(enum.Enum):
    SPIKES = 0
    PIXELS = 1
    HEAD_SUM = 2


class Sink(enum.Enum):
    SPIKES = 0
    RESIDUAL = 1
    LOGITS = 2


def operation_fields(op: Operation, program: Program) -> dict[str, int]:
    """Field values of one operation; addresses in words, counts as they are.

    `pos_stride` is the address step from one position to the next, `line` from one map row to the next
    and `rows_tap`/`rows_line` the weight rows of one tap and of a row of taps.
    """
    lanes, post = program.hardware.lanes, program.hardware.post_lanes
    fields = {
        "kind": Kind[op.kind.upper()].value,
        "source": Source[op.source.upper()].value,
        "sink": Sink[op.sink.upper()].value,
        "kernel3": int(op.kernel == 3),
        "height": op.height,
        "width": op.width,
        "positions": op.positions,
        "src_base": op.src_base,
        "dst_base": op.dst_base,
        "k_base": op.k_base,
        "v_base": op.v_base,
        "first_writer": int(op.first_writer),
        "writes_spikes": int(op.writes_spikes),
        "sums_head": int(op.sums_head),
    }
    groups = op.packing_in.groups
    fields["groups"] = groups
    if op.kind == "accumulate":
        stride = 0 if op.source == "head_sum" else groups
        fields |= {
            "pos_stride": stride,
            "line": stride * op.width,
            "rows_tap": op.rows_tap,
            "rows_line": 3 * op.rows_tap,
            "tile_rows": op.tile_rows,
            "tile_base": op.tile_base,
            "const_base": op.const_base,
            "out_groups": op.packing_out.groups,
            "subgroups": op.subgroups(0, post),
            "last_subgroups": op.subgroups(op.packing_out.groups - 1, post),
        }
    assert all(value >= 0 for value in fields.values()) and lanes >= post
    return fields


class OperationLayout(data.StructLayout):
    """Layout of an operation record, each field just wide enough for the program.

    Parameters
    ----------
    program : Program
    """

    def __init__(self, program: Program):
        records = [operation_fields(op, program) for op in program.ops]
        names = list(dict.fromkeys(name for record in records for name in record))
        widths = {name: max(1, unsigned_bits(max(r.get(name, 0) for r in records))) for name in names}
        self._records = [{name: record.get(name, 0) for name in names} for record in records]
        super().__init__(widths)

    def words(self) -> list[int]:
        """ROM contents, one integer an operation."""
        words = []
        for record in self._records:
            word = 0
            for name, value in record.items():
                field = self[name]
                assert value >> field.width == 0
                word |= value << field.offset
            words.append(word)
        return words
