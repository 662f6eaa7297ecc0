"""The folder of a synthesis run: steps by external tools, and what they have made so far."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from s2tdpt.hw.tools.external import find_tool, run_tool

LINE = 70
"""Characters of a tool's newest line that are shown."""


class SynthesisRun:
    """Runs the steps in one folder and keeps their times.

    A step whose tool, arguments and input files are those of an earlier run in the same folder is not run
    again.

    Parameters
    ----------
    work : Path
        The folder.
    logs : Path or None
        Folder of the tools' logs.
    tell : callable, optional
        Told in words what happens.

    Attributes
    ----------
    seconds : dict of str to float
        Run time of each step, when it was run.
    """

    def __init__(self, work: Path, logs: Path | None, tell: Callable[[str], None] | None):
        self.work, self.logs = work, logs
        self._tell = tell or (lambda text: None)
        self.seconds: dict[str, float] = {}

    def step(self, name: str, tool: str, arguments: Sequence[str], reads: Sequence[str], makes: str) -> None:
        """Run a tool, whose result is one file, unless it is there already.

        Parameters
        ----------
        name : str
            Of the step.
        tool : str
            See `hw.tools.external.find_tool`.
        arguments : sequence of str
        reads, makes
            Files of the folder that the tool reads; the one that it writes.
        """
        record = self.work / f"{name}.step.json"
        what = {
            "tool": tool,
            "version": find_tool(tool).version,
            "arguments": list(arguments),
            "reads": {file: _digest(self.work / file) for file in reads},
        }
        if (self.work / makes).exists() and record.exists():
            before = json.loads(record.read_text())
            if before.pop("seconds", None) is not None and before == what:
                self._tell(f"{tool} ({name}): kept from before")
                self.seconds[name] = json.loads(record.read_text())["seconds"]
                return
        record.unlink(missing_ok=True)
        self._run(name, tool, arguments)
        record.write_text(json.dumps(what | {"seconds": self.seconds[name]}, indent=1))

    def _run(self, name: str, tool: str, arguments: Sequence[str]) -> None:
        words = f"{tool} ({name}), which takes minutes"
        self._tell(words)
        start = time.monotonic()

        def watch(line: str) -> None:
            minutes = (time.monotonic() - start) / 60
            self._tell(f"{words}: {minutes:.0f} min, {line.removeprefix('Info:').strip()[:LINE]}")

        log = None if self.logs is None else self.logs / f"{name}.log"
        run_tool(tool, arguments, cwd=self.work, log=log, watch=watch)
        self.seconds[name] = round(time.monotonic() - start, 1)

    def yosys(self, name: str, script: str, reads: Sequence[str], makes: str) -> None:
        """A step by Yosys."""
        (self.work / f"{name}.ys").write_text(script)
        self.step(name, "yosys", [f"{name}.ys"], [f"{name}.ys", *reads], makes)

    def load(self, name: str) -> Any:
        """A JSON file of the folder."""
        return json.loads((self.work / name).read_text())


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
