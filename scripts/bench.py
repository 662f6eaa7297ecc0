"""s2tdpt bench: the table of figures, measured now and held against the committed baseline."""

from __future__ import annotations

import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np
from rich.table import Table

from s2tdpt.golden.config import load_config
from s2tdpt.golden.errors import UserError
from s2tdpt.hw.plan.machine import Machine, load_machine
from s2tdpt.hw.tools.external import versions
from s2tdpt.scripts.baseline import read_baseline, read_large, read_reports
from s2tdpt.scripts.bench_training import training
from s2tdpt.scripts.images import labelled_images, shape_of
from s2tdpt.scripts.options import console, load_params, machine_options, params_option, telling
from s2tdpt.scripts.output import json_option, quiet, write_json

if TYPE_CHECKING:
    from s2tdpt.golden.params import Params

BASELINE = Path(__file__).resolve().parents[1] / "benchmarks" / "baseline.json"
TEST_IMAGES = 360
SAMPLES = 16
LARGE_IMAGES = 4
SWEEP = (16, 64, 256, 1024, 4096)
REPEATS = 5
SMALL, LARGE = "s2tdpt-2-128", "s2tdpt-4-384-int4"
BOARD = "ecp5-85k"
"""Machine of the CIFAR networks."""

FIGURES = {
    "accuracy_percent": ("integer model, held-out digits", "%", 97.5, "min"),
    "differing_logits": ("golden against training network, logits that differ", "", 0, "max"),
    "differing_traces": ("golden against training network, traces that differ", "", 0, "max"),
    "cosim_mismatches": ("co-simulation, values that differ", "", 0, "max"),
    "cosim_images_per_second": ("co-simulation speed, every layer compared", "images/s", 2, "min"),
    "golden_images_per_second": ("golden model", "images/s", 1000, "min"),
    "golden_to_float_time": ("golden model / float network, time", "x", 1.5, "max"),
    "cycles_per_image": ("digits: cycles an image", "", None, "max"),
    "idle_share": ("digits: share of cycles without an accumulate", "", None, "max"),
    "accumulates_per_cycle": ("digits: useful accumulates a cycle, whole image", "", None, "min"),
    "counted_energy_nj": ("digits: accesses and additions of an image, counted, 45 nm", "nJ", None, "max"),
    "cycle_model_error": ("cycle model against RTL, largest error", "cycles", 0, "max"),
    "attention_bits_growth": ("attention state, growth a sum from N = 64 to 4096", "bits", 6, "max"),
    "s2tdpt_2_128_cycles": ("2-128 int8: cycles an image", "", None, "max"),
    "s2tdpt_4_384_cycles": ("4-384 int4, 14 % firing: cycles an image", "", 1.6e6, "max"),
    "s2tdpt_4_384_idle_share": ("4-384: share of cycles without an accumulate", "", 0.1, "max"),
    "fmax_median_mhz": ("digits, ECP5-85k: Fmax, median of the seeds", "MHz", 90, "min"),
    "lut": ("digits: LUTs", "", 35_000, "max"),
    "frames_per_second": ("digits: Fmax / mean interval", "images/s", 17_000, "min"),
    "accumulates_per_kilolut": ("digits: useful accumulates a cycle per 1,000 LUTs", "", 4, "min"),
    "s2tdpt_2_128_frames_per_second": ("2-128 int8: Fmax / mean interval", "images/s", 800, "min"),
    "s2tdpt_4_384_lut": ("4-384 int4: LUTs", "", 72_000, "max"),
    "s2tdpt_4_384_bram": ("4-384 int4: block RAMs", "", 208, "max"),
    "s2tdpt_4_384_frames_per_second": ("4-384 int4: Fmax / mean interval", "images/s", 50, "min"),
    "s2tdpt_4_384_cosim_seconds": ("4-384 int4: co-simulation of an image, build included", "s", 300, "max"),
}
"""Name: (words, unit, target or None, which side of the target is good)."""

