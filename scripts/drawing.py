"""Inline SVG for HTML: shapes with classes, whose colours the page's style sheet gives for light and dark."""

from __future__ import annotations

import math
from html import escape


class Drawing:
    """An SVG image of `width` x `height` units, put together shape by shape.

    Parameters
    ----------
    width, height : float
    title : str
        What it shows, for those who cannot see it.
    """

    def __init__(self, width: float, height: float, title: str):
        self.width, self.height = width, height
        self._shapes = [f"<title>{escape(title)}</title>"]

    def rect(self, x: float, y: float, width: float, height: float, kind: str, tip: str = "", **more) -> None:
        """A rectangle of the class `kind`; `tip` shows when it is pointed at."""
        inside = f"<title>{escape(tip)}</title>" if tip else ""
        place = _attributes(x=x, y=y, width=max(0.0, width), height=max(0.0, height), **more)
        self._shapes.append(f'<rect class="{kind}"{place}>{inside}</rect>')

    def circle(self, x: float, y: float, radius: float, kind: str, tip: str = "") -> None:
        """A disc."""
        inside = f"<title>{escape(tip)}</title>" if tip else ""
        self._shapes.append(f'<circle class="{kind}"{_attributes(cx=x, cy=y, r=radius)}>{inside}</circle>')

    def line(self, points: list[tuple[float, float]], kind: str) -> None:
        """A line through points."""
        text = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        self._shapes.append(f'<polyline class="{kind}" points="{text}"/>')

    def text(self, x: float, y: float, words: str, kind: str = "", anchor: str = "start", **more) -> None:
        """Words; `anchor` is start, middle or end."""
        place = _attributes(x=x, y=y, **more)
        self._shapes.append(f'<text class="{kind}" text-anchor="{anchor}"{place}>{escape(words)}</text>')

    def svg(self) -> str:
        """The element."""
        box, style = f"0 0 {self.width:.0f} {self.height:.0f}", f"max-width:{self.width:.0f}px"
        return f'<svg viewBox="{box}" role="img" style="{style}">{"".join(self._shapes)}</svg>'


def _attributes(**values) -> str:
    parts = ((name, f"{value:.1f}" if isinstance(value, float) else value) for name, value in values.items())
    return "".join(f' {name}="{value}"' for name, value in parts)


def decades(low: float, high: float) -> list[float]:
    """Powers of ten around two positive numbers, at least two."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    return [10.0**power for power in range(first, max(last, first + 1) + 1)]


def short(value: float) -> str:
    """A number in three digits: 1.23 k, 45.6 M."""
    for size, unit in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if abs(value) >= size:
            return f"{value / size:.3g}{unit}"
    return f"{value:.3g}"
