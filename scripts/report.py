"""s2tdpt report: a network on a machine in one HTML page, and the same as JSON."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from s2tdpt.scripts.images import choose_images, data_option, images_option, labelled_images
from s2tdpt.scripts.options import (
    folder_option,
    load_params,
    machine_options,
    params_option,
    positive,
    telling,
)
from s2tdpt.scripts.output import check_file, json_option, quiet, write_json, write_text

if TYPE_CHECKING:
    from s2tdpt.scripts.report_data import Counts

CLOCK = 100.0
IMAGES = 16
TEMPLATES = Path(__file__).parent / "templates"


@click.command(short_help="A network on a machine in one HTML page.")
@params_option
@machine_options
@click.option(
    "--out",
    "-o",
    type=click.Path(path_type=Path),
    metavar="FILE",
    callback=check_file,
    help="The page; it needs no network and no other file.",
)
@click.option(
    "--netlist-energy",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="What `s2tdpt energy --liberty LIB --json` wrote: the netlist's energy and area by block.",
)
@click.option(
    "--synthesis",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="What `s2tdpt synth --json` wrote: what it takes, clock and slowest path.",
)
@images_option
@data_option
@folder_option
@click.option("--count", "-n", type=click.IntRange(1), help=f"Images that are counted; default {IMAGES}.")
@click.option(
    "--limit",
    type=click.IntRange(1),
    default=1000,
    show_default=True,
    help="Images of the confusion matrix at most.",
)
@click.option(
    "--mhz", type=float, default=CLOCK, show_default=True, callback=positive, help="Clock; assumed."
)
@json_option
def report(
    params, machine, out, netlist_energy, synthesis, images, data, data_dir, count, limit, mhz, json_path
) -> None:
    """Report on a network on a machine: one HTML page, and the same as JSON.

    Architecture with its numbers, cycles and utilisation by layer, roofline, energy by theory and count,
    area by block, accuracy and confusion matrix; with the results of `s2tdpt energy --liberty` and `s2tdpt
    synth` also the netlist's energy, timing and what a synthesis took. What is missing is named with the
    command that makes it. The page is for screens (light and dark) and for paper.

    \b
    Examples:
      s2tdpt report --out report.html
      s2tdpt report -p s2tdpt-2-128 -m ecp5-85k --out cifar.html --json cifar.json
      s2tdpt synth --seeds 1 --json synth.json; s2tdpt report --synthesis synth.json --out report.html
      s2tdpt energy --liberty cells.lib.gz --json net.json; s2tdpt report --netlist-energy net.json -o a.html
    """
    if out is None and json_path is None:
        raise click.UsageError("Missing option '--out' or '--json'.")
    from s2tdpt.golden.network import GoldenNetwork
    from s2tdpt.scripts import report_data

    golden = GoldenNetwork(load_params(params))
    netlist = placed = None
    if netlist_energy is not None:
        netlist = report_data.read_netlist(netlist_energy, golden.config.name, machine)
    if synthesis is not None:
        placed = report_data.read_synthesis(synthesis, golden, machine)
    chosen = choose_images(golden.params, images, data, data_dir, count, (IMAGES, IMAGES))
    with telling("counting cycles") as tell:
        counts = report_data.count(golden, machine, chosen, tell)
        accuracy = None
        if not images:
            tell("classifying")
            labelled = labelled_images([golden.config], data, data_dir, limit)
            accuracy = report_data.accuracy_part(golden, labelled)
    result = gather(counts, chosen.description, mhz, netlist, placed, accuracy)
    result["missing"] = missing(result, params, machine)
    if json_path is not None:
        write_json(json_path, result)
    if out is not None:
        write_text(out, render(result))
        if not quiet(json_path):
            click.echo(f"{out}: open it in a browser; {len(result['missing'])} parts are left out")


def gather(counts: Counts, source: str, mhz: float, netlist, placed, accuracy) -> dict[str, Any]:
    """All parts."""
    from s2tdpt.hw.tools.external import PROJECT, versions
    from s2tdpt.scripts import report_data
    from s2tdpt.scripts.report_architecture import architecture_part

    return {
        "format": report_data.FORMAT,
        "version": versions([PROJECT])[PROJECT],
        "network": report_data.network_part(counts),
        "machine": counts.machine.model_dump(mode="json"),
        "images": {"count": counts.images, "source": source},
        "architecture": architecture_part(counts.program, counts.widths, counts.plan),
        "widths": counts.widths.as_dict(),
        "cycles": report_data.cycles_part(counts, mhz),
        "roofline": report_data.roofline_part(counts),
        "energy": report_data.energy_part(counts, mhz, netlist),
        "area": report_data.area_part(counts, placed),
        "timing": report_data.timing_part(placed),
        "accuracy": accuracy,
    }


def missing(result: dict[str, Any], params: str, machine) -> list[dict[str, str]]:
    """Parts that are left out, why, and the line that makes them."""
    from s2tdpt.hw.tools.external import INSTALL, ToolError, find_tool

    params = shlex.quote(params)
    fields = " ".join(f"--set {name}={value}" for name, value in machine.model_dump(exclude={"name"}).items())
    found = []

    def leave_out(part: str, reason: str, command: str, tools: tuple[str, ...] = ()) -> None:
        for tool in tools:
            try:
                find_tool(tool)
            except ToolError:
                reason, command = f"{reason}; {tool} is missing", f"{INSTALL[tool]}; {command}"
        found.append({"part": part, "reason": reason, "command": command})

    if result["energy"]["netlist"] is None:
        line = f"s2tdpt energy -p {params} {fields} --liberty cells.lib.gz --json net.json"
        reason = "no --netlist-energy FILE was given"
        if machine.weight_memory == "stream":
            reason, line = "the netlist's energy needs weights on chip", line.replace("=stream", "=rom")
        leave_out("energy of the netlist, area of its cells", reason, line, ("yosys",))
    if result["area"]["synthesis"] is None:
        line = f"s2tdpt synth -p {params} {fields} --json synth.json"
        leave_out("synthesised area", "no --synthesis FILE was given", line, ("yosys", "nextpnr-ecp5"))
    if result["timing"] is None:
        reason = "no --synthesis FILE with place and route was given"
        line = f"s2tdpt synth -p {params} {fields} --target ecp5-85k --json synth.json"
        leave_out("timing path", reason, line, ("yosys", "nextpnr-ecp5"))
    if result["accuracy"] is None:
        line = f"s2tdpt report -p {params} {fields} --out report.html"
        leave_out("accuracy, confusion matrix", "your --images have no labels", line)
    return found


def render(result: dict[str, Any]) -> str:
    """The page."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    from s2tdpt.scripts.energy import amount
    from s2tdpt.scripts.report_data import NETLIST_PARTS

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=False
    )
    text = json.dumps(result).replace("<", "\\u003c")  # a script element ends at </script, whatever it holds
    return environment.get_template("report.html").render(
        data=result,
        charts={name: Markup(svg) for name, svg in charts(result).items()},
        tiles=tiles(result),
        parts=list(result["energy"]["layers"][0]["parts"]),
        netlist_parts=NETLIST_PARTS,
        amount=amount,
        embedded=Markup(text),
    )


