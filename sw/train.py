"""Training: float network, BatchNorm folding, quantisation-aware fine-tuning, export.

Backpropagation through time over the T steps. A run is a folder: a checkpoint a stage, a CSV log a stage,
and the parameter file at the end. No epoch is chosen by its test accuracy: the last one counts, so the
held-out images stay held out.

References
----------
Recipe (AdamW, warm-up, cosine, label smoothing): Spikingformer, arXiv 2304.11954, public code.
"""

from __future__ import annotations

import csv
import io
import math
import os
import time
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import nn

from golden.config import NetworkConfig, config_from_dict
from golden.errors import UserError
from golden.network import GoldenNetwork
from golden.params import Params
from sw.attention import STDP_GRADIENTS
from sw.augment import augment
from sw.checkpoint import read_checkpoint, restore, save_checkpoint
from sw.datasets import Dataset
from sw.evaluate import Evaluation, as_images, evaluate, verify_equal
from sw.export import export, tool_versions
from sw.fold import fold
from sw.network import Network
from sw.quantize import QatNetwork
from sw.regularise import count_spread_loss, synaptic_rate
from sw.settings import TrainSettings

FINAL_LR = 0.01
"""Share of the peak learning rate that the cosine ends at."""

LOG_COLUMNS = (
    "epoch",
    "loss",
    "train_accuracy",
    "test_accuracy",
    "mean_rate",
    "synaptic_rate",
    "lr",
    "seconds",
)


@dataclass(frozen=True)
class Stage:
    """One training stage: its name, length, peak rate, decay and warm-up (epochs)."""

    name: str
    epochs: int
    lr: float
    weight_decay: float
    warmup_epochs: float


@dataclass
class StageResult:
    """Where a stage ended. `finished` is false if it was stopped on request."""

    evaluation: Evaluation
    history: list[dict[str, Any]] = field(default_factory=list)
    finished: bool = True

    @property
    def seconds(self) -> float:
        return sum(row["seconds"] for row in self.history)


@dataclass
class TrainReport:
    """Result of `train_pipeline`; `params` and later fields are None if the run was stopped early."""

    float_result: StageResult
    qat_result: StageResult | None = None
    params: Params | None = None
    params_path: Path | None = None
    integer_correct: int | None = None
    test_images: int = 0

    @property
    def integer_accuracy(self) -> float | None:
        return None if self.integer_correct is None else self.integer_correct / self.test_images


def learning_rate(stage: Stage, step: int, steps_per_epoch: int) -> float:
    """Linear warm-up, then a cosine from `stage.lr` to `FINAL_LR` of it."""
    warmup, total = stage.warmup_epochs * steps_per_epoch, stage.epochs * steps_per_epoch
    if step < warmup:
        return stage.lr * (step + 1) / warmup
    phase = (step - warmup) / max(1.0, total - warmup)
    return stage.lr * (FINAL_LR + (1.0 - FINAL_LR) * 0.5 * (1.0 + math.cos(math.pi * phase)))


