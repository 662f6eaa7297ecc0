"""One stage of training: the loop, its log and its checkpoints.

Backpropagation through time over the T steps. What is random is drawn from generators that travel with the
checkpoint, so a stage that was stopped anywhere and resumed ends with the same bits as one that was not.
With a time budget the schedule follows the clock, which goes on where it stood.
"""

from __future__ import annotations

import math
import os
import signal
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from rich.progress import Progress
from torch import nn

from s2tdpt.golden.errors import UserError
from s2tdpt.sw import distributed
from s2tdpt.sw.average import Average, renew_statistics
from s2tdpt.sw.checkpoint import read_checkpoint, restore, save_checkpoint
from s2tdpt.sw.datasets import Dataset
from s2tdpt.sw.evaluate import Evaluation, evaluate
from s2tdpt.sw.feed import MIXUP_UNTIL, Feed
from s2tdpt.sw.neuron import use_fused
from s2tdpt.sw.optimise import make_optimizer
from s2tdpt.sw.preflight import check_same_run
from s2tdpt.sw.runlog import LOG_COLUMNS, Lines, TensorBoard, write_log
from s2tdpt.sw.schedule import Clock, Stage
from s2tdpt.sw.settings import TrainSettings
from s2tdpt.sw.step import Batch, Stepper

CHECKPOINT_SECONDS = 300.0
"""A checkpoint is written after every epoch, and within an epoch when the last is this old."""


@dataclass
class StageResult:
    """Where a stage ended.

    `finished` is false if it was stopped on request or, `interrupted`, by a signal; then nothing is
    evaluated. `command` is the one that began the stage.
    """

    evaluation: Evaluation | None
    history: list[dict[str, Any]] = field(default_factory=list)
    finished: bool = True
    interrupted: bool = False
    command: str = ""

    @property
    def seconds(self) -> float:
        return sum(row["seconds"] for row in self.history)


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


class _Interruption:
    """Notes SIGINT and SIGTERM, so that the step in hand is finished and saved; a second one interrupts."""

    def __init__(self):
        self.seen = False

    def _note(self, number, frame):
        if self.seen:
            raise KeyboardInterrupt
        self.seen = True

    def __enter__(self):
        self._before = {}
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *error):
        for number, handler in self._before.items():
            signal.signal(number, handler)


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
    say=lambda text: None,
    teacher: torch.Tensor | None = None,
    lines: bool = False,
) -> StageResult:
    """Train `network` in place for one stage; at its end it holds the averaged weights, if there are any.

    Parameters
    ----------
    network : Network or QatNetwork
    out : path
        Folder of ``{stage}.safetensors`` (checkpoint) and ``{stage}.csv`` (log).
    resume : bool
        Continue from the checkpoint if there is one.
    stop_after : int, optional
        Stop after this many epochs in all; the schedule stays that of the whole stage.
    say : callable
        Takes remarks, one line each.
    teacher : float tensor [2, M, K], optional
        A teacher's logits of the training images as they are and mirrored (`sw.teacher`).
    lines : bool
        Also say once a minute how it goes.

    Raises
    ------
    UserError
        The loss is not finite (the last good checkpoint stays), a checkpoint is there but `resume` is
        false, it does not match the settings, the configuration or the data, or memory or disk is full.
    """
    return _Run(network, stage, dataset, settings, Path(out), command, say, teacher, lines).train(
        resume, stop_after, progress, tensorboard
    )


