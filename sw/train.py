"""Training from start to end: float network, BatchNorm folding, integer fine-tuning, export, proof.

A run is a folder: a checkpoint and a CSV log a stage, and the parameter file at the end. No epoch is chosen
by its test accuracy: the last one counts, so the held-out images stay held out.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from s2tdpt.golden.config import NetworkConfig
from s2tdpt.golden.errors import UserError
from s2tdpt.golden.head import class_of
from s2tdpt.golden.network import GoldenNetwork
from s2tdpt.golden.params import Params
from s2tdpt.sw import distributed
from s2tdpt.sw.card import model_card
from s2tdpt.sw.datasets import Dataset
from s2tdpt.sw.evaluate import evaluate, verify_equal
from s2tdpt.sw.export import export, tool_versions
from s2tdpt.sw.fold import fold
from s2tdpt.sw.initialise import start_rates
from s2tdpt.sw.memory import keep_freed_memory
from s2tdpt.sw.network import Network
from s2tdpt.sw.neuron import use_fused
from s2tdpt.sw.preflight import STAGES, check_data, check_empty, check_folder, check_options, target_path
from s2tdpt.sw.quantize import QatNetwork
from s2tdpt.sw.runlog import write_text
from s2tdpt.sw.schedule import Stage
from s2tdpt.sw.settings import TrainSettings
from s2tdpt.sw.stage import StageResult, deterministic, train_stage
from s2tdpt.sw.start import Origin, load_origin, load_start
from s2tdpt.sw.teacher import read_teacher, teacher_logits


@dataclass
class TrainReport:
    """Result of `train_pipeline`; `params` and later fields are None if the run was stopped early.

    `float_accuracy`: of what was quantised, on all test images. `origin`: checksum of the parameter file that
    it was, "" if it was a float network.
    """

    float_result: StageResult
    float_accuracy: float | None = None
    qat_result: StageResult | None = None
    params: Params | None = None
    params_path: Path | None = None
    integer_correct: int | None = None
    test_images: int = 0
    origin: str = ""

    @property
    def integer_accuracy(self) -> float | None:
        return None if self.integer_correct is None else self.integer_correct / self.test_images


def train_pipeline(
    config: NetworkConfig,
    dataset: Dataset,
    settings: TrainSettings,
    out: str | Path,
    *,
    resume: bool = False,
    float_checkpoint: str | Path | None = None,
    start: str | Path | None = None,
    teacher: str | Path | None = None,
    float_only: bool = False,
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
    float_checkpoint : str or path, optional
        Quantise this finished float stage, or the integers of a parameter file again (`sw.start`).
    start : str or path, optional
        Begin the float stage with the weights of this float stage or parameter file, whose T may be another.
    teacher : path, optional
        A network to distil from, or its logits (`sw.teacher`); the logits are kept in the run folder.
    float_only : bool
        End with the float stage.
    command : str
        Recorded as provenance.
    console : rich Console, optional
        Where progress goes: bars on a terminal, else a line a minute; nothing is shown without one.
    stop_after : int, optional
        Stop every stage after this many epochs; a float stage cut short ends the run.
    force : bool
        Replace an earlier run in the same folder: its checkpoints go first. Ignored with `resume`.

    Returns
    -------
    TrainReport

    Raises
    ------
    UserError
        Data and configuration do not fit, or as in `train_stage`.
    """
    out = Path(out)
    check_data(config, dataset, settings)
    check_options(float_checkpoint, start, float_only, out, resume)
    keep_freed_memory()
    with distributed.process_group():
        return _pipeline(
            config,
            dataset,
            settings,
            out,
            device or distributed.local_device(),
            resume=resume,
            float_checkpoint=float_checkpoint,
            start=start,
            teacher=teacher,
            float_only=float_only,
            command=command,
            console=console if distributed.is_first() else None,
            tensorboard=tensorboard and distributed.is_first(),
            stop_after=stop_after,
            force=force,
        )


def _pipeline(
    config: NetworkConfig,
    dataset: Dataset,
    settings: TrainSettings,
    out: Path,
    device: torch.device,
    *,
    resume: bool,
    float_checkpoint: str | Path | None,
    start: str | Path | None,
    teacher: str | Path | None,
    float_only: bool,
    command: str,
    console: Console | None,
    tensorboard: bool,
    stop_after: int | None,
    force: bool,
) -> TrainReport:
    target = target_path(config, out)
    stages = STAGES if float_checkpoint is None else ("qat",)
    if teacher is not None:
        settings = replace(settings, teacher=read_teacher(teacher, dataset)[1]["digest"])
    if resume:
        check_folder(out, stages, config, settings, dataset)
    elif not force:
        check_empty(out, stages, target)
    shown, say = _bars(console), _speaker(console)
    common: dict[str, Any] = {
        "resume": resume,
        "command": command,
        "progress": shown,
        "tensorboard": tensorboard,
        "stop_after": stop_after,
        "say": say,
        "lines": console is not None and shown is None,
    }
    first, second = _stages(settings, float_only, float_checkpoint is not None)
    with deterministic(settings.threads), _started(shown):
        network = _initial(config, settings, device)
        begun, origin = (out / "float.safetensors").exists() and (resume or not force), None
        if float_checkpoint is not None:
            origin = load_origin(network, float_checkpoint, dataset)
        elif start is not None and not begun:
            load_start(network, start, dataset)
        elif not begun:
            start_rates(network, dataset, settings)
        if force and not resume:  # only now: what the run begins with may lie in the same folder
            distributed.total([0.0], device)  # all have read it
            if distributed.is_first():
                _forget(out, stages)
            distributed.agree([0.0], device)  # nobody looks for a checkpoint before it is gone
        if settings.precision != "float32":  # the layout that half-precision convolutions want
            network.to(memory_format=torch.channels_last)
        if teacher is not None:
            common["teacher"] = teacher_logits(teacher, dataset, out / "teacher.safetensors", say=say)
        if origin is None:
            report = TrainReport(train_stage(network, first, dataset, settings, out, **common))
            if report.float_result.evaluation is not None:
                report.float_accuracy = report.float_result.evaluation.accuracy
        else:
            report = _given(origin, dataset, settings)
        if float_only or not report.float_result.finished or report.float_result.interrupted:
            return report
        folded = fold(network) if origin is None else origin.folded
        qat = QatNetwork.from_folded(folded, config.weight_bits)
        report.qat_result = train_stage(qat, second, dataset, settings, out, **common)
        if not report.qat_result.finished or report.qat_result.interrupted or not distributed.is_first():
            return report
        _export_checked(report, qat.cpu(), dataset, settings, report.qat_result.command, device)
        report.params.save(target, force=force or resume)
        report.params_path = target
        write_text(target.with_suffix(".md"), model_card(report.params, target.stem))
    return report


