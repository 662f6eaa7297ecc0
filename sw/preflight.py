"""What can be known to be wrong before a run takes any time or replaces anything."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from s2tdpt.golden.config import NetworkConfig, config_from_dict
from s2tdpt.golden.errors import UserError
from s2tdpt.sw.checkpoint import read_checkpoint
from s2tdpt.sw.datasets import Dataset
from s2tdpt.sw.settings import TrainSettings

STAGES = ("float", "qat")


def target_path(config: NetworkConfig, out: Path) -> Path:
    """The parameter file that a run writes into its folder."""
    suffix = "" if config.weight_bits == 8 else f"-int{config.weight_bits}"
    return out / f"{config.name}{suffix}.safetensors"


def check_data(config: NetworkConfig, dataset: Dataset, settings: TrainSettings) -> None:
    """Refuse images or classes that are not the network's, and phases larger than its images."""
    shape = (config.image_height, config.image_width, config.image_channels)
    if dataset.train_images.shape[1:] != shape or dataset.num_classes != config.num_classes:
        raise UserError(
            f"data set {dataset.name} has images {dataset.train_images.shape[1:]} and "
            f"{dataset.num_classes} classes; expected {shape} and {config.num_classes} for "
            f"{config.name}; choose a matching configuration"
        )
    largest = min(shape[:2])
    for phase in settings.phases:
        if phase.image_size > largest:
            raise UserError(
                f"a phase takes images of {phase.image_size} pixels a side; expected at most {largest}, the "
                f"size of {config.name}; lower SIZE or leave it out"
            )


def check_options(
    float_checkpoint: str | Path | None, start: str | Path | None, float_only: bool, out: Path, resume: bool
) -> None:
    """Refuse options of which one would be ignored, and a folder in which there is nothing to resume."""
    if float_checkpoint is not None and (start is not None or float_only):
        other = "a start" if start is not None else "an end"
        raise UserError(
            f"a finished float stage is given, and {other} of the float stage; expected one of them: with "
            "--float-checkpoint there is no float stage; leave one out"
        )
    if resume and not any((out / f"{name}.safetensors").is_file() for name in STAGES):
        raise UserError(
            f"no run to resume in {out}; expected a folder with float.safetensors or qat.safetensors; "
            "correct the folder or leave out --resume"
        )


def check_folder(
    out: Path, stages: tuple[str, ...], config: NetworkConfig, settings: TrainSettings, dataset: Dataset
) -> None:
    """Refuse to go on in `out` if the checkpoint of one of the `stages` there is not that of the same run."""
    for stage in stages:
        path = out / f"{stage}.safetensors"
        if path.exists():
            check_same_run(path, read_checkpoint(path)[1], config, settings, dataset)


def check_empty(out: Path, stages: tuple[str, ...], target: Path) -> None:
    """Refuse to begin in a folder in which a run of these `stages` was begun or finished."""
    if target.exists():
        raise UserError(f"{target} exists already; expected a new file; choose another folder or use --force")
    for stage in stages:
        if (path := out / f"{stage}.safetensors").exists():
            raise UserError(
                f"{path} exists already; expected a new output folder; resume the run (--resume) "
                "or choose another folder"
            )


def check_same_run(
    path: Path, meta: dict[str, Any], config: NetworkConfig, settings: TrainSettings, dataset: Dataset
) -> None:
    """Refuse the checkpoint `path`, whose header is `meta`, if it is of other settings, network or data."""
    stored = config_from_dict(meta["config"], source=str(path))
    settled = settings.difference(meta["settings"])
    if stored != config or settled:
        raise UserError(
            f"{path} belongs to another run ({settled or config.differences(stored)[0]}); "
            "expected the same settings; give the original options or another folder"
        )
    if meta["digest"] != dataset.digest:
        raise UserError(
            f"{path} was trained on other data than {dataset.source}; expected the same bytes; "
            "name the original data or choose another folder"
        )
