"""The pictures of `s2tdpt report` as inline SVG, each from its part of the report's data."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import squarify

from s2tdpt.scripts.drawing import Drawing, decades, short
from s2tdpt.scripts.energy import amount

WIDTH = 860.0
LABELS = 170.0
"""Room for names on the left."""
ROW = 20.0
WRITTEN_CLASSES = 20
"""Up to so many classes the confusion matrix has its numbers written in."""


def bars(
    rows: Sequence[tuple[str, Sequence[float]]],
    words: Sequence[str],
    shown: Callable[[float], str],
    title: str,
) -> str:
    """Stacked horizontal bars.

    Parameters
    ----------
    rows : sequence of (name, values)
    words : sequence of str
        What the values are; their colours are c0, c1 ...
    shown : callable
        A value in words.
    """
    drawing = Drawing(WIDTH, 12 + ROW * len(rows), title)
    largest = max((sum(values) for _, values in rows), default=0.0) or 1.0
    room = WIDTH - LABELS - 90
    for place, (name, values) in enumerate(rows):
        y = 6 + ROW * place
        drawing.text(LABELS - 8, y + 14, name, "s", "end")
        x = LABELS
        for number, value in enumerate(values):
            width = room * value / largest
            drawing.rect(x, y + 3, width, ROW - 6, f"c{number}", f"{name}, {words[number]}: {shown(value)}")
            x += width
        drawing.text(x + 6, y + 14, shown(sum(values)), "s")
    return drawing.svg()


def roofline(part: dict[str, Any]) -> str:
    """Both axes in logarithms; a roof and its layers for every level."""
    width, height, left, bottom, top = WIDTH, 400.0, 60.0, 44.0, 14.0
    drawing = Drawing(width, height, "roofline")
    levels = [level for level in part["levels"] if level["points"]]
    peak = part["peak"]
    across = [point["additions_a_bit"] for level in levels for point in level["points"]]
    up = [point["additions_a_cycle"] for level in levels for point in level["points"]]
    ridges = [peak / level["bits_a_cycle"] for level in levels]
    ticks_x = decades(min(across + ridges) / 1.5, max(across + ridges) * 1.5)
    ticks_y = decades(min(up) / 1.5, peak * 1.2)

    def place(value: float, ticks: list[float], start: float, end: float) -> float:
        share = math.log10(value / ticks[0]) / math.log10(ticks[-1] / ticks[0])
        return start + (end - start) * min(1.0, max(0.0, share))

    def at(bit: float, cycle: float) -> tuple[float, float]:
        return place(bit, ticks_x, left, width - 16), place(cycle, ticks_y, height - bottom, top)

    for tick in ticks_x:
        x, _ = at(tick, ticks_y[0])
        drawing.line([(x, top), (x, height - bottom)], "grid")
        drawing.text(x, height - bottom + 15, short(tick), "s", "middle")
    for tick in ticks_y:
        _, y = at(ticks_x[0], tick)
        drawing.line([(left, y), (width - 16, y)], "grid")
        drawing.text(left - 6, y + 4, short(tick), "s", "end")
    drawing.text(width / 2, height - 8, "additions for a bit of weights", "s", "middle")
    drawing.text(14, height / 2, "additions a cycle", "s", "middle", transform=f"rotate(-90 14 {height / 2})")
    for number, level in enumerate(levels):
        slope, ridge = level["bits_a_cycle"], peak / level["bits_a_cycle"]
        low = max(ticks_x[0], ticks_y[0] / slope)
        drawing.line([at(low, slope * low), at(ridge, peak), at(ticks_x[-1], peak)], f"roof l{number}")
        for point in level["points"]:
            x, y = at(point["additions_a_bit"], point["additions_a_cycle"])
            words = (
                f"{point['layer']}, {level['name']}: {point['additions_a_bit']:.3g} additions a bit, "
                f"{point['additions_a_cycle']:.4g} a cycle"
            )
            drawing.circle(x, y, 4.5, f"c{number}", words)
    by_speed = sorted(levels[0]["points"], key=lambda point: point["additions_a_cycle"])
    for point in {point["layer"]: point for point in (by_speed[0], by_speed[-1])}.values():
        x, y = at(point["additions_a_bit"], point["additions_a_cycle"])
        drawing.text(x + 8, y + 12, point["layer"], "s")
    x, y = at(ticks_x[-1], peak)
    drawing.text(x - 4, y - 6, f"peak: {peak:,}", "s", "end")
    return drawing.svg()


def treemap(parts: Sequence[tuple[str, float]], shown: Callable[[float], str], title: str) -> str:
    """Areas in proportion, largest first; what is 0 is left out."""
    width, height = WIDTH / 2 - 12, 270.0
    drawing = Drawing(width, height, title)
    known = sorted(((n, v) for n, v in parts if v > 0), key=lambda pair: -pair[1])
    sizes = squarify.normalize_sizes([value for _, value in known], width, height)
    for number, ((name, value), box) in enumerate(
        zip(known, squarify.squarify(sizes, 0, 0, width, height), strict=True)
    ):
        x, y, dx, dy = box["x"], box["y"], box["dx"], box["dy"]
        drawing.rect(x + 1, y + 1, dx - 2, dy - 2, f"c{number % 8}", f"{name}: {shown(value)}", rx=3)
        if dx > 6.6 * min(len(name), 9) and dy > 18:
            fits = int((dx - 10) / 7.2)
            drawing.text(x + 7, y + 16, name if len(name) <= fits else name[: max(1, fits - 1)] + "…", "on")
            if dy > 34 and len(shown(value)) <= fits:
                drawing.text(x + 7, y + 31, shown(value), "on small")
    return drawing.svg()


def confusion(part: dict[str, Any]) -> str:
    """True class by row, predicted by column; the strength is the share of the true class."""
    names, matrix = part["classes"], part["matrix"]
    count = len(names)
    cell = 36.0 if count <= WRITTEN_CLASSES else max(4.0, 620.0 / count)
    left = 32 + 7.0 * max(len(name) for name in names) if count <= WRITTEN_CLASSES else 30.0
    top = 30 + (5.2 * max(len(name) for name in names) if max(map(len, names)) > 3 else 12.0)
    top = top if count <= WRITTEN_CLASSES else 30.0
    drawing = Drawing(left + cell * count + 50, top + cell * count + 10, "confusion matrix")
    drawing.text(left + cell * count / 2, 14, "predicted", "s", "middle")
    middle = top + cell * count / 2
    drawing.text(12, middle, "true", "s", "middle", transform=f"rotate(-90 12 {middle:.0f})")
    for row, numbers in enumerate(matrix):
        total = sum(numbers) or 1
        y = top + cell * row
        if count <= WRITTEN_CLASSES:
            x = left + cell * row + cell / 2
            drawing.text(left - 6, y + cell / 2 + 4, names[row], "s", "end")
            if max(map(len, names)) > 3:
                turn = f"rotate(-45 {x:.0f} {top - 6:.0f})"
                drawing.text(x, top - 6, names[row], "s", "start", transform=turn)
            else:
                drawing.text(x, top - 6, names[row], "s", "middle")
        for column, number in enumerate(numbers):
            kind, share = ("right" if row == column else "wrong"), number / total
            x = left + cell * column
            tip = f"true {names[row]}, predicted {names[column]}: {number}"
            drawing.rect(x, y, cell - 1, cell - 1, "empty", tip)
            if number:
                strength = round(0.25 + 0.75 * share, 2)
                drawing.rect(x, y, cell - 1, cell - 1, kind, tip, opacity=strength)
                if count <= WRITTEN_CLASSES:
                    words = "on" if strength > 0.6 else "s"
                    drawing.text(x + cell / 2, y + cell / 2 + 4, str(number), words, "middle")
    return drawing.svg()


def energy_ways(part: dict[str, Any]) -> list[tuple[str, list[tuple[str, float]]]]:
    """Theory, count and netlist of an image, each with its parts in pJ."""
    ways = [
        ("theory", [("additions and MACs, float", part["theory_pj"])]),
        ("counted", [("additions", part["additions_pj"]), ("accesses", part["accesses_pj"])]),
    ]
    if part["netlist"] is not None:
        totals = part["netlist"]["frames"]["real"]["totals"]
        names = (("clock", "clock"), ("internal", "cells"), ("switching", "nets"), ("macros", "macros"))
        ways.append(("netlist", [(words, totals[name] / 1e3) for name, words in names]))
    return ways


def ways(part: dict[str, Any]) -> str:
    """The ways beside each other, every part named in its bar where there is room."""
    found = energy_ways(part)
    drawing = Drawing(WIDTH, 16 + 40 * len(found), "energy of an image, by the ways to count it")
    largest = max(sum(value for _, value in parts) for _, parts in found) or 1.0
    room, number = WIDTH - 90 - 90, 0
    for place, (name, parts) in enumerate(found):
        y, x = 8 + 40.0 * place, 90.0
        drawing.text(82, y + 21, name, "s", "end")
        for words, value in parts:
            width = room * value / largest
            drawing.rect(x, y + 3, width, 28, f"c{number % 8}", f"{name}, {words}: {amount(value)}")
            if width > 7 * len(words):
                drawing.text(x + 6, y + 21, words, "on")
            x, number = x + width, number + 1
        drawing.text(x + 6, y + 21, amount(sum(value for _, value in parts)), "s")
    return drawing.svg()


def timing_path(part: dict[str, Any]) -> str:
    """Logic and routing of the slowest path."""
    path = part["critical_path"]
    parts = (("logic", path["logic"]), ("routing", path["routing"]))
    drawing = Drawing(WIDTH, 44, "slowest path")
    total = sum(value for _, value in parts) or 1.0
    x = 0.0
    for number, (name, value) in enumerate(parts):
        width = (WIDTH - 4) * value / total
        drawing.rect(x, 6, width, 30, f"c{number}", f"{name}: {value:g} ns")
        drawing.text(x + 8, 26, f"{name} {value:g} ns", "on")
        x += width
    return drawing.svg()
