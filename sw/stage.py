"""One stage of training: the loop, its log and its checkpoints.

Backpropagation through time over the T steps. Everything random is drawn from one generator that travels
with the checkpoint, so a stage that was stopped and resumed ends with the same bits as one that was not.

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
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from rich.progress import Progress
from torch import nn

from golden.config import config_from_dict
from golden.errors import UserError
from sw.augment import augment
from sw.checkpoint import read_checkpoint, restore, save_checkpoint
from sw.datasets import Dataset
from sw.evaluate import Evaluation, as_images, evaluate
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
def deterministic(threads: int = 0):
    """Deterministic kernels, `threads` CPU threads (0: as they are), and denormals taken as zero.

    The surrogate's tails are full of denormals, which are slow and mean nothing.
    """
    kernels, count = torch.are_deterministic_algorithms_enabled(), torch.get_num_threads()
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.set_flush_denormal(True)
    torch.set_num_threads(threads or count)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(kernels)
        torch.set_flush_denormal(False)
        torch.set_num_threads(count)


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
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
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