SYNTHESIS = {
    "digits": ("fmax_median_mhz", "lut", "frames_per_second", "accumulates_per_kilolut"),
    SMALL: ("s2tdpt_2_128_frames_per_second",),
    LARGE: ("s2tdpt_4_384_lut", "s2tdpt_4_384_bram", "s2tdpt_4_384_frames_per_second"),
}
"""Figures that need the place and route of a network."""
COSIM = "s2tdpt_4_384_cosim_seconds"


@dataclass(frozen=True)
class Workload:
    """A network on its machine and images."""

    params: Params
    machine: Machine
    images: np.ndarray


@click.group(
    short_help="Measure the table of figures and compare it with the baseline.", invoke_without_command=True
)
@params_option
@machine_options
@click.option("--quick", is_flag=True, help="20 images instead of 360, one of 4-384.")
@click.option("--synth", is_flag=True, help="Also place and route all three networks for ECP5-85k (hours).")
@click.option(
    "--synth-report",
    "synth_reports",
    type=click.Path(path_type=Path),
    multiple=True,
    metavar="FILE",
    help="Instead: take what `s2tdpt synth --json FILE` measured; one for each network.",
)
@click.option("--large-cosim", is_flag=True, help="Also co-simulate a whole image of 4-384 (minutes).")
@click.option(
    "--large-params",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help=f"What `s2tdpt export --calibrated -c {LARGE}` wrote; otherwise it is made anew.",
)
@click.option(
    "--baseline",
    type=click.Path(path_type=Path),
    default=BASELINE,
    metavar="FILE",
    help="Figures to compare with; default: the committed ones.",
)
@click.option("--save-baseline", is_flag=True, help="Make these figures the baseline.")
@json_option
@click.pass_context
def bench(
    context,
    params,
    machine,
    quick,
    synth,
    synth_reports,
    large_cosim,
    large_params,
    baseline,
    save_baseline,
    json_path,
) -> None:
    """Measure the table of figures and compare it with the baseline.

    The digits network on --machine, S2TDPT-2-128 and S2TDPT-4-384 on the machine ecp5-85k. Figures of place
    and route and of the large co-simulation are the baseline's unless they are asked for; a baseline of other
    machines has none. Exit code 1 if a figure misses its target.

    \b
    Examples:
      s2tdpt bench
      s2tdpt bench --synth --large-cosim --save-baseline
      s2tdpt synth --json synth.json; s2tdpt bench --synth-report synth.json
      s2tdpt bench training                       (training speed instead)
    """
    if context.invoked_subcommand is not None:
        return
    numbers = load_params(params)
    previous = read_baseline(baseline)
    if previous is None and baseline != BASELINE and not save_baseline:
        raise UserError(f"no baseline {baseline}; expected JSON that `s2tdpt bench` wrote; check the path")
    if shape_of(numbers.config) != (8, 8, 1):
        raise UserError(
            f"{numbers.config.name} takes images {list(shape_of(numbers.config))}, the built-in ones are "
            "[8, 8, 1]; expected a digits network; `evaluate`, `cycles` and `cosim` measure others"
        )
    board = load_machine(BOARD)
    machines = {"digits": machine, SMALL: board, LARGE: board}
    reports = read_reports(synth_reports, machines)
    large = None if large_params is None else read_large(large_params, LARGE)
    figures: dict[str, Any] = {}
    details: dict[str, Any] = {}
    with telling("software") as tell:
        measure_software(numbers, figures, details)
        tell("co-simulation")
        measure_cosim(numbers, machine, 20 if quick else TEST_IMAGES, figures, details)
        tell("attention sweep")
        measure_attention(figures, details)
        work = workloads(numbers, machines, large, quick, tell)
        intervals = measure_cycles(work, figures, details, tell)
        if large_cosim:
            tell("co-simulation of 4-384")
            measure_large_cosim(work[LARGE], figures, details)
    if synth:
        from s2tdpt.scripts.hardware import synthesize_accelerator

        for name, load in work.items():
            if name not in reports:
                reports[name] = synthesize_accelerator(load.params, load.machine).as_dict()
    details["synthesis"] = dict(reports)
    derive_synthesis(reports, intervals, figures)
    old = previous["figures"] if previous else {}
    used_machines = {name: used.model_dump(mode="json") for name, used in machines.items()}
    same = previous is not None and previous.get("machines") == used_machines
    kept = (
        []
        if not same
        else [name for name in (*sum(SYNTHESIS.values(), ()), COSIM) if name not in figures and name in old]
    )
    figures |= {name: old[name] for name in kept}
    details["from_baseline"] = kept
    if same:
        details["synthesis"] = previous["details"].get("synthesis", {}) | reports
    options = {"--quick": quick, "--synth": synth, "--large-cosim": large_cosim}
    result = {
        "format": "s2tdpt-bench",
        "version": 2,
        "command": " ".join(["s2tdpt bench", *(option for option, given in options.items() if given)]),
        "workload": f"{numbers.config.name}, parameters {numbers.checksum()[:16]}",
        "machines": used_machines,
        "computer": {"cores": os.cpu_count(), "processor": platform.machine()},
        "tools": versions(),
        "figures": {name: figures[name] for name in FIGURES if name in figures},
        "details": details,
    }
    figures = result["figures"]
    if json_path is not None:
        write_json(json_path, result)
    if save_baseline:
        baseline.parent.mkdir(exist_ok=True)
        write_json(baseline, result)
    if not quiet(json_path):
        console.print(figure_table(figures, old, kept))
        for name, report in details["synthesis"].items():
            if report.get("used"):
                used = ", ".join(f"{what} {count:,}" for what, count in report["used"].items())
                console.print(f"{name} on ECP5-85k: {used}", highlight=False)
    if any(missed(name, value) for name, value in figures.items()):
        raise click.exceptions.Exit(1)


