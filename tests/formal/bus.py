"""Contracts of the AXI4-Stream ends, and of what they hand over: pixel banks, logits, tiles of weights."""

from __future__ import annotations

from types import SimpleNamespace

from amaranth import Array, Cat, Mux, signed

from s2tdpt.golden.bounds import derive_bounds
from s2tdpt.golden.params import random_params
from s2tdpt.hw.blocks.weights import WeightStream, _TileRings
from s2tdpt.hw.bus.axi import REGISTER_SUBGROUPS, FrameReceiver, ResultSender
from s2tdpt.hw.plan.machine import Machine
from s2tdpt.hw.plan.records import STREAM_CONSTANT_TILES, Sizes
from s2tdpt.hw.plan.schedule import build_program
from s2tdpt.hw.plan.widths import derive_widths
from s2tdpt.sim.cases import network
from tests.formal.prove import Contract, Fault

POSITIONS, CHANNELS = 2, 2
FRAME = POSITIONS * CHANNELS


def frame_receiver(fault: Fault | None = None) -> Contract:
    """Exactly the frames of the right length are handed over, each byte at its place, whatever comes between.

    Frames of two positions with two channels; any data, any `tlast`, any pauses, any release. `tready` is low
    only while both banks hold a frame, and whatever `tvalid` does. No byte goes to a bank that was handed
    over.
    """
    c = Contract(fault)
    unit = FrameReceiver(1, POSITIONS, CHANNELS)
    inside = c.add("receiver", unit)
    for port in (unit.tdata, unit.tvalid, unit.tlast, unit.frame_release):
        c.free(port)
    # Bytes of the frame so far, those too many counted as one; frames handed over and not yet released.
    count, held, fill = c.signal(3, "count"), c.signal(2, "held"), c.signal(1, "fill")
    short, long_ = c.signal(1, "was_short"), c.signal(1, "was_long")
    taken, whole, release = c.signal(1, "taken"), c.signal(1, "whole"), c.signal(1, "release")
    c.m.d.comb += [
        taken.eq(unit.tvalid & unit.tready),
        whole.eq(taken & unit.tlast & (count == FRAME - 1)),
        release.eq(unit.frame_release & (held != 0)),
    ]
    with c.m.If(taken):
        c.m.d.sync += count.eq(Mux(unit.tlast, 0, Mux(count == FRAME, FRAME, count + 1)))
        c.m.d.sync += short.eq(short | (unit.tlast & (count < FRAME - 1)))
        c.m.d.sync += long_.eq(long_ | (~unit.tlast & (count == FRAME - 1)))
    c.m.d.sync += [held.eq(held + whole - release), fill.eq(fill ^ whole)]
    c.check("ready_while_a_bank_is_free", unit.tready == (held < 2))
    c.check("held_until_released", unit.frame_valid == (held != 0))
    oldest = (fill - held)[:1]
    c.check("oldest_first", unit.frame_bank == oldest)
    c.check("short_frames_are_flagged", unit.error_short == short)
    c.check("long_frames_are_flagged", unit.error_long == long_)
    c.check("a_short_frame_is_told_once", unit.dropped_short == (taken & unit.tlast & (count < FRAME - 1)))
    c.check("a_long_frame_is_told_once", unit.dropped_long == (taken & ~unit.tlast & (count == FRAME - 1)))
    writes, lane = unit.wr_en.any(), c.signal(CHANNELS, "lane")
    kept = taken & (count < FRAME)
    c.m.d.comb += lane.eq(1 << (count & 1))
    c.check("a_byte_is_written_once", unit.wr_en == Mux(kept, lane, 0))
    place = fill * POSITIONS + (count >> 1)
    c.check("at_its_place", ~writes | (unit.wr_addr == place))
    c.check("unaltered", unit.wr_data == Cat(unit.tdata, unit.tdata))
    bank = unit.wr_addr >= POSITIONS
    c.check("never_into_a_bank_handed_over", ~writes | ((held == 0) | ((held == 1) & (bank != oldest))))
    full = inside["full"]
    expected = Array([0, Mux(oldest, 2, 1), 3, 3])[held]
    c.check("invariant_banks", (full == expected) & (held <= 2) & (inside["fill_bank"] == fill))
    started = (inside["address"] == place) & (inside["lane"] == lane)
    c.check(
        "invariant_place",
        Mux(count == FRAME, inside["dropping"], ~inside["dropping"] & started) & (count <= FRAME),
    )
    tail = Mux(count == FRAME, (inside["address"] == fill * POSITIONS) & (inside["lane"] == 1), 1)
    c.check("invariant_tail", tail & ((count != FRAME) | (held < 2)))
    c.cover(held == 2)
    c.cover(whole & short)
    c.cover(whole & long_)
    return c


