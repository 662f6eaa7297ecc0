"""s2tdpt boards and build: what fits, what is refused before anything slow begins, what a build leaves."""

import json

from s2tdpt.hw.board import bitstream
from tests.hw.test_board import Tools


def test_boards(shell):
    found = shell.json("boards")
    verdicts = {board["name"]: board["networks"] for board in found["boards"]}
    assert verdicts["ulx3s-85f"]["digits"].startswith("fits: ")
    assert verdicts["ulx3s-85f"]["s2tdpt-2-128"].startswith("over by ")
    assert verdicts["icebreaker"]["digits"].startswith("over by ")
    shown = shell.good("boards")
    assert "tangnano9k" in shown and "27 MHz" in shown and "digits-int4" in shown


def test_build_refuses(shell):
    assert shell.refused("build", "--board", "nothing", "--out", "x").startswith(
        "no board 'nothing'; expected one of"
    )
    message = shell.refused("build", "--board", "icebreaker", "--out", "x")
    assert message.startswith("digits on machine digits does not fit icebreaker: over by ")
    assert "expected less memory; the largest is weights, fields that help: weight_bits" in message
    assert "--frequency is 0; expected MHz" in shell.refused(
        "build", "--board", "ulx3s-85f", "--frequency", "0", "--out", "x"
    )
    (shell.folder / "mine").mkdir()
    assert shell.refused("build", "--board", "ulx3s-85f", "--out", "mine").startswith(
        "mine exists; expected a new"
    )
    message = shell.refused("build", "--board", "ulx3s-85f", "--out", "mine", "--force")
    assert message.startswith("mine is not a folder of a bitstream")
    message = shell.refused("build", "--board", "ulx3s-85f", "--set", "weight_memory=stream", "--out", "x")
    assert "streams its weights, which the serial line does not carry" in message


def test_build(shell, tiny, monkeypatch):
    """With stand-ins for the slow tools: a whole folder; again from the cache; --force replaces it."""
    monkeypatch.setenv("S2TDPT_CACHE", str(shell.folder / "cache"))
    monkeypatch.setattr(bitstream, "emit", lambda core, name, ports: f"module {name}")
    monkeypatch.setattr(bitstream, "run_tool", Tools(80.0))
    options = "build", "--board", "ulx3s-85f", "-p", tiny, "--out", "out"
    assert "80.00 MHz" in shell.good(*options)
    names = {path.name for path in (shell.folder / "out").iterdir()}
    assert {"design.bit", "design.sv", "manifest.json", "report.json", "synthesis.log"} <= names
    manifest = json.loads((shell.folder / "out" / "manifest.json").read_text())
    assert (manifest["fmax"], manifest["line"]["clock"], manifest["board"]) == (80.0, 75_000_000, "ulx3s-85f")
    assert shell.refused(*options).startswith("out exists")
    assert "from the cache" in shell.good(*options, "--force")