def tiles(result: dict[str, Any]) -> list[tuple[str, str]]:
    """The figures on top: value, words."""
    from s2tdpt.scripts.energy import amount

    cycles, area, accuracy = result["cycles"], result["area"], result["accuracy"]
    found = [
        (f"{cycles['interval']:,.0f}", "cycles an image"),
        (f"{cycles['images_per_second']:,.1f}", f"images/s at {cycles['clock_mhz']:g} MHz, assumed"),
        (f"{cycles['accumulates_per_cycle']:,.1f}", "useful additions a cycle"),
        (amount(result["energy"]["counted_pj"]), "an image, counted, 45 nm"),
        (f"{area['lut']:,.0f}", "LUTs of an ECP5, estimated"),
        (f"{area['bram']}", "block RAMs of 18 kbit"),
    ]
    if accuracy is not None:
        found.append((f"{100 * accuracy['accuracy']:.2f} %", f"of {accuracy['images']:,} images right"))
    return found


def charts(result: dict[str, Any]) -> dict[str, str]:
    """All pictures by name; empty where there is nothing to draw."""
    from s2tdpt.scripts import report_architecture, report_charts
    from s2tdpt.scripts.energy import amount

    cycles, energy, area = result["cycles"], result["energy"], result["area"]
    rows = [(layer["name"], [layer["cycles"]]) for layer in cycles["layers"]]
    rows.append(("tail", [cycles["tail"]]))
    parts = list(energy["layers"][0]["parts"])
    silicon = ""
    if energy["netlist"] is not None:
        blocks = energy["netlist"]["frames"]["real"]["blocks"].items()
        areas = [(name, block["area"] + block["macro_area"]) for name, block in blocks]
        silicon = report_charts.treemap(areas, lambda value: f"{value:,.0f} um2", "area by block")
    path = result["timing"] and result["timing"]["critical_path"]
    return {
        "architecture": report_architecture.draw(result["architecture"]),
        "cycles": report_charts.bars(rows, ["cycles"], lambda value: f"{value:,.0f}", "cycles by layer"),
        "roofline": report_charts.roofline(result["roofline"]),
        "ways": report_charts.ways(energy),
        "energy": report_charts.bars(
            [(layer["name"], [layer["parts"][part] for part in parts]) for layer in energy["layers"]],
            parts,
            amount,
            "energy by layer",
        ),
        "lut": report_charts.treemap(
            [(block["name"], block["lut"]) for block in area["blocks"]],
            lambda value: f"{value:,.0f} LUTs",
            "LUTs by block",
        ),
        "memory": report_charts.treemap(
            [(memory["name"], memory["total_bits"]) for memory in area["memories"]],
            lambda value: f"{value:,.0f} bits",
            "memory bits",
        ),
        "silicon": silicon,
        "timing": report_charts.timing_path(result["timing"]) if path else "",
        "confusion": report_charts.confusion(result["accuracy"]) if result["accuracy"] else "",
    }
