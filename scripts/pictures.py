"""Drawings of `s2tdpt explain`: explanations and a confusion matrix as PNG bytes.

Equal numbers and an equal matplotlib give equal bytes: the user's own settings, the date and the version
stay out.
"""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from matplotlib import style
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from s2tdpt.golden.config import NetworkConfig
from s2tdpt.golden.trace import traces
from s2tdpt.sw.explain import Explanation, to_pixels

DPI = 110
CELL, GAP = 1.4, 0.14
"""Side of a small map and the space between two, inches."""
BLOCK_MAPS = ("x", "q", "k", "v", "attn", "mlp_in", "hidden")
"""Spike maps of a block, in network order."""
BARS = 10
"""Largest logits that are shown."""
WRITTEN_CLASSES = 20
"""Up to so many classes the confusion matrix has its numbers written in."""
GREEN, RED, GREY = "#1a7f37", "#c62828", "#57606a"


class Sheet:
    """A figure whose axes are placed by hand, in inches from its top left corner.

    Automatic layout would take longer than all the drawing.
    """

    def __init__(self, width: float, height: float) -> None:
        self.width, self.height = width, height
        self.figure = Figure((width, height), DPI)

    def axes(self, left: float, top: float, width: float, height: float):
        """New axes."""
        bottom = self.height - top - height
        return self.figure.add_axes(
            (left / self.width, bottom / self.height, width / self.width, height / self.height)
        )

    def text(self, left: float, top: float, text: str, **options) -> None:
        """Text around a point, by default centred."""
        options = {"ha": "center", "va": "center", "fontsize": 9, "parse_math": False} | options
        self.figure.text(left / self.width, 1 - top / self.height, text, **options)


def png(figure: Figure, **options) -> bytes:
    """The figure as a PNG file."""
    FigureCanvasAgg(figure)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None}, **options)
    return buffer.getvalue()


def bare(axes, title: str = "", **text) -> None:
    """Axes without ticks."""
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_title(title, **({"fontsize": 8, "pad": 3} | text))
    for spine in axes.spines.values():
        spine.set_color("#d0d7de")


def show_image(axes, image: np.ndarray, **options) -> None:
    """Pixels uint8 [H, W, C]: grey of one channel, colours of three, the mean of any other number."""
    if image.shape[2] == 3:
        axes.imshow(image, **options)
    else:
        axes.imshow(image.mean(axis=2), cmap="gray", vmin=0, vmax=255, **options)


def show_cam(axes, one: Explanation, config: NetworkConfig) -> None:
    """Grad-CAM over the grey image; the warmest colour is at the map's own maximum.

    The grey is lifted and the darkest ends of the colours are left out, so that heat on a black background
    is not black itself.
    """
    grey = 0.3 + 0.7 / 255 * np.repeat(one.image.mean(axis=2, keepdims=True), 3, axis=2)
    axes.imshow(grey)
    heat = to_pixels(one.cam, config, one.layer)
    peak = heat.max()
    if peak > 0:
        heat = 0.08 + 0.82 * heat / peak
        axes.imshow(heat, cmap="turbo", vmin=0, vmax=1, alpha=0.6, interpolation="bilinear")
    else:
        axes.text(
            0.5,
            0.5,
            "nothing\nspeaks for it",
            transform=axes.transAxes,
            ha="center",
            va="center",
            fontsize=8,
            color="white",
        )


def show_rate(axes, one: Explanation, name: str, title: str) -> None:
    """Firing-rate map on the scale from its least to its greatest rate, which stand below it."""
    rate = 100 * one.rate(name)
    axes.imshow(rate, cmap="inferno")
    bare(axes, title)
    axes.set_xlabel(f"{rate.min():.1f} - {rate.max():.1f} %", fontsize=8, labelpad=2)


def verdict(right: bool | None) -> str:
    """Colour of a prediction."""
    return GREY if right is None else GREEN if right else RED


def draw_overview(
    found: Sequence[Explanation],
    titles: Sequence[str],
    right: Sequence[bool | None],
    config: NetworkConfig,
    names: Sequence[str],
) -> bytes:
    """A row an image: the image, Grad-CAM, the stem's last spike map and the input spikes of every block."""
    maps = [f"block.{b}.x" for b in range(config.depth)]
    if config.sps_depth > 1:
        maps.insert(0, f"sps.{config.sps_depth - 2}.spikes")
    margin, head, across, down = 1.6, 0.7, CELL + GAP, CELL + 0.55
    with style.context("default"):
        sheet = Sheet(margin + across * (2 + len(maps)), head + down * len(found))
        title = f"{config.name}: Grad-CAM of {found[0].layer}; firing rates, least - greatest"
        sheet.text(sheet.width / 2, 0.22, title, fontsize=10)
        for row, (one, label) in enumerate(zip(found, titles, strict=False)):
            top = head + down * row
            cells = [sheet.axes(margin + across * i, top, CELL, CELL) for i in range(2 + len(maps))]
            lines = [line if len(line) <= 24 else line[:23] + "…" for line in label.splitlines()]
            sheet.text(margin - 0.1, top + CELL / 2, "\n".join(lines), ha="right", fontsize=8)
            show_image(cells[0], one.image)
            bare(cells[0], "image" if row == 0 else "")
            show_cam(cells[1], one, config)
            bare(cells[1], f"Grad-CAM: {names[one.target]}", color=GREY)
            cells[1].set_xlabel(
                f"predicted: {names[one.predicted]}", fontsize=8, labelpad=2, color=verdict(right[row])
            )
            for axes, name in zip(cells[2:], maps, strict=True):
                show_rate(axes, one, name, name if row == 0 else "")
        return png(sheet.figure)