def pick_device() -> torch.device:
    """CUDA if there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


@contextmanager
def deterministic():
    """Deterministic kernels for the block, and denormals as zero (surrogate tails are slow otherwise)."""
    before = torch.are_deterministic_algorithms_enabled()
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)
        torch.set_flush_denormal(False)


def make_optimizer(network: nn.Module, stage: Stage) -> torch.optim.AdamW:
    """AdamW; decay on matrices and kernels only, never on biases and norms."""
    decayed = [p for p in network.parameters() if p.dim() > 1]
    plain = [p for p in network.parameters() if p.dim() <= 1]
    return torch.optim.AdamW(
        [{"params": decayed, "weight_decay": stage.weight_decay}, {"params": plain, "weight_decay": 0.0}],
        lr=stage.lr,
    )


def _write_text(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, path)
    except OSError as error:
        raise UserError(
            f"cannot write {path}: {error.strerror}; expected a writable folder; choose another output folder"
        ) from None


def write_log(path: Path, history: list[dict[str, Any]]) -> None:
    """The CSV log, whole and in one step, so that a resumed run neither repeats nor loses a row."""
    text = io.StringIO()
    writer = csv.DictWriter(text, LOG_COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(
        {key: f"{value:.6g}" if isinstance(value, float) else value for key, value in row.items()}
        for row in history
    )
    _write_text(path, text.getvalue())


def train_stage(
    network: nn.Module,
    stage: Stage,
    dataset: Dataset,
    settings: TrainSettings,
    out: Path,
    *,
    resume: bool = False,
    stop_after: int | None = None,
    command: str = "",
    progress: Progress | None = None,
    tensorboard: bool = False,
) -> StageResult:
    """Train `network` in place for one stage, with a checkpoint after every epoch.

    Parameters
    ----------
    network : Network or QatNetwork
    out : path
        Folder of ``{stage}.safetensors`` (checkpoint) and ``{stage}.csv`` (log).
    resume : bool
        Continue from the checkpoint if there is one.
    stop_after : int, optional
        Stop after this many epochs in all; the schedule stays that of the whole stage.

    Raises
    ------
    UserError
        The loss is not finite (the last good checkpoint stays), a checkpoint is there but `resume` is
        false, or it does not match the settings.
    """
    path, device = out / f"{stage.name}.safetensors", next(network.parameters()).device
    config = network.config
    optimizer = make_optimizer(network, stage)
    generator = torch.Generator().manual_seed(settings.seed)
    images, labels = as_images(dataset.train_images), torch.as_tensor(dataset.train_labels)
    batch = min(settings.batch_size, len(images))
    steps = len(images) // batch  # the rest of an epoch is dropped, other images each time
    history: list[dict[str, Any]] = []
    if path.exists():
        if not resume:
            raise UserError(
                f"{path} exists already; expected a new output folder; resume the run (--resume) "
                "or choose another folder"
            )
        tensors, meta = read_checkpoint(path)
        stored = config_from_dict(meta["config"], source=str(path))
        settled = settings.difference(meta["settings"])
        if stored != config or settled:
            raise UserError(
                f"{path} belongs to another run ({settled or config.differences(stored)[0]}); "
                "expected the same settings; give the original options or another folder"
            )
        restore(path, tensors, network, optimizer, generator)
        history = meta["history"]
    writer = _tensorboard(out / "tensorboard" / stage.name) if tensorboard else None
    task = (
        None
        if progress is None
        else progress.add_task(
            stage.name, total=stage.epochs * steps, completed=len(history) * steps, note=""
        )
    )
    last = stage.epochs if stop_after is None else min(stage.epochs, stop_after)
    for epoch in range(len(history), last):
        started, seen, correct, loss_sum = time.perf_counter(), 0, 0, 0.0
        network.train()
        order = torch.randperm(len(images), generator=generator)
        for step in range(steps):
            chosen = order[step * batch : (step + 1) * batch]
            inputs = images[chosen]
            if settings.augment:
                inputs = augment(inputs, generator, dataset.name, config.pixel_zero_point)
            rate = learning_rate(stage, epoch * steps + step, steps)
            for group in optimizer.param_groups:
                group["lr"] = rate
            record, targets = {}, labels[chosen].to(device)
            logits = network(inputs.to(device), record) * network.logit_scale
            loss = F.cross_entropy(logits, targets, label_smoothing=settings.label_smoothing)
            density = synaptic_rate(record, config)
            if settings.rate_weight:
                loss = loss + settings.rate_weight * density
            if settings.count_weight:
                loss = loss + settings.count_weight * count_spread_loss(record, config)
            value = loss.item()
            if not math.isfinite(value):
                kept = f"the last good checkpoint is {path}" if path.exists() else "no epoch was finished"
                raise UserError(
                    f"the loss became {value} in {stage.name} epoch {epoch + 1}, step {step + 1}; "
                    f"expected a finite number; {kept}; lower the learning rate and train again"
                )
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            if isinstance(network, QatNetwork):
                network.clip_()
            seen += len(chosen)
            correct += int((logits.argmax(1) == targets).sum())
            loss_sum += value * len(chosen)
            if task is not None:
                progress.update(
                    task,
                    advance=1,
                    note=f"loss {loss_sum / seen:.3f}  train {correct / seen:.1%}  rate {density.item():.1%}",
                )
        result = evaluate(network, dataset.test_images, dataset.test_labels)
        history.append(
            dict(
                zip(
                    LOG_COLUMNS,
                    (
                        epoch + 1,
                        loss_sum / seen,
                        correct / seen,
                        result.accuracy,
                        result.mean_rate,
                        result.synaptic_rate,
                        rate,
                        time.perf_counter() - started,
                    ),
                    strict=True,
                )
            )
        )
        save_checkpoint(
            path,
            network,
            optimizer,
            generator,
            {
                "stage": stage.name,
                "epoch": epoch + 1,
                "config": config.model_dump(mode="json"),
                "settings": settings.to_json(),
                "dataset": dataset.source,
                "command": command,
                "history": history,
            },
        )
        write_log(out / f"{stage.name}.csv", history)
        if writer is not None:
            for key in LOG_COLUMNS[1:]:
                writer.add_scalar(key, history[-1][key], epoch + 1)
            writer.flush()
    if writer is not None:
        writer.close()
    network.eval()
    result = evaluate(network, dataset.test_images, dataset.test_labels)
    return StageResult(result, history, len(history) >= stage.epochs)


def _tensorboard(folder: Path):
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise UserError(
            "TensorBoard is not installed; expected the package tensorboard; install the extra "
            "'tensorboard' or drop the option"
        ) from None
    return SummaryWriter(str(folder))


def _check_fit(config: NetworkConfig, dataset: Dataset) -> None:
    shape = (config.image_height, config.image_width, config.image_channels)
    if dataset.train_images.shape[1:] != shape or dataset.num_classes != config.num_classes:
        raise UserError(
            f"data set {dataset.name} has images {dataset.train_images.shape[1:]} and "
            f"{dataset.num_classes} classes; expected {shape} and {config.num_classes} for "
            f"{config.name}; choose a matching configuration"
        )


def train_pipeline(
    config: NetworkConfig,
    dataset: Dataset,
    settings: TrainSettings,
    out: str | Path,
    *,
    resume: bool = False,
    float_checkpoint: str | Path | None = None,
    command: str = "",
    console: Console | None = None,
    tensorboard: bool = False,
    stop_after: int | None = None,
    force: bool = False,
    device: torch.device | None = None,
) -> TrainReport:
    """Float training, folding, integer fine-tuning, export and proof against the golden network.

    Parameters
    ----------
    config : NetworkConfig
        Its `weight_bits` decides the integer grid.
    out : path
        Run folder; the result is ``{out}/{config.name}.safetensors`` (``-int4`` appended for 4 bits).
    resume : bool
        Continue from the folder's checkpoints; the result is bit-identical to an uninterrupted run.
    float_checkpoint : path, optional
        Start the integer stage from this finished float stage instead of training one.
    command : str
        Recorded as provenance.
    console : rich Console, optional
        Where progress goes; nothing is shown without one.
    stop_after : int, optional
        Stop every stage after this many epochs; a float stage cut short ends the run.
    force : bool
        Overwrite an existing parameter file.

    Returns
    -------
    TrainReport

    Raises
    ------
    UserError
        Data and configuration do not fit, or as in `train_stage`.
    """
    _check_fit(config, dataset)
    out, device = Path(out), device or pick_device()
    suffix = "" if config.weight_bits == 8 else f"-int{config.weight_bits}"
    target = out / f"{config.name}{suffix}.safetensors"
    if target.exists() and not force and not resume:
        raise UserError(f"{target} exists already; expected a new file; choose another folder or force it")
    columns = (
        TextColumn("{task.description:6}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    shown = Progress(*columns, console=console) if console is not None else None
    common: dict[str, Any] = {
        "resume": resume,
        "command": command,
        "progress": shown,
        "tensorboard": tensorboard,
        "stop_after": stop_after,
    }
    with deterministic(), _started(shown):
        network = _initial(config, settings, device)
        stage = Stage(
            "float",
            settings.float_epochs,
            settings.lr,
            settings.weight_decay,
            min(settings.warmup_epochs, settings.float_epochs / 4),
        )
        if float_checkpoint is None:
            report = TrainReport(train_stage(network, stage, dataset, settings, out, **common))
        else:
            report = TrainReport(_from_checkpoint(network, Path(float_checkpoint), dataset))
        if not report.float_result.finished:
            return report
        qat = QatNetwork.from_folded(fold(network), config.weight_bits)
        stage = Stage("qat", settings.qat_epochs, settings.qat_lr, 0.0, settings.qat_epochs / 10)
        report.qat_result = train_stage(qat, stage, dataset, settings, out, **common)
        if not report.qat_result.finished or settings.variant not in STDP_GRADIENTS:
            return report
        _export_checked(report, qat.cpu(), dataset, settings, command, device)
        report.params.save(target, force=force or resume)
        report.params_path = target
    return report


@contextmanager
def _started(progress: Progress | None):
    if progress is None:
        yield
    else:
        with progress:
            yield


def _initial(config: NetworkConfig, settings: TrainSettings, device: torch.device) -> Network:
    """The untrained network of a seed; the caller's random state is left alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        return Network(config, settings.variant, settings.half_width, attention_seed=settings.seed).to(device)


