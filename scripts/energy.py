"""s2tdpt energy: what an inference would cost, by published energies of single operations."""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import TYPE_CHECKING

import click
import numpy as np
from rich.box import SIMPLE_HEAD
from rich.progress import Progress
from rich.table import Table

from s2tdpt.golden.errors import UserError
from s2tdpt.scripts.images import data_option, labelled_images
from s2tdpt.scripts.options import (
    console,
    folder_option,
    load_params,
    machine_options,
    machine_words,
    notes,
    params_option,
    telling,
)
from s2tdpt.scripts.output import check_file, json_option, quiet, write_bytes, write_json

if TYPE_CHECKING:
    from s2tdpt.golden.energy import EnergyReport, LayerEnergy
    from s2tdpt.golden.network import GoldenNetwork
    from s2tdpt.hw.estimate.counted_energy import CountedEnergy
    from s2tdpt.hw.plan.machine import Machine

CLOCK = 100.0
"""MHz."""
COUNTED = 16
"""Images whose accesses are counted unless told."""
PLOT_FORMATS = (".png", ".svg", ".pdf")
UNITS = (("mJ", 1e9), ("uJ", 1e6), ("nJ", 1e3), ("pJ", 1.0))
"""Names and sizes in pJ."""


def check_plot(context, parameter, path: Path | None) -> Path | None:
    """Option callback: a place for a picture of a known format."""
    if path is not None and path.suffix.lower() not in PLOT_FORMATS:
        raise UserError(
            f"{parameter.opts[0]} {path} has no known format; expected a name that ends in "
            f"{', '.join(PLOT_FORMATS)}; rename it"
        )
    return check_file(context, parameter, path)