def _result_sender(classes: int, fault: Fault | None) -> Contract:
    c = Contract(fault)
    lanes, width = 2, 3
    unit = ResultSender(classes, lanes, width)
    inside = c.add("sender", unit)
    for port in (unit.wr_en, unit.wr_index, unit.wr_data, unit.start, unit.tready):
        c.free(port)
    c.assume(~unit.wr_en | (~unit.busy & (unit.wr_index < unit.subgroups)))
    c.assume(~unit.start | ~unit.wr_en)
    # The logits as they were written, and the largest of those sent.
    values = [c.signal(signed(width), f"value_{number}") for number in range(classes)]
    for number, value in enumerate(values):
        with c.m.If(unit.wr_en & (unit.wr_index == number // lanes)):
            c.m.d.sync += value.eq(unit.wr_data.word_select(number % lanes, width))
    index, sending, taken = (
        c.signal(range(classes + 1), "index"),
        c.signal(1, "sending"),
        c.signal(1, "taken"),
    )
    best, best_index = c.signal(signed(width), "best"), c.signal(range(classes), "best_index")
    due, last = c.signal(signed(width), "due"), c.signal(1, "last")
    c.m.d.comb += [
        taken.eq(unit.tvalid & unit.tready),
        last.eq(index == classes),
        due.eq(Mux(last, 0, Array(values)[index])),
    ]
    with c.m.If(taken):
        c.m.d.sync += [index.eq(Mux(last, 0, index + 1)), sending.eq(~last)]
        with c.m.If(~last & ((index == 0) | (due > best))):
            c.m.d.sync += [best.eq(due), best_index.eq(index)]
    with c.m.Elif(unit.start & ~sending):
        c.m.d.sync += sending.eq(1)
    c.check("valid_from_start_to_class", (unit.tvalid == sending) & (unit.busy == sending))
    c.check("last_with_the_class", ~sending | (unit.tlast == last))
    c.check("every_logit_at_its_place", ~sending | last | (unit.tdata.as_signed() == due))
    c.check("the_lowest_of_the_largest", ~(sending & last) | (unit.tdata == best_index))
    c.check_stable("word_waits", unit.tvalid, unit.tready, Cat(unit.tdata, unit.tlast))
    c.check("invariant_index", (inside["index"] == index) & (sending | (index == 0)) & (index <= classes))
    logits = (inside["logit"] == due) & (inside["rival"] == due)
    begun = (inside["best"] == best) & (inside["best_index"] == best_index) & (best_index < classes)
    none = (inside["best"] == -(1 << width - 1)) & (inside["best_index"] == 0)
    c.check("invariant_work", ~sending | logits & Mux(index == 0, none, begun))
    following = c.signal(range(classes + 2), "following")
    c.m.d.comb += following.eq(Mux(sending, index + 1, 0))
    if unit.subgroups > REGISTER_SUBGROUPS:
        lane, subgroup = following & 1, following >> 1
        c.check("invariant_subgroup", (following >= classes) | (inside["subgroup"] == subgroup))
        stored = [
            inside.word("logits", number // lanes).word_select(number % lanes, width)
            for number in range(classes)
        ]
    else:
        lane, stored = following, [inside["held"].word_select(number, width) for number in range(classes)]
    c.check("invariant_lane", inside["lane"] == Mux(following < classes, 1 << lane, 0))
    c.check("invariant_store", Cat(stored) == Cat(values))
    c.cover(taken & unit.tlast & (best_index == 1) & (values[-1] == -4))
    return c


def result_sender_in_registers(fault: Fault | None = None) -> Contract:
    """Logits in class order, then the lowest index of the largest one, with `tlast`; three classes of three
    bits.
    """
    return _result_sender(3, fault)


def result_sender_in_memory(fault: Fault | None = None) -> Contract:
    """The same with five classes, which lie in a memory of three words."""
    return _result_sender(5, fault)


def tile_rings(fault: Fault | None = None) -> Contract:
    """A tile may be read from its last beat on until it is released, and nothing is written over it till
    then.

    A ring of four rows and four places of constants; tiles of any number of rows from 1 to 4, started,
    released and complete in order, at any pace. One row, any, is marked as it arrives.
    """
    c = Contract(fault)
    unit = _TileRings(SimpleNamespace(row=2))
    inside = c.add("rings", unit)
    tiles = unit.tiles
    for port in (unit.row_end, unit.tile_end, tiles.start, tiles.release, tiles.complete):
        c.free(port)
    received, started, released, complete = (
        c.signal(4, f"tiles_{name}") for name in ("received", "started", "released", "complete")
    )
    size = c.signal(3, "size")  # rows of the tile being received
    c.assume(~unit.tile_end | unit.row_end)
    c.assume(~unit.row_end | (unit.row_free & unit.place_free))
    c.assume(~unit.row_end | (size != 3) | unit.tile_end)
    c.assume(~tiles.start | tiles.ready)
    c.assume(~tiles.release | (released != started))
    c.assume(~tiles.complete | (complete != released) | tiles.release)
    c.m.d.sync += [
        received.eq(received + unit.tile_end),
        started.eq(started + tiles.start),
        released.eq(released + tiles.release),
        complete.eq(complete + tiles.complete),
    ]
    with c.m.If(unit.row_end):
        c.m.d.sync += size.eq(Mux(unit.tile_end, 0, size + 1))
    # The marked row: its place, its tile, and whether it is the tile's first.
    marks = c.free(name="marks")
    live, first = c.signal(1, "marked"), c.signal(1, "marked_first")
    tile, place = c.signal(4, "marked_tile"), c.signal(2, "marked_place")
    with c.m.If(unit.row_end & marks & ~live):
        c.m.d.sync += [live.eq(1), tile.eq(received), place.eq(unit.row), first.eq(size == 0)]
    with c.m.Elif(live & tiles.release & (released == tile)):
        c.m.d.sync += live.eq(0)
    c.check("nothing_over_a_row_in_use", ~(live & unit.row_end) | (unit.row != place))
    c.check("free_is_free", ~(live & unit.row_free) | (unit.row != place))
    following = (unit.row + 1)[:2]
    c.check("the_next_is_free", ~(live & unit.row_free & unit.next_row_free) | (following != place))
    c.check("ready_once_received", ~tiles.ready | (started != c.past(received)))
    c.check("ready_as_soon_as_written", tiles.ready | (started == c.past(received)))
    speaks_of_it = tiles.ready & live & first & (started == tile)
    c.check("base_is_the_first_row", ~speaks_of_it | (tiles.base == place))
    used = (received - complete)[:4]
    c.check("a_place_for_constants", unit.place_free == (used < STREAM_CONSTANT_TILES))
    c.check("the_next_place", ~unit.place_free | (unit.next_place_free == (used + 1 < STREAM_CONSTANT_TILES)))
    c.check("room_once_all_is_released", ~((released == received) & (size == 0)) | unit.row_free)
    in_use, freed = (inside["row"] - inside["oldest"])[:3], inside["ends"][released[:2]] - inside["oldest"]
    c.check("a_release_frees_what_is_in_use", ~tiles.release | (freed[:3] <= in_use))
    c.cover(~unit.row_free & live & (tile == 1))
    c.cover(speaks_of_it & (tile == 2) & (place == 3))
    return c


def weight_stream(fault: Fault | None = None) -> Contract:
    """No beat is taken without room for it, whenever tiles are started, released and complete; `tready` waits
    for nothing once there is room. All the tiles of a small program.
    """
    c = Contract(fault)
    machine = Machine(lanes=2, banks=2, post_lanes=2, weight_memory="stream")
    program = build_program(network(sps_channels=(1, 2), heads=1, mlp_ratio=1), machine, 20)
    sizes = Sizes(program)
    unit = WeightStream(program, sizes, derive_widths(*_parameters(program)))
    inside = c.add("weights", unit)
    for port in (
        unit.tdata,
        unit.tvalid,
        unit.tlast,
        unit.tiles.start,
        unit.tiles.release,
        unit.tiles.complete,
    ):
        c.free(port)
    beat, rings = inside["beat"], inside.submodule("rings", "rings")
    row, oldest, ends = (rings[name] for name in ("row", "oldest", "ends"))
    received, started, released, complete, written = (
        rings[name] for name in ("received", "started", "released", "complete", "written")
    )
    tiles, ring, places = unit.tiles, 1 << sizes.row, STREAM_CONSTANT_TILES
    c.assume(~tiles.start | tiles.ready)
    c.assume(~tiles.release | (released != started))
    c.assume(~tiles.complete | (complete != released) | tiles.release)

    def apart(later, earlier):
        return (later - earlier)[: len(later)]

    taken = c.signal(1, "taken")
    c.m.d.comb += taken.eq(unit.tvalid & unit.tready)
    room = Mux(beat.in_rows, inside["rings"].row_free, inside["rings"].place_free)
    c.check("a_beat_taken_has_room", ~taken | room)
    c.check("ready_only_with_room", ~unit.tready | room)
    waited = c.past(room & ~unit.tready)
    c.check("ready_a_cycle_after_there_is_room", ~waited | unit.tready)
    used = apart(row, oldest)
    c.check("invariant_rows_fit", used <= ring)
    c.check("invariant_tiles_fit", apart(received, complete) <= places)
    order = (apart(started, complete) <= apart(received, complete)) & (
        apart(released, complete) <= apart(started, complete)
    )
    c.check("invariant_order", order & ((written == received) | (apart(received, written) == 1)))
    between = (apart(started, complete) <= apart(written, complete)) & (
        apart(written, complete) <= apart(received, complete)
    )
    c.check("invariant_written", between)
    c.check("invariant_rows_have_their_place", ~beat.in_rows | inside["rings"].place_free)
    # `tile_rings` shows it: a release frees no more than is in use.
    c.assume(~tiles.release | (apart(ends[released[:2]], oldest) <= used))
    c.cover(taken & beat.in_rows)
    return c


def _parameters(program):
    params = random_params(program.network, 0)
    return params, derive_bounds(params)