bench.add_command(training)


def missed(name: str, value: float) -> bool:
    """Whether a figure is on the wrong side of its target; what is no number misses it."""
    _, _, target, side = FIGURES[name]
    return target is not None and not (value >= target if side == "min" else value <= target)


def figure_table(figures: dict[str, float], before: dict[str, float], kept: list[str]) -> Table:
    """Figures beside their targets and the baseline; those in `kept` are the baseline's."""
    table = Table(title="s2tdpt bench")
    for name in ("figure", "measured", "target", "baseline", "change"):
        table.add_column(name, justify="left" if name == "figure" else "right")
    for name, value in figures.items():
        words, unit, target, side = FIGURES[name]
        sign = {"min": ">=", "max": "<="}[side]
        goal = "" if target is None else f"{sign} {target:g} {unit}"
        old = before.get(name)
        change = "" if not old else f"{100 * (value - old) / old:+.1f} %"
        if name in kept:
            words, change = words + " (baseline's)", ""
        shown = f"{value:,.4g} {unit}" if abs(value) < 1000 else f"{value:,.0f} {unit}"
        colour = "red" if missed(name, value) else "green"
        before_text = "" if old is None else f"{old:,.4g}"
        table.add_row(words, f"[{colour}]{shown}[/{colour}]", goal, before_text, change)
    return table


def measure_software(params: Params, figures: dict, details: dict) -> None:
    """Accuracy, equality with the training network, speed beside the float network in alternation."""
    import torch

    from s2tdpt.golden.network import GoldenNetwork
    from s2tdpt.sw.datasets import load_dataset
    from s2tdpt.sw.evaluate import verify_equal
    from s2tdpt.sw.export import from_params
    from s2tdpt.sw.network import Network

    dataset = load_dataset("digits")
    images, labels = np.asarray(dataset.test_images), np.asarray(dataset.test_labels)
    golden, qat = GoldenNetwork(params), from_params(params).eval()
    figures["accuracy_percent"] = 100 * float((np.asarray(golden.classify(images)) == labels).mean())
    with torch.no_grad():
        differing = np.asarray(golden.forward(images)) != qat(torch.as_tensor(images)).numpy()
    figures["differing_logits"] = int(differing.sum())
    equality = verify_equal(qat, golden, images)
    figures["differing_traces"] = int(equality.difference is not None)
    details["qat"] = {"values": equality.values, "traces": equality.traces, "difference": equality.difference}

    network = Network(params.config).eval()
    batch = np.concatenate([images] * 3)
    tensor = torch.as_tensor(batch)

    def clock(function) -> float:
        started = time.perf_counter()
        function()
        return time.perf_counter() - started

    with torch.no_grad():
        runs = [
            (clock(lambda: golden.forward(batch)), clock(lambda: network(tensor))) for _ in range(REPEATS + 1)
        ][1:]  # the first run of each warms up
    golden_time, float_time = (statistics.median(times) for times in zip(*runs, strict=True))
    figures["golden_images_per_second"] = len(batch) / golden_time
    figures["golden_to_float_time"] = statistics.median(g / f for g, f in runs)
    details["speed"] = {
        "images": len(batch),
        "golden_seconds": golden_time,
        "float_seconds": float_time,
        "repeats": REPEATS,
        "threads": torch.get_num_threads(),
    }


