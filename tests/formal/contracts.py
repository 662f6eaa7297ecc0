"""All contracts: how deep each is proven, and a planted fault for each of its checks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tests.formal import arithmetic, bus, front, link, queues, registers, walk, window
from tests.formal.prove import Contract, Fault


@dataclass(frozen=True)
class Case:
    """A contract and its proof.

    Attributes
    ----------
    build : callable(fault) -> Contract
    depth, induction : int
        See `prove.prove`.
    units : tuple of str
        The components of `hw` whose streams or hand-overs it is about.
    faults : tuple of Fault
        One for each check.
    """

    build: Callable[[Fault | None], Contract]
    depth: int
    induction: int
    units: tuple[str, ...]
    faults: tuple[Fault, ...]


SENDER_FAULTS = (
    Fault("valid_from_start_to_class", "self.tvalid.eq(self.busy)", "stuck at 1"),
    Fault("last_with_the_class", "index == self._classes", "== becomes !="),
    Fault("every_logit_at_its_place", "lane.eq(lane.rotate_left(1))", "never happens"),
    Fault("the_lowest_of_the_largest", "rival > best", "> becomes >="),
    Fault("word_waits", "load.eq(Mux(self.busy, self.tready, self.start))", "stuck at 1"),
)

CASES = {
    "slice_queue": Case(
        queues.slice_queue,
        8,
        2,
        ("SliceQueue",),
        (
            Fault("valid_while_not_empty", "stays - self.pop", "- becomes +"),
            Fault("order_and_content", "first.eq(first + self.pop)", "never happens"),
            Fault("head_waits", "write.en.eq(self.push)", "stuck at 1"),
        ),
    ),
    "skid_buffer": Case(
        queues.skid_buffer,
        8,
        2,
        ("SkidBuffer",),
        (
            Fault("ready_while_nothing_is_kept", "source.ready.eq(~full)", "stuck at 1"),
            Fault("offered_at_once", "source.valid | full", "left side only"),
            Fault("order_and_content", "Mux(full, kept, source.payload)", "arms swapped"),
            Fault("sink_waits", "kept.eq(source.payload)", "loses its top bit"),
        ),
    ),
    "bank_scanner": Case(
        queues.bank_scanner,
        8,
        2,
        ("BankScanner",),
        (
            Fault("a_slice_is_taken_when_the_last_is_done", "self.valid & load", "& becomes |"),
            Fault(
                "the_end_waits_for_its_last_event",
                "held.mark.last & ~held_rest.any()",
                "left side only",
            ),
            Fault("an_event_a_channel", "fire & chosen.any()", "left side only"),
            Fault("its_row", "held.row + offset", "+ becomes -"),
            Fault("its_mask", "self.event.mask.eq(Mux(fire, or_tree(masks), 0))", "loses its top bit"),
            Fault("mark_of_the_slice_in_work", "self.mark.eq(held.mark)", "loses its top bit"),
        ),
    ),
    "position_end": Case(
        queues.position_end,
        8,
        2,
        ("PositionEnd",),
        (
            Fault("ends_when_it_may", "self.at_end.all() & cool", "left side only"),
            Fault("final_with_its_end", "self.end & self.mark.final", "right side only"),
        ),
    ),
    "position_walker": Case(
        walk.position_walker,
        8,
        2,
        ("PositionWalker",),
        (
            Fault("only_windows_that_are_due", "self.busy.eq(~(last_x & last_y))", "never happens"),
            Fault("last_of_the_tile", "window.payload.final.eq(last_x & last_y)", "inverted"),
            Fault("taps_in_the_map", "step.kernel3 & (y != 0)", "right side only"),
            Fault("first_address", "address + step.stride", "+ becomes -"),
            Fault("first_row", "step.kernel3 & ~left", "right side only"),
            Fault("window_waits", "ready.eq(~window.valid | window.ready)", "stuck at 1"),
            Fault("a_window_in_two_cycles", "last_x & last_y", "& becomes |"),
        ),
    ),
    "tap_walker": Case(
        walk.tap_walker,
        7,
        0,
        ("TapWalker",),
        (
            Fault("a_request_while_one_is_due", "request.valid.eq(window.valid)", "stuck at 1"),
            Fault("a_window_is_taken_once", "request.ready & end", "right side only"),
            Fault("address", "address + 1", "+ becomes -"),
            Fault("row", "row + step.word_rows", "+ becomes -"),
            Fault("planes", "self.value.eq(self.value + 1)", "never happens", 0),
            Fault("last_of_the_position", "tap_end & ky.last", "left side only"),
            Fault("last_of_the_tile", "end & held.final", "right side only"),
            Fault(
                "cooldown",
                "Mux(request.payload.mark.final, step.final_cooldown, step.cooldown)",
                "arms swapped",
            ),
            Fault("request_waits", "with m.Elif(request.ready)", "always"),
        ),
    ),
    "word_reader": Case(
        walk.word_reader,
        8,
        4,
        ("WordReader",),
        (
            Fault("asks_spikes_once", "fire & (self.source == source)", "left side only", 0),
            Fault("asks_pixels_once", "fire & (self.source == source)", "left side only", 1),
            Fault("asks_head_sum_once", "fire & (self.source == source)", "left side only", 2),
            *(
                fault
                for bank in range(queues.BANKS)
                for fault in (
                    Fault(
                        f"slices_of_bank_{bank}", "active.any() | request.mark.last", "left side only", bank
                    ),
                    Fault(f"content_of_bank_{bank}", "out.active.eq(active)", "loses its top bit", bank),
                    Fault(
                        f"row_and_mark_of_bank_{bank}", "out.row.eq(request.row)", "loses its top bit", bank
                    ),
                    Fault(
                        f"queue_{bank}_never_overflows",
                        "count.eq(following)",
                        "never happens",
                        bank,
                    ),
                )
            ),
            Fault("ready_once_all_is_empty", "dropped[bank].eq(valid & ~wanted)", "never happens"),
            Fault("waits_for_the_window", "room & self.pixels.ready", "left side only"),
        ),
    ),
    "column_reader": Case(
        window.column_reader,
        20,
        0,
        ("ColumnReader",),
        (
            Fault("a_row_begins", "payload.begins.eq(begins)", "inverted"),
            Fault("the_pixel_above", "Mux(no_top, outside, earlier[0])", "arms swapped"),
            Fault("the_pixel_at", "earlier.eq(Cat(earlier[1], self.pixels.data))", "loses its top bit"),
            Fault("the_pixel_below", "Mux(no_bottom, outside, self.pixels.data)", "arms swapped"),
            Fault("padding_above", "no_top.eq(top)", "inverted"),
            Fault("padding_below", "no_bottom.eq(bottom)", "inverted"),
            Fault(
                "reads_only_the_map",
                "step & ~over & ~(top & (row == 0)) & ~(bottom & last_row)",
                "left side only",
            ),
            Fault("follows_says_what_follows", "column.valid.eq(self.follows)", "inverted"),
            Fault("column_waits", "step.eq(~column.valid | column.ready)", "stuck at 1"),
            Fault(
                "a_column_in_three_cycles",
                "self.follows.eq(Mux(step, last_row, 1) & ~self.start)",
                "never happens",
            ),
        ),
    ),
    "frame_receiver": Case(
        bus.frame_receiver,
        10,
        1,
        ("FrameReceiver",),
        (
            Fault(
                "ready_while_a_bank_is_free",
                "self.tready.eq(~full.bit_select(fill_bank, 1))",
                "stuck at 1",
            ),
            Fault(
                "held_until_released", "release.eq(self.frame_release & self.frame_valid)", "never happens"
            ),
            Fault("oldest_first", "self.frame_bank.eq(~self.frame_bank)", "never happens"),
            Fault("short_frames_are_flagged", "self.error_short.eq(1)", "another constant"),
            Fault("long_frames_are_flagged", "self.error_long.eq(1)", "another constant"),
            Fault("a_short_frame_is_told_once", "self.dropped_short.eq(1)", "never happens"),
            Fault("a_long_frame_is_told_once", "self.dropped_long.eq(1)", "never happens"),
            Fault("a_byte_is_written_once", "transfer & ~dropping", "left side only"),
            Fault("at_its_place", "address + 1", "+ becomes -"),
            Fault("unaltered", "self.wr_data.eq(self.tdata.replicate(self._channels))", "loses its top bit"),
            Fault(
                "never_into_a_bank_handed_over",
                "self.tready.eq(~full.bit_select(fill_bank, 1))",
                "stuck at 1",
            ),
        ),
    ),
    "result_sender_in_registers": Case(
        bus.result_sender_in_registers, 8, 1, ("ResultSender",), SENDER_FAULTS
    ),
    "result_sender_in_memory": Case(bus.result_sender_in_memory, 11, 1, ("ResultSender",), SENDER_FAULTS),
    "tile_rings": Case(
        bus.tile_rings,
        9,
        0,
        ("_TileRings",),
        (
            Fault("nothing_over_a_row_in_use", "self.row_free.eq((row ^ oldest) != row_ring)", "stuck at 1"),
            Fault("free_is_free", "self.row_free.eq((row ^ oldest) != row_ring)", "stuck at 1"),
            Fault("the_next_is_free", "self.next_row_free.eq((next_row ^ oldest) != row_ring)", "stuck at 1"),
            Fault("ready_once_received", "self.tiles.ready.eq(written != started)", "stuck at 1"),
            Fault("ready_as_soon_as_written", "self.tiles.ready.eq(written != started)", "never happens"),
            Fault(
                "base_is_the_first_row",
                "self.tiles.base.eq(_place(ends[_place(started, tile_ring)], row_ring))",
                "never happens",
            ),
            Fault(
                "a_place_for_constants",
                "self.place_free.eq((received ^ complete) != tile_ring)",
                "stuck at 1",
            ),
            Fault(
                "the_next_place",
                "self.next_place_free.eq((next_tile ^ complete) != tile_ring)",
                "stuck at 1",
            ),
            Fault(
                "room_once_all_is_released", "oldest.eq(ends[_place(released, tile_ring)])", "never happens"
            ),
            Fault(
                "a_release_frees_what_is_in_use",
                "ends[_place(received, tile_ring)].eq(next_row)",
                "loses its top bit",
            ),
        ),
    ),
    "weight_stream": Case(
        bus.weight_stream,
        8,
        1,
        ("WeightStream",),
        (
            Fault(
                "a_beat_taken_has_room",
                "self.place_free.eq((received ^ complete) != tile_ring)",
                "never happens",
            ),
            Fault(
                "ready_only_with_room",
                "self.place_free.eq((received ^ complete) != tile_ring)",
                "never happens",
            ),
            Fault(
                "ready_a_cycle_after_there_is_room",
                "here.eq(Mux(beat.in_rows, rings.row_free, rings.place_free))",
                "never happens",
            ),
        ),
    ),
    "event_source": Case(
        front.event_source,
        21,
        0,
        ("EventSource",),
        (
            Fault("a_position_ends_once", "self.busy.eq(~(last_x & last_y))", "never happens"),
            Fault("ends_in_time", "self.end.eq(self.at_end.all() & cool)", "never happens"),
            Fault("the_last_end_is_final", "self.end & self.mark.final", "right side only"),
            Fault("no_event_without_a_walk", "self.event.en.eq(fire & chosen.any())", "stuck at 1"),
        ),
    ),
    "uart_line": Case(
        link.uart_line,
        44,
        0,
        ("UartReceiver", "UartTransmitter"),
        (
            Fault("nothing_invented", "self.o.valid.eq(strobe & (left == 1))", "inverted"),
            Fault("unaltered", "bits.eq(Cat(bits[1:], self.rx))", "loses its top bit"),
            Fault("not_doubled", "self.o.valid.eq(strobe & (left == 1))", "inverted"),
            Fault("not_lost", "self.o.valid.eq(strobe & (left == 1))", "never happens"),
            Fault("idle_line_is_high", "with m.If(self.i.valid)", "always"),
            Fault("ready_between_bytes", "self.i.ready.eq(left == 0)", "inverted"),
        ),
    ),
    "link_sender": Case(
        link.link_sender,
        9,
        0,
        ("LinkSender",),
        (
            Fault("flags_at_both_ends", "self.o.payload.eq(FLAG)", "another constant"),
            Fault("no_flag_within", "(byte == FLAG) | (byte == ESCAPE)", "right side only"),
            Fault("a_byte_is_taken_when_it_is_gone", "self.i.ready.eq(taken)", "stuck at 1"),
            Fault("unaltered", "byte ^ Mux(escaped, FLIP, 0)", "^ becomes |"),
            Fault(
                "escapes_stand_for_what_needs_them",
                "special.eq(((byte == FLAG) | (byte == ESCAPE)) & ~escaped)",
                "inverted",
            ),
            Fault("byte_waits", "with m.If(self.o.valid & self.o.ready)", "always"),
            Fault("offers_what_it_has", "self.o.valid.eq(self.i.valid)", "stuck at 1"),
        ),
    ),
    "link_receiver": Case(
        link.link_receiver,
        9,
        0,
        ("LinkReceiver",),
        (
            Fault("payload_is_what_the_header_says", "arrives & (part == Part.PAYLOAD)", "left side only"),
            Fault("unaltered", "received.data ^ Mux(escaped, FLIP, 0)", "^ becomes |"),
            Fault("a_frame_ends_once", "flag & synced & started", "left side only"),
        ),
    ),
    "image_buffer": Case(
        link.image_buffer,
        14,
        0,
        ("ImageBuffer",),
        (
            Fault("nothing_invented", "waiting + self.keep - begin", "- becomes +"),
            Fault("order_and_content", "address + 1", "+ becomes -"),
            Fault("last_byte_of_an_image", "left == 1", "== becomes !="),
            Fault("byte_waits", "fetch.eq((left != 0) & (~self.o.tvalid | self.o.tready))", "stuck at 1"),
            Fault("offered_in_three_cycles", "begin.eq((waiting != 0) & (left == 0))", "never happens"),
        ),
    ),
    "reply": Case(
        link.reply,
        24,
        0,
        ("Reply",),
        (
            Fault("byte_waits", "offered & ~self.o.valid", "left side only"),
            Fault("a_refusal_has_its_length", "(left == 1) & self.refusal", "right side only"),
            Fault("no_word_for_a_refusal", "with m.If(~self.refusal)", "always"),
        ),
    ),
    "axi_lite_end": Case(
        registers.axi_lite_end,
        8,
        1,
        ("AxiLiteEnd",),
        (
            Fault("a_write_has_both", "addressed & filled", "& becomes |"),
            Fault("where_it_was_addressed", "write.address.eq(bus.awaddr[2:])", "never happens"),
            Fault("what_was_sent", "write.strobe.eq(bus.wstrb)", "loses its top bit"),
            Fault("a_response_for_every_write", "with m.Elif(bus.bready)", "never"),
            Fault("it_says_how_it_went", "write_fault.eq(write.fault)", "inverted"),
            Fault("addresses_are_taken_one_ahead", "bus.awready.eq(~addressed)", "stuck at 1"),
            Fault("data_are_taken_one_ahead", "bus.wready.eq(~filled)", "stuck at 1"),
            Fault(
                "a_write_waits_for_nothing_else",
                "write.en.eq(addressed & filled & ~bus.bvalid)",
                "never happens",
            ),
            Fault("reads_when_asked", "bus.arvalid & bus.arready", "left side only"),
            Fault("where_it_is_asked", "read.address.eq(bus.araddr[2:])", "never happens"),
            Fault("an_answer_for_every_read", "with m.Elif(bus.rready)", "always"),
            Fault("data_of_that_cycle", "bus.rdata.eq(read.data)", "loses its top bit"),
            Fault("answer_waits", "with m.If(read.en)", "always"),
            Fault("reads_are_taken_one_ahead", "bus.arready.eq(~bus.rvalid)", "stuck at 1"),
        ),
    ),
    "frame_gate": Case(
        registers.frame_gate,
        8,
        1,
        ("FrameGate",),
        (
            Fault("nothing_invented", "self.o.tdata.eq(self.i.tdata)", "loses its top bit"),
            Fault("taken_once", "self.o.tready & is_open", "left side only"),
            Fault("begins_when_it_may", "self.i.tvalid & is_open", "left side only"),
            Fault("comes_to_its_end", "self.enable | self.pending | self.receiving", "left side only"),
            Fault("passes_at_once", "self.pending.eq(1)", "never happens"),
            Fault("byte_waits", "self.o.tready & self.o.tlast", "right side only"),
            Fault("says_what_it_does", "with m.Elif(self.o.tvalid & ~self.receiving)", "never"),
        ),
    ),
}

ARITHMETIC = {
    "narrowing": Case(
        arithmetic.narrowing,
        1,
        0,
        (),
        (
            Fault("fits_unsigned_12_to_unsigned_5", "value <= hi", "<= becomes <"),
            Fault(
                "saturate_signed_12_to_unsigned_5",
                "Mux(value < lo, Const(lo, shape), result)",
                "arms swapped",
            ),
        ),
    ),
    "rounding": Case(
        arithmetic.rounding,
        1,
        0,
        (),
        (
            Fault(
                "floor_unsigned_12_by_1",
                "Value.cast(value) >> amount",
                "the constant on the right is one more",
            ),
            Fault(
                "round_unsigned_12_by_1",
                "(value + (1 << (amount - 1)) - 1 + odd) >> amount",
                "the constant on the right is one more",
            ),
        ),
    ),
    "selecting": Case(
        arithmetic.selecting,
        1,
        0,
        (),
        (
            Fault("nothing_is_added", "mask[i] & mask[:i].any()", "& becomes |", 10),
            Fault("lowest_0", "mask[i] & mask[:i].any()", "left side only"),
            Fault("index_3", "Cat(chosen).any()", "r| becomes r&"),
        ),
    ),
}
"""Functions rather than units: their checks come in many widths, of which one each has a fault."""

CONNECTIONS = {
    "Core": "connects the receiver's, the sender's and the weights' ends to its ports",
    "RegisterBlock": "its bus and its streams are those of AxiLiteEnd and FrameGate",
    "Responder": "its streams are those of LinkReceiver, ImageBuffer, Reply and LinkSender",
}
"""Units with streams that are other units' ends."""