@click.command(short_help="Energy of an inference, from firing rates on real images.")
@params_option
@data_option
@folder_option
@click.option(
    "--limit",
    type=click.IntRange(1),
    default=1000,
    show_default=True,
    help="At most so many test images.",
)
@click.option(
    "--against",
    multiple=True,
    metavar="NAME|FILE",
    help="Compare with this parameter file too; may be repeated.",
)
@click.option(
    "--plot",
    type=click.Path(path_type=Path),
    metavar="FILE",
    callback=check_plot,
    help="Draw the energy of the layers, and accuracy against energy (PNG, SVG or PDF).",
)
@machine_options
@click.option(
    "--counted",
    type=click.IntRange(0),
    default=COUNTED,
    show_default=True,
    metavar="N",
    help="Count the accesses of the machine on the first N images; 0: leave them out.",
)
@click.option(
    "--mhz", type=float, default=CLOCK, show_default=True, help="Clock that leakage is given for; assumed."
)
@click.option(
    "--liberty",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Also synthesise onto this cell library (.lib or .lib.gz) and measure the netlist (minutes).",
)
@json_option
def energy(params, data, data_dir, limit, against, plot, machine, counted, mhz, liberty, json_path) -> None:
    """Energy of an inference, from spikes counted by the golden model on real images.

    Three ways beside each other. Theory: the count of the literature (a float addition for every spike and
    weight, 45 nm). Integer: the additions that this network makes, with the weight rows that must be read for
    them. Counted: every access of every memory of --machine, at its width, and every addition. Formulas,
    sources and what is left out: docs/energy.md. With --liberty a fourth: the power of the synthesised
    netlist,
    every pin with the activity of a gate-level simulation of the first image, beside a black and a white one.

    \b
    Examples:
      s2tdpt energy
      s2tdpt energy --liberty nangate45_typ.lib.gz --limit 1
      s2tdpt energy --machine small --counted 4 --limit 4
      s2tdpt energy --against digits-sparse --against digits-int4 --plot energy.png
      s2tdpt energy -p cifar.safetensors --data cifar10 --data-dir ~/data --limit 500 --json -
    """
    from s2tdpt.golden.activity import measure
    from s2tdpt.golden.energy import energy_report
    from s2tdpt.golden.network import GoldenNetwork

    if liberty is not None:
        from s2tdpt.hw.netlist.liberty import read_liberty_text
        from s2tdpt.hw.tools.external import find_tool
        from s2tdpt.scripts.netlist_energy import as_dict, block_table, frame_table, measure_netlist

        read_liberty_text(liberty)
        find_tool("yosys")
    if not 0 < mhz < math.inf:
        raise UserError(f"--mhz is {mhz:g}; expected a positive number of MHz; for instance 100")
    networks = [(name, GoldenNetwork(load_params(name))) for name in (params, *against)]
    chosen = labelled_images([golden.config for _, golden in networks], data, data_dir, limit)
    images, labels = chosen.images, chosen.labels
    reports = []
    with Progress(console=notes, transient=True, disable=not notes.is_terminal) as progress:
        for name, golden in networks:
            task = progress.add_task(name, total=len(images))
            activity = measure(golden, images, labels, lambda done, task=task: progress.advance(task, done))
            reports.append((name, energy_report(golden, activity)))
        machine_count = None
        if counted:
            task = progress.add_task("accesses", total=len(images[:counted]))
            machine_count = count_accesses(
                networks[0][1], machine, images[:counted], lambda done: progress.advance(task, done)
            )
    frames = None
    if liberty is not None:
        with telling("netlist") as tell:
            frames = measure_netlist(networks[0][1], machine, images[0], liberty, mhz, tell)
    if plot is not None:
        write_plot(plot, reports)
    if json_path is not None:
        compared = [{"params": name} | report.as_dict() for name, report in reports]
        by_machine = None
        if machine_count is not None:
            by_machine = machine_count.as_dict() | {
                "fields": machine.model_dump(mode="json"),
                "clock_mhz": mhz,
                "leaked_pj": machine_count.leaked(mhz),
            }
        write_json(
            json_path,
            compared[0]
            | {"data": chosen.description, "against": compared[1:], "counted": by_machine}
            | {"netlist": None if frames is None else as_dict(frames, liberty)},
        )
    if quiet(json_path):
        return
    name, report = reports[0]
    console.print(layer_table(name, report))
    console.print(total_table(report))
    if machine_count is not None:
        console.print(counted_table(machine_count, report, machine_words(machine)))
        console.print(counted_totals(machine_count, report, mhz))
    if frames is not None:
        console.print(block_table(frames[1]))
        console.print(frame_table(frames))
    if len(reports) > 1:
        console.print(comparison_table(reports))


def amount(picojoules: float) -> str:
    """Energy with a unit that suits it."""
    unit, size = next(((u, s) for u, s in UNITS if picojoules >= s), UNITS[-1])
    return f"{picojoules / size:.3g} {unit}"


def layer_table(name: str, report: EnergyReport) -> Table:
    """Both columns, layer by layer, in the unit that suits the theory's total."""
    from s2tdpt.golden.energy import LayerEnergy

    unit, size = next(((u, s) for u, s in UNITS if report.total("theory") >= s), UNITS[-1])
    title = f"{name}: energy of an image in {unit}, operations in thousands, mean of {report.images}"
    table = Table(title=title, box=SIMPLE_HEAD, padding=0)
    for heading in (
        "layer",
        "rate, %",
        "MACs\na step",
        "theory\n(float)",
        "integer\nadds",
        "energy\nof adds",
        "reads,\na spike",
        "reads,\nall steps",
    ):
        table.add_column(heading, justify="left" if heading == "layer" else "right", no_wrap=True)

    digits = max(1, 3 - len(f"{report.total('theory') / size:.0f}"))

    def row(layer: LayerEnergy) -> None:
        energies = (layer.theory, layer.adders, layer.reads_each, layer.reads_shared)
        theory, *rest = (f"{value / size:,.{digits}f}" if value else "" for value in energies)
        rate = "" if layer.rate is None else f"{100 * layer.rate:.1f}"
        macs, additions = (f"{count / 1e3:,.1f}" if count else "" for count in (layer.macs, layer.additions))
        table.add_row(layer.name, rate, macs, theory, additions, *rest)

    for layer in report.layers:
        row(layer)
    table.add_section()
    fields = ("macs", "operations", "theory", "additions", "adders", "reads_each", "reads_shared")
    row(LayerEnergy("total", "", None, *map(report.total, fields), 0.0, 0.0))
    return table