def draw_image(
    one: Explanation, title: str, right: bool | None, config: NetworkConfig, names: Sequence[str]
) -> bytes:
    """One image: the image, Grad-CAM and the largest logits; below, the firing-rate map of every layer."""
    stem = [name for name in one.spikes if traces(config)[name].block is None][-len(BLOCK_MAPS) :]
    rows = [stem] if stem else []
    rows += [[f"block.{b}.{part}" for part in BLOCK_MAPS] for b in range(config.depth)]
    head, large, across, down = 0.75, 2.3, CELL + GAP, CELL + 0.5
    below = head + large + 0.95
    with style.context("default"):
        sheet = Sheet(GAP + across * len(BLOCK_MAPS), below + down * len(rows))
        text = f"{title.replace(chr(10), ', ')}, predicted: {names[one.predicted]}"
        sheet.text(sheet.width / 2, 0.22, text, fontsize=11, color=verdict(right))
        image = sheet.axes(GAP, head, large, large)
        show_image(image, one.image)
        bare(image, "image", fontsize=9)
        cam = sheet.axes(2 * GAP + large + 0.5, head, large, large)
        show_cam(cam, one, config)
        bare(cam, f"Grad-CAM of {one.layer} for {names[one.target]}", fontsize=9)
        left = 2 * large + 2.3
        show_logits(sheet.axes(left, head, sheet.width - GAP - left, large), one, names)
        sheet.text(sheet.width / 2, below - 0.38, "firing rate at each position, least - greatest")
        for row, maps in enumerate(rows):
            for i, name in enumerate(maps):
                show_rate(sheet.axes(GAP + across * i, below + down * row, CELL, CELL), one, name, name)
        return png(sheet.figure)


def show_logits(axes, one: Explanation, names: Sequence[str]) -> None:
    """The largest logits as bars, the largest on top."""
    order = np.argsort(-one.logits, kind="stable")[:BARS]
    colours = ["#0969da" if k == one.target else "#afb8c1" for k in order]
    axes.barh(range(len(order)), one.logits[order], color=colours)
    axes.axvline(0, color=GREY, linewidth=0.6)
    axes.set_yticks(range(len(order)), [names[k] for k in order], fontsize=8)
    axes.invert_yaxis()
    axes.tick_params(axis="x", labelsize=7)
    axes.xaxis.get_offset_text().set_fontsize(7)
    axes.set_title("logits (integers)", fontsize=9, pad=3)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def draw_confusion(matrix: np.ndarray, names: Sequence[str]) -> bytes:
    """Share of each true class (row) by predicted class (column), with the counts where they fit."""
    classes, total = len(matrix), int(matrix.sum())
    share = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    few = classes <= WRITTEN_CLASSES
    with style.context("default"):
        size = 2.2 + (0.5 * classes if few else 0.13 * classes)
        figure = Figure((size + 0.6, size), DPI, layout="constrained")
        axes = figure.subplots()
        drawn = axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
        font = 8 if few else 5
        axes.set_xticks(range(classes), names, fontsize=font, rotation=90 if max(map(len, names)) > 2 else 0)
        axes.set_yticks(range(classes), names, fontsize=font)
        axes.set_xlabel("predicted class")
        axes.set_ylabel("true class")
        correct = int(np.trace(matrix))
        axes.set_title(f"{correct} of {total} right ({100 * correct / max(total, 1):.2f} %)", fontsize=10)
        if few:
            for (i, j), count in np.ndenumerate(matrix):
                if count:
                    colour = "white" if share[i, j] > 0.5 else RED if i != j else "black"
                    axes.text(j, i, str(count), ha="center", va="center", fontsize=8, color=colour)
        bar = figure.colorbar(drawn, ax=axes, fraction=0.046, pad=0.03)
        bar.set_label("share of the true class", fontsize=8)
        bar.ax.tick_params(labelsize=7)
        return png(figure, bbox_inches="tight", pad_inches=0.12)