class _Run:
    """State of one stage in training."""

    def __init__(self, network, stage: Stage, dataset, settings, out, command, say, teacher, lines):
        self.network, self.stage, self.dataset, self.settings = network, stage, dataset, settings
        self.path, self.log = out / f"{stage.name}.safetensors", out / f"{stage.name}.csv"
        self.command, self.say, self.config = command, say, network.config
        self.device = next(network.parameters()).device
        self.optimizer = make_optimizer(
            network, stage.lr, stage.weight_decay, settings.optimizer, settings.matrix_lr
        )
        self.average = Average(network, settings.ema) if settings.ema else None
        # One generator for everything on a CPU; on a GPU a second one there, for the augmentation.
        self.generators = {"generator": torch.Generator().manual_seed(settings.seed)}
        if self.device.type != "cpu":
            self.generators["device"] = torch.Generator(self.device).manual_seed(settings.seed)
        self.feed = Feed(dataset, settings, self.config, self.device, teacher)
        self.lines = Lines(say if lines else None)
        self.batch = min(settings.batch_size, len(self.feed))
        self.steps = len(self.feed) // self.batch  # the rest of an epoch is dropped, others each time
        self.history: list[dict[str, Any]] = []
        self.step, self.sums, self.seconds, self.piece = 0, [0.0, 0.0, 0.0], 0.0, self.batch
        self.clock, self.last_rate = Clock(stage, self.steps), 0.0
        self.start_of_epoch = self.generators["generator"].get_state()
        self.finished, self.accuracy = False, None

    # ------------------------------------------------------------------------------------- checkpoints

    def _restore(self, resume: bool) -> None:
        if not self.path.exists():
            return
        if not resume:
            raise UserError(
                f"{self.path} exists already; expected a new output folder; resume the run (--resume) "
                "or choose another folder"
            )
        tensors, meta = read_checkpoint(self.path)
        check_same_run(self.path, meta, self.config, self.settings, self.dataset)
        restore(
            self.path, tensors, self.network, self.optimizer, self.average.network if self.average else None
        )
        for name, generator in self.generators.items():
            if f"rng.{name}" in tensors:
                generator.set_state(tensors[f"rng.{name}"])
        self.start_of_epoch = tensors["rng.epoch"]
        self.history, self.step, self.sums = meta["history"], meta["step"], meta["sums"]
        self.seconds, self.piece, self.finished = meta["seconds"], meta["piece"], meta["finished"]
        self.accuracy = meta.get("accuracy")
        self.clock = Clock(self.stage, self.steps, meta["elapsed"])
        self.command = meta["command"] or self.command
        if self.average:
            self.average.updates = meta["updates"]

    def _save(self) -> None:
        if not distributed.is_first():
            return
        states = {name: generator.get_state() for name, generator in self.generators.items()}
        save_checkpoint(
            self.path,
            self.network,
            self.optimizer,
            states | {"epoch": self.start_of_epoch},
            {
                "stage": self.stage.name,
                "epoch": len(self.history),
                "step": self.step,
                "sums": self.sums,
                "seconds": self.seconds,
                "elapsed": self.clock.elapsed,
                "finished": self.finished,
                "accuracy": self.accuracy,
                "piece": self.piece,
                "updates": self.average.updates if self.average else 0,
                "config": self.config.model_dump(mode="json"),
                "settings": self.settings.to_json(),
                "dataset": self.dataset.source,
                "digest": self.dataset.digest,
                "command": self.command,
                "history": self.history,
            },
            self.average.network if self.average else None,
        )
        if self.history:
            write_log(self.log, self.history)

    # -------------------------------------------------------------------------------------------- loop

    def train(self, resume: bool, stop_after, progress: Progress | None, tensorboard: bool) -> StageResult:
        self._restore(resume)
        self.lines.start(self._position())
        board = TensorBoard(self.path.parent / "tensorboard" / self.stage.name, tensorboard)
        task = None
        if progress is not None:
            task = progress.add_task(self.stage.name, total=1.0, completed=self._position(), note="")
        stepper = Stepper(self.network, self.optimizer, self.settings, self.say, self.piece)
        with _Interruption() as interruption:
            while not self.finished and (stop_after is None or len(self.history) < stop_after):
                if self._epoch(stepper, interruption, progress, task):
                    break
                board.add(self.history[-1], len(self.history))
            interrupted = interruption.seen  # also in the last step of all
        board.close()
        shown = self.average.network if self.average is not None else self.network
        if self.stage.name == "float":
            shown.timesteps = self.network.timesteps = self.config.timesteps
        evaluation = None
        if not interrupted:
            with use_fused(self.settings.fused):
                evaluation = evaluate(
                    shown, self.dataset.test_images, self.dataset.test_labels, keep_logits=self.finished
                )
            if self.finished and self.accuracy is None:
                self.accuracy = evaluation.accuracy
                self._save()
        if self.average is not None:
            self.network.load_state_dict(self.average.network.state_dict())
        self.network.eval()
        return StageResult(evaluation, self.history, self.finished, interrupted, self.command)

    def _position(self, elapsed: float | None = None) -> float:
        return self.clock.position(len(self.history) * self.steps + self.step, elapsed)

    def _epoch(self, stepper: Stepper, interruption: _Interruption, progress, task) -> bool:
        """The rest of one epoch; true if a signal came, after everything is saved."""
        generator = self.generators["generator"]
        if self.step:  # in the middle of an epoch: its order again, then on from where the draws stopped
            now = generator.get_state()
            generator.set_state(self.start_of_epoch)
            order = torch.randperm(len(self.feed), generator=generator)
            generator.set_state(now)
        else:
            self.start_of_epoch = generator.get_state()
            order = torch.randperm(len(self.feed), generator=generator)
        started = saved = time.perf_counter()
        before, batch, rate = self.seconds, self.batch, 0.0
        self.network.train()
        while self.step < self.steps:
            elapsed, stopped = distributed.agree([self.clock.elapsed, float(interruption.seen)], self.device)
            self.seconds = before + time.perf_counter() - started
            if stopped:
                self._save()
                return True
            position = self._position(elapsed)
            if position >= 1.0 and (self.step or self.history):
                break
            rate = self.clock.rate(len(self.history) * self.steps + self.step, position)
            chosen = order[self.step * batch : (self.step + 1) * batch]
            self._take(stepper, self._batch(chosen.to(self.device), position), rate)
            self.step += 1
            self.lines.step(len(chosen), self._position(), self._line)
            if progress is not None:
                seen = max(self.sums[0], 1.0)
                note = (
                    f"epoch {len(self.history) + 1}  loss {self.sums[2] / seen:.3f}  "
                    f"train {self.sums[1] / seen:.1%}  rate {self.last_rate:.1%}"
                )
                progress.update(task, completed=self._position(), note=note)
            if time.perf_counter() - saved > CHECKPOINT_SECONDS and self.step < self.steps:
                self._save()
                saved = time.perf_counter()
        self._end_epoch(rate, before, started)
        return False

    def _batch(self, chosen: torch.Tensor, position: float) -> Batch:
        """The images `chosen` as the phase of the stage wants them; the network's steps follow it."""
        generator, size = self.generators.get("device", self.generators["generator"]), 0
        floating = self.stage.name == "float"
        if floating:
            phase = self.settings.phase(position)
            self.network.timesteps, size = phase.timesteps or self.config.timesteps, phase.image_size
        mix = floating and position < MIXUP_UNTIL
        return self.feed.batch(chosen, generator, len(self.history), size, mix)

    def _line(self) -> str:
        seen = max(self.sums[0], 1.0)
        tested = f"  test {self.history[-1]['test_accuracy']:.1%}" if self.history else ""
        return (
            f"{self.stage.name} epoch {len(self.history) + 1} {self.step / self.steps:.0%}  "
            f"loss {self.sums[2] / seen:.3f}  train {self.sums[1] / seen:.1%}{tested}"
        )

    def _take(self, stepper: Stepper, batch: Batch, rate: float) -> None:
        result = stepper.step(batch, rate)
        self.piece, count = stepper.piece, len(batch.images)
        seen, correct, loss = distributed.total([count, result.correct, result.loss * count], self.device)
        if not math.isfinite(loss):
            kept = (
                f"the last good checkpoint is {self.path}" if self.path.exists() else "no epoch was finished"
            )
            raise UserError(
                f"the loss became {loss / seen} in {self.stage.name} epoch {len(self.history) + 1}, "
                f"step {self.step + 1}; expected a finite number; {kept}; lower the learning rate and "
                "train again"
            )
        if self.average is not None:
            self.average.update(self.network)
        self.last_rate = result.rate
        self.sums = [a + b for a, b in zip(self.sums, (seen, correct, loss), strict=True)]

    def _prepare(self, network: nn.Module) -> None:
        """For evaluation: the configuration's steps and, if wanted, fresh norm statistics."""
        if self.stage.name != "float":
            return
        network.timesteps = self.config.timesteps
        if self.settings.norm_images:
            with use_fused(self.settings.fused):
                renew_statistics(network, self.feed.images[: self.settings.norm_images])

    def _end_epoch(self, rate: float, before: float, started: float) -> None:
        if self.step == 0:  # the budget ended with the epoch before
            self.finished = True
            self._save()
            return
        shown = self.average.network if self.average is not None else self.network
        self._prepare(shown)
        count = self.settings.monitor_images or None
        with use_fused(self.settings.fused):
            result = evaluate(shown, self.dataset.test_images[:count], self.dataset.test_labels[:count])
        seen, correct, loss = self.sums
        whole = self.step == self.steps
        seconds = before + time.perf_counter() - started
        row = (
            len(self.history) + 1 if whole else len(self.history) + self.step / self.steps,
            loss / max(seen, 1.0),
            correct / max(seen, 1.0),
            result.accuracy,
            result.mean_rate,
            result.synaptic_rate,
            rate,
            seconds,
        )
        self.history.append(dict(zip(LOG_COLUMNS, row, strict=True)))
        self.step, self.sums, self.seconds = 0, [0.0, 0.0, 0.0], 0.0
        (elapsed,) = distributed.agree([self.clock.elapsed], self.device)
        self.finished = not whole or self._position(elapsed) >= 1.0
        self._save()