def _from_checkpoint(network: Network, path: Path, dataset: Dataset) -> StageResult:
    """A finished float stage of the same network; only `weight_bits` may differ."""
    tensors, meta = read_checkpoint(path)
    if meta["stage"] != "float":
        raise UserError(
            f"{path} is a checkpoint of stage {meta['stage']}; expected the float stage; "
            "name float.safetensors of a run"
        )
    if meta["epoch"] < meta["settings"]["float_epochs"]:
        raise UserError(
            f"{path} stopped after epoch {meta['epoch']} of {meta['settings']['float_epochs']}; expected a "
            "finished float stage; resume that run first"
        )
    config = network.config
    stored = config_from_dict({**meta["config"], "weight_bits": config.weight_bits}, source=str(path))
    if differences := config.differences(stored):
        raise UserError(
            f"{path} was trained for another configuration ({differences[0]}); expected {config.name}; "
            "use its own configuration"
        )
    restore(path, tensors, network)
    return StageResult(evaluate(network.eval(), dataset.test_images, dataset.test_labels), meta["history"])


def _export_checked(
    report: TrainReport,
    qat: QatNetwork,
    dataset: Dataset,
    settings: TrainSettings,
    command: str,
    device: torch.device,
) -> None:
    """Fill in the report's parameters; what is written has been run by the golden network on the test set."""
    golden = GoldenNetwork(export(qat))
    report.test_images = len(dataset.test_labels)
    report.integer_correct = int(
        (_classify(golden.classify, dataset.test_images) == dataset.test_labels).sum()
    )
    equality = verify_equal(qat, golden, dataset.test_images[:64])
    if not equality.equal:
        raise RuntimeError(f"the trained and the golden network differ: {equality.difference}")
    last = report.qat_result.evaluation
    report.params = export(
        qat,
        {
            "command": command,
            "seed": settings.seed,
            "settings": settings.to_json(),
            "data": dataset.source,
            "accuracy": {
                "float": report.float_result.evaluation.accuracy,
                "integer": report.integer_accuracy,
                "test_images": report.test_images,
            },
            "firing_rates": {name: round(rate, 6) for name, rate in last.rates.items()},
            "synaptic_rate": round(last.synaptic_rate, 6),
            "versions": tool_versions(),
            "device": device.type,
            "threads": torch.get_num_threads(),
        },
    )


def _classify(classify: Callable, images, batch_size: int = 256):
    parts = [torch.as_tensor(classify(images[i : i + batch_size])) for i in range(0, len(images), batch_size)]
    return torch.cat(parts).numpy()


def quick_settings(settings: TrainSettings, epochs: int) -> TrainSettings:
    """The same settings with both stages `epochs` long, for trials."""
    return replace(settings, float_epochs=epochs, qat_epochs=epochs)
