"""Contracts of the walk: windows, requests, and the slices that the banks get for them."""

from __future__ import annotations

from amaranth import Cat, Const, Mux, Value
from amaranth.lib import data

from s2tdpt.hw.blocks.reader import WordReader
from s2tdpt.hw.blocks.step_rom import SourceField, StepRecords
from s2tdpt.hw.blocks.walker import PositionWalker, TapWalker, window_layout
from s2tdpt.hw.plan.records import Sizes
from tests.formal.prove import Contract, Fault
from tests.formal.queues import BANKS, DEPTH, STEPS, small_program


def _times(number: Value, value: Value) -> Value:
    """`value` times a number of two bits."""
    return Mux(number[0], value, 0) + Mux(number[1], value << 1, 0)


def position_walker(fault: Fault | None = None) -> Contract:
    """Every position of any map has one window, in raster order, with its first address and row.

    All records of the program's layout, whatever they say; a walk starts once the last one is through.
    """
    c = Contract(fault)
    program = small_program()
    sizes, records = Sizes(program), StepRecords(program)
    unit = PositionWalker(records, sizes)
    inside = c.add("walker", unit)
    step = c.constant(records.walk_layout, "step")
    row_base = c.constant(sizes.row, "row_base")
    c.m.d.comb += [unit.step.eq(step), unit.row_base.eq(row_base)]
    window, got = unit.window, unit.window.payload
    c.free(unit.start)
    c.free(window.ready)
    c.assume(~unit.start | (~unit.busy & ~window.valid))
    # The window that is due: its place, and the word of its middle tap.
    due, x, y = c.signal(1, "due"), c.signal(len(step.last_x), "x"), c.signal(len(step.last_y), "y")
    middle = c.signal(sizes.address, "middle")
    last_x, last_y = x == step.last_x, y == step.last_y
    taken = c.signal(1, "taken")
    c.m.d.comb += taken.eq(window.valid & window.ready)
    with c.m.If(unit.start):
        c.m.d.sync += [due.eq(1), x.eq(0), y.eq(0), middle.eq(step.src_base)]
    with c.m.Elif(taken):
        c.m.d.sync += [
            due.eq(~(last_x & last_y)),
            x.eq(Mux(last_x, 0, x + 1)),
            y.eq(Mux(last_x, y + 1, y)),
            middle.eq(middle + step.stride),
        ]
    upper, left = step.kernel3 & (y != 0), step.kernel3 & (x != 0)
    c.check("only_windows_that_are_due", ~window.valid | due)
    c.check("last_of_the_tile", ~window.valid | (got.final == (last_x & last_y)))
    rows = (got.first_y == Mux(upper, 0, 1)) & (got.last_y == Mux(step.kernel3 & ~last_y, 2, 1))
    columns = (got.first_x == Mux(left, 0, 1)) & (got.last_x == Mux(step.kernel3 & ~last_x, 2, 1))
    c.check("taps_in_the_map", ~window.valid | (rows & columns))
    address = middle - Mux(upper, step.line, 0) - Mux(left, step.stride, 0)
    c.check("first_address", ~window.valid | (got.address == address[: sizes.address]))
    skipped = Mux(step.kernel3 & ~upper, step.line_rows, 0) + Mux(step.kernel3 & ~left, step.tap_rows, 0)
    c.check("first_row", ~window.valid | (got.row == (row_base + skipped)[: sizes.row]))
    c.check_stable("window_waits", window.valid, window.ready, got)
    c.check("a_window_in_two_cycles", ~(c.past(due & ~taken) & due) | window.valid)
    # The unit's place is that of the window due, or of the one behind it.
    ahead_x, ahead_y = Mux(last_x, 0, x + 1)[: len(x)], Mux(last_x, y + 1, y)[: len(y)]
    behind = (inside["x"] == ahead_x) & (inside["y"] == ahead_y)
    behind &= inside["address"] == (middle + step.stride)[: sizes.address]
    here = (inside["x"] == x) & (inside["y"] == y) & (inside["address"] == middle)
    c.check("invariant_place", ~unit.busy | Mux(window.valid, behind, here))
    c.check("invariant_busy", unit.busy == (due & ~(window.valid & last_x & last_y)))
    c.cover(taken & got.final & (x == 1) & (y == 1))
    return c


