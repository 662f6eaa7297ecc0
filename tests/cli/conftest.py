"""What the tests of the command line share: small files, a runner, and a check that nothing was written."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from s2tdpt.golden.params import random_params
from s2tdpt.scripts.cli import main
from s2tdpt.sim.cases import network

torch.set_num_threads(1)


def pytest_configure(config):
    """A refused command drops the accelerator that it had described."""
    config.addinivalue_line("filterwarnings", "ignore::amaranth.hdl.UnusedElaboratable")


def listing(folder: Path) -> dict[str, bytes | None]:
    """Every path below a folder, hidden ones included, with the contents of files."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
    }


class Shell:
    """Runs commands inside a folder."""

    def __init__(self, folder: Path):
        self.folder = folder

    def __call__(self, *arguments):
        return CliRunner().invoke(main, [str(argument) for argument in arguments])

    def good(self, *arguments) -> str:
        """Standard output of a command that must succeed."""
        result = self(*arguments)
        assert result.exit_code == 0, (result.output, result.exception)
        return result.stdout

    def json(self, *arguments):
        """Parsed standard output of a command with ``--json -``: nothing else may be there."""
        return json.loads(self.good(*arguments, "--json", "-"))

    def refused(self, *arguments) -> str:
        """The message of a command that must refuse: one line, exit code 2, nothing written.

        Before it may stand lines about what went well so far.
        """
        before = listing(self.folder)
        result = self(*arguments)
        assert result.exit_code == 2, (result.exit_code, result.output, result.exception)
        assert listing(self.folder) == before
        assert result.stdout == ""
        *progress, last = result.stderr.splitlines()
        assert all(line.startswith("s2tdpt: ") and "error" not in line for line in progress), result.stderr
        assert last.startswith("s2tdpt: error: ")
        return last.removeprefix("s2tdpt: error: ")


@pytest.fixture
def shell(tmp_path, monkeypatch) -> Shell:
    """A shell in an empty folder that is also the current one."""
    monkeypatch.chdir(tmp_path)
    return Shell(tmp_path)


@pytest.fixture(scope="session")
def tiny_params():
    """Random integers of a network of a few hundred cycles."""
    return random_params(network(), 3)


@pytest.fixture
def tiny(shell, tiny_params) -> str:
    """The same as a parameter file in the shell's folder."""
    tiny_params.save(shell.folder / "tiny.safetensors")
    return "tiny.safetensors"


@pytest.fixture
def images(shell) -> str:
    """Two random images for it."""
    pixels = np.random.default_rng(0).integers(0, 256, (2, 5, 4, 1), dtype=np.uint8)
    np.save(shell.folder / "images.npy", pixels)
    return "images.npy"


@pytest.fixture
def small_digits(write) -> tuple[str, ...]:
    """Options that train the smallest network for the built-in data: one epoch of some seconds each stage."""
    fields = network().model_dump(mode="json")
    changes = {"name": "little", "image_height": 8, "image_width": 8, "num_classes": 10}
    path = write("little.json", fields | changes)
    return "--config", path, "--float-epochs", "1", "--qat-epochs", "1", "--batch-size", "128"


@pytest.fixture
def write(shell):
    """Write a configuration as JSON; returns its name."""

    def write(name: str, data) -> str:
        (shell.folder / name).write_text(data if isinstance(data, str) else json.dumps(data))
        return name

    return write
