"""WindowWalker: the exact sequence of reads, at one a cycle, against nested loops in Python."""

from dataclasses import dataclass

import numpy as np
import pytest
from amaranth.lib import data

from s2tdpt.hw.window import WindowWalker
from tests.hw.util import simulate

CHUNK, SLICE = 8, 3
LATENCY = 3
"""Cycles from `start` to the first request, as documented."""
TILE_BITS = 4
FIELDS = {
    "kernel3": 1,
    "height": 4,
    "width": 4,
    "groups": 3,
    "pos_stride": 4,
    "line": 7,
    "rows_tap": 6,
    "rows_line": 8,
    "tile_rows": 9,
    "out_groups": 3,
}


@dataclass(frozen=True)
class Walk:
    """One operation: map, kernel, words a position, weight rows of a tap, output groups."""

    height: int
    width: int
    kernel: int = 3
    groups: int = 1
    rows_tap: int = 5
    out_groups: int = 1
    src_base: int = 17
    tile_base: int = 40
    slices: bool = False

    @property
    def stride(self):
        return 0 if self.slices else self.groups

    @property
    def tile_rows(self):
        return self.kernel**2 * self.rows_tap

    def record(self):
        return {
            "kernel3": int(self.kernel == 3),
            "height": self.height,
            "width": self.width,
            "groups": self.groups,
            "pos_stride": self.stride,
            "line": self.stride * self.width,
            "rows_tap": self.rows_tap,
            "rows_line": 3 * self.rows_tap,
            "tile_rows": self.tile_rows,
            "out_groups": self.out_groups,
        }

    def requests(self, row, rows, bank_rows=None, first_tile=0):
        """``(address, weight row, column, last, tile)`` of one row of the machine."""
        reach = range(-1, 2) if self.kernel == 3 else range(1)
        found = []
        for group in range(self.out_groups):
            base = self.tile_base + group * self.tile_rows
            if bank_rows is not None:
                base = (first_tile + group) % 2 * bank_rows
            for position in range(row, self.height * self.width, rows):
                y, x = divmod(position, self.width)
                words = [
                    (
                        self.src_base + ((y + dy) * self.width + x + dx) * self.stride + chunk,
                        base
                        + ((dy + 1) * 3 + dx + 1 if self.kernel == 3 else 0) * self.rows_tap
                        + chunk * (SLICE if self.slices else CHUNK),
                    )
                    for dy in reach
                    for dx in reach
                    if 0 <= y + dy < self.height and 0 <= x + dx < self.width
                    for chunk in range(self.groups)
                ]
                found += [(a, w, x, int(i == len(words) - 1), group) for i, (a, w) in enumerate(words)]
        return found


def walk(walks, *, row=0, rows=1, bank_rows=None, ready_rate=1.0, tile_rate=1.0, seed=0):
    """Run `walks` one after the other; returns for each the cycle and the payload of every request."""
    layout = data.StructLayout(FIELDS)
    dut = WindowWalker(
        layout,
        row=row,
        rows=rows,
        chunk_rows=CHUNK,
        slice_rows=SLICE,
        address_width=10,
        weight_width=10,
        tile_width=TILE_BITS,
        bank_rows=bank_rows,
    )
    rng = np.random.default_rng(seed)
    runs = []

    async def testbench(ctx):
        tiles = loaded = 0
        for operation in walks:
            ctx.set(dut.op, operation.record())
            ctx.set(dut.src_base, operation.src_base)
            ctx.set(dut.tile_base, operation.tile_base)
            ctx.set(dut.by_slices, operation.slices)
            expected = operation.requests(row, rows, bank_rows, tiles)
            seen, cycles = [], []
            cycle, waiting, idle = -1, None, 0
            end = tiles + operation.out_groups
            # A row without positions may be ahead of the tiles; the operation as a whole waits for them.
            while idle < 4 or len(seen) < len(expected) or loaded < end or ctx.get(dut.tile) != end % 16:
                ctx.set(dut.start, cycle == -1)
                # Tiles arrive at random; the machine may be told of one tile at a time.
                if loaded < end and rng.random() < tile_rate:
                    loaded += 1
                ctx.set(dut.tile_ready, ctx.get(dut.tile) != loaded % 16)
                ready = rng.random() < ready_rate
                ctx.set(dut.request.ready, ready)
                _, _, valid, payload = await ctx.tick().sample(dut.request.valid, dut.request.payload)
                cycle += 1
                if waiting is not None:
                    assert valid and payload == waiting, "an offered request must stay until it is taken"
                waiting = payload if valid and not ready else None
                idle = 0 if valid else idle + 1
                if valid and ready:
                    seen.append((payload.address, payload.row, payload.x, payload.last))
                    cycles.append(cycle)
                    tile = expected[len(seen) - 1][4] if len(seen) <= len(expected) else None
                    assert tile is None or tiles + tile < loaded, "a tile was used before it was there"
            assert seen == [request[:4] for request in expected]
            tiles = end
            runs.append(cycles)

    simulate(dut, testbench, deadline=60_000)
    return runs


