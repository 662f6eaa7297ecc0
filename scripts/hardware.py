"""s2tdpt generate, cosim, synth: the hardware side."""

from __future__ import annotations

import math
import tempfile
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.box import SIMPLE_HEAD
from rich.table import Table

from s2tdpt.golden.errors import UserError
from s2tdpt.hw.netlist.liberty import read_liberty_text
from s2tdpt.hw.netlist.synthesis import TARGETS, synthesize
from s2tdpt.hw.package.constraints import FREQUENCY, check_frequency
from s2tdpt.hw.plan.machine import Machine
from s2tdpt.hw.tools.external import find_tool
from s2tdpt.scripts.images import (
    DIGITS,
    SAMPLES,
    choose_images,
    data_option,
    images_option,
    played_image,
)
from s2tdpt.scripts.options import (
    console,
    folder_option,
    force_option,
    load_params,
    machine_options,
    machine_words,
    params_option,
    telling,
)
from s2tdpt.scripts.output import check_file, check_folder, json_option, quiet, write_json
from s2tdpt.sim.build import SIMULATORS
from s2tdpt.sim.report import CosimReport
from s2tdpt.sim.stalls import PATTERNS

if TYPE_CHECKING:
    from s2tdpt.golden.params import Params

NEEDED = {"verilator": ("yosys", "verilator", "g++", "make"), "icarus": ("yosys", "iverilog")}
"""Programs that a co-simulation needs, by simulator."""


@click.command(short_help="Parameter file to Verilog, constraints, manifest.")
@params_option
@machine_options
@click.option("--out", "-o", type=click.Path(path_type=Path), required=True, help="New folder.")
@click.option("--name", default=None, help="Top module; by default s2tdpt_CONFIG.")
@click.option("--probes", is_flag=True, help="With the observation ports, which show every tensor.")
@click.option("--registers", is_flag=True, help="With control and status registers on AXI4-Lite.")
@click.option(
    "--frequency", type=float, default=FREQUENCY, show_default=True, help="Clock of the constraints, MHz."
)
@click.option(
    "--image",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Image that the testbench plays, .npy or PNG. Default: one that comes with the project, or noise.",
)
@force_option
def generate(params, machine, out, name, probes, registers, frequency, image, force) -> None:
    """Write Verilog, testbench, FuseSoC core, constraints, lint waivers and all else that its user needs.

    \b
    Examples:
      s2tdpt generate --out build/digits
      s2tdpt generate -p my.safetensors --machine ecp5-85k --out build/mine
      s2tdpt generate --machine wide --set lanes=128 --out build/half
      s2tdpt generate --registers --image seven.png --out build/controlled
    """
    from s2tdpt.hw.package import folder as package

    check_frequency(frequency)
    numbers = load_params(params)
    top = name if name is not None else package.default_name(numbers)
    check_folder(out.parent)
    package.check_package(out, top, force)
    played = played_image(numbers, image)
    find_tool("yosys")
    with telling("generating Verilog"), parents(out):
        package.generate(
            numbers,
            machine,
            out,
            top,
            probes=probes,
            registers=registers,
            frequency=frequency,
            image=played,
            force=force,
            tell=click.echo,
        )


@contextmanager
def parents(folder: Path):
    """Make the folders that `folder` will be in; if that fails, those that were made go again."""
    check_folder(folder.parent)
    missing = [parent for parent in folder.parents if not parent.exists()]
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        yield
    except BaseException:
        for parent in missing:
            with suppress(OSError):
                parent.rmdir()
        raise


