"""s2tdpt bench: the table of figures, measured now and held against the committed baseline."""

from __future__ import annotations

import json
import os
import platform
import statistics
import time
from pathlib import Path
from typing import Any

import click
import numpy as np
from rich.table import Table

from s2tdpt.golden.errors import UserError
from s2tdpt.golden.network import GoldenNetwork
from s2tdpt.golden.params import Params
from s2tdpt.hw.config import HardwareConfig
from s2tdpt.hw.stdp_cycles import attention_cycles, row_memory_bits, y_interval
from s2tdpt.hw.tools import versions
from s2tdpt.scripts.bench_training import training
from s2tdpt.scripts.hardware import layer_utilisation, synthesize_accelerator
from s2tdpt.scripts.images import labelled_images, shape_of
from s2tdpt.scripts.options import console, json_option, load_params, notes, params_option, quiet, write_json
from s2tdpt.sim.cosim import cosimulate

BASELINE = Path(__file__).resolve().parents[1] / "benchmarks" / "baseline.json"
TEST_IMAGES = 360
SWEEP = (16, 64, 256, 1024, 4096)
REPEATS = 5

FIGURES = {
    "accuracy_percent": ("integer model, held-out digits", "%", 97.5, "min"),
    "differing_logits": ("golden against training network, logits that differ", "", 0, "max"),
    "differing_traces": ("golden against training network, traces that differ", "", 0, "max"),
    "cosim_mismatches": ("co-simulation, values that differ", "", 0, "max"),
    "cosim_images_per_second": ("co-simulation speed, every layer compared", "images/s", 2, "min"),
    "golden_images_per_second": ("golden model", "images/s", 1000, "min"),
    "golden_to_float_time": ("golden model / float network, time", "x", 1.5, "max"),
    "layer_utilisation_percent": ("accumulate lanes in use, conv and linear", "%", 70, "min"),
    "cycles_per_image": ("cycles an image", "", None, "max"),
    "cycle_model_error": ("cycle model against RTL, largest error", "cycles", 0, "max"),
    "attention_bits_growth": ("attention state, growth a sum from N = 64 to 4096", "bits", 6, "max"),
    "fmax_median_mhz": ("ECP5-85k, Fmax, median of the seeds", "MHz", 50, "min"),
}
"""Name: (words, unit, target or None, which side of the target is good)."""


