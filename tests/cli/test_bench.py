"""s2tdpt bench: which figures are missed, what the table says, what stands beside the baseline."""

from __future__ import annotations

import json

import pytest
from rich.console import Console

import s2tdpt.hw.attention.stdp_cycles
import s2tdpt.scripts.bench
from s2tdpt.hw.plan.machine import load_machine
from s2tdpt.scripts.bench import FIGURES, REPEATS, figure_table, measure_attention, missed, read_baseline

GOOD = {
    "accuracy_percent": 99.0,
    "differing_logits": 0,
    "differing_traces": 0,
    "cosim_mismatches": 0,
    "cosim_images_per_second": 3.0,
    "golden_images_per_second": 2000.0,
    "golden_to_float_time": 0.5,
    "cycles_per_image": 20000.0,
    "cycle_model_error": 0,
    "attention_bits_growth": 6,
    "fmax_median_mhz": 100.0,
}


def shown(figures, before=None, kept=()) -> str:
    console = Console(width=200, force_terminal=True, color_system="standard")
    with console.capture() as capture:
        console.print(figure_table(figures, before or {}, list(kept)))
    return capture.get()


@pytest.mark.parametrize("name", FIGURES)
def test_target_is_missed_on_its_wrong_side_alone(name):
    words, _, target, side = FIGURES[name]
    if target is None:
        assert not missed(name, 0) and not missed(name, 1e12)
        return
    worse = target * (1 - 1e-3) - 0.05 if side == "min" else target * (1 + 1e-3) + 0.05
    assert not missed(name, target)
    assert missed(name, worse) and not missed(name, 2 * target - worse)
    assert missed(name, float("nan"))
    line = next(line for line in shown({name: worse}).splitlines() if words in line)
    assert "\x1b[31m" in line and "\x1b[32m" not in line
    line = next(line for line in shown({name: target}).splitlines() if words in line)
    assert "\x1b[32m" in line and "\x1b[31m" not in line


def test_table_stands_beside_the_baseline():
    text = shown({"cycles_per_image": 22000.0, "fmax_median_mhz": 100.0}, GOOD)
    assert "+10.0 %" in text and "22,000" in text and ">= 90 MHz" in text
    assert "baseline's" not in text
    assert "baseline's" in shown({"fmax_median_mhz": 60.0}, GOOD, ["fmax_median_mhz"])


@pytest.fixture
def measured(monkeypatch):
    """Replace the measurements by `GOOD` and whatever a test puts there."""
    planted = {name: value for name, value in GOOD.items() if name != "fmax_median_mhz"}

    def software(params, figures, details):
        figures.update(planted)

    monkeypatch.setattr(s2tdpt.scripts.bench, "measure_software", software)
    for name in ("measure_cosim", "measure_attention", "workloads"):
        monkeypatch.setattr(s2tdpt.scripts.bench, name, lambda *arguments: None)
    intervals = {"digits": 5000.0, "s2tdpt-2-128": 100_000.0, "s2tdpt-4-384-int4": 1_500_000.0}
    monkeypatch.setattr(s2tdpt.scripts.bench, "measure_cycles", lambda *arguments: intervals)
    return planted


def report(network: str, fmax: float, machine: str) -> dict:
    return {
        "network": network,
        "machine": load_machine(machine).model_dump(mode="json"),
        "fmax_median": fmax,
        "used": {"lut": 30_000, "bram": 200},
    }


def test_exit_code_says_whether_a_target_is_missed(shell, measured):
    command = ("bench", "--baseline", "baseline.json", "--save-baseline")
    shell.good(*command)
    baseline = read_baseline(shell.folder / "baseline.json")
    assert baseline["figures"] == measured
    measured["golden_images_per_second"] = 999
    result = shell("bench", "--baseline", "baseline.json", "--json", "-")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["figures"]["golden_images_per_second"] == 999
    measured["golden_images_per_second"] = 1000
    shell.good("bench", "--baseline", "baseline.json")


def test_synthesis_comes_from_reports_or_the_baseline(shell, write, measured):
    measured["accumulates_per_cycle"] = 150.0
    reports = {
        "a.json": report("digits", 100.0, "digits"),
        "b.json": report("s2tdpt-2-128", 90.0, "ecp5-85k"),
        "c.json": report("s2tdpt-4-384-int4", 80.0, "ecp5-85k"),
    }
    files = [word for name, data in reports.items() for word in ("--synth-report", write(name, data))]
    expected = {
        "fmax_median_mhz": 100.0,
        "lut": 30_000,
        "frames_per_second": pytest.approx(20_000),
        "accumulates_per_kilolut": 5.0,
        "s2tdpt_2_128_frames_per_second": pytest.approx(900),
        "s2tdpt_4_384_lut": 30_000,
        "s2tdpt_4_384_bram": 200,
        "s2tdpt_4_384_frames_per_second": pytest.approx(80 / 1.5),
    }
    text = shell.good("bench", *files, "--baseline", "baseline.json", "--save-baseline")
    assert "lut 30,000" in text
    first = json.loads((shell.folder / "baseline.json").read_text())
    assert first["figures"] == measured | expected and set(first["figures"]) <= set(FIGURES)
    assert first["details"]["from_baseline"] == []
    again = shell.json("bench", "--baseline", "baseline.json")
    assert again["figures"] == first["figures"]
    assert set(again["details"]["from_baseline"]) == set(expected)
    assert "baseline's" in shell.good("bench", "--baseline", "baseline.json")
    # Of another machine nothing is taken over.
    other = shell.json("bench", "--baseline", "baseline.json", "--set", "banks=2")
    assert other["figures"] == measured and other["details"]["from_baseline"] == []


def test_attention_state_grows_with_the_logarithm_of_the_tokens(monkeypatch):
    monkeypatch.setattr(s2tdpt.scripts.bench, "SWEEP", (16, 64, 4096))
    monkeypatch.setattr(s2tdpt.hw.attention.stdp_cycles, "attention_cycles", lambda *arguments, **options: 0)
    figures, details = {}, {}
    measure_attention(figures, details)
    assert figures["attention_bits_growth"] == 6
    assert [row["sum_bits"] for row in details["attention"]["sweep"]] == [12, 14, 20]


def test_repeats_have_a_median():
    assert REPEATS % 2 == 1


def test_training_speed_of_both_neurons_in_one_run(shell, small_digits):
    config = small_digits[small_digits.index("--config") + 1]
    result = shell.json("bench", "training", "-c", config, "--batch-size", 4, "--steps", 1, "--repeats", 3)
    speed, seconds = result["images_per_second"], result["seconds"]
    assert {name: len(times) for name, times in seconds.items()} == {"fused": 3, "plain": 3}
    for name in speed:
        assert speed[name] == 4 / sorted(seconds[name])[1]
    ratios = sorted(p / f for f, p in zip(seconds["fused"], seconds["plain"], strict=True))
    assert result["plain_to_fused_time"] == ratios[1] > 0
    assert "times the speed of the plain neuron" in shell.good(
        "bench", "training", "-c", config, "--batch-size", 4, "--steps", 1, "--repeats", 1
    )
    assert "no configuration 'nothing'" in shell.refused("bench", "training", "-c", "nothing")