def tap_walker(fault: Fault | None = None) -> Contract:
    """Every pass, tap and word of every window is asked for once, in order, whatever window follows.

    All records and windows, first taps 0 or 1 and last taps 1 or 2; requests wait as long as the reader
    likes.
    """
    c = Contract(fault)
    program = small_program()
    sizes, records = Sizes(program), StepRecords(program)
    unit = TapWalker(records, sizes, window_layout(sizes))
    inside = c.add("taps", unit)
    step = c.constant(records.walk_layout, "step")
    c.m.d.comb += unit.step.eq(step)
    window, request = unit.window, unit.request
    for port in (window.valid, window.payload, request.ready):
        c.free(port)
    for first, last in (("first_y", "last_y"), ("first_x", "last_x")):
        c.assume((window.payload[first] <= 1) & (window.payload[last] != 0) & (window.payload[last] != 3))
    # The window in work, and the counters of the request that is due.
    due, work = c.signal(1, "due"), c.signal(window_layout(sizes), "work")
    y, x = c.signal(2, "y"), c.signal(2, "x")
    word, plane = c.signal(len(step.last_word), "word"), c.signal(sizes.plane_pass, "plane")
    ends = [word == step.last_word]
    for counter, last in ((x, work.last_x), (y, work.last_y), (plane, step.last_pass)):
        ends.append(ends[-1] & (counter == last))
    word_end, tap_end, pass_end, end = ends
    taken = c.signal(1, "taken")
    c.m.d.comb += taken.eq(window.valid & (~due | (request.ready & end)))
    with c.m.If(taken):
        c.m.d.sync += [due.eq(1), work.eq(window.payload), word.eq(0), plane.eq(0)]
        c.m.d.sync += [y.eq(window.payload.first_y), x.eq(window.payload.first_x)]
    with c.m.Elif(due & request.ready):
        c.m.d.sync += [
            due.eq(~end),
            word.eq(Mux(word_end, 0, word + 1)),
            plane.eq(plane + pass_end),
        ]
        with c.m.If(word_end):
            c.m.d.sync += x.eq(Mux(tap_end, work.first_x, x + 1))
        with c.m.If(tap_end):
            c.m.d.sync += y.eq(Mux(pass_end, work.first_y, y + 1))
    down, right = (y - work.first_y)[:2], (x - work.first_x)[:2]

    def place(field, line, tap, unit_step, width):
        """First word of the row of taps, of the tap, and the word itself."""
        line_start = (work[field] + _times(down, line))[:width]
        tap_start = (line_start + _times(right, tap))[:width]
        return line_start, tap_start, (tap_start + word * unit_step)[:width]

    addresses = place("address", step.line, step.stride, 1, sizes.address)
    rows = place("row", step.line_rows, step.tap_rows, step.word_rows, sizes.row)
    got = request.payload
    c.check("a_request_while_one_is_due", request.valid == due)
    c.check("a_window_is_taken_once", window.ready == (~due | (request.ready & end)))
    c.check("address", ~due | (got.address == addresses[2]))
    c.check("row", ~due | (got.row == rows[2]))
    c.check("planes", ~due | (got.plane_pass == plane))
    c.check("last_of_the_position", ~due | (got.mark.last == pass_end))
    final = end & work.final
    c.check("last_of_the_tile", ~due | (got.mark.final == final))
    c.check("cooldown", ~due | (got.mark.cooldown == Mux(final, step.final_cooldown, step.cooldown)))
    c.check_stable("request_waits", request.valid, request.ready, got)
    counters = Const(1)
    for name, counter, bound in (
        ("ky", y, work.last_y),
        ("kx", x, work.last_x),
        ("word", word, step.last_word),
        ("plane_pass", plane, step.last_pass),
    ):
        counters &= (inside[name].value == counter) & (inside[name].last == (counter == bound))
    starts = (inside["line"].address == addresses[0]) & (inside["line"].row == rows[0])
    starts &= (inside["tap"].address == addresses[1]) & (inside["tap"].row == rows[1])
    c.check("invariant_place", ~due | (counters & starts & (inside["held"] == work)))
    for counter, first, last in ((y, work.first_y, work.last_y), (x, work.first_x, work.last_x)):
        inside_window = (first <= counter) & (counter <= last) & (first <= 1) & (last != 0) & (last != 3)
        counted = (word <= step.last_word) & (plane <= step.last_pass)
        c.check(f"invariant_{counter.name}", ~due | (inside_window & counted))
    c.cover(due & request.ready & final & (down == 1) & (right == 1))
    c.cover(taken & c.past(taken))
    return c