@click.command(short_help="Verilog against the golden model, every layer compared.")
@params_option
@machine_options
@images_option
@data_option
@folder_option
@click.option(
    "--count",
    "-n",
    type=click.IntRange(1),
    default=None,
    help=f"Images from the data set; by default {DIGITS} digits, or {SAMPLES} of CIFAR.",
)
@click.option(
    "--layers",
    type=click.IntRange(0),
    default=None,
    help="Compare every layer of only so many images; of the others logits and class.",
)
@click.option(
    "--stall",
    type=click.Choice(list(PATTERNS)),
    default="none",
    show_default=True,
    help="Pauses of all streams.",
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of the pauses.")
@click.option(
    "--simulator",
    type=click.Choice(list(SIMULATORS)),
    default=SIMULATORS[0],
    show_default=True,
    help="Verilator comes with the installation, Icarus Verilog is yours.",
)
@click.option(
    "--waveform",
    type=click.Path(path_type=Path),
    metavar="FILE",
    callback=check_file,
    help="Simulate the first image alone and write its waveform (FST).",
)
@click.option(
    "--steps",
    metavar="FIRST-LAST",
    help="With --waveform: only while these steps of the layer program run, numbered from 0.",
)
@click.option(
    "--netlist",
    metavar="ecp5|FILE",
    help="Synthesise the design and simulate its cells, gate by gate: those of the ECP5, or of a Liberty "
    "library (.lib, .lib.gz). Logits, classes and cycles are compared. The first time takes the minutes of "
    "Yosys, later ones come from the build cache.",
)
@click.option("--jobs", type=click.IntRange(1), default=None, help="Simulator processes; default one a core.")
@click.option("--per-layer", is_flag=True, help="Print a line for every step of the layer program.")
@json_option
def cosim(
    params,
    machine,
    images,
    data,
    data_dir,
    count,
    layers,
    stall,
    seed,
    simulator,
    waveform,
    steps,
    netlist,
    jobs,
    per_layer,
    json_path,
) -> None:
    """Simulate the generated Verilog and compare every value with the golden model.

    A difference ends with exit code 1 and names the first layer, step, token and channel.

    \b
    Examples:
      s2tdpt cosim
      s2tdpt cosim --count 360 --layers 20
      s2tdpt cosim --images mine.npy --stall random --seed 3 --set weight_memory=stream
      s2tdpt cosim -p cifar.safetensors --machine ecp5-85k --per-layer
      s2tdpt cosim -p cifar.safetensors --data cifar10 --data-dir ~/data --count 100 --layers 1
      s2tdpt cosim --waveform first.fst --steps 0-2
      s2tdpt cosim --netlist ecp5 --count 2
      s2tdpt cosim --netlist cells.lib.gz --count 2 --stall random
    """
    shown = read_steps(steps)
    if shown is not None and waveform is None:
        raise UserError("--steps belongs to --waveform; expected both; give a file or leave it out")
    if netlist is not None:
        check_netlist(netlist, waveform, layers, per_layer, jobs)
    needed = NEEDED[simulator] if netlist is None else ("yosys",)
    numbers = load_params(params)
    chosen = choose_images(numbers, images, data, data_dir, count)
    pictures, labels = chosen.images, chosen.labels
    for tool in needed:
        find_tool(tool)
    from s2tdpt.sim.cosim import Options, cosimulate

    options = Options(
        layers=layers,
        stall=stall,
        seed=seed,
        simulator=simulator,
        jobs=jobs,
        waveform=waveform,
        steps=shown,
    )
    with telling("starting") as tell:
        if netlist is not None:
            from s2tdpt.sim.netlist import cosimulate_netlist

            report = cosimulate_netlist(numbers, machine, pictures, netlist, options, step=tell)
        else:
            report = cosimulate(numbers, machine, pictures, options, step=tell)
    correct = None if labels is None else int((report.classes == labels[: len(report.classes)]).sum())
    if json_path is not None:
        extra = {"correct": correct, "machine": machine.model_dump(mode="json")}
        write_json(json_path, report.to_json() | extra)
    if not quiet(json_path):
        if per_layer:
            console.print(step_table(report))
        console.print(summary_table(report, numbers, machine, correct))
        for text in (report.differences + report.findings)[:10]:
            click.secho(text, fg="red")
    if not report.ok:
        raise click.exceptions.Exit(1)


def check_netlist(netlist: str, waveform, layers, per_layer, jobs) -> None:
    """Refuse a library that is none, and options that look inside."""
    from s2tdpt.sim.netlist import ECP5

    inside = {"--waveform": waveform, "--layers": layers, "--per-layer": per_layer or None, "--jobs": jobs}
    if given := [name for name, value in inside.items() if value is not None]:
        raise UserError(
            f"--netlist and {given[0]} exclude each other: a netlist shows its ports alone; expected one of "
            "them; leave one out"
        )
    source = click.get_current_context().get_parameter_source("simulator")
    if source is not click.core.ParameterSource.DEFAULT:
        raise UserError(
            "--netlist and --simulator exclude each other: gates have a simulator of their own; expected one "
            "of them; leave one out"
        )
    if netlist != ECP5:
        read_liberty_text(netlist)  # before anything long begins


def read_steps(text: str | None) -> tuple[int, int] | None:
    """First and last step from "3-5" or "3"; a `UserError` if it is no range."""
    if text is None:
        return None
    first, _, last = text.partition("-")
    if not (first.isdecimal() and (last or first).isdecimal() and int(first) <= int(last or first)):
        raise UserError(f"--steps is {text[:60]!r}; expected FIRST-LAST, numbers from 0; for instance 0-2")
    return int(first), int(last or first)


def summary_table(report: CosimReport, params: Params, machine: Machine, correct: int | None) -> Table:
    """The short table that ends a co-simulation."""
    table = Table(title=f"{params.config.name}, {machine_words(machine)}")
    table.add_column("figure")
    table.add_column("value", justify="right")
    if correct is not None:
        table.add_row("accuracy", f"{correct} of {report.images} ({100 * correct / report.images:.2f} %)")
    table.add_row("images", f"{report.images} (all layers of {report.layer_images})")
    if report.cells:
        table.add_row("cells of the netlist", f"{report.cells:,}")
    table.add_row("values compared", f"{report.comparisons:,}")
    table.add_row("mismatches", f"{report.mismatches:,}")
    if report.frame_cycles:
        table.add_row("cycles an image", f"{report.cycles:,.0f}")
    errors = [step.model_error for step in report.steps if step.model_error is not None]
    if errors:
        table.add_row("useful accumulates a cycle", f"{report.accumulates_per_cycle:,.1f}")
        table.add_row("lanes of all banks in use", f"{100 * report.utilisation:.1f} %")
        table.add_row("cycle model, largest error", f"{max(errors)} cycles")
    if report.seconds:
        seconds = report.seconds + report.check_seconds
        speed = report.images / seconds
        shown = f"{speed:.1f} images/s" if speed >= 1 else f"{1 / speed:,.1f} s an image"
        table.add_row("simulation speed, compared", f"{shown} ({report.simulator})")
    if report.frame_cycles and report.seconds:
        table.add_row("simulated cycles a second", f"{sum(report.frame_cycles) / seconds:,.0f}")
    return table


def step_table(report: CosimReport) -> Table:
    """Start, end and accumulates of every step."""
    table = Table(title="steps of the layer program, mean of the images", box=SIMPLE_HEAD, padding=0)
    headings = ("step", "sink", "start", "complete", "accumulates", "cycle model\nerror")
    for name in headings:
        table.add_column(name, justify="left" if name in headings[:2] else "right", no_wrap=True)
    for step in report.steps:
        error = "-" if step.model_error is None else str(step.model_error)
        table.add_row(
            step.name,
            step.sink,
            f"{step.start:,.0f}",
            f"{step.complete:,.0f}",
            f"{step.accumulates:,.0f}",
            error,
        )
    return table


@click.command(short_help="LUTs, memories, clock frequency (ECP5), or cell area.")
@params_option
@machine_options
@click.option(
    "--target",
    type=click.Choice(list(TARGETS)),
    default="ecp5-85k",
    show_default=True,
    help="FPGA, or a cell library.",
)
@click.option("--seeds", default="1,2,3", show_default=True, help="Placement seeds (FPGA).")
@click.option("--frequency", type=float, default=50.0, show_default=True, help="MHz to aim for (FPGA).")
@click.option(
    "--liberty",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Cell library for the target liberty (.lib or .lib.gz).",
)
@click.option(
    "--logs", type=click.Path(path_type=Path), metavar="DIR", help="Keep the tools' logs here, line by line."
)
@click.option(
    "--work",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Work in DIR and keep it: a run that was stopped goes on with the step it was at, more seeds come "
    "without another synthesis.",
)
@click.option(
    "--force", is_flag=True, help="Go on although the memory plan (`s2tdpt info`) says that it does not fit."
)
@json_option
def synth(params, machine, target, seeds, frequency, liberty, logs, work, force, json_path) -> None:
    """Synthesise the whole accelerator with open tools and report what it takes.

    \b
    Examples:
      s2tdpt synth                                     (ECP5-85k, three seeds; takes a while)
      s2tdpt synth --machine small --target ecp5-25k
      s2tdpt synth --seeds 1 --logs build/synth        (tail -f build/synth/nextpnr_seed1.log)
      s2tdpt synth --seeds 1,2 --work build/place      (later --seeds 1,2,3: places seed 3 only)
      s2tdpt synth --target liberty --liberty cells.lib.gz --machine wide
    """
    chosen = read_seeds(seeds)
    if not 0 < frequency < math.inf:
        raise UserError(f"--frequency is {frequency:g}; expected a positive number of MHz; for instance 50")
    for folder in (logs, work):
        if folder is not None:
            check_folder(folder)
    if liberty is not None:
        read_liberty_text(liberty)  # before anything long begins
    if (target == "liberty") != (liberty is not None):
        raise UserError("--target liberty and --liberty FILE go together; expected both or none; mend this")
    for tool in ("yosys",) if liberty is not None else ("yosys", "nextpnr-ecp5"):
        find_tool(tool)
    numbers = load_params(params)
    if liberty is None and not force:
        from s2tdpt.hw.estimate.memory_plan import check_plan, plan_of

        check_plan(plan_of(numbers, machine), target)
    report = synthesize_accelerator(numbers, machine, target, chosen, frequency, liberty, logs, work)
    if json_path is not None:
        what = {"network": numbers.config.name, "parameters": numbers.checksum()[:16]}
        write_json(json_path, report.as_dict() | what | {"machine": machine.model_dump(mode="json")})
    if not quiet(json_path):
        console.print(report.table())


def read_seeds(text: str) -> list[int]:
    """Placement seeds from "1,2,3"; a `UserError` if it is no list of whole numbers from 0."""
    try:
        seeds = [int(seed) for seed in text.split(",")]
    except ValueError:
        seeds = [-1]
    if any(not 0 <= seed < 2**31 for seed in seeds):
        raise UserError(
            f"--seeds is {text!r}; expected whole numbers from 0 with commas; give for instance 1,2,3"
        )
    return seeds


def synthesize_accelerator(
    params: Params,
    machine: Machine,
    target="ecp5-85k",
    seeds=(1, 2, 3),
    frequency=50.0,
    liberty=None,
    logs=None,
    work=None,
):
    """`hw.netlist.synthesis.synthesize` of a whole accelerator; returns its report."""
    from s2tdpt.hw.top import Accelerator
    from s2tdpt.hw.verilog import emit

    temporary = tempfile.TemporaryDirectory(prefix="s2tdpt-")
    with temporary as folder, telling("generating Verilog") as tell:
        path = Path(folder) / "s2tdpt.sv"
        accelerator = Accelerator(params, machine)
        path.write_text(emit(accelerator, "s2tdpt", accelerator.ports()))
        return synthesize(
            path,
            "s2tdpt",
            target=target,
            seeds=seeds,
            frequency=frequency,
            liberty=liberty,
            log_folder=logs,
            work=work,
            step=tell,
        )
