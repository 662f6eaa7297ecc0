"""Every kind of wrong input is one line and exit code 2, soon, and with little memory."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.corrupt import kinds

KINDS = [kind.name for kind in kinds()]


@pytest.fixture(scope="session")
def outcomes(tmp_path_factory) -> dict[str, dict]:
    """All kinds, tried one after the other in one process of limited memory."""
    folder = tmp_path_factory.mktemp("corrupt")
    result = folder.parent / f"{folder.name}.json"
    command = [sys.executable, "-m", "tests.cli.corrupt", str(folder), str(result)]
    root = Path(__file__).parents[2]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(result.read_text(encoding="utf-8"))


def test_there_are_enough():
    assert len(KINDS) >= 200


@pytest.mark.parametrize("name", KINDS)
def test_refused_in_one_line(outcomes, name):
    found = outcomes[name]
    assert found["code"] == 2 and not found["exception"], found
    assert found["output"] == "" and found["left"] == []
    (line,) = found["error"].split("\n")[:-1]
    message = line.removeprefix("s2tdpt: error: ")
    assert message != line and message.isprintable() and len(message) < 700
    assert "expected" in message and message.count(";") >= 2, message
    assert found["seconds"] < 2