def word_reader(fault: Fault | None = None) -> Contract:
    """Every request makes one slice for every bank, three cycles later, with its channels, row and mark.

    Left out where the slice has no spike and nothing ends with it. No queue overflows, however slowly it is
    emptied, and a request is taken as soon as everything that came before has left. Two banks of three
    channels, two time steps, queues of two slices; the words of pixels are not looked at.
    """
    c = Contract(fault)
    program = small_program()
    sizes, machine = Sizes(program), program.machine
    unit = WordReader(program, sizes)
    inside = c.add("reader", unit)
    request = unit.request
    for port in (unit.source, request.valid, request.payload, unit.pixels.ready):
        c.free(port)
    for port in (unit.spikes.data, unit.head_sums.data, unit.pixels.data):
        c.free(port)
    c.assume_stable(request.valid, request.ready, request.payload)
    taken = c.signal(1, "taken")
    c.m.d.comb += taken.eq(request.valid & request.ready)
    for port, source in (
        (unit.spikes, SourceField.SPIKES),
        (unit.pixels, SourceField.PIXELS),
        (unit.head_sums, SourceField.HEAD_SUM),
    ):
        name = source.name.lower()
        asked = (port.address == request.payload.address) & (port.plane_pass == request.payload.plane_pass)
        c.check(f"asks_{name}_once", (port.en == (taken & (unit.source == source))) & (~port.en | asked))
    # A pipeline beside the unit's: the request, a cycle later the memory's word, a cycle later the slices.
    mark = request.payload.mark
    then = [c.past(taken), c.past(c.past(taken)), c.past(c.past(c.past(taken)))]
    row = c.past(c.past(c.past(request.payload.row)))
    marks = c.past(c.past(c.past(Value.cast(mark))))
    source = c.past(Value.cast(unit.source))
    words = Mux(source == SourceField.HEAD_SUM.value, unit.head_sums.data, unit.spikes.data)
    word = c.past(c.past(words))
    from_pixels = c.past(c.past(source == SourceField.PIXELS.value))
    channels = data.View(data.ArrayLayout(STEPS, machine.lanes), word)
    last = c.past(c.past(c.past(mark.last)))
    levels = []
    for bank in range(BANKS):
        slots = range(bank, machine.lanes, BANKS)
        active = Cat(channels[slot].any() for slot in slots)
        push, slice_ = unit.push[bank], unit.slice[bank]
        wanted = active.any() | last
        c.check(f"slices_of_bank_{bank}", from_pixels | (push == (then[2] & wanted)))
        masks = Value.cast(slice_.masks) == Cat(channels[slot] for slot in slots)
        same = masks & (slice_.active == active)
        c.check(f"content_of_bank_{bank}", ~push | from_pixels | same)
        c.check(
            f"row_and_mark_of_bank_{bank}", ~push | ((slice_.row == row) & (Value.cast(slice_.mark) == marks))
        )
        level = c.signal(range(DEPTH + 1), f"level_{bank}")
        c.free(unit.popped[bank])
        c.assume(~unit.popped[bank] | (level != 0))
        c.m.d.sync += level.eq(level + push - unit.popped[bank])
        c.check(f"queue_{bank}_never_overflows", (level != DEPTH) | ~push)
        levels.append(level)
    _reader_room(c, unit, inside, then, levels)
    idle = Const(1)
    for past in then:
        idle &= ~past
    empty = idle
    for level in levels:
        empty &= level == 0
    c.check("ready_once_all_is_empty", ~(empty & c.past(empty)) | ~unit.pixels.ready | request.ready)
    c.check("waits_for_the_window", ~request.ready | unit.pixels.ready)
    c.cover(taken & (levels[0] == 1))
    c.cover(levels[0] == DEPTH)
    return c


def _reader_room(c: Contract, unit, inside, then, levels) -> None:
    """Room in a queue and what is in it or on its way are its depth."""
    valid_1, valid_2, dropped = inside["valid_1"], inside["valid_2"], inside["dropped"]
    c.check("invariant_pipeline", (valid_1 == then[0]) & (valid_2 == then[1]))
    rooms = []
    for bank, room in enumerate(inside["counts"]):
        held = levels[bank] + valid_1 + valid_2 + unit.push[bank] + dropped[bank]
        c.check(f"invariant_room_{bank}", (held <= DEPTH) & (room == (DEPTH - held)[: len(room)]))
        c.check(f"invariant_one_of_both_{bank}", (unit.push[bank] | dropped[bank]) == then[2])
        rooms.append(room != 0)
    c.check("invariant_ready", inside["room"] == Cat(rooms).all())