def measure_cosim(params: Params, machine: Machine, count: int, figures: dict, details: dict) -> None:
    """Every test image through the generated Verilog, every layer compared."""
    from s2tdpt.sim.cosim import cosimulate

    chosen = labelled_images([params.config], "digits", None, count)
    images, labels = chosen.images, chosen.labels
    report = cosimulate(params, machine, images)
    errors = [step.model_error for step in report.steps if step.model_error is not None]
    figures["cosim_mismatches"] = report.mismatches
    figures["cosim_images_per_second"] = report.images / (report.seconds + report.check_seconds)
    figures["cycle_model_error"] = max(errors) if errors else 0
    details["cosim"] = report.to_json() | {"correct": int((report.classes == labels).sum())}
    for bulky in ("frame_cycles", "fired", "classes"):
        details["cosim"].pop(bulky)


def workloads(
    params: Params,
    machines: dict[str, Machine],
    large: Params | None,
    quick: bool,
    tell: Callable[[str], None],
) -> dict[str, Workload]:
    """The three networks, their machines and images."""
    from s2tdpt.golden.calibrate import calibrate
    from s2tdpt.golden.samples import sample_images

    digits = labelled_images([params.config], "digits", None, 20 if quick else TEST_IMAGES).images
    small = load_params(SMALL)
    samples = sample_images(small.config)[0]
    if large is None:
        tell("calibrating 4-384")
        large = calibrate(load_config(LARGE), samples).params
    return {
        "digits": Workload(params, machines["digits"], digits),
        SMALL: Workload(small, machines[SMALL], samples[:SAMPLES]),
        LARGE: Workload(large, machines[LARGE], samples[: 1 if quick else LARGE_IMAGES]),
    }


def measure_cycles(
    work: dict[str, Workload], figures: dict, details: dict, tell: Callable[[str], None]
) -> dict[str, float]:
    """Exact cycles of the networks; returns their mean intervals."""
    from s2tdpt.hw.estimate.layers import count_cycles

    found = {}
    for name, load in work.items():
        tell(f"cycles of {name}")
        found[name] = count_cycles(load.params, load.machine, load.images)
        plain = found[name].as_dict()
        for bulky in ("frames", "intervals"):
            plain.pop(bulky)
        details.setdefault("cycles", {})[name] = plain | {
            "images": len(load.images),
            "cycles": found[name].cycles,
            "interval": found[name].interval,
        }
    figures["cycles_per_image"] = found["digits"].cycles
    figures["idle_share"] = found["digits"].idle_share
    figures["accumulates_per_cycle"] = found["digits"].accumulates_per_cycle
    figures["s2tdpt_2_128_cycles"] = found[SMALL].cycles
    figures["s2tdpt_4_384_cycles"] = found[LARGE].cycles
    figures["s2tdpt_4_384_idle_share"] = found[LARGE].idle_share
    figures["counted_energy_nj"] = counted_energy(work["digits"]) / 1e3
    return {name: result.interval for name, result in found.items()}


