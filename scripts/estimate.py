"""s2tdpt estimate: cycles, memories and logic of any network on any machine, before synthesis."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.box import SIMPLE_HEAD
from rich.table import Table

from s2tdpt.golden import strictjson
from s2tdpt.golden.config import load_config
from s2tdpt.golden.errors import UserError
from s2tdpt.scripts.options import console, load_params, machine_options, machine_words, notes
from s2tdpt.scripts.output import check_file, json_option, quiet, write_json

if TYPE_CHECKING:
    from s2tdpt.golden.config import NetworkConfig
    from s2tdpt.hw.estimate.prediction import Prediction


@click.group(
    short_help="Cycles, memories, LUTs of a network on a machine, before synthesis.",
    invoke_without_command=True,
)
@click.option("--config", "-c", metavar="NAME|FILE", help="Configuration; widths of random weights.")
@click.option("--params", "-p", metavar="NAME|FILE", help="Parameter file instead; its own widths.")
@machine_options
@click.option(
    "--rates",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Firing rates: what `s2tdpt energy --json` wrote, or an object by trace; default published ones.",
)
@click.option("--mhz", type=float, default=100.0, show_default=True, help="Clock of the images/s; assumed.")
@json_option
@click.pass_context
def estimate(context, config, params, machine, rates, mhz, json_path) -> None:
    """Cycles, images/s, memories, weight bandwidth, LUTs, flip-flops and block RAMs, in seconds.

    Nothing is trained, simulated or synthesised: spikes are drawn at random with the firing rates, the exact
    cycle model counts them, and logic is predicted by a model fitted to a table of synthesis runs. `s2tdpt
    cycles` counts real images, `s2tdpt synth` synthesises. The clock is an assumption: no clock is predicted.

    \b
    Examples:
      s2tdpt estimate -c s2tdpt-4-384-int4 --machine ecp5-85k
      s2tdpt energy --limit 100 --json rates.json; s2tdpt estimate -p digits --rates rates.json
      s2tdpt estimate attention                    (STDP and SSA units beside N x N engines)
      s2tdpt estimate table                        (run the synthesis runs that are missing; an hour or two)
      s2tdpt estimate units                        (synthesise the attention units; some minutes)
    """
    if context.invoked_subcommand is not None:
        return
    if config is not None and params is not None:
        raise UserError("estimate takes --config or --params; expected one of them; leave the other out")
    if not 0 < mhz < math.inf:
        raise UserError(f"--mhz is {mhz:g}; expected a positive number of MHz; for instance 100")
    from s2tdpt.golden.bounds import derive_bounds
    from s2tdpt.golden.params import random_params
    from s2tdpt.hw.estimate.prediction import check_rates, default_rates, predict
    from s2tdpt.hw.plan.schedule import program_of
    from s2tdpt.hw.plan.widths import derive_widths

    numbers = load_params(params or "digits") if config is None else random_params(load_config(config), 0)
    profile = default_rates(numbers.config)
    if rates is not None:
        profile = check_rates(numbers.config, read_rates(rates, numbers.config))
    bounds = derive_bounds(numbers)
    widths = derive_widths(numbers, bounds)
    program = program_of(numbers, machine, widths.head_sum)
    result = predict(program, widths, bounds, profile)
    if json_path is not None:
        write_json(
            json_path,
            result.as_dict()
            | {
                "fields": machine.model_dump(mode="json"),
                "rates": profile,
                "clock_mhz": mhz,
                "images_per_second": mhz * 1e6 / result.interval,
            },
        )
    if not quiet(json_path):
        console.print(layer_table(result))
        console.print(total_table(result, machine_words(machine), mhz, rates))


def read_rates(path: Path, config: NetworkConfig) -> dict[str, float]:
    """A profile from a file.

    Raises
    ------
    UserError
        It cannot be read, is no profile, or was measured on another network.
    """
    try:
        data = strictjson.read(path, strictjson.LARGEST_RESULT)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"cannot read rates {path}: {reason}; expected a JSON file; check the path") from None
    if not isinstance(data, dict):
        raise UserError(f"{path} is no rate profile; expected a JSON object; make one with `s2tdpt energy`")
    if isinstance(data.get("layers"), list):
        if data.get("config") != config.name:
            raise UserError(
                f"the rates in {path} are those of {data.get('config')!r}; expected {config.name}; measure "
                "this network"
            )
        rows = [row for row in data["layers"] if isinstance(row, dict) and row.get("rate") is not None]
        return {str(row.get("source")): row["rate"] for row in rows}
    return data


def layer_table(result: Prediction) -> Table:
    """A line a layer."""
    table = Table(title=f"{result.network}: predicted cycles", box=SIMPLE_HEAD, padding=0)
    for heading in ("layer", "cycles", "share", "adds", "adds a\ncycle"):
        table.add_column(heading, justify="left" if heading == "layer" else "right", no_wrap=True)
    for layer in result.layers:
        rate = layer.accumulates / layer.cycles if layer.cycles else 0.0
        words = (f"{layer.cycles:,}", f"{100 * layer.share:.1f} %", f"{layer.accumulates:,}", f"{rate:,.1f}")
        table.add_row(layer.name, *words)
    return table


def total_table(result: Prediction, words: str, mhz: float, rates: Path | None) -> Table:
    """The machine in one table."""
    table = Table(title=f"{result.network}, {words}")
    table.add_column("figure")
    table.add_column("predicted", justify="right")
    speed = mhz * 1e6 / result.interval
    table.add_row("firing rates", "published" if rates is None else rates.name)
    table.add_row("cycles from image to image", f"{result.interval:,}")
    table.add_row(f"images/s at an assumed {mhz:g} MHz", f"{speed:,.1f}")
    table.add_row("useful accumulates a cycle", f"{result.accumulates_per_cycle:,.1f}")
    table.add_row("lanes of all banks in use", f"{100 * result.utilisation:.1f} %")
    table.add_row("memory bits", f"{sum(result.memories.values()):,}")
    if result.stream_bits:
        table.add_row("weights streamed an image", f"{result.stream_bits / 8e6:,.2f} MB")
        table.add_row(f"weight stream at {mhz:g} MHz", f"{speed * result.stream_bits / 8e6:,.1f} MB/s")
    table.add_section()
    table.add_row("ECP5: LUTs", f"{result.lut:,.0f}")
    table.add_row("ECP5: flip-flops", f"{result.ff:,.0f}")
    table.add_row("ECP5: block RAMs", str(result.bram))
    mean, largest = result.area_errors["lut"]
    table.caption = (
        f"LUTs: fit to {result.area_rows} synthesis runs; left out one by one, the error is "
        f"{100 * mean:.0f} % on average, {100 * largest:.0f} % at most"
    )
    return table


@estimate.command(short_help="Run the synthesis runs behind the LUT model.")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="FILE",
    callback=check_file,
    help="Where the table goes; default: the one that comes with the package.",
)
@click.option("--anew", is_flag=True, help="Also repeat the runs that the table has.")
def table(out, anew) -> None:
    """Synthesise the machines of the table, one after the other; an interruption keeps what is done."""
    from s2tdpt.hw.estimate.area_table import CASES, TABLE, count_cells, measure, read_table, table_of
    from s2tdpt.hw.tools.external import find_tool

    find_tool("yosys")
    place = out or TABLE
    rows = {} if anew or not place.exists() else dict(read_table(place))
    for number, case in enumerate(CASES, 1):
        if case.name not in rows:
            notes.print(f"{number} of {len(CASES)}: {case.name}", highlight=False)
            rows[case.name] = measure(case.params(), case.machine())
            write_json(place, table_of(rows))
            notes.print(f"  {count_cells(rows[case.name])}", highlight=False)


@estimate.command(short_help="Synthesise the attention units, one by one.")
@click.option("--kind", "kinds", multiple=True, metavar="KIND", help="Only this attention; may be repeated.")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="FILE",
    callback=check_file,
    help="Also put the rows into this table (JSON, made if it is not there); `s2tdpt compare` reads "
    "hw/estimate/attention_units.json.",
)
def units(kinds, out) -> None:
    """Logic of every attention's unit alone in a small network: the table of docs/attentions.md, in Markdown.

    16 tokens, 2 heads of 16 channels, 4 steps, random weights; Yosys' synth_ecp5, not placed.
    """
    from s2tdpt.hw.attention import HARDWARE
    from s2tdpt.hw.estimate.attention_area import COLUMNS, markdown, measure_unit, read_units, units_table
    from s2tdpt.hw.tools.external import find_tool

    check_kinds(kinds)
    find_tool("yosys")
    rows = read_units(out) if out is not None and out.exists() else {}
    click.echo(f"| kind | {' | '.join(COLUMNS)} |")
    click.echo("|---" * (len(COLUMNS) + 1) + "|")
    for kind in kinds or HARDWARE:
        rows[kind] = measure_unit(kind)
        click.echo(markdown(kind, rows[kind]))
        if out is not None:
            write_json(out, units_table(rows))


def check_kinds(kinds: Sequence[str]) -> None:
    """UserError if one of `kinds` is no attention in hardware."""
    from s2tdpt.hw.attention import HARDWARE

    for kind in kinds:
        if kind not in HARDWARE:
            raise UserError(f"--kind is {kind[:60]!r}; expected one of {', '.join(HARDWARE)}; choose one")


@estimate.command(short_help="STDP, SSA and N x N engines: cycles and state by tokens.")
@click.option("--tokens", default="64,256,1024,4096", show_default=True, help="Powers of two, with commas.")
@click.option("--head-dim", type=click.IntRange(2, 64), default=32, show_default=True, help="d_h.")
@click.option("--timesteps", type=click.IntRange(1, 8), default=4, show_default=True, help="T.")
@machine_options
@json_option
def attention(tokens, head_dim, timesteps, machine, json_path) -> None:
    """One head on the STDP unit, the SSA unit and explicit N x N engines, with the same lanes and widths.

    Spikes are random with published rates. STDP and SSA are this project's units, by their exact models; the
    explicit engines are formulas, marked so (docs/attentions.md).

    \b
    Example:
      s2tdpt estimate attention --tokens 64,1024 --set attention_steps=4
    """
    from s2tdpt.hw.attention.comparison import compare

    counts = read_tokens(tokens)
    found = [cost for count in counts for cost in compare(count, machine, head_dim, timesteps)]
    if json_path is not None:
        setting = {"head_dim": head_dim, "timesteps": timesteps, "machine": machine.model_dump(mode="json")}
        write_json(json_path, setting | {"engines": [cost.as_dict() for cost in found]})
    if quiet(json_path):
        return
    table = Table(
        title=f"one head of {head_dim} channels, T = {timesteps}, {machine.attention_steps} engines",
        caption="* a formula alone",
        box=SIMPLE_HEAD,
        padding=0,
    )
    for heading in ("tokens", "engine", "cycles", "bits of Y", "state bits", "q, k, v bits"):
        justify = "left" if heading == "engine" else "right"
        table.add_column(heading, justify=justify, no_wrap=True)
    for cost in found:
        name = f" {cost.engine}{' *' if cost.formula else ''}"
        numbers = (f"{cost.cycles:,}", str(cost.sum_bits), f"{cost.state_bits:,}", f"{cost.store_bits:,}")
        table.add_row(f"{cost.tokens:,}", name, *numbers)
    console.print(table)


def read_tokens(text: str) -> list[int]:
    """Numbers of tokens from "64,256".

    Raises
    ------
    UserError
        It is no list of powers of two from 4 to 4096.
    """
    try:
        found = [int(part) for part in text.split(",")]
    except ValueError:
        found = [0]
    if any(not 4 <= count <= 4096 or count & (count - 1) for count in found):
        raise UserError(
            f"--tokens is {text[:60]!r}; expected powers of two from 4 to 4096 with commas; give for "
            "instance 64,1024"
        )
    return found