MAPS = [
    Walk(1, 1),
    Walk(1, 4),
    Walk(4, 1),
    Walk(2, 2),
    Walk(3, 5, groups=2, out_groups=2),
    Walk(5, 3, groups=3),
    Walk(4, 6, out_groups=3),
]
LINEAR = [
    Walk(1, 1, kernel=1),
    Walk(1, 7, kernel=1, groups=3, rows_tap=23, out_groups=2),
    Walk(1, 2, kernel=1, groups=4, rows_tap=11, slices=True, out_groups=2),
]


@pytest.mark.parametrize("operation", MAPS + LINEAR, ids=repr)
def test_sequence_and_throughput(operation):
    """Without stalls: the right requests, the first after `LATENCY` cycles, the others without a gap."""
    (cycles,) = walk([operation])
    assert cycles == list(range(LATENCY, LATENCY + len(cycles)))


@pytest.mark.parametrize("rows", [2, 3, 5])
def test_rows_share_the_positions(rows):
    """Each position belongs to exactly one row; a row without any counts the tiles all the same."""
    operations = [w for w in MAPS + LINEAR if w.width >= rows or w.height == 1]
    for row in range(rows):
        walk(operations, row=row, rows=rows)
    for operation in operations:
        lasts = [r for row in range(rows) for r in operation.requests(row, rows) if r[3]]
        assert len(lasts) == operation.height * operation.width * operation.out_groups


@pytest.mark.parametrize("ready_rate, tile_rate", [(0.4, 1), (1, 0.1), (0.6, 0.2)])
@pytest.mark.parametrize("rows", [1, 2])
def test_stalls(rows, ready_rate, tile_rate):
    operations = [w for w in MAPS + LINEAR if w.width >= rows or w.height == 1]
    walk(operations, row=rows - 1, rows=rows, ready_rate=ready_rate, tile_rate=tile_rate, seed=rows)


@pytest.mark.parametrize("tile_rate", [1, 0.2])
@pytest.mark.parametrize("row, rows", [(0, 1), (1, 2)])
def test_banks_alternate_from_tile_to_tile(row, rows, tile_rate):
    """Streamed weights: the bank follows the number of tiles since reset, across operations and the wrap."""
    operations = [w for w in 3 * (MAPS + LINEAR) if w.width >= rows or w.height == 1]
    assert sum(w.out_groups for w in operations) > 1 << TILE_BITS
    walk(operations, row=row, rows=rows, bank_rows=300, tile_rate=tile_rate, ready_rate=0.9, seed=5)


class WrongTap(Walk):
    """Tells the hardware a wrong step from tap to tap."""

    def record(self):
        return {**super().record(), "rows_tap": self.rows_tap + 1}


def test_comparison_notices_a_wrong_tap():
    with pytest.raises(AssertionError):
        walk([WrongTap(3, 3)])
