"""The same network trained alike with different attentions, and what each attention is then worth.

An experiment is a base (configuration, settings, data), a list of cases, each a few changed fields, and a
number of seeds. Every run trains the float network, counts the test images it gets right, and ablates its
attention (`sw.ablation`). The float network's forward uses the very table that the hardware uses.

Two cases are no attention of the slot: ``zero`` is trained with Y = 0, ``random`` with a fixed random A.
They show what the rest of the network reaches alone, which no ablation of a trained attention can: there, the
rest has learnt to rely on it.

References
----------
STEP: arXiv 2505.11151 (controls; a stem of one convolution is the sensitive instrument).
"""

from __future__ import annotations

import copy
import statistics
import tempfile
import time
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.progress import Progress

from s2tdpt.golden.attention import MECHANISMS
from s2tdpt.golden.config import NetworkConfig, config_from_dict
from s2tdpt.golden.errors import UserError
from s2tdpt.golden.strictjson import parse
from s2tdpt.sw.ablation import ABLATIONS, ConstantAttention, ablate
from s2tdpt.sw.attention.controls import RandomAttention
from s2tdpt.sw.datasets import Dataset
from s2tdpt.sw.initialise import start_rates
from s2tdpt.sw.names import NAMED_CASES
from s2tdpt.sw.network import Network
from s2tdpt.sw.settings import TrainSettings
from s2tdpt.sw.stage import Stage, deterministic, train_stage

_OPTIONS = [
    f"attention.{option}"
    for option in dict.fromkeys(o for mechanism in MECHANISMS.values() for o in mechanism.model_fields)
]
_DATA_FIELDS = ("name", "image_height", "image_width", "image_channels", "num_classes")
_RUN_FIELDS = ("seed", "threads", "qat_epochs", "qat_lr", "qat_share", "budget_minutes", "monitor_images")


@dataclass(frozen=True)
class Case:
    """One attention of the comparison: its `label` as typed, and what it changes.

    `control` is one of `sw.names.CONTROLS`, or None for the attention of the configuration.
    """

    label: str
    settings: dict[str, Any] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    control: str | None = None

    def apply(self, config: NetworkConfig, settings: TrainSettings) -> tuple[NetworkConfig, TrainSettings]:
        """The base with this case's changes; UserError if a value is out of range."""
        values = config.model_dump(mode="json")
        for name, value in self.config.items():
            group, _, option = name.partition(".")
            if option:
                values[group][option] = value
            else:
                values[group] = value
        source = self.label if self.label.startswith("--") else f"case {self.label}"
        return config_from_dict(values, source=source), replace(settings, **self.settings)


def parse_field(text: str) -> tuple[str, Any]:
    """``field=value`` of the network or of the training; the value is JSON, or a word.

    Options of the attention are written ``attention.kappa=0.25``.

    Raises
    ------
    UserError
        No such field, or one that the data and the other options decide.
    """
    name, equals, value = text.partition("=")
    known = [f for f in NetworkConfig.model_fields if f not in (*_DATA_FIELDS, "attention")]
    known += _OPTIONS
    known += [f.name for f in fields(TrainSettings) if f.name not in _RUN_FIELDS]
    if not equals or name not in known:
        raise UserError(
            f"unknown setting {text!r}; expected FIELD=VALUE with one of {', '.join(known)}; correct it"
        )
    try:
        return name, parse(value)
    except ValueError:
        return name, value


