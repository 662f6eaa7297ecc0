"""s2tdpt explore."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing, suppress

import pytest

from s2tdpt.hw.estimate.candidate import DEVICES
from s2tdpt.sim.cases import network

COMMON = ("--images", "images.npy", "--mhz", 100)


@pytest.fixture
def explore(shell, tiny, images):
    """Runs a search on the tiny network; gives its JSON."""
    return lambda *options: shell.json("explore", "-p", tiny, *COMMON, *options)


def test_every_row_is_what_the_other_commands_say(shell, explore, tiny):
    found = explore("--points", 12, "--fps", 2000)
    assert found["estimated"] + len(found["refused"]) == 12 and not found["interrupted"]
    front, answer = found["front"], found["answer"]

    def beats(one, other):
        better = [one["fps"] >= other["fps"], one["lut"] <= other["lut"], one["energy"] <= other["energy"]]
        return all(better) and one["machine"] != other["machine"]

    for row in front + found["others"]:
        assert row["fps"] == pytest.approx(1e8 / row["cycles"]) and row["fps"] >= 2000
        assert any(beats(other, row) for other in front) == (row not in front)
    assert answer["lut"] == min(row["lut"] for row in front)
    assert all("frames/s at 100 MHz are fewer than 2000" in refused["reason"] for refused in found["refused"])
    row = front[-1]
    (shell.folder / "mine.json").write_text(json.dumps(row["machine"]))
    counted = shell.json("cycles", "-p", tiny, "--images", "images.npy", "-m", "mine.json")
    estimated = json.loads(shell.good(*row["command"].split()[1:], "--json", "-"))
    assert counted["interval"] == row["cycles"]
    assert (estimated["lut"], estimated["ff"], estimated["bram"]) == (row["lut"], row["ff"], row["bram"])
    assert row["energy"] == pytest.approx(row["adders"] + row["accesses"] + row["dram"])


def test_a_search_that_goes_on_gives_the_same_front(shell, explore):
    whole = explore("--points", 16)
    parts = [explore("--points", points, "--storage", "sqlite:///found.db") for points in (7, 16)]
    assert parts[0]["estimated"] == 7 and parts[0]["front"] != whole["front"]
    assert parts[1]["front"] == whole["front"] and parts[1]["others"] == whole["others"]
    assert explore("--points", 16, "--storage", "sqlite:///found.db", "--seed", 5) == parts[1]  # nothing new
    assert explore("--points", 16, "--seed", 5)["others"] != whole["others"]
    message = shell.refused(
        *("explore", "-p", "tiny.safetensors", *COMMON, "--storage", "sqlite:///found.db", "--fps", 9)
    )
    assert "study 'explore' in sqlite:///found.db was asked something else: fps; expected" in message


def test_fields_that_are_held_and_a_space_that_ends(explore):
    held = ("--set", "lanes=4", "--set", "post_lanes=2", "--set", "queue=2", "--set", "weight_memory=rom")
    found = explore("--points", 100, *held)
    rows = found["front"] + found["others"]
    assert {row["machine"]["lanes"] for row in rows} == {4}
    assert {row["machine"]["banks"] for row in rows} == {1, 2, 4}  # 8 and 16 do not divide 4
    steps = len(found["space"]["attention_steps"])
    assert len(rows) == 3 * steps and not found["interrupted"]


def test_devices_refuse_with_a_reason(explore, monkeypatch):
    monkeypatch.setitem(DEVICES, "ecp5-25k", 7000)
    found = explore("--points", 8, "--device", "ecp5-25k")
    reasons = [refused["reason"] for refused in found["refused"]]
    assert any("LUTs are more than the 7,000 of ecp5-25k" in reason for reason in reasons)
    assert all(row["lut"] <= 7000 for row in found["front"])


def test_no_machine_is_an_answer_too(shell, tiny, images):
    result = shell("explore", "-p", tiny, *COMMON, "--points", 4, "--fps", 1e9, "--machine-out", "m.json")
    assert result.exit_code == 1 and "No machine: 4 refused" in result.stdout
    assert not (shell.folder / "m.json").exists()


def test_several_networks_configurations_and_the_picture(shell):
    options = ("--points", 10, "-n", 1, "--plot", "front.svg", "--machine-out", "mine.json")
    found = shell.json("explore", "-p", "digits", "-p", "digits-int4", *options)
    assert found["weight_bits"] == {"digits": 8, "digits-int4": 4}
    assert {row["network"] for row in found["front"] + found["others"]} == {"digits", "digits-int4"}
    assert found["accuracy"]["digits"]["correct"] == 357
    assert json.loads((shell.folder / "mine.json").read_text()) == found["answer"]["machine"]
    assert b"<svg" in (shell.folder / "front.svg").read_bytes()
    (shell.folder / "net.json").write_text(network().model_dump_json())
    drawn = shell.json("explore", "-c", "net.json", "--points", 4)
    assert drawn["images"] == "random spikes" and drawn["front"][0]["command"].startswith(
        "s2tdpt estimate -c"
    )
    assert "Weight bits: 8 alone; add -p digits-int4" in shell.good("explore", "--points", 4, "-n", 1)


def test_synthesis_of_the_front_is_kept(shell, tiny, images, explore, monkeypatch):
    """Interrupted in the second machine; the next run synthesises those that are missing."""
    runs = []

    def measure(params, machine):
        runs.append(machine)
        if len(runs) == 2:
            raise KeyboardInterrupt
        return {"LUT4": 1000, "CCU2C": 10, "TRELLIS_DPR16X4": 5, "TRELLIS_FF": 500, "DP16KD": 3}

    monkeypatch.setattr("s2tdpt.hw.estimate.area_table.measure", measure)
    options = ("--points", 6, "--storage", "sqlite:///found.db")
    front = explore(*options)["front"]
    assert len(front) > 2 and not runs
    assert shell("explore", "-p", tiny, *COMMON, *options, "--synth").exit_code == 130
    rows = explore(*options, "--synth")["front"]
    assert len(runs) == len(front) + 1
    for row in rows:
        counted = row["synthesis"]
        assert (counted["lut"], counted["ff"], counted["bram"]) == (1050, 500, 3)
        assert counted["lut_error"] == pytest.approx(row["lut"] / 1050 - 1)
    assert "as Yosys counts them" in shell.good("explore", "-p", tiny, *COMMON, *options)


def trials(path) -> int:
    """In a study's file that another process writes."""
    with suppress(sqlite3.Error):
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as file:
            return file.execute("select count(*) from trials where state = 'COMPLETE'").fetchone()[0]
    return 0