def total_table(report: EnergyReport) -> Table:
    """Totals beside the dense network and the published figure."""
    from s2tdpt.golden.energy import sram_energy

    totals = report.totals
    arithmetic = ("integer_adders", "dense_int8_arithmetic")
    reads = ("integer_reads_each", "integer_reads_shared", "dense_int8_reads")
    table = Table(title=f"{report.config.name}: accuracy {100 * report.accuracy:.2f} %")
    for heading in ("energy of an image", "arithmetic", "memory reads", "sum"):
        table.add_column(heading, justify="left" if heading == "energy of an image" else "right")
    lines = (
        ("theory, first convolution once", "theory", None),
        (f"theory, first convolution {report.config.timesteps} times", "theory_every_step", None),
        ("the same network dense, float", "dense_float", None),
        ("published: S2TDPT-4-384, CIFAR-100", "published", None),
        ("integer, a weight row read for every spike", arithmetic[0], reads[0]),
        ("integer, a row read once for all steps", arithmetic[0], reads[1]),
        ("the same network dense, int8", arithmetic[1], reads[2]),
    )
    for text, first, second in lines:
        moved = totals[second] if second else 0.0
        table.add_row(
            text,
            amount(totals[first]),
            amount(moved) if second else "not counted",
            amount(totals[first] + moved),
        )
    table.caption = (
        f"weights: {report.weight_bytes:,} bytes, {sram_energy(report.weight_bytes):g} pJ for 64 bits read"
    )
    return table


def count_accesses(golden: GoldenNetwork, machine: Machine, images: np.ndarray, progress) -> CountedEnergy:
    """Accesses and additions of a machine on images."""
    from s2tdpt.hw.estimate.counted_energy import count_energy
    from s2tdpt.hw.estimate.layers import image_traces
    from s2tdpt.hw.plan.schedule import program_of
    from s2tdpt.hw.plan.widths import derive_widths

    widths = derive_widths(golden.params, golden.bounds)
    program = program_of(golden.params, machine, widths.head_sum)
    return count_energy(program, widths, golden.bounds, image_traces(golden, images), progress)


GROUPS = {
    "weights": ("weights",),
    "spikes": ("pixels", "spikes", "spikes of v", "queues"),
    "U": ("residual U", "residual U, rest"),
    "constants": ("constants",),
}
"""Columns of the counted table, by memory; everything else is sums and counts."""


def theory_of(name: str, report: EnergyReport) -> float:
    """Theory of a row of the counted table; the attention has all of its rows."""
    block, _, part = name.rpartition(".")
    rows = report.config.attention.rows(report.config)
    wanted = {f"{block}.{row.name}" for row in rows} if part == "attention" else {name}
    return sum(layer.theory for layer in report.layers if layer.name in wanted)


def counted_table(count: CountedEnergy, report: EnergyReport, words: str) -> Table:
    """Accesses and additions of every layer in energy, theory beside them."""
    unit, size = next(((u, s) for u, s in UNITS if count.energy >= s), UNITS[-1])
    title = f"counted on {words}: energy of an image in {unit}, mean of {count.images}"
    table = Table(title=title, box=SIMPLE_HEAD, padding=0)
    headings = ("layer", "theory", "adders", *GROUPS, "sums,\ncounts", "counted")
    for heading in headings:
        table.add_column(heading, justify="left" if heading == "layer" else "right", no_wrap=True)
    digits = max(1, 3 - len(f"{count.energy / size:.0f}"))
    totals = np.zeros(len(headings) - 1)
    for layer in count.layers:
        by_group = [sum(layer.memories.get(memory, 0.0) for memory in GROUPS[group]) for group in GROUPS]
        rest = sum(layer.memories.values()) - sum(by_group)
        values = np.array([theory_of(layer.name, report), layer.adders, *by_group, rest, layer.energy])
        totals += values
        table.add_row(layer.name, *(f"{value / size:,.{digits}f}" if value else "" for value in values))
    table.add_section()
    table.add_row("total", *(f"{value / size:,.{digits}f}" for value in totals))
    return table


