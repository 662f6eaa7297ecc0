"""Programs that leave nothing behind: each runs in a session of its own and ends with whoever started it."""

from __future__ import annotations

import contextlib
import math
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

from s2tdpt.golden.errors import UserError

GRACE = 2.0
"""Seconds that a program has to end after it was asked to."""

GLANCE = 1.0
"""Seconds from one look at what a program prints to the next."""

ROOM = 1 << 20
"""Free bytes below which a disk counts as full: whatever is written next may be incomplete."""


class Process:
    """A program with all that it starts, as a context: leaving it ends them.

    The children of a program (a makefile's compilers, say) are in its session and are ended with it; a
    signal to this process alone would not reach them.

    Parameters
    ----------
    command : sequence of str
    cwd : Path
    env : mapping
        The whole environment.
    log : Path
        Receives standard output and standard error.
    append : bool
        Keep what the log holds.
    keep : sequence of int
        File descriptors that the program gets, under the same numbers.

    Raises
    ------
    UserError
        The program cannot be started.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        cwd: Path,
        env: Mapping[str, str],
        log: Path,
        append: bool = False,
        keep: Sequence[int] = (),
    ):
        self.log = log
        try:
            with open(log, "ab" if append else "wb") as output:
                self._popen = subprocess.Popen(
                    list(command),
                    cwd=cwd,
                    env=dict(env),
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                    pass_fds=tuple(keep),
                )
        except OSError as error:
            raise UserError(
                f"cannot start {Path(command[0]).name} ({error.strerror}); expected a program that runs "
                f"and a writable folder {log.parent}; check both"
            ) from None

    @property
    def code(self) -> int | None:
        """Exit code, negative for a signal; None while it runs."""
        return self._popen.poll()

    def wait(self, seconds: float | None = None) -> int | None:
        """Exit code, or None if it still runs after `seconds`."""
        try:
            return self._popen.wait(seconds)
        except subprocess.TimeoutExpired:
            return None

    def signal(self, number: int) -> None:
        """Send a signal to the program itself."""
        self._popen.send_signal(number)

    def stop(self) -> None:
        """End the program and all that it started; does nothing if it has ended."""
        stop_session(self._popen)

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *_) -> None:
        self.stop()


def stop_session(process: subprocess.Popen) -> None:
    """End a program that was started in a session of its own, and all that it started.

    Does nothing if it has ended.
    """
    if process.poll() is not None:
        return
    for number in (signal.SIGTERM, signal.SIGKILL):  # the second one for what ignored the first
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(GRACE)


def run_program(
    command: Sequence[str],
    cwd: str | os.PathLike | None,
    env: Mapping[str, str],
    output: BinaryIO,
    timeout: float | None = None,
    input: str | None = None,
    watch: Callable[[str], None] | None = None,
) -> int | None:
    """Run a program to its end; what it starts ends with it, and with us.

    Parameters
    ----------
    command, cwd, env
        As in `subprocess`.
    output : file
        Open for writing; receives standard output and standard error as they are printed.
    timeout : float, optional
        Seconds after which it is stopped.
    input : str, optional
        Text for its standard input.
    watch : callable, optional
        Told the newest line of `output`, which then is open for reading too, once a second.

    Returns
    -------
    int or None
        Exit code; None if it was stopped.
    """
    end = math.inf if timeout is None else time.monotonic() + timeout
    with interruptible():
        process = subprocess.Popen(
            list(command),
            cwd=cwd,
            env=dict(env),
            stdin=subprocess.DEVNULL if input is None else subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        text = None if input is None else input.encode()
        try:
            while (left := end - time.monotonic()) > 0:
                try:
                    process.communicate(text, min(left, GLANCE))
                    return process.returncode
                except subprocess.TimeoutExpired:
                    text = None  # it goes on where it was
                if watch is not None and (line := _newest_line(output)):
                    watch(line)
            return None
        finally:
            stop_session(process)


def _newest_line(file: BinaryIO) -> str:
    """Last line with text near the end of a file; leaves its position, which the writing program shares."""
    size = os.fstat(file.fileno()).st_size
    tail = os.pread(file.fileno(), 1000, max(0, size - 1000)).decode(errors="replace")
    lines = [line.strip() for line in tail.splitlines() if line.strip()]
    return lines[-1] if lines else ""


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """While it lasts, a request to terminate unwinds the program as Ctrl-C does, so that all is tidied up.

    SIGTERM and SIGHUP raise `SystemExit` with the shell's code for them. Only in the main thread; elsewhere
    it does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = [n for n in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(n) is signal.SIG_DFL]

    def leave(number, frame):
        for n in numbers:  # once is enough: the second must not interrupt the tidying up
            signal.signal(n, signal.SIG_IGN)
        raise SystemExit(128 + number)

    for number in numbers:
        signal.signal(number, leave)
    try:
        yield
    finally:
        for number in numbers:
            signal.signal(number, signal.SIG_DFL)


def check_room(folder: Path, what: str) -> None:
    """Refuse to go on where the disk is full.

    Raises
    ------
    UserError
        Less than `ROOM` bytes are free; `what` is being written there.
    """
    if shutil.disk_usage(folder).free < ROOM:
        raise UserError(
            f"the disk of {folder} is full, so that {what} cannot be complete; expected room for it; "
            "free some or choose another place"
        )