def test_interrupted(shell, tiny, images):
    """Ctrl-C: what is there comes out, the study can be gone on with."""
    line = [sys.executable, "-m", "s2tdpt.scripts.cli", "explore", "-p", tiny, "--images", images]
    line += ["--points", "5000", "--storage", "sqlite:///found.db", "--json", "stopped.json"]
    process = subprocess.Popen(line, cwd=shell.folder, stderr=subprocess.PIPE, stdout=subprocess.PIPE)
    began = time.monotonic()
    while trials(shell.folder / "found.db") < 3 and time.monotonic() - began < 120:
        time.sleep(0.2)
    os.kill(process.pid, signal.SIGINT)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    found = json.loads((shell.folder / "stopped.json").read_text())
    assert found["interrupted"] and b"interrupted: " in errors and b"which" in output.lower()


def test_mistakes_are_named(shell, tiny, images):
    def refused(*options):
        return shell.refused("explore", "-p", tiny, *COMMON, *options)

    assert "--config or --params" in refused("-c", "digits")
    assert "--rates belongs to --config" in refused("--rates", "rates.json")
    assert "--fps is -1; expected a positive number" in refused("--fps", -1)
    assert "--mhz is nan; expected a positive number" in refused("--mhz", "nan")
    assert "unknown field 'lane'" in refused("--set", "lane=8")
    assert "banks 4 does not divide lanes 30" in refused("--set", "lanes=30", "--set", "banks=4")
    assert "cannot be used: " in refused("--storage", "sqlite:////none/such/found.db")
    assert "expected a URL that Optuna takes" in refused("--storage", "found.db")
    message = refused("--storage", "postgresql://me:secret@localhost/found")
    assert "secret" not in message and "needs a driver that is missing" in message
    assert "--plot front.gif has no known format" in refused("--plot", "front.gif")
    assert "explore them apart" in shell.refused("explore", "-p", "digits", "-p", "s2tdpt-2-128")