def counted_totals(count: CountedEnergy, report: EnergyReport, mhz: float) -> Table:
    """What the machine's memories cost, and what the count leaves out."""
    table = Table(title=f"{count.network} on machine {count.machine}")
    table.add_column("an image")
    table.add_column("energy", justify="right")
    table.add_row("theory, no memory", amount(report.totals["theory"]))
    table.add_row("counted: additions", amount(count.adders))
    table.add_row("counted: accesses of all memories", amount(count.accesses))
    table.add_row("counted: both", amount(count.energy))
    table.add_section()
    table.add_row(
        f"leakage of the macros, {count.leakage / 1e3:,.1f} mW, {count.cycles:,.0f} cycles at {mhz:g} MHz",
        amount(count.leaked(mhz)),
    )
    if count.streamed_bits:
        table.add_row(
            f"outside: {count.streamed_bits:,} bits of weights from DRAM, at least", amount(count.streaming)
        )
    table.caption = "not counted: clock, control, wires; --liberty measures the cells'"
    return table


def comparison_table(reports: list[tuple[str, EnergyReport]]) -> Table:
    """Accuracy against energy, cheapest first."""
    table = Table(title="accuracy against energy of an image")
    for heading in (
        "network",
        "accuracy",
        "theory",
        "integer\nadditions",
        "additions and\nreads a spike",
        "additions and\nreads all steps",
    ):
        table.add_column(heading, justify="left" if heading == "network" else "right")
    for name, report in sorted(reports, key=lambda pair: pair[1].totals["theory"]):
        totals = report.totals
        table.add_row(
            name,
            f"{100 * report.accuracy:.2f} %",
            amount(totals["theory"]),
            amount(totals["integer_adders"]),
            amount(totals["integer_adders"] + totals["integer_reads_each"]),
            amount(totals["integer_adders"] + totals["integer_reads_shared"]),
        )
    return table


def write_plot(path: Path, reports: list[tuple[str, EnergyReport]]) -> None:
    """Two panels: energies of the first network's layers; accuracy of all against their energies."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 6), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    name, report = reports[0]
    places = np.arange(len(report.layers))
    parts = (
        ("theory", "theory (float)"),
        ("adders", "integer additions"),
        ("reads_each", "reads, one a spike"),
        ("reads_shared", "reads, one for all steps"),
    )
    for i, (field, label) in enumerate(parts):
        values = [getattr(layer, field) / 1e3 for layer in report.layers]
        left.bar(places + 0.2 * (i - 1.5), values, 0.2, label=label)
    left.set_xticks(places, [layer.name for layer in report.layers], rotation=90)
    left.set_yscale("log")
    left.set_ylabel("nJ an image")
    left.legend(title=f"{name}, by layer", ncols=4, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    curves = (
        ("theory", lambda totals: totals["theory"]),
        ("additions", lambda totals: totals["integer_adders"]),
        ("additions and reads", lambda totals: totals["integer_adders"] + totals["integer_reads_shared"]),
    )
    for label, energy_of in curves:
        points = sorted((energy_of(r.totals) / 1e3, 100 * r.accuracy, n) for n, r in reports)
        right.plot([p[0] for p in points], [p[1] for p in points], "o-", label=label)
        for x, y, text in points:
            right.annotate(text, (x, y), textcoords="offset points", xytext=(4, 4), fontsize=8)
    right.set_xscale("log")
    right.set_xlabel("nJ an image")
    right.set_ylabel("accuracy, %")
    right.legend(title="accuracy against energy", ncols=3, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    right.margins(x=0.15)
    picture = io.BytesIO()
    figure.savefig(picture, format=path.suffix[1:].lower(), dpi=120)
    write_bytes(path, picture.getvalue())