@click.group(
    short_help="Measure the table of figures and compare it with the baseline.", invoke_without_command=True
)
@params_option
@click.option("--quick", is_flag=True, help="20 images instead of 360 in the co-simulation.")
@click.option("--synth", is_flag=True, help="Also place and route for ECP5-85k with three seeds (long).")
@click.option(
    "--synth-report",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Instead of --synth: take what `s2tdpt synth --json FILE` measured.",
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
def bench(context, params, quick, synth, synth_report, baseline, save_baseline, json_path) -> None:
    """Measure the table of figures on the shipped digits network and compare with the baseline.

    Exit code 1 if a figure misses its target.

    \b
    Examples:
      s2tdpt bench
      s2tdpt bench --synth --save-baseline
      s2tdpt synth --json synth.json; s2tdpt bench --synth-report synth.json
      s2tdpt bench training                       (training speed instead)
    """
    if context.invoked_subcommand is not None:
        return
    numbers, hardware = load_params(params), HardwareConfig()
    previous = read_baseline(baseline)
    if previous is None and baseline != BASELINE and not save_baseline:
        raise UserError(f"no baseline {baseline}; expected JSON that `s2tdpt bench` wrote; check the path")
    if shape_of(numbers.config) != (8, 8, 1):
        raise UserError(
            f"{numbers.config.name} takes images {list(shape_of(numbers.config))}, the built-in ones are "
            "[8, 8, 1]; expected a digits network; `evaluate`, `cycles` and `cosim` measure others"
        )
    measured = read_synthesis(synth_report) if synth_report is not None else None
    figures: dict[str, Any] = {}
    details: dict[str, Any] = {}
    with notes.status("software") as status:
        measure_software(numbers, figures, details)
        status.update("co-simulation")
        measure_cosim(numbers, hardware, 20 if quick else TEST_IMAGES, figures, details)
        status.update("attention sweep")
        measure_attention(figures, details)
    if synth:
        measured = synthesize_accelerator(numbers, hardware).as_dict()
    if measured is not None:
        figures["fmax_median_mhz"] = measured["fmax_median"]
        details["synthesis"] = measured
    elif previous and "fmax_median_mhz" in previous["figures"]:
        figures["fmax_median_mhz"] = previous["figures"]["fmax_median_mhz"]
        details["synthesis"] = previous["details"].get("synthesis", {}) | {"from_baseline": True}
    result = {
        "format": "s2tdpt-bench",
        "version": 1,
        "command": "s2tdpt bench" + (" --quick" if quick else "") + (" --synth" if synth else ""),
        "workload": f"{numbers.config.name}, parameters {numbers.checksum()[:16]}",
        "hardware": hardware.model_dump(mode="json"),
        "machine": {"cores": os.cpu_count(), "processor": platform.machine()},
        "tools": versions(),
        "figures": figures,
        "details": details,
    }
    if json_path is not None:
        write_json(json_path, result)
    if save_baseline:
        baseline.parent.mkdir(exist_ok=True)
        write_json(baseline, result)
    if not quiet(json_path):
        console.print(figure_table(figures, previous["figures"] if previous else {}, measured is not None))
        if "synthesis" in details and details["synthesis"].get("used"):
            used = ", ".join(f"{name} {count:,}" for name, count in details["synthesis"]["used"].items())
            console.print(f"ECP5-85k: {used}")
    if any(missed(name, value) for name, value in figures.items()):
        raise click.exceptions.Exit(1)


bench.add_command(training)


def missed(name: str, value: float) -> bool:
    """Whether a figure is on the wrong side of its target; what is no number misses it."""
    _, _, target, side = FIGURES[name]
    return target is not None and not (value >= target if side == "min" else value <= target)


def read_baseline(path: Path) -> dict[str, Any] | None:
    """The committed figures; None if there are none yet.

    Raises
    ------
    UserError
        The file is no baseline.
    """
    if not path.exists():
        return None
    try:
        data = json.loads(path.read_text())
        if data["format"] != "s2tdpt-bench" or not isinstance(data["details"], dict):
            raise ValueError
        {name: float(value) for name, value in data["figures"].items()}
        return data
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise UserError(
            f"{path} is no baseline; expected JSON that `s2tdpt bench --json` wrote; name another"
        ) from None


def read_synthesis(path: Path) -> dict[str, Any]:
    """An FPGA report of `s2tdpt synth --json`.

    Raises
    ------
    UserError
        The file is missing or something else.
    """
    try:
        data = json.loads(path.read_text())
        if not isinstance(data["fmax_median"], int | float):
            raise ValueError
        return data
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(
            f"{path} is no FPGA report; expected JSON that `s2tdpt synth --json` wrote; name another"
        ) from None


def figure_table(figures: dict[str, float], before: dict[str, float], synthesised: bool) -> Table:
    """Figures beside their targets and the baseline."""
    table = Table(title="s2tdpt bench")
    for name in ("figure", "measured", "target", "baseline", "change"):
        table.add_column(name, justify="left" if name == "figure" else "right")
    for name, value in figures.items():
        words, unit, target, side = FIGURES[name]
        sign = {"min": ">=", "max": "<="}[side]
        goal = "" if target is None else f"{sign} {target:g} {unit}"
        old = before.get(name)
        change = "" if not old else f"{100 * (value - old) / old:+.1f} %"
        if name == "fmax_median_mhz" and not synthesised:
            words, change = words + " (baseline's; --synth measures)", ""
        shown = f"{value:,.4g} {unit}" if abs(value) < 1000 else f"{value:,.0f} {unit}"
        colour = "red" if missed(name, value) else "green"
        before_text = "" if old is None else f"{old:,.4g}"
        table.add_row(words, f"[{colour}]{shown}[/{colour}]", goal, before_text, change)
    return table


def measure_software(params: Params, figures: dict, details: dict) -> None:
    """Accuracy, equality with the training network, speed beside the float network in alternation."""
    import torch

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


def measure_cosim(params: Params, hardware: HardwareConfig, count: int, figures: dict, details: dict) -> None:
    """Every test image through the generated Verilog, every layer compared."""
    chosen = labelled_images([params.config], "digits", None, count)
    images, labels = chosen.images, chosen.labels
    report = cosimulate(params, hardware, images)
    errors = [layer.model_error for layer in report.layers if layer.model_error is not None]
    figures["cosim_mismatches"] = report.mismatches
    figures["cosim_images_per_second"] = report.images / (report.seconds + report.check_seconds)
    figures["layer_utilisation_percent"] = 100 * layer_utilisation(report, hardware)
    figures["cycles_per_image"] = report.cycles
    figures["cycle_model_error"] = max(errors) if errors else 0
    details["cosim"] = report.to_json() | {"correct": int((report.classes == labels).sum())}
    for bulky in ("frame_cycles", "classes"):
        details["cosim"].pop(bulky)


def measure_attention(figures: dict, details: dict) -> None:
    """State and cycles of the attention unit against N, by exact formulas; 10 % random spikes."""
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
