"""The accumulate engine: every convolution, linear layer and the head run on it, one after the other."""

from __future__ import annotations

from amaranth import Cat, Const, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from s2tdpt.golden.arith import unsigned_bits
from s2tdpt.hw.accumulate import SpikeAccumulator
from s2tdpt.hw.config import PIXEL_PLANES
from s2tdpt.hw.operation import OperationLayout, Source
from s2tdpt.hw.post import PostProcessor
from s2tdpt.hw.scanner import SpikeScanner
from s2tdpt.hw.schedule import Program
from s2tdpt.hw.weights import TILE_BITS, address_bits
from s2tdpt.hw.widths import Widths
from s2tdpt.hw.window import WindowWalker


def read_address_bits(program: Program) -> int:
    """Address width that serves the spike memory, the pixel banks and the head sums."""
    net = program.network
    head_words = -(-net.embed_dim // program.hardware.post_lanes)
    pixels = 2 * net.image_height * net.image_width
    return unsigned_bits(max(program.spike_words, pixels, head_words) - 1)


class AccumulateEngine(wiring.Component):
    """`rows` event-driven pipelines (walker, scanner, accumulator) and the post-processing they share.

    Row r computes positions r, r + rows, ... of every output group; the post-processing takes their results
    in position order. Cycles: `cycles.accumulate_cycles`, exact.

    Parameters
    ----------
    program : Program
    layout : OperationLayout
    widths : Widths

    Members
    -------
    op, start, done
        Operation record, stable from `start` to `done`.
    pixel_bank : In(1)
        Bank of the pixel memory that holds the image.
    rd_en_{r}, rd_addr_{r}
        Read port of row r, for whichever memory the operation reads.
    spike_data_{r}, pixel_data_{r}, head_data_{r}
        Read data of the spike memory (lanes x T), the pixel memory (channels x 8), the head sums
        (post_lanes x 8), one cycle later.
    rd_slice_{r}
        Slice of the head sums wanted in that cycle.
    row_en_{r}, row_address_{r}, row_data_{r}
        Weight rows.
    loaded, tile_done
        Tiles present and released (`weights`).
    fired : Out(rows)
        Accumulates in this cycle, for the utilisation count.
    post
        Remaining members of `post.PostProcessor`, by the same names.
    """

    _FORWARDED = (
        "const_en",
        "const_address",
        "bias",
        "shift",
        "tile_done",
        "threshold_en",
        "threshold_address",
        "threshold",
        "wr_en",
        "wr_addr",
        "wr_data",
        "head_add",
        "head_clear",
        "head_address",
        "head_value",
        "result_en",
        "result_index",
        "result_data",
        "probe_u_en",
        "probe_u_addr",
        "probe_u_data",
    )

    def __init__(self, program: Program, layout: OperationLayout, widths: Widths):
        self._program, self._layout, self._widths = program, layout, widths
        net, hw = program.network, program.hardware
        address = read_address_bits(program)
        self._post = PostProcessor(
            program, layout, widths, address_width=unsigned_bits(program.spike_words - 1)
        )
        members = {
            "op": In(layout),
            "start": In(1),
            "done": Out(1),
            "pixel_bank": In(1),
            "loaded": In(TILE_BITS),
            "fired": Out(hw.rows),
        }
        for r in range(hw.rows):
            members |= {
                f"rd_en_{r}": Out(1),
                f"rd_addr_{r}": Out(address),
                f"rd_slice_{r}": Out(range(max(2, program.head_slices))),
                f"spike_data_{r}": In(hw.lanes * net.timesteps),
                f"pixel_data_{r}": In(net.image_channels * PIXEL_PLANES),
                f"head_data_{r}": In(hw.post_lanes * PIXEL_PLANES),
                f"row_en_{r}": Out(1),
                f"row_address_{r}": Out(address_bits(program)[0]),
                f"row_data_{r}": In(hw.lanes * net.weight_bits),
            }
        members |= {name: self._post.signature.members[name] for name in self._FORWARDED}
        super().__init__(members)

    def _masks(self, r: int, planes: int) -> list:
        """The three sources as lanes x planes event masks."""
        net, hw = self._program.network, self._program.hardware
        spikes, pixels, sums = (getattr(self, f"{kind}_data_{r}") for kind in ("spike", "pixel", "head"))

        def lanes_of(data, count: int, width: int):
            lane_masks = []
            for lane in range(hw.lanes):
                present = [data.word_select(lane, width)] if lane < count else []
                padding = planes - (width if present else 0)
                lane_masks += [*present, *([Const(0, padding)] if padding else [])]
            return Cat(lane_masks)

        # A zero point of 128 turns the byte into two's complement: only the top bit changes.
        flip = net.pixel_zero_point
        zeroed = Cat(pixels.word_select(c, PIXEL_PLANES) ^ flip for c in range(net.image_channels))
        return [
            lanes_of(spikes, hw.lanes, net.timesteps),
            lanes_of(zeroed, net.image_channels, PIXEL_PLANES),
            lanes_of(sums, hw.post_lanes, PIXEL_PLANES),
        ]

    def elaborate(self, platform):
        m = Module()
        program, w = self._program, self._widths
        net, hw = program.network, program.hardware
        planes = max(net.timesteps, PIXEL_PLANES)
        row_bits, _ = address_bits(program)
        address = read_address_bits(program)
        op = self.op
        m.submodules.post = post = self._post
        from_pixels = op.source == Source.PIXELS.value
        from_head = op.source == Source.HEAD_SUM.value
        src_base = Signal(address)
        m.d.comb += [
            src_base.eq(
                Mux(from_pixels, Mux(self.pixel_bank, net.image_height * net.image_width, 0), op.src_base)
            ),
            post.op.eq(op),
            post.start.eq(self.start),
            self.done.eq(post.done),
        ]
        for name in self._FORWARDED:
            inner, outer = getattr(post, name), getattr(self, name)
            outward = self._post.signature.members[name].flow == Out
            m.d.comb += outer.eq(inner) if outward else inner.eq(outer)

        for r in range(hw.rows):
            walker = WindowWalker(
                self._layout,
                row=r,
                rows=hw.rows,
                chunk_rows=hw.lanes,
                slice_rows=hw.post_lanes,
                address_width=address,
                weight_width=row_bits,
                tile_width=TILE_BITS,
                bank_rows=program.max_tile_rows if hw.weight_memory == "stream" else None,
            )
            scanner = SpikeScanner(lanes=hw.lanes, planes=planes, request_layout=walker.request_layout)
            accumulator = SpikeAccumulator(
                lanes=hw.lanes,
                planes=planes,
                weight_bits=net.weight_bits,
                width=w.accumulator,
                event_layout=scanner.event_layout,
            )
            m.submodules[f"walker_{r}"] = walker
            m.submodules[f"scanner_{r}"] = scanner
            m.submodules[f"accumulator_{r}"] = accumulator
            wiring.connect(m, walker.request, scanner.request)
            wiring.connect(m, scanner.event, accumulator.event)
            spike_masks, pixel_masks, head_masks = self._masks(r, planes)
            tile_ready = walker.tile != self.loaded if hw.weight_memory == "stream" else 1
            m.d.comb += [
                walker.op.eq(op),
                walker.src_base.eq(src_base),
                walker.tile_base.eq(op.tile_base),
                walker.by_slices.eq(from_head),
                walker.start.eq(self.start),
                walker.tile_ready.eq(tile_ready),
                getattr(self, f"rd_en_{r}").eq(scanner.read_en),
                getattr(self, f"rd_addr_{r}").eq(scanner.read_address),
                getattr(self, f"rd_slice_{r}").eq(scanner.read_x),
                scanner.read_data.eq(Mux(from_head, head_masks, Mux(from_pixels, pixel_masks, spike_masks))),
                getattr(self, f"row_en_{r}").eq(accumulator.weight_en),
                getattr(self, f"row_address_{r}").eq(accumulator.weight_row),
                accumulator.weight_data.eq(getattr(self, f"row_data_{r}")),
                accumulator.plane.eq(post.plane),
                accumulator.release.eq(getattr(post, f"release_{r}")),
                getattr(post, f"full_{r}").eq(accumulator.full),
                getattr(post, f"sums_{r}").eq(accumulator.sums),
                getattr(post, f"touched_{r}").eq(accumulator.touched),
                self.fired[r].eq(accumulator.fired),
            ]
        return m