def _stages(settings: TrainSettings, float_only: bool, given: bool) -> tuple[Stage, Stage]:
    """The float and the integer stage; one alone (`given`: the float network is) has the whole budget."""
    minutes, clock = settings.budget_minutes, settings.budget_clock
    share = 1.0 if given else 0.0 if float_only else settings.qat_share
    warmup = min(settings.warmup_epochs, settings.float_epochs / 4)
    return (
        Stage(
            STAGES[0],
            settings.float_epochs,
            settings.lr,
            settings.weight_decay,
            warmup,
            minutes * (1.0 - share),
            clock,
        ),
        Stage(
            STAGES[1],
            settings.qat_epochs,
            settings.qat_lr,
            0.0,
            settings.qat_epochs / 10,
            minutes * share,
            clock,
        ),
    )


def _given(origin: Origin, dataset: Dataset, settings: TrainSettings) -> TrainReport:
    """In the place of a float stage: what is quantised; its accuracy is measured if no file says it."""
    report = TrainReport(StageResult(None, origin.history), origin.accuracy, origin=origin.integers)
    if report.float_accuracy is None:
        with use_fused(settings.fused):
            found = evaluate(origin.folded, dataset.test_images, dataset.test_labels)
        report.float_accuracy = found.accuracy
    return report


def _bars(console: Console | None) -> Progress | None:
    """Progress bars, for a terminal."""
    if console is None or not console.is_terminal:
        return None
    columns = (
        TextColumn("{task.description:6}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    return Progress(*columns, console=console)


@contextmanager
def _started(progress: Progress | None):
    if progress is None:
        yield
    else:
        with progress:
            yield


def _forget(out: Path, stages: tuple[str, ...]) -> None:
    """Remove an earlier run's stages, so that an interrupted new run cannot be resumed into the old one."""
    for stage in stages:
        for suffix in (".safetensors", ".csv"):
            try:
                (out / f"{stage}{suffix}").unlink(missing_ok=True)
            except OSError as error:
                raise UserError(
                    f"cannot replace {out / stage}{suffix}: {error.strerror}; expected a writable folder; "
                    "choose another folder"
                ) from None


def _initial(config: NetworkConfig, settings: TrainSettings, device: torch.device) -> Network:
    """The untrained network of a seed; the caller's random state is left alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        return Network(config, settings.kernel_gradient).to(device)


def _speaker(console: Console | None):
    """What prints a line: nothing without a console; without a terminal no wrapping and no markup."""
    if console is None:
        return lambda text: None
    return console.print if console.is_terminal else (lambda text: print(text, file=console.file, flush=True))


def _export_checked(
    report: TrainReport,
    qat: QatNetwork,
    dataset: Dataset,
    settings: TrainSettings,
    command: str,
    device: torch.device,
) -> None:
    """Fill in the report's parameters; what is written has been run by the golden network on the test set."""
    golden, last = GoldenNetwork(export(qat)), report.qat_result.evaluation
    report.test_images = len(dataset.test_labels)
    logits = _logits(golden, dataset.test_images)
    report.integer_correct = int((class_of(logits).numpy() == dataset.test_labels).sum())
    if differing := int((logits != last.logits).sum()):
        raise RuntimeError(f"the trained and the golden network differ in {differing} logits")
    equality = verify_equal(qat, golden, dataset.test_images[:64])
    if not equality.equal:
        raise RuntimeError(f"the trained and the golden network differ: {equality.difference}")
    report.params = export(
        qat,
        {
            "command": command,
            "seed": settings.seed,
            "settings": settings.to_json(),
            **({"origin": report.origin} if report.origin else {}),
            "data": dataset.source,
            "digest": dataset.digest,
            "accuracy": {
                "float": report.float_accuracy,
                "qat": last.accuracy,
                "integer": report.integer_accuracy,
                "test_images": report.test_images,
                "equal_logits": logits.numel(),
            },
            "training": {
                name: {"epochs": stage.history[-1]["epoch"], "minutes": round(stage.seconds / 60.0, 1)}
                for name, stage in (("float", report.float_result), ("qat", report.qat_result))
                if stage.history
            },
            "firing_rates": {name: round(rate, 6) for name, rate in last.rates.items()},
            "synaptic_rate": round(last.synaptic_rate, 6),
            "versions": tool_versions(),
            "device": device.type,
            "threads": torch.get_num_threads(),
        },
    )


def _logits(golden: GoldenNetwork, images: np.ndarray, batch_size: int = 256) -> torch.Tensor:
    parts = [golden.forward(images[i : i + batch_size]) for i in range(0, len(images), batch_size)]
    return torch.cat(parts)
