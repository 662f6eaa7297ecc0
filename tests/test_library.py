"""docs/library.md: its examples run as they stand; the public names; who loads whom."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "library.md").read_text(encoding="utf-8")
PACKAGES = ("golden", "sw", "hw", "host", "sim")


def test_examples_run(tmp_path, monkeypatch):
    """One after the other in one session, in an empty folder; line numbers are those of the page."""
    monkeypatch.chdir(tmp_path)
    blocks = list(re.finditer(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL))
    assert len(blocks) >= 10
    session: dict = {}
    for block in blocks:
        before = "\n" * PAGE.count("\n", 0, block.start(1))
        exec(compile(before + block[1], "docs/library.md", "exec"), session)
    assert (session["report"].ok, session["report"].images) == (True, 2)
    assert (tmp_path / "verilog" / "s2tdpt_little.sv").is_file()
    assert list(session["report"].frame_cycles) == session["estimate"].frames[:2]


@pytest.mark.parametrize("name", PACKAGES)
def test_public_names(name):
    package = import_module(f"s2tdpt.{name}")
    assert sorted(package._MODULES) == package.__all__
    for public in package.__all__:
        value = getattr(package, public)
        assert value.__doc__ and not isinstance(value, type(sys)), public
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = package.nothing
    (row,) = re.findall(rf"^\| `s2tdpt.{name}` \| (.*) \|$", PAGE, re.MULTILINE)
    assert sorted(re.findall(r"`(\w+)`", row)) == package.__all__


def test_a_name_is_never_that_of_a_module():
    """Else the module, once loaded, would stand in its place."""
    for name in PACKAGES:
        modules = {path.stem for path in (ROOT / name).glob("*.py")}
        assert not modules & set(import_module(f"s2tdpt.{name}").__all__)


def loaded(code: str, *blocked: str, folder: Path = ROOT) -> set[str]:
    """The modules that a process has loaded after `code`; those that are blocked cannot be imported."""
    text = f"import sys\nfor name in {blocked!r}: sys.modules[name] = None\n{code}\nprint(*sys.modules)"
    result = subprocess.run(
        [sys.executable, "-c", text], capture_output=True, text=True, check=False, cwd=folder
    )
    assert result.returncode == 0, result.stderr
    return set(result.stdout.splitlines()[-1].split())


def every_module(name: str) -> str:
    return "\n".join(f"import s2tdpt.{name}.{path.stem}" for path in sorted((ROOT / name).glob("*.py")))


def test_names_alone_load_nothing_heavy():
    code = "import s2tdpt.golden as g, s2tdpt.hw as h, s2tdpt.sim, s2tdpt.sw as w\n"
    code += "g.load_config('digits').layers(); h.load_machine('digits'); w.load_dataset"
    heavy = {"torch", "amaranth", "numba", "cocotb", "sklearn", "scipy"}
    assert not heavy & loaded(code)


def test_golden_and_hardware_never_load_the_trainer():
    """Every module of theirs, where nothing of `sw` can be imported: nor above them, `sim` and `scripts`."""
    code = every_module("golden") + "\n" + every_module("hw")
    names = loaded(code, "s2tdpt.sw", "sklearn")
    assert not [name for name in names if name.startswith(("s2tdpt.sim", "s2tdpt.scripts"))]


def test_training_needs_no_hardware_description():
    code = every_module("sw") + "\nimport s2tdpt.scripts.software"
    names = loaded(code, "amaranth", "cocotb", "s2tdpt.sim")
    assert "s2tdpt.sw.train" in names


def test_the_host_needs_no_network_and_no_hardware_description():
    blocked = ("torch", "amaranth", "s2tdpt.hw", "s2tdpt.sw", "s2tdpt.sim")
    assert "s2tdpt.host.accelerator" in loaded(every_module("host"), *blocked)


def test_generating_and_simulating_need_no_trainer():
    code = "import s2tdpt.scripts.hardware, s2tdpt.hw.package.folder, s2tdpt.hw.top, s2tdpt.sim.cosim"
    names = loaded(code, "s2tdpt.sw", "sklearn", "matplotlib")
    assert {"s2tdpt.hw.core", "s2tdpt.sim.runner"} <= names


def test_installed_package_works_anywhere(tmp_path):
    """A folder with modules of the same names beside the user's script takes nothing over."""
    (tmp_path / "golden").mkdir()
    (tmp_path / "golden" / "__init__.py").write_text("raise RuntimeError")
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    code = "import s2tdpt.golden as golden; print(golden.load('digits').config.name)"
    result = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
        env=environment,
    )
    assert result.stdout == "digits\n"