def counted_energy(load: Workload) -> float:
    """pJ of the accesses and additions of an image, mean of the first `SAMPLES`."""
    from s2tdpt.golden.network import GoldenNetwork
    from s2tdpt.hw.estimate.counted_energy import count_energy
    from s2tdpt.hw.estimate.layers import image_traces
    from s2tdpt.hw.plan.schedule import program_of
    from s2tdpt.hw.plan.widths import derive_widths

    golden = GoldenNetwork(load.params)
    widths = derive_widths(load.params, golden.bounds)
    program = program_of(golden.params, load.machine, widths.head_sum)
    traces = image_traces(golden, load.images[:SAMPLES])
    return count_energy(program, widths, golden.bounds, traces).energy


def derive_synthesis(reports: dict[str, dict[str, Any]], intervals: dict[str, float], figures: dict) -> None:
    """Figures that need place and route."""
    for name, report in reports.items():
        speed = report["fmax_median"] * 1e6 / intervals[name]
        if name == "digits":
            figures["fmax_median_mhz"] = report["fmax_median"]
            figures["lut"] = report["used"]["lut"]
            figures["frames_per_second"] = speed
            figures["accumulates_per_kilolut"] = figures["accumulates_per_cycle"] / (figures["lut"] / 1000)
        elif name == SMALL:
            figures["s2tdpt_2_128_frames_per_second"] = speed
        else:
            figures["s2tdpt_4_384_lut"] = report["used"]["lut"]
            figures["s2tdpt_4_384_bram"] = report["used"]["bram"]
            figures["s2tdpt_4_384_frames_per_second"] = speed


def measure_large_cosim(load: Workload, figures: dict, details: dict) -> None:
    """A whole image of the large network, every layer compared, with a build of its own."""
    from s2tdpt.sim.cosim import cosimulate

    before = os.environ.get("S2TDPT_CACHE")
    with tempfile.TemporaryDirectory(prefix="s2tdpt-") as folder:
        os.environ["S2TDPT_CACHE"] = folder
        try:
            started = time.perf_counter()
            report = cosimulate(load.params, load.machine, load.images[:1])
            figures[COSIM] = time.perf_counter() - started
        finally:
            if before is None:
                del os.environ["S2TDPT_CACHE"]
            else:
                os.environ["S2TDPT_CACHE"] = before
    errors = [step.model_error for step in report.steps if step.model_error is not None]
    figures["cosim_mismatches"] += report.mismatches
    figures["cycle_model_error"] = max([figures["cycle_model_error"], *errors])
    details["large_cosim"] = {
        "comparisons": report.comparisons,
        "mismatches": report.mismatches,
        "cycles": report.cycles,
        "build_seconds": report.build_seconds,
        "seconds": report.seconds,
        "check_seconds": report.check_seconds,
        "first": report.first(),
    }


def measure_attention(figures: dict, details: dict) -> None:
    """State and cycles of the attention unit against N, by exact formulas; 10 % random spikes."""
    from s2tdpt.hw.attention.stdp_cycles import attention_cycles, row_memory_bits, y_interval

    head_dim, heads, steps, post_lanes, attention_steps = 32, 2, 4, 16, 4
    rng = np.random.default_rng(0)
    rows = []
    for tokens in SWEEP:
        q, k, v = (rng.random((3, steps, tokens, heads * head_dim)) < 0.1).astype(np.uint8)
        bits = y_interval([240], tokens)[1].bit_length()
        rows.append(
            {
                "tokens": tokens,
                "sum_bits": bits,
                "state_bits": row_memory_bits(
                    head_dim=head_dim, timesteps=steps, y_bits=bits, attention_steps=attention_steps
                ),
                "cycles": attention_cycles(
                    q, k, v, heads=heads, post_lanes=post_lanes, attention_steps=attention_steps
                ),
            }
        )
    by_tokens = {row["tokens"]: row for row in rows}
    figures["attention_bits_growth"] = by_tokens[4096]["sum_bits"] - by_tokens[64]["sum_bits"]
    details["attention"] = {"head_dim": head_dim, "heads": heads, "timesteps": steps, "sweep": rows}
