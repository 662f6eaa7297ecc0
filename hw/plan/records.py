"""What passes between the blocks: every record and port of the machine, named and described once.

Times are counted in clock cycles. "Delay d" of a port means that its answer is there d cycles after the
question. Nothing after the issue of an event can stall, so all these delays are constants.
"""

from __future__ import annotations

from amaranth import signed, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from s2tdpt.golden.arith import unsigned_bits
from s2tdpt.hw.plan.machine import PIXEL_BITS
from s2tdpt.hw.plan.program import Program
from s2tdpt.hw.plan.widths import Widths

WEIGHT_DELAY = 2
"""From a weight or constant address to its data: a block memory and a register behind it."""


def bits_for(largest: int) -> int:
    """Bits of an unsigned number up to `largest`, at least one."""
    return max(1, unsigned_bits(largest))


class Sizes:
    """Field widths that several blocks share, for one program.

    Attributes
    ----------
    address, pixel, spike_address, residual_address : int
        Bits of a read address (spike words, words of a window, head sum pieces), of a pixel, of a spike word,
        of a piece of U.
    law : int
        Bits of the number of a law of neurons; 0 where all follow one.
    row, constant, step, position, piece, subgroup, plane_pass, cooldown : int
        Bits of a weight row of a bank, of a constant word, of a step number, of a position of any map, of a
        piece of a token, of a piece of a word, of a pass, of a cooldown.
    """

    def __init__(self, program: Program):
        net, machine = program.network, program.machine
        pieces = max(step.packing_out.groups for step in program.steps) * machine.subgroups
        words = max(program.spike_words, program.window_packing.groups, program.residual_pieces)
        self.address = bits_for(words - 1)
        self.law = (len(program.laws) - 1).bit_length()
        self.pixel = bits_for(2 * net.image_height * net.image_width - 1)
        self.spike_address = bits_for(program.spike_words - 1)
        self.row = bits_for(weight_rows(program) - 1)
        self.constant = bits_for(constant_words(program) - 1)
        self.step = bits_for(len(program.steps) - 1)
        self.position = bits_for(max(step.positions for step in program.steps) - 1)
        self.piece = bits_for(pieces - 1)
        self.subgroup = bits_for(machine.subgroups - 1)
        self.plane_pass = bits_for(max(program.pixel_passes, program.head_passes) - 1)
        self.column = bits_for(max(step.width for step in program.steps) >> 1)
        self.heads = bits_for(net.heads)
        self.cooldown = bits_for(final_cooldown(program))
        self.residual_address = bits_for(net.tokens * program.residual_pieces - 1)


VISIBLE_DELAY = 2
"""From a write into the spike memory until it can be read."""

FIRST_REQUEST = 3
"""From the start of a step to the cycle in which its first word is asked for (`walker`)."""

FETCH_CYCLES = 3
"""The record of a step takes as long to fetch (`step_rom.StepRom`)."""


def final_cooldown(program: Program) -> int:
    """Largest cooldown of a position; see `mark_layout`."""
    return program.machine.subgroups + FETCH_CYCLES - 1


STREAM_CONSTANT_TILES = 4
"""Streamed weights: tiles whose constants are on chip; they are needed longer than the weights."""


def weight_rows(program: Program) -> int:
    """Rows of the weight memory of a bank: the whole network, or a ring that holds the largest tile."""
    if program.machine.weight_memory == "rom":
        return max(2, program.rows)
    return max(2, 1 << (program.max_tile_rows - 1).bit_length())


def constant_words(program: Program) -> int:
    """Words of the constant memory, `post_lanes` channels each."""
    if program.machine.weight_memory == "rom":
        return max(2, program.const_words)
    return STREAM_CONSTANT_TILES * program.machine.subgroups


def request_layout(sizes: Sizes) -> data.StructLayout:
    """A word to be read for a position.

    address: in whatever memory the step reads; row: weight row of its first channel, the same in every bank;
    plane_pass: which planes of a number; mark: what ends with this word.
    """
    return data.StructLayout(
        {
            "address": sizes.address,
            "row": sizes.row,
            "plane_pass": sizes.plane_pass,
            "mark": mark_layout(sizes),
        }
    )


def mark_layout(sizes: Sizes) -> data.StructLayout:
    """What ends with a word.

    last: its position (and pass); final: its tile; cooldown: cycles after the end of this position in which
    no other position may end, because its sums are being drained or the next step's record is being fetched.
    """
    return data.StructLayout({"last": 1, "final": 1, "cooldown": sizes.cooldown})


def slice_layout(sizes: Sizes, channels: int, timesteps: int) -> data.StructLayout:
    """A bank's slice of a word: masks (a channel's T spikes side by side), which channels have one, the
    weight row of the first channel, what ends with the word."""
    return data.StructLayout(
        {
            "masks": data.ArrayLayout(unsigned(timesteps), channels),
            "active": channels,
            "row": sizes.row,
            "mark": mark_layout(sizes),
        }
    )


def event_layout(sizes: Sizes, timesteps: int) -> data.StructLayout:
    """An accumulate of one bank: the weight row of a channel and the time steps in which it spikes."""
    return data.StructLayout({"en": 1, "row": sizes.row, "mask": timesteps})


def constant_layout(widths: Widths) -> data.StructLayout:
    """Constants of one output channel."""
    return data.StructLayout(
        {
            "bias": signed(widths.bias),
            "shift": unsigned(widths.shift),
            "threshold": unsigned(widths.threshold),
        }
    )


