"""The picture of `s2tdpt explore`: frames a second over LUTs, energy as colour, the front numbered."""

from __future__ import annotations

import io
from collections.abc import Sequence

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from s2tdpt.hw.estimate.candidate import Candidate


def draw_front(
    found: Sequence[Candidate], best: Sequence[Candidate], chosen: Candidate | None, kind: str
) -> bytes:
    """Draw the estimated machines.

    Parameters
    ----------
    found, best : sequence of Candidate
        All of them; the front, in the order of its table.
    chosen : Candidate or None
        The answer, which gets a ring.
    kind : str
        Format that matplotlib writes: png, svg, pdf.
    """
    figure = Figure(figsize=(9, 6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("LUTs of an ECP5, estimated")
    axes.set_ylabel("frames/s, estimated")
    axes.grid(which="both", alpha=0.2)
    axes.set_title(f"{len(found)} machines; numbered: no other one beats them (fps, LUTs, energy)")
    if found:
        energies = [candidate.energy / 1e3 for candidate in found]
        norm = LogNorm(min(energies), max(max(energies), min(energies) * 1.01))
        on_front = {id(candidate) for candidate in best}
        for group, style in (
            ([c for c in found if id(c) not in on_front], {"s": 18, "alpha": 0.6}),
            (best, {"s": 70, "edgecolors": "black", "linewidths": 0.8}),
        ):
            points = axes.scatter(
                [candidate.lut for candidate in group],
                [candidate.fps for candidate in group],
                c=[candidate.energy / 1e3 for candidate in group],
                cmap="viridis",
                norm=norm,
                **style,
            )
        figure.colorbar(points, ax=axes, label="nJ an image, counted (streamed weights from DRAM included)")
    for number, candidate in enumerate(best, 1):
        place = (candidate.lut, candidate.fps)
        axes.annotate(str(number), place, xytext=(6, 5), textcoords="offset points", fontsize=8)
    if chosen is not None:
        ring = {"s": 220, "facecolors": "none", "edgecolors": "crimson", "linewidths": 1.6}
        axes.scatter([chosen.lut], [chosen.fps], label="the answer", **ring)
        axes.legend(loc="lower right")
    picture = io.BytesIO()
    figure.savefig(picture, format=kind, dpi=130)
    return picture.getvalue()
