"""The accelerator as a block diagram with its numbers: which blocks, what they hold, and how spikes go."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from s2tdpt.hw.attention.records import HeadSizes
from s2tdpt.hw.blocks.images import stream_width
from s2tdpt.hw.estimate.memory_plan import MemoryPlan
from s2tdpt.hw.plan.program import Program
from s2tdpt.hw.plan.widths import Widths
from s2tdpt.scripts.drawing import Drawing


@dataclass(frozen=True)
class Place:
    """Where a block stands: column, row, rows that it spans; and its kind: bus, memory, unit."""

    column: int
    row: int
    rows: int
    kind: str


PLACES = {
    "pixels": Place(0, 0, 1, "bus"),
    "window": Place(0, 1, 1, "unit"),
    "spikes": Place(0, 2, 2, "memory"),
    "reader": Place(1, 1, 1, "unit"),
    "queues": Place(1, 2, 1, "unit"),
    "scanners": Place(1, 3, 1, "unit"),
    "weights": Place(2, 0, 1, "memory"),
    "lanes": Place(2, 1, 3, "unit"),
    "post": Place(3, 1, 1, "unit"),
    "residual": Place(3, 0, 1, "memory"),
    "neurons": Place(3, 2, 1, "unit"),
    "attention": Place(3, 3, 1, "unit"),
    "results": Place(4, 1, 1, "bus"),
}

WIRES = (
    ("pixels", "window"),
    ("window", "reader"),
    ("spikes", "reader"),
    ("reader", "queues"),
    ("queues", "scanners"),
    ("scanners", "lanes"),
    ("weights", "lanes"),
    ("lanes", "post"),
    ("residual", "post"),
    ("post", "neurons"),
    ("neurons", "attention"),
    ("post", "results"),
)
"""From, to; spikes of neurons and attention go back to their memory by a line of its own."""

COLUMN, ROW, BOX_WIDTH, BOX_HEIGHT = 186.0, 92.0, 158.0, 72.0


def architecture_part(program: Program, widths: Widths, plan: MemoryPlan) -> list[dict[str, Any]]:
    """Blocks with their numbers: `name`, `title`, `lines`."""
    net, machine, heads = program.network, program.machine, HeadSizes(program)
    steps, lanes, banks = net.timesteps, machine.lanes, machine.banks

    def bits(*names: str) -> str:
        total = sum(memory.total_bits for memory in plan.memories if memory.name in names)
        return f"{total:,} bits"

    rom = machine.weight_memory == "rom"
    found = {
        "pixels": (
            "pixels in",
            [f"{net.image_height} x {net.image_width} x {net.image_channels} bytes", "room for two images"],
        ),
        "window": ("window of pixels", [f"3 x 3 x {net.image_channels}", f"{program.pixel_passes} passes"]),
        "spikes": (
            "spike memory",
            [f"words of {lanes} x {steps} bits", f"{program.spike_words:,} words", bits("spikes")],
        ),
        "reader": ("word reader", [f"words of {lanes} channels", f"{steps} steps or planes"]),
        "queues": (
            f"{banks} queue{'s'[: banks > 1]}",
            [f"{machine.queue} slices each", "silent ones are dropped"],
        ),
        "scanners": (
            f"{banks} scanner{'s'[: banks > 1]}",
            ["a channel a cycle", "for all its steps"],
        ),
        "weights": (
            "weights on chip" if rom else f"ring, {stream_width(program)} bits a beat",
            [
                f"{banks * machine.subgroups} memories",
                f"{net.weight_bits} bits a weight",
                bits("weights"),
            ],
        ),
        "lanes": (
            f"{lanes} lanes x {steps} steps",
            [
                f"{banks} banks added up",
                f"sums of {widths.accumulator} bits",
                f"at most {lanes * banks * steps:,}",
                "additions a cycle",
            ],
        ),
        "post": (
            f"{machine.post_lanes} channels a cycle",
            [f"planes: {widths.combined} bits", f"scale, bias: {widths.value} bits"],
        ),
        "residual": (
            "membrane stream U",
            [f"{widths.residual} bits a value", bits("residual U", "residual U, rest")],
        ),
        "neurons": ("neurons, OR pool", [f"LIF of {widths.membrane} bits", "fresh for every position"]),
        "attention": (
            f"attention: {net.attention.kind}",
            [
                f"{net.heads} heads of {net.head_dim}, {net.tokens} tokens",
                f"{heads.engines} step{'s'[: heads.engines > 1]} at once, {widths.attention} bits",
            ],
        ),
        "results": (
            "head, results",
            [f"sums of {widths.head_sum} bits", f"{net.num_classes} logits of {widths.logit}"],
        ),
    }
    return [{"name": name, "title": found[name][0], "lines": found[name][1]} for name in PLACES]


def draw(blocks: list[dict[str, Any]]) -> str:
    """The diagram."""
    drawing = Drawing(COLUMN * 4 + BOX_WIDTH + 8, ROW * 4 + 26, "the accelerator, block by block")
    for start, end in WIRES:
        drawing.line(_wire(PLACES[start], PLACES[end]), "wire")
    left, bottom = _box(PLACES["spikes"])[0] + BOX_WIDTH / 2, ROW * 4 + 10
    for name in ("neurons", "attention"):
        x, y, _ = _box(PLACES[name])
        side = x + BOX_WIDTH
        path = [(side, y + BOX_HEIGHT / 2), (side + 12, y + BOX_HEIGHT / 2), (side + 12, bottom)]
        drawing.line([*path, (left, bottom)], "wire plain")
    drawing.line([(left, bottom), (left, _box(PLACES["spikes"])[1] + ROW + BOX_HEIGHT)], "wire")
    drawing.text(left + 12, bottom - 5, "spikes", "s")
    for block in blocks:
        place = PLACES[block["name"]]
        x, y, height = _box(place)
        drawing.rect(x, y, BOX_WIDTH, height, place.kind, rx=6)
        top = y + height / 2 - 7.5 * len(block["lines"]) + 4
        drawing.text(x + BOX_WIDTH / 2, top, block["title"], "b", "middle")
        for number, line in enumerate(block["lines"], 1):
            drawing.text(x + BOX_WIDTH / 2, top + 2 + 15 * number, line, "s", "middle")
    return drawing.svg()


def _box(place: Place) -> tuple[float, float, float]:
    """Left, top, height."""
    return 4 + COLUMN * place.column, 4 + ROW * place.row, BOX_HEIGHT + ROW * (place.rows - 1)


def _wire(start: Place, end: Place) -> list[tuple[float, float]]:
    """Straight from side to side, in a row or a column."""
    x0, y0, height0 = _box(start)
    x1, y1, height1 = _box(end)
    if start.column == end.column:
        x = x0 + BOX_WIDTH / 2
        return [(x, y0 + height0), (x, y1)] if end.row > start.row else [(x, y0), (x, y1 + height1)]
    narrow = start if start.rows <= end.rows else end
    if start.rows > end.rows and start.row > end.row:  # out of the side, up, and in
        y, into, middle = y0 + height0 / 2, y1 + height1 * 0.75, (x0 + BOX_WIDTH + x1) / 2
        return [(x0 + BOX_WIDTH, y), (middle, y), (middle, into), (x1, into)]
    y = _box(narrow)[1] + BOX_HEIGHT / 2
    return [(x0 + BOX_WIDTH, y), (x1, y)]