class WeightPort(wiring.Signature):
    """Weights of all banks for a group of lanes, seen from who reads them; delay `WEIGHT_DELAY`.

    Members
    -------
    en : ``Out(banks)``
        Read in this bank.
    row : ``Out(ArrayLayout(row, banks))``
    data : ``In(ArrayLayout(ArrayLayout(signed(weight_bits), post_lanes), banks))``
        Weights of the channel of every bank for the lanes of the group; kept where `en` was low.
    """

    def __init__(self, program: Program, sizes: Sizes):
        machine, bits = program.machine, program.network.weight_bits
        word = data.ArrayLayout(signed(bits), machine.post_lanes)
        super().__init__(
            {
                "en": Out(machine.banks),
                "row": Out(data.ArrayLayout(unsigned(sizes.row), machine.banks)),
                "data": In(data.ArrayLayout(word, machine.banks)),
            }
        )


class ConstantPort(wiring.Signature):
    """Constants of a piece of output channels, seen from who reads them; delay `WEIGHT_DELAY`.

    Members
    -------
    en : ``Out(1)``
    address : ``Out``
    data : ``In(ArrayLayout(constant_layout, post_lanes))``
    """

    def __init__(self, program: Program, sizes: Sizes, widths: Widths):
        super().__init__(
            {
                "en": Out(1),
                "address": Out(sizes.constant),
                "data": In(data.ArrayLayout(constant_layout(widths), program.machine.post_lanes)),
            }
        )


class TilePort(wiring.Signature):
    """Which tile may be read, seen from the sequencer; tiles come in program order, image after image.

    Streamed constants need no base: those of the n-th tile since reset begin at word
    ``n % STREAM_CONSTANT_TILES * subgroups``, which the drain counts for itself.

    Members
    -------
    ready : ``In(1)``
        The weights and constants of the next tile that was not started yet are on chip.
    base : ``In(row)``
        Its first weight row (streamed weights only; on-chip weights: the program knows).
    start : ``Out(1)``
        Pulse: the next tile is started; `ready` and `base` then speak of the one after it.
    release : ``Out(1)``
        Pulse: no weight of the oldest tile in use will be read after this cycle.
    complete : ``Out(1)``
        Pulse: no constant of the oldest tile in use will be read after this cycle.
    """

    def __init__(self, sizes: Sizes):
        super().__init__(
            {
                "ready": In(1),
                "base": In(sizes.row),
                "start": Out(1),
                "release": Out(1),
                "complete": Out(1),
            }
        )


class ProjectionPort(wiring.Signature):
    """Pieces of q, k and v on their way into an attention unit, seen from the post-processing.

    Members
    -------
    en : ``Out(1)``
    projection : ``Out(2)``
        0: q, 1: k, 2: v.
    token : ``Out``
    piece : ``Out``
        Piece of `post_lanes` slots of the head packing: head ``piece // parts``, part ``piece % parts``.
    spikes : ``Out(post_lanes * T * emitted_bits)``
        Number ``lane * T + t``: a spike, or in two's complement what other neurons emit
        (`Program.emitted_bits` each, those that it does not need 0).
    ready : ``Out(1)``
        Pulse, in a cycle after the last piece: q, k and v of the heads below `heads` are complete.
    heads : ``Out``
        1 .. heads of the network, rising within a block.
    base : ``Out(spike_address)``
        With `ready`: where in the spike memory the attention's output goes.
    """

    def __init__(self, program: Program, sizes: Sizes):
        net = program.network
        super().__init__(
            {
                "en": Out(1),
                "projection": Out(2),
                "token": Out(bits_for(net.tokens - 1)),
                "piece": Out(sizes.piece),
                "spikes": Out(program.piece_bits * program.emitted_bits),
                "ready": Out(1),
                "heads": Out(bits_for(net.heads)),
                "base": Out(sizes.spike_address),
            }
        )


class SpikeWrite(wiring.Signature):
    """A piece of spikes on its way into the spike memory, seen from its source.

    Members
    -------
    en : ``Out(1)``
    address : ``Out(spike_address)``
    subgroup : ``Out``
        Which piece of the word.
    final : ``Out(1)``
        Last piece of the last word of its position that holds channels: the rest of the word is cleared.
    spikes : ``Out(post_lanes * T)``
    """

    def __init__(self, program: Program, sizes: Sizes):
        super().__init__(
            {
                "en": Out(1),
                "address": Out(sizes.spike_address),
                "subgroup": Out(sizes.subgroup),
                "final": Out(1),
                "spikes": Out(program.piece_bits),
            }
        )


def pixel_word_bits(program: Program) -> int:
    """Bits of a pixel memory word."""
    return program.network.image_channels * PIXEL_BITS


UART_BYTE = data.StructLayout({"data": 8, "error": 1})
"""A byte from a serial line; error: its stop bit was low, so that its bits mean nothing."""

LINK_BYTE = data.StructLayout({"data": 8, "last": 1})
"""A byte of a frame before it is escaped; last: the frame's CRC follows it."""

LINK_HEADER = data.StructLayout({"kind": 8, "sequence": 16, "length": 16})
"""Head of a frame of the serial link (`golden.link.HEADER`), the first byte lowest."""


class FrameEvents(wiring.Signature):
    """What happens to images, seen from the core: pulses.

    Members
    -------
    start : Out(1)
        The first step of an image starts in this cycle.
    complete : Out(1)
        Its last write was issued in the cycle before.
    short, long : Out(1)
        An image is dropped in this cycle: it was too short, too long.
    """

    def __init__(self):
        super().__init__({"start": Out(1), "complete": Out(1), "short": Out(1), "long": Out(1)})


class Bus(wiring.Signature):
    """An AXI4-Stream without side bands, seen from its source."""

    def __init__(self, width: int):
        super().__init__({"tdata": Out(width), "tvalid": Out(1), "tready": In(1), "tlast": Out(1)})
