"""s2tdpt explore: which machine? A search over the machine's fields by estimate, and its Pareto front."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np
from rich.box import SIMPLE_HEAD
from rich.table import Table

from s2tdpt.golden.config import load_config
from s2tdpt.golden.errors import UserError
from s2tdpt.hw.netlist.synthesis import TARGETS
from s2tdpt.hw.plan.machine import Machine
from s2tdpt.scripts.energy import amount, check_plot
from s2tdpt.scripts.estimate import read_rates
from s2tdpt.scripts.images import choose_images, data_option, images_option, labelled_images
from s2tdpt.scripts.options import (
    DEFAULT_MODEL,
    SHIPPED,
    console,
    folder_option,
    load_params,
    notes,
    positive,
    read_fields,
    telling,
)
from s2tdpt.scripts.output import check_file, json_option, quiet, write_bytes, write_json

if TYPE_CHECKING:
    from s2tdpt.golden.params import Params
    from s2tdpt.hw.estimate.candidate import Candidate, Contender, Limits
    from s2tdpt.hw.estimate.search import Refusal, Search

FORMAT = "s2tdpt-explore"
CLOCK = 60.0
"""MHz; below what the three machines that were placed on an ECP5 reached (docs/machines.md)."""
IMAGES = 4
"""Images that are counted unless told."""
ACCURACY_IMAGES = 1000


@click.command(short_help="Which machine? Search by estimate, Pareto front, plot.")
@click.option(
    "--params",
    "-p",
    "names",
    multiple=True,
    metavar="NAME|FILE",
    help=f"Parameter file; default {DEFAULT_MODEL}. Several: a choice of the search, say of weight bits.",
)
@click.option("--config", "-c", metavar="NAME|FILE", help="Configuration instead: random weights and spikes.")
@click.option(
    "--rates", type=click.Path(path_type=Path), metavar="FILE", help="With -c: firing rates, as for estimate."
)
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="FIELD=VALUE",
    help=f"Hold a field of the machine: {', '.join(list(Machine.model_fields)[1:])}. Repeatable.",
)
@click.option(
    "--device",
    type=click.Choice([target for target in TARGETS if target != "liberty"]),
    help="Machines that do not fit it are left out.",
)
@click.option("--fps", type=float, default=None, callback=positive, help="Frames/s that are needed at least.")
@click.option(
    "--mhz", type=float, default=CLOCK, show_default=True, callback=positive, help="Clock; assumed."
)
@click.option(
    "--points",
    type=click.IntRange(1),
    default=100,
    show_default=True,
    help="Machines in the study at the end, estimated or left out.",
)
@click.option(
    "--seed", type=click.IntRange(0, 2**31 - 1), default=0, show_default=True, help="Of the search."
)
@click.option(
    "--storage", metavar="URL", help="Keep the study and go on with it: sqlite:///FILE, or Optuna's."
)
@click.option(
    "--study", default="explore", show_default=True, metavar="NAME", help="Its name in the storage."
)
@images_option
@data_option
@folder_option
@click.option("--count", "-n", type=click.IntRange(1), default=None, help=f"Images; default {IMAGES}.")
@click.option("--synth", is_flag=True, help="Synthesise the front by Yosys afterwards; minutes a machine.")
@click.option(
    "--plot", type=click.Path(path_type=Path), metavar="FILE", callback=check_plot, help="PNG, SVG or PDF."
)
@click.option(
    "--machine-out",
    type=click.Path(path_type=Path),
    metavar="FILE",
    callback=check_file,
    help="Write the answer as a machine file.",
)
@json_option
def explore(
    names,
    config,
    rates,
    settings,
    device,
    fps,
    mhz,
    points,
    seed,
    storage,
    study,
    images,
    data,
    data_dir,
    count,
    synth,
    plot,
    machine_out,
    json_path,
) -> None:
    """Search for machines with many frames/s, few LUTs and little energy an image.

    Optuna proposes machines, the estimate judges them: exact cycles and memory accesses of a few images,
    block RAMs by the memory plan, LUTs and flip-flops by the fitted model. Shown are the machines that no
    other one beats in all three, and an answer: with --fps the one of fewest LUTs, else the one with most
    frames/s a LUT. Ctrl-C ends the search with what it has. Nothing is synthesised unless --synth says so.

    \b
    Examples:
      s2tdpt explore --device ecp5-85k --fps 50
      s2tdpt explore -p digits -p digits-int4 --points 200 --plot front.svg
      s2tdpt explore -c s2tdpt-4-384-int4 --set weight_memory=stream --device ecp5-85k --fps 50
      s2tdpt explore --storage sqlite:///machines.db     (again, or twice at once: goes on, shares the work)
      s2tdpt explore --points 50 --synth --machine-out mine.json; s2tdpt estimate -p digits -m mine.json
    """
    if config is not None and names:
        raise UserError("explore takes --config or --params; expected one of them; leave the other out")
    if rates is not None and config is None:
        raise UserError("--rates belongs to --config; expected both; real images have their own rates")
    fixed = read_fields(settings)
    from s2tdpt.hw.estimate.candidate import Limits
    from s2tdpt.hw.estimate.search import Search, answer, front, shown_url

    if synth:
        from s2tdpt.hw.tools.external import find_tool

        find_tool("yosys")
    accuracies: dict[str, dict[str, Any]] = {}
    if config is not None:
        contenders, words = [drawn(config, rates)], "random spikes"
    else:
        names = tuple(dict.fromkeys(names or (DEFAULT_MODEL,)))
        contenders, words = traced(names, images, data, data_dir, count)
        if len(contenders) > 1 and not images:
            accuracies = {
                contender.name: accuracy(contender.params, data, data_dir) for contender in contenders
            }
    limits = Limits(mhz, device, fps or 0.0)
    search = Search(contenders, limits, fixed, storage, study, seed)
    with stoppable() as stopped, telling("estimating") as tell:
        search.run(points, lambda done: tell(f"estimating: {done} of {points}") or not stopped())
        interrupted = stopped()
    found = search.candidates()
    best = front(found)
    if synth and not interrupted:
        interrupted = not synthesize_front(search, contenders, best)
    chosen = answer(best, limits)
    result = as_dict(search, found, best, chosen, interrupted) | {
        "images": words,
        "storage": shown_url(storage),
        "accuracy": accuracies,
        "weight_bits": {contender.name: contender.params.config.weight_bits for contender in contenders},
    }
    if plot is not None:
        from s2tdpt.scripts.pareto import draw_front

        write_bytes(plot, draw_front(found, best, chosen, plot.suffix[1:].lower()))
    if machine_out is not None and chosen is not None:
        write_json(machine_out, chosen.machine.model_dump(mode="json"))
    if json_path is not None:
        write_json(json_path, result)
    if not quiet(json_path):
        console.print(front_table(best, len(contenders) > 1))
        if any(found["synthesis"] for found in result["front"]):
            console.print(synthesis_table(result["front"]))
        console.print(verdict(result, chosen, best, limits, contenders), highlight=False, soft_wrap=True)
    if interrupted:
        notes.print(f"interrupted: {result['estimated'] + len(result['refused'])} of {points} machines tried")
        raise click.exceptions.Exit(130)
    if chosen is None:
        raise click.exceptions.Exit(1)


def traced(names, images, data, data_dir, count) -> tuple[list[Contender], str]:
    """Parameter files with the traces of real images; and what these are, in words.

    Raises
    ------
    UserError
        The networks take images of different shapes.
    """
    from s2tdpt.golden.network import GoldenNetwork
    from s2tdpt.hw.estimate.candidate import Contender
    from s2tdpt.hw.estimate.layers import image_traces

    contenders: list[Contender] = []
    words = ""
    for name in names:
        params = load_params(name)
        chosen = choose_images(params, images, data, data_dir, count, (IMAGES, IMAGES))
        words = f"{len(chosen.images)} of {chosen.description}"
        traces = tuple(image_traces(GoldenNetwork(params), chosen.images))
        if contenders and traces[0]["pixels"].shape != contenders[0].traces[0]["pixels"].shape:
            raise UserError(
                f"{name} takes images {list(traces[0]['pixels'].shape)}, {names[0]} "
                f"{list(contenders[0].traces[0]['pixels'].shape)}; expected networks for the same images; "
                "explore them apart"
            )
        contenders.append(Contender(name, params, traces))
    return contenders, words


def drawn(config: str, rates: Path | None) -> Contender:
    """A configuration with random weights, and spikes that are drawn at given or published rates."""
    from s2tdpt.golden.bounds import derive_bounds
    from s2tdpt.golden.params import random_params
    from s2tdpt.hw.estimate.candidate import Contender
    from s2tdpt.hw.estimate.prediction import check_rates, default_rates, random_trace
    from s2tdpt.hw.plan.schedule import program_of
    from s2tdpt.hw.plan.widths import derive_widths

    params = random_params(load_config(config), 0)
    profile = default_rates(params.config)
    if rates is not None:
        profile = check_rates(params.config, read_rates(rates, params.config))
    widths = derive_widths(params, derive_bounds(params))
    trace = random_trace(program_of(params, Machine(), widths.head_sum), profile)
    return Contender(config, params, (trace,), drawn=True)


def accuracy(params: Params, data, data_dir) -> dict[str, Any]:
    """Of the integer network on labelled images."""
    from s2tdpt.golden.network import GoldenNetwork

    chosen = labelled_images([params.config], data, data_dir, ACCURACY_IMAGES)
    right = GoldenNetwork(params).classify(chosen.images).numpy() == np.asarray(chosen.labels)
    return {"images": len(right), "correct": int(right.sum()), "accuracy": float(right.mean())}


@contextmanager
def stoppable() -> Iterator[Any]:
    """Ctrl-C asks for the end instead of breaking in; a second one breaks in."""
    asked = False

    def ask(number, frame):
        nonlocal asked
        if asked:
            raise KeyboardInterrupt
        asked = True

    before = signal.signal(signal.SIGINT, ask)
    try:
        yield lambda: asked
    finally:
        signal.signal(signal.SIGINT, before)


def synthesize_front(search: Search, contenders: list[Contender], best: list[Candidate]) -> bool:
    """Synthesise what has not been, smallest first, and keep it in the study; whether it came to its end."""
    from s2tdpt.hw.estimate.area_table import count_cells, measure

    params = {contender.name: contender.params for contender in contenders}
    try:
        with telling("synthesising") as tell:
            for number, candidate in enumerate(best, 1):
                if search.measured(candidate) is None:
                    tell(f"synthesising {number} of {len(best)}: {set_words(candidate.machine)}")
                    search.keep(candidate, count_cells(measure(params[candidate.network], candidate.machine)))
    except KeyboardInterrupt:
        return False
    return True


def set_words(machine: Machine) -> str:
    """The options that make a machine."""
    fields = machine.model_dump(mode="json", exclude={"name"})
    return " ".join(f"--set {name}={value}" for name, value in fields.items())


def row(search: Search, candidate: Candidate) -> dict[str, Any]:
    """A machine as JSON has it: figures, the command that repeats them, and what a synthesis counted."""
    option = "-c" if search.question["random"] else "-p"
    counts = search.measured(candidate)
    synthesis = None
    if counts is not None:
        synthesis = {
            "lut": counts.lut,
            "ff": counts.ff,
            "bram": counts.bram,
            "lut_error": candidate.lut / counts.lut - 1,
            "ff_error": candidate.ff / counts.ff - 1,
        }
    command = f"s2tdpt estimate {option} {candidate.network} {set_words(candidate.machine)}"
    return candidate.as_dict() | {"command": command, "synthesis": synthesis}


def as_dict(
    search: Search, found: list[Candidate], best: list[Candidate], chosen: Candidate | None, interrupted: bool
) -> dict[str, Any]:
    """The study as plain values."""
    refused: list[Refusal] = search.refusals()
    return {
        "format": FORMAT,
        "question": search.question,
        "space": {name: list(values) for name, values in search.space.items()},
        "interrupted": interrupted,
        "estimated": len(found),
        "answer": None if chosen is None else row(search, chosen),
        "front": [row(search, candidate) for candidate in best],
        "others": [candidate.as_dict() for candidate in found if candidate not in best],
        "refused": [
            {
                "network": refusal.network,
                "machine": refusal.machine.model_dump(mode="json"),
                "reason": refusal.reason,
                "excess": refusal.excess,
            }
            for refusal in sorted(refused, key=lambda refusal: refusal.excess)
        ],
    }


def front_table(best: list[Candidate], several: bool) -> Table:
    """A line a machine."""
    table = Table(title="machines that no other one beats", box=SIMPLE_HEAD, padding=0)
    headings = ["", *(["network"] if several else [])]
    headings += ["lanes", "banks", "post\nlanes", "queue", "att.\nsteps", "weights", "frames/s"]
    headings += ["LUTs", *([] if several else ["flip-\nflops"]), "block\nRAMs", "an\nimage"]
    for heading in headings:
        left = heading in ("network", "weights")
        table.add_column(heading, justify="left" if left else "right", no_wrap=not left)
    for number, candidate in enumerate(best, 1):
        machine = candidate.machine
        fields = (machine.lanes, machine.banks, machine.post_lanes, machine.queue, machine.attention_steps)
        cells = [str(number), *([candidate.network] if several else []), *map(str, fields)]
        cells += [machine.weight_memory, f"{candidate.fps:,.1f}", f"{candidate.lut:,.0f}"]
        cells += [] if several else [f"{candidate.ff:,.0f}"]
        table.add_row(*cells, str(candidate.bram), amount(candidate.energy))
    return table


def synthesis_table(rows: list[dict[str, Any]]) -> Table:
    """Estimate beside synthesis, for those rows of the front that were synthesised."""
    table = Table(title="the same, estimated and as Yosys counts them", box=SIMPLE_HEAD, padding=0)
    headings = ("", "LUTs", "Yosys", "error", "flip-flops", "Yosys", "error", "block RAMs", "Yosys")
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    for number, found in enumerate(rows, 1):
        counted = found["synthesis"]
        if counted is not None:
            cells = [str(number)]
            for kind in ("lut", "ff"):
                error = f"{100 * counted[kind + '_error']:+.1f} %"
                cells += [f"{found[kind]:,.0f}", f"{counted[kind]:,}", error]
            table.add_row(*cells, str(found["bram"]), str(counted["bram"]))
    return table


def verdict(
    result: dict[str, Any],
    chosen: Candidate | None,
    best: list[Candidate],
    limits: Limits,
    contenders: list[Contender],
) -> str:
    """The answer in words, and what it rests on."""
    lines = []
    if chosen is None:
        lines.append(f"No machine: {len(result['refused'])} refused.")
        if result["refused"]:
            closest = result["refused"][0]
            fields = set_words(Machine.model_validate(closest["machine"]))
            lines.append(f"The closest: {closest['reason']};\n  {fields}")
    else:
        why = f"the fewest LUTs at {limits.fps:g} frames/s" if limits.fps else "most frames/s a LUT"
        lines.append(f"Which machine? Number {best.index(chosen) + 1}, {why}:")
        lines.append(f"  {result['answer']['command']}")
    lines.append(
        f"{result['estimated']} machines estimated on {result['images']} at {limits.clock_mhz:g} MHz "
        f"(assumed), {len(result['refused'])} refused; energy: additions, accesses, and streamed weights "
        "from DRAM, 45 nm, without clock and leakage."
    )
    for name, known in result["accuracy"].items():
        lines.append(f"Accuracy of {name}: {known['correct']} of {known['images']} images.")
    if len(contenders) == 1:
        lines.append(weight_bits_note(contenders[0]))
    return "\n".join(lines)


def weight_bits_note(contender: Contender) -> str:
    """Which parameter files there are of the same network with other weight bits."""

    def shape(params: Params) -> dict[str, Any]:
        return params.config.model_dump(exclude={"name", "weight_bits"})

    mine = contender.params
    others = [
        name
        for name, params in ((name, load_params(name)) for name in SHIPPED)
        if shape(params) == shape(mine) and params.config.weight_bits != mine.config.weight_bits
    ]
    known = f"add -p {' -p '.join(others)}" if others else "no parameter file with others is known"
    return f"Weight bits: {mine.config.weight_bits} alone; {known}."