def split_fields(changes: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """(training settings, network fields) of mixed changes; a type that no field takes is refused."""
    known = (*NetworkConfig.model_fields, *_OPTIONS)
    of_network = {name: value for name, value in changes.items() if name in known}
    of_training = {name: value for name, value in changes.items() if name not in of_network}
    kinds = {f.name: type(f.default) for f in fields(TrainSettings)}
    for name, value in of_training.items():
        wanted = (int, float) if kinds[name] is float else kinds[name]
        if not isinstance(value, wanted) or (isinstance(value, bool) and kinds[name] is not bool):
            raise UserError(
                f"setting {name} is {value!r}; expected {kinds[name].__name__}; correct the value"
            )
        of_training[name] = float(value) if kinds[name] is float else value
    return of_training, of_network


def parse_case(text: str) -> Case:
    """``NAME`` or ``NAME:field=value,field=value``: a named case with further changes.

    Raises
    ------
    UserError
        Unknown name or field.
    """
    name, _, rest = text.partition(":")
    if name not in NAMED_CASES:
        raise UserError(
            f"unknown case {name!r}; expected one of {', '.join(NAMED_CASES)}, then "
            ":FIELD=VALUE,... if wanted; choose one of these"
        )
    changes = copy.deepcopy(NAMED_CASES[name])
    control = changes.pop("control", None)
    changes |= dict(parse_field(part) for part in rest.split(",") if part)
    return Case(text, *split_fields(changes), control)


def shrink(dataset: Dataset, times: int) -> Dataset:
    """Images halved `times` times by 2x2 means, rounded half up; sides must divide.

    Fewer tokens for the same pictures: a block's cost falls by four each time.
    """
    if times == 0:
        return dataset
    step = 2**times
    height, width = dataset.train_images.shape[1:3]
    if height % step or width % step:
        raise UserError(
            f"images of {height}x{width} pixels cannot be halved {times} times; expected sides that are "
            f"multiples of {step}; use a smaller --shrink"
        )

    def smaller(images: np.ndarray) -> np.ndarray:
        for _ in range(times):
            quads = images.astype(np.uint16)
            total = sum(quads[:, y::2, x::2] for y in (0, 1) for x in (0, 1))
            images = ((total + 2) // 4).astype(np.uint8)
        return images

    return replace(
        dataset,
        train_images=smaller(dataset.train_images),
        test_images=smaller(dataset.test_images),
        source=f"{dataset.source}, {times} x halved to {height // step}x{width // step}",
    )


def weak_stem(config: NetworkConfig, dataset: Dataset) -> NetworkConfig:
    """The same blocks behind one convolution: every pixel a token, images and classes those of the data.

    What a strong stem would have found, the blocks must.
    """
    height, width, channels = dataset.train_images.shape[1:]
    return config_from_dict(
        config.model_dump(mode="json")
        | {
            "name": f"{config.name}-weak",
            "image_height": height,
            "image_width": width,
            "image_channels": channels,
            "num_classes": dataset.num_classes,
            "sps_channels": [config.embed_dim],
            "sps_pool": [False],
        }
    )


def check_fit(config: NetworkConfig, dataset: Dataset) -> None:
    """UserError unless the data have the images and classes that the network takes."""
    shape = [config.image_height, config.image_width, config.image_channels]
    if list(dataset.train_images.shape[1:]) != shape or dataset.num_classes != config.num_classes:
        raise UserError(
            f"data set {dataset.name} has images {list(dataset.train_images.shape[1:])} and "
            f"{dataset.num_classes} classes; expected {shape} and {config.num_classes} for {config.name}; "
            "choose another --config, or --stem weak, which takes any"
        )


def run_case(
    case: Case,
    seed: int,
    config: NetworkConfig,
    settings: TrainSettings,
    dataset: Dataset,
    ablations: tuple[str, ...] = ABLATIONS,
    log_images: int = 256,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Train one network, classify the test images, ablate.

    Parameters
    ----------
    config, settings, dataset
        The base; `dataset` is already cut and shrunk. Its whole test set is classified in the end.
    log_images : int
        Test images classified after each epoch, for the log only.

    Returns
    -------
    dict
        Plain values: case, seed, changes, images, correct, ablations, rates, spread, ltp_share, a_mean,
        a_deviation, train_accuracy (of the last epoch), seconds (of training).

    Raises
    ------
    UserError
        Data that the network does not take, or as in `train_stage`.
    KeyboardInterrupt
        A signal ended the training.
    """
    config, settings = case.apply(config, replace(settings, seed=seed))
    check_fit(config, dataset)
    logged = replace(
        dataset, test_images=dataset.test_images[:log_images], test_labels=dataset.test_labels[:log_images]
    )
    stage = Stage(
        "float",
        settings.float_epochs,
        settings.lr,
        settings.weight_decay,
        min(settings.warmup_epochs, settings.float_epochs / 4),
    )
    with deterministic(settings.threads):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network = Network(config, settings.kernel_gradient)
        for b, block in enumerate(network.blocks):
            if case.control == "zero":
                block.attention = ConstantAttention(0.0, block.attention.threshold)
            elif case.control == "random":
                block.attention = RandomAttention(config, seed + b)
        start_rates(network, dataset, settings)
        started = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            result = train_stage(network, stage, logged, settings, Path(folder), progress=progress)
        if not result.finished:
            raise KeyboardInterrupt  # a signal in training; half a run is none
        seconds = time.perf_counter() - started
        names = () if case.control == "zero" else ablations
        report = ablate(network.eval(), dataset.test_images, dataset.test_labels, names, seed)
    return {
        "case": case.label,
        "seed": seed,
        "changes": case.settings | case.config | ({"control": case.control} if case.control else {}),
        **report.to_json(),
        "train_accuracy": round(result.history[-1]["train_accuracy"], 6) if result.history else None,
        "seconds": round(seconds, 1),
    }


def summarise(runs: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """By case, in order of appearance: seeds, accuracy (mean, spread, each) and mean drop an ablation.

    `deviation` is the sample standard deviation over seeds, None for one seed. All are fractions.
    """
    summary: dict[str, dict[str, Any]] = {}
    for label in dict.fromkeys(run["case"] for run in runs):
        mine = [run for run in runs if run["case"] == label]
        accuracies = [run["correct"] / run["images"] for run in mine]
        shares = [share for run in mine for share in run["ltp_share"]]
        drops = {
            name: statistics.fmean((a["lost"] - a["gained"]) / run["images"] for run, a in measured)
            for name in mine[0]["ablations"]
            if (measured := [(run, run["ablations"][name]) for run in mine])
        }
        summary[label] = {
            "seeds": [run["seed"] for run in mine],
            "accuracies": accuracies,
            "mean": statistics.fmean(accuracies),
            "deviation": statistics.stdev(accuracies) if len(mine) > 1 else None,
            "drops": drops,
            "rates": {
                part: statistics.fmean(v for r in mine for n, v in r["rates"].items() if n.endswith(part))
                for part in (".q", ".k", ".v", ".attn")
                if any(name.endswith(part) for name in mine[0]["rates"])
            },
            "spread": {
                part: statistics.fmean(v for r in mine for n, v in r["spread"].items() if n.endswith(part))
                for part in (".q", ".k")
                if any(name.endswith(part) for name in mine[0]["spread"])
            },
            "ltp_share": statistics.fmean(shares) if shares else None,
        }
    return summary
