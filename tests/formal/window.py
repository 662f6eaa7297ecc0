"""Contract of the columns of pixels that the window of the first convolution is made of."""

from __future__ import annotations

from amaranth import Mux, Signal, Value

from s2tdpt.hw.blocks.window import COLUMN_CYCLES, ColumnReader, padding
from s2tdpt.hw.plan.machine import Machine
from s2tdpt.hw.plan.records import Sizes
from s2tdpt.hw.plan.schedule import build_program
from s2tdpt.sim.cases import network
from tests.formal.prove import Contract, Fault

HEIGHT, WIDTH = 2, 2


def column_reader(fault: Fault | None = None) -> Contract:
    """Every position has one column, in raster order, of the pixels above, at and below it, then one that
    begins a row.

    A map of 2 x 2 grey pixels in either half of the memory; one pixel, any, is followed from the memory to
    the columns; the others may be anything whenever they are read. Columns are taken at any pace.
    """
    c = Contract(fault)
    config = network(image_height=HEIGHT, image_width=WIDTH, sps_pool=(False, False))
    program = build_program(config, Machine(lanes=3, banks=1, post_lanes=1), 20)
    unit = ColumnReader(program, Sizes(program))
    c.add("columns", unit)
    column, port = unit.column, unit.pixels
    c.free(unit.start)
    c.free(column.ready)
    base = c.constant(len(unit.base), "base")
    c.assume((base == 0) | (base == HEIGHT * WIDTH))
    c.m.d.comb += unit.base.eq(base)
    running = c.signal(1, "running")
    c.assume(~unit.start | ~running)
    # The memory: the followed pixel, and anything else; its output stays where nothing is read.
    pixel_x, pixel_y = c.constant(1, "pixel_x"), c.constant(1, "pixel_y")
    pixel, other = c.constant(8, "pixel"), c.free(shape=8, name="other")
    followed = c.signal(1, "followed")
    c.m.d.comb += followed.eq(port.address == base + pixel_y * WIDTH + pixel_x)
    with c.m.If(port.en):
        c.m.d.sync += port.data.eq(Mux(followed, pixel, other))
    x, y, last = c.signal(1, "x"), c.signal(2, "y"), c.signal(1, "behind_the_last")
    taken = c.signal(1, "taken")
    c.m.d.comb += [taken.eq(running & column.valid & column.ready), last.eq(y == HEIGHT)]
    with c.m.If(unit.start):
        c.m.d.sync += [running.eq(1), x.eq(0), y.eq(0)]
    with c.m.Elif(taken):
        c.m.d.sync += [running.eq(~last), x.eq(~last & ~x), y.eq(y + x)]
    shown = running & column.valid
    c.check("a_row_begins", ~shown | (column.payload.begins == (x == 0)))
    outside = Value.cast(padding(program))
    for row, name in enumerate(("above", "at", "below")):
        got, at = column.payload.pixels[row], y + row - 1
        here = (x == pixel_x) & (at == pixel_y) & ~last
        c.check(f"the_pixel_{name}", ~(shown & here) | (got == pixel))
        beyond = (at == -1) | (at == HEIGHT)
        if row != 1:
            c.check(f"padding_{name}", ~(shown & beyond & ~last) | (got == outside))
    inside_map = (port.address >= base) & (port.address < base + HEIGHT * WIDTH)
    c.check("reads_only_the_map", ~(running & port.en) | inside_map)
    c.check("follows_says_what_follows", column.valid == c.past(unit.follows))
    c.check_stable("column_waits", shown, column.ready | unit.start, column.payload)
    waits = Signal(range(COLUMN_CYCLES + 2))
    c.m.d.sync += waits.eq(Mux(unit.start | column.valid | ~running, 0, waits + (waits != COLUMN_CYCLES + 1)))
    c.check("a_column_in_three_cycles", waits <= COLUMN_CYCLES)
    c.cover(taken & last)
    return c
