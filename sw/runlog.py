"""What a stage leaves to read: its CSV log and, if asked for, TensorBoard event files."""

from __future__ import annotations

import csv
import io
import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from s2tdpt.golden.errors import UserError

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
"""`epoch` is a fraction where a time budget ended within one; accuracy is of the monitored test images."""


def write_text(path: Path, text: str) -> None:
    """Replace a file, whole or not at all; raises UserError if it cannot be written."""
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
    write_text(path, text.getvalue())


LINE_SECONDS = 60.0
"""A log that nobody watches gets a line this often."""


class Lines:
    """One line a minute through `say`, for training whose output is no terminal; without `say` none at all.

    Images a second and the time left are those of the time since the last line.
    """

    def __init__(self, say: Callable[[str], None] | None):
        self.say = say
        self.start(0.0)

    def start(self, position: float) -> None:
        """Begin to count, at `position` (0 to 1) of the stage."""
        self._time, self._position, self._images = time.monotonic(), position, 0.0

    def step(self, images: float, position: float, text: Callable[[], str]) -> None:
        """Note a step of so many images, after which the stage is at `position`; `text` says how it goes."""
        self._images += images
        passed = time.monotonic() - self._time
        if self.say is None or passed < LINE_SECONDS:
            return
        progress = position - self._position
        left = (
            f"{(1.0 - position) * passed / progress / 60.0:.0f} min left"
            if progress > 0
            else "time left unknown"
        )
        self.say(f"{text()}  {self._images / passed:.0f} images/s  {left}")
        self.start(position)


class TensorBoard:
    """Event files in `folder`; nothing at all if `enabled` is false."""

    def __init__(self, folder: Path, enabled: bool):
        self.writer = None
        if not enabled:
            return
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise UserError(
                "TensorBoard is not installed; expected the package tensorboard; install the extra "
                "'tensorboard' or drop the option"
            ) from None
        self.writer = SummaryWriter(str(folder))

    def add(self, row: dict[str, Any], number: int) -> None:
        """One row of the log."""
        if self.writer is not None:
            for key in LOG_COLUMNS[1:]:
                self.writer.add_scalar(key, row[key], number)
            self.writer.flush()

    def close(self) -> None:
        if self.writer is not None:
            self.writer.close()
