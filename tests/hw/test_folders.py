"""The folders of the hardware import one way: from what is on a board down to what a layer program is."""

import ast
from pathlib import Path

import pytest

import s2tdpt.hw

ROOT = Path(s2tdpt.hw.__file__).parent

FLOORS = (
    ("fixed", "state", "tools"),
    ("plan", "verilog"),
    ("blocks",),
    ("attention", "bus"),
    ("core",),
    ("top", "estimate"),
    ("netlist", "package"),
    ("board",),
)
"""From the ground up. A module imports from its own floor and from those below."""

FLOOR = {name: number for number, names in enumerate(FLOORS) for name in names}


def imports(path: Path) -> set[str]:
    """Folders, and modules beside them, of `s2tdpt.hw` that a module imports anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("s2tdpt.hw"):
            parts = node.module.split(".")[2:]
            found |= {parts[0]} if parts else {alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {a.name.split(".")[2] for a in node.names if a.name.startswith("s2tdpt.hw.")}
    return found


def too_high(name: str, path: Path) -> set[str]:
    """What a module of `name` imports from a floor above."""
    return {other for other in imports(path) if FLOOR[other] > FLOOR[name]}


MODULES = {
    str(path.relative_to(ROOT)): (path.relative_to(ROOT).parts[0].removesuffix(".py"), path)
    for path in sorted(ROOT.rglob("*.py"))
    if path != ROOT / "__init__.py"
}


def test_every_module_has_a_floor():
    assert {name for name, _ in MODULES.values()} == set(FLOOR)


@pytest.mark.parametrize("name, path", MODULES.values(), ids=MODULES)
def test_imports_run_down(name, path):
    assert too_high(name, path) == set()


@pytest.mark.parametrize(
    "text",
    ("from s2tdpt.hw.board.link import x", "from s2tdpt.hw import board", "import s2tdpt.hw.board.link"),
)
def test_an_import_upwards_is_found(tmp_path, text):
    (tmp_path / "a.py").write_text(f"def late():\n    {text}\n")
    assert too_high("plan", tmp_path / "a.py") == {"board"}
