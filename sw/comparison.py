"""All attentions in one network, trained alike: what a comparison is, and one run of it.

A comparison has a base (configuration, settings, data) and a folder. A run is an attention by its kind and a
seed: the base's network with that attention is trained as float, then as integers, exported, proven equal to
the golden network, and its integers are ablated (`sw.ablation`). It lies in a folder of its own, goes on
where it was interrupted, and is never repeated once it is finished.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from s2tdpt.golden.complexity import parameter_count
from s2tdpt.golden.config import NetworkConfig, with_attention
from s2tdpt.golden.params import Params
from s2tdpt.sw.ablation import ablate
from s2tdpt.sw.datasets import Dataset
from s2tdpt.sw.export import from_params, tool_versions
from s2tdpt.sw.preflight import STAGES
from s2tdpt.sw.settings import Phase, TrainSettings, default_settings
from s2tdpt.sw.stage import deterministic
from s2tdpt.sw.train import train_pipeline

MONITORED = 64
"""Test images that are tried after an epoch, for the log alone."""

LITTLE_TIME = {
    "optimizer": "muon",
    "lr": 4e-3,
    "matrix_lr": 0.03,
    "warmup_epochs": 0.5,
    "phases": (Phase(0.6, 1), Phase(1.0)),
    "initial_rate": 0.1,
    "norm_images": 512,
}
"""Of the digits: what the recipe for little time (docs/training.md) has for CIFAR. Of 64 images, STDP has 53
right after one epoch, a quarter of the work of one of AdamW at all T steps, after which it has 7."""


def alike(dataset: str) -> TrainSettings:
    """Settings for little time, without what asks for something that only some attentions read.

    `count_weight` spreads spike counts, which is what STDP looks at; it is 0 here.
    """
    changes = LITTLE_TIME if dataset == "digits" else {}
    settings = replace(default_settings(dataset), **changes)
    return replace(settings, count_weight=0.0, monitor_images=MONITORED, threads=1)


@dataclass(frozen=True)
class Base:
    """What all runs of a comparison share; the seed of `settings` does not count."""

    config: NetworkConfig
    settings: TrainSettings
    dataset: Dataset

    def network(self, kind: str) -> NetworkConfig:
        """The network with the attention `kind`, its options as they come; the base's own kind keeps its
        options. UserError if the attention does not suit the network."""
        found = with_attention(self.config, kind)
        own = self.config.attention
        return found.model_copy(update={"attention": own}) if own.kind == kind else found

    def to_json(self) -> dict[str, Any]:
        """The base as plain values; runs of another base must not be mixed with these."""
        settings = {name: value for name, value in self.settings.to_json().items() if name != "seed"}
        return {
            "network": self.config.model_dump(mode="json"),
            "settings": settings,
            "data": {
                "source": self.dataset.source,
                "train_images": len(self.dataset.train_images),
                "test_images": len(self.dataset.test_images),
                "digest": self.dataset.digest,
            },
            "tools": tool_versions(),
        }


def train_run(
    base: Base, kind: str, seed: int, folder: Path, command: str = "", console: Console | None = None
) -> tuple[dict[str, Any], Params]:
    """Train a network, or go on with it, and ablate its integers.

    Parameters
    ----------
    folder : path
        Of this run; checkpoints of an interrupted one are continued.
    command : str
        Recorded as provenance.

    Returns
    -------
    dict
        Plain values: kind, seed, file (of the parameters), sha256, parameters, float_correct, trace_rates,
        synaptic_rate, minutes (of training), and what `AblationReport.to_json` has.
    Params

    Raises
    ------
    KeyboardInterrupt
        A signal ended the training; everything is saved.
    UserError
        As in `train_pipeline`.
    """
    config = base.network(kind)
    begun = any((folder / f"{stage}.safetensors").exists() for stage in STAGES)
    report = train_pipeline(
        config,
        base.dataset,
        replace(base.settings, seed=seed),
        folder,
        resume=begun,
        command=command,
        console=console,
    )
    if report.params is None:
        raise KeyboardInterrupt
    data, found = base.dataset, report.qat_result.evaluation
    with deterministic(base.settings.threads):  # more threads wait for each other where cores are shared
        ablated = ablate(from_params(report.params), data.test_images, data.test_labels, seed=seed)
    return {
        "kind": kind,
        "seed": seed,
        "file": report.params_path.name,
        "sha256": report.params.checksum(),
        "parameters": parameter_count(config),
        "float_correct": report.float_result.evaluation.correct,
        "trace_rates": {name: round(rate, 6) for name, rate in found.rates.items()},
        "synaptic_rate": round(found.synaptic_rate, 6),
        "minutes": round((report.float_result.seconds + report.qat_result.seconds) / 60.0, 2),
        **ablated.to_json(),
    }, report.params


def spread(values: Iterable[float]) -> dict[str, Any]:
    """Mean and sample standard deviation (None for one value) beside the values."""
    values = list(values)
    deviation = statistics.stdev(values) if len(values) > 1 else None
    return {"mean": statistics.fmean(values), "deviation": deviation, "each": values}


def summarise(runs: list[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """By kind, in order of appearance: accuracies, rates, and what each ablation takes away.

    Accuracies, drops and rates are fractions. A kind's rates are means over its layers of that name and over
    the seeds; ``drops`` has for every ablation the mean over the seeds and its standard error from the images
    whose answer changed (`sw.ablation.Ablation`), all seeds together.
    """
    summary: dict[str, dict[str, Any]] = {}
    for kind in dict.fromkeys(run["kind"] for run in runs):
        mine = [run for run in runs if run["kind"] == kind]
        images = sum(run["images"] for run in mine)
        drops = {}
        for name in mine[0]["ablations"]:
            found = [run["ablations"][name] for run in mine]
            lost, gained = (sum(a[part] for a in found) for part in ("lost", "gained"))
            variance = lost + gained - (lost - gained) ** 2 / images
            drops[name] = {"mean": (lost - gained) / images, "error": max(variance, 0.0) ** 0.5 / images}
        summary[kind] = {
            "seeds": [run["seed"] for run in mine],
            "parameters": mine[0]["parameters"],
            "float": spread(run["float_correct"] / run["images"] for run in mine),
            "integer": spread(run["correct"] / run["images"] for run in mine),
            "drops": drops,
            "rates": {part: statistics.fmean(values) for part, values in _by_part(mine).items()},
            "synaptic_rate": spread(run["synaptic_rate"] for run in mine),
        }
    return summary


def _by_part(runs: list[Mapping[str, Any]]) -> dict[str, list[float]]:
    """Rates of all blocks and runs, by what stands behind the block's number: q, k, v, attn, ..."""
    found: dict[str, list[float]] = {}
    for run in runs:
        for name, rate in run["trace_rates"].items():
            if name.startswith("block."):
                found.setdefault(name.split(".", 2)[2], []).append(rate)
    return found
