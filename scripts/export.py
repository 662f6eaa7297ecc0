"""s2tdpt export: what is worth keeping of a checkpoint, or any network without training."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np
from rich.table import Table

from s2tdpt.golden.config import NetworkConfig, load_config
from s2tdpt.golden.errors import UserError
from s2tdpt.golden.rates import Rates, driven
from s2tdpt.golden.samples import sample_images
from s2tdpt.scripts.image_files import load_images
from s2tdpt.scripts.options import command_line, console, force_option
from s2tdpt.scripts.output import check_file, json_option, quiet, write_json

if TYPE_CHECKING:
    from torch import Tensor

    from s2tdpt.golden.calibrate import Calibration
    from s2tdpt.golden.params import Params

DIGITS, RANDOM = 64, 16
"""Images of a calibration where no samples fit: of the digits, and of random bytes."""


@click.command(short_help="Checkpoint of a run, or calibrated firing rates, to parameter file.")
@click.argument("checkpoint", required=False, type=click.Path(path_type=Path))
@click.option(
    "--out",
    "-o",
    type=click.Path(path_type=Path),
    required=True,
    callback=check_file,
    help="File to write.",
)
@click.option(
    "--calibrated",
    is_flag=True,
    help="Random weights with given firing rates instead of a checkpoint: for measuring machines.",
)
@click.option("--config", "-c", metavar="NAME|FILE", help="With --calibrated: the network.")
@click.option(
    "--rate",
    type=float,
    metavar="MEAN",
    help="With --calibrated: mean rate over all multiply-accumulates, 0 to 1, by one factor on the published "
    "rates. Default: those themselves, 0.14 of S2TDPT-4-384.",
)
@click.option(
    "--images",
    type=click.Path(path_type=Path),
    multiple=True,
    metavar="FILE",
    help="With --calibrated: images on which the rates hold. Default: what comes with the project, else "
    "random ones.",
)
@click.option("--seed", type=click.IntRange(0), help="With --calibrated: of the weights; 0 unless given.")
@force_option
@json_option
def export(checkpoint, out, calibrated, config, rate, images, seed, force, json_path) -> None:
    """Write a parameter file: of an integer-stage CHECKPOINT (qat.safetensors of a run), or --calibrated.

    Of a finished float-stage CHECKPOINT (float.safetensors) it writes the float network alone, without what
    only a resumed run needs: a small file for `train --start` and `train --float-checkpoint`. A calibrated
    file classifies nothing, and says so in its manifest.

    \b
    Examples:
      s2tdpt export runs/digits/qat.safetensors --out digits.safetensors
      s2tdpt export runs/digits/float.safetensors --out digits-float.safetensors
      s2tdpt export --calibrated -c s2tdpt-4-384-int4 --out large.safetensors
      s2tdpt export --calibrated -c digits --rate 0.05 --out quiet.safetensors
    """
    if calibrated == (checkpoint is not None):
        raise UserError("export takes one CHECKPOINT or --calibrated; expected one of them; name one")
    if out.exists() and not force:
        raise UserError(f"{out} exists already; expected a new file; choose another or use --force")
    if calibrated:
        if config is None:
            raise UserError("--calibrated without a network; expected --config NAME|FILE; name one")
        result = _calibrate(load_config(config), rate, images, seed or 0)
        result.params.save(out, force=force)
        _show(result, out, json_path)
        return
    for option, value in (("--config", config), ("--rate", rate), ("--images", images), ("--seed", seed)):
        if value not in (None, ()):
            raise UserError(f"{option} belongs to --calibrated; expected a checkpoint alone; leave it out")
    written = _from_checkpoint(checkpoint, out, force)
    if json_path is not None:
        write_json(json_path, written)
    if not quiet(json_path):
        click.echo(f"wrote {out}")


def _from_checkpoint(checkpoint: Path, out: Path, force: bool) -> dict[str, Any]:
    """Write what a stage is kept for; returns it as JSON."""
    from s2tdpt.sw.checkpoint import read_checkpoint
    from s2tdpt.sw.start import save_float

    tensors, meta = read_checkpoint(checkpoint)
    if missing := [key for key in ("stage", "epoch", "config", "settings") if key not in meta]:
        raise UserError(
            f"{checkpoint} lacks {missing[0]} in its header; expected a checkpoint that training wrote; "
            "name qat.safetensors of a run"
        )
    if meta["stage"] == "float":
        save_float(checkpoint, out)
        return {"float": str(out), "config": meta["config"]["name"], "accuracy": meta.get("accuracy")}
    params = _params(checkpoint, tensors, meta)
    params.save(out, force=force)
    return {"params": str(out), "sha256": params.checksum()}


def _params(checkpoint: Path, tensors: dict[str, Tensor], meta: dict[str, Any]) -> Params:
    """Parameters of the integer stage of a run."""
    from s2tdpt.golden.config import config_from_dict
    from s2tdpt.sw.checkpoint import restore_result
    from s2tdpt.sw.export import export as to_params
    from s2tdpt.sw.export import tool_versions
    from s2tdpt.sw.quantize import QatNetwork

    settings = meta["settings"]
    network = QatNetwork(config_from_dict(meta["config"], source=str(checkpoint)))
    restore_result(checkpoint, tensors, network)
    provenance = {
        "command": command_line(),
        "seed": settings["seed"],
        "settings": settings,
        "epoch": meta["epoch"],
        "versions": tool_versions(),
    }
    return to_params(network.eval(), provenance)


def _calibrate(config: NetworkConfig, rate: float | None, paths: tuple[Path, ...], seed: int) -> Calibration:
    from s2tdpt.golden.calibrate import calibrate

    rates = Rates()
    if rate is not None:
        rates = rates.scaled(config, rate)
    images, description = _images(config, paths, seed)
    known = {"command": command_line(), "images": description}
    with console.status("calibrating") as status:
        return calibrate(config, images, rates, seed, known, lambda name: status.update(f"calibrated {name}"))


def _images(config: NetworkConfig, paths: tuple[Path, ...], seed: int) -> tuple[np.ndarray, str]:
    """Images to calibrate on, and what they are."""
    if paths:
        return load_images(paths, config), "given"
    found = sample_images(config)
    if found is not None:
        return found[0], found[2]
    shape = (config.image_height, config.image_width, config.image_channels)
    if shape == (8, 8, 1):
        from s2tdpt.sw.datasets import load_dataset

        return np.asarray(load_dataset("digits").test_images)[:DIGITS], f"the first {DIGITS} test digits"
    images = np.random.default_rng(seed).integers(0, 256, (RANDOM, *shape)).astype(np.uint8)
    return images, f"{RANDOM} of random bytes"


def _show(result: Calibration, out: Path, json_path: Path | None) -> None:
    params = result.params
    data = {
        "params": str(out),
        "sha256": params.checksum(),
        "config": params.config.name,
        "images": params.provenance["images"],
        "synaptic_rate": result.synaptic_rate,
        "firing_rates": result.rates,
        "widths": params.manifest()["widths"],
    }
    if json_path is not None:
        write_json(json_path, data)
    if quiet(json_path):
        return
    click.echo(f"{params.config.name}: firing rates on {data['images']}")
    table = Table()
    table.add_column("layer")
    table.add_column("driven by")
    table.add_column("rate", justify="right")
    for layer in driven(params.config):
        table.add_row(layer.name, layer.reads, f"{100 * result.rates[layer.reads]:.2f} %")
    console.print(table)
    click.echo(f"Mean over multiply-accumulates: {100 * result.synaptic_rate:.2f} %")
    click.echo(f"wrote {out} (random weights: it classifies nothing)")
