"""s2tdpt bench: which figures are missed, what the table says, what stands beside the baseline."""

from __future__ import annotations

import json

import pytest
from rich.console import Console

import s2tdpt.scripts.bench
from s2tdpt.scripts.bench import FIGURES, REPEATS, figure_table, measure_attention, missed, read_baseline

GOOD = {
    "accuracy_percent": 99.0,
    "differing_logits": 0,
    "differing_traces": 0,
    "cosim_mismatches": 0,
    "cosim_images_per_second": 3.0,
    "golden_images_per_second": 2000.0,
    "golden_to_float_time": 0.5,
    "layer_utilisation_percent": 80.0,
    "cycles_per_image": 20000.0,
    "cycle_model_error": 0,
    "attention_bits_growth": 6,
    "fmax_median_mhz": 60.0,
}


def shown(figures, before=None, synthesised=True) -> str:
    console = Console(width=200, force_terminal=True, color_system="standard")
    with console.capture() as capture:
        console.print(figure_table(figures, before or {}, synthesised))
    return capture.get()


@pytest.mark.parametrize("name", FIGURES)
def test_target_is_missed_on_its_wrong_side_alone(name):
    words, _, target, side = FIGURES[name]
    if target is None:
        assert not missed(name, 0) and not missed(name, 1e12)
        return
    worse = target - 0.5 if side == "min" else target + 0.5
    assert not missed(name, target)
    assert missed(name, worse) and not missed(name, 2 * target - worse)
    assert missed(name, float("nan"))
    line = next(line for line in shown({name: worse}).splitlines() if words in line)
    assert "\x1b[31m" in line and "\x1b[32m" not in line
    line = next(line for line in shown({name: target}).splitlines() if words in line)
    assert "\x1b[32m" in line and "\x1b[31m" not in line


def test_table_stands_beside_the_baseline():
    text = shown({"cycles_per_image": 22000.0, "fmax_median_mhz": 60.0}, GOOD)
    assert "+10.0 %" in text and "22,000" in text and ">= 50 MHz" in text
    assert "baseline's" not in text
    assert "baseline's; --synth measures" in shown({"fmax_median_mhz": 60.0}, GOOD, synthesised=False)


@pytest.fixture
def measured(monkeypatch):
    """Replace the measurements by `GOOD` and whatever a test puts there."""
    planted = dict(GOOD)
    del planted["fmax_median_mhz"]

    def software(params, figures, details):
        figures.update(planted)

    monkeypatch.setattr(s2tdpt.scripts.bench, "measure_software", software)
    monkeypatch.setattr(s2tdpt.scripts.bench, "measure_cosim", lambda *arguments: None)
    monkeypatch.setattr(s2tdpt.scripts.bench, "measure_attention", lambda *arguments: None)
    return planted


def test_exit_code_says_whether_a_target_is_missed(shell, measured):
    command = ("bench", "--baseline", "baseline.json", "--save-baseline")
    shell.good(*command)
    baseline = read_baseline(shell.folder / "baseline.json")
    assert baseline["figures"] == measured
    measured["layer_utilisation_percent"] = 69.9
    result = shell("bench", "--baseline", "baseline.json", "--json", "-")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["figures"]["layer_utilisation_percent"] == 69.9
    measured["layer_utilisation_percent"] = 70.0
    shell.good("bench", "--baseline", "baseline.json")


def test_frequency_comes_from_the_baseline_unless_measured(shell, measured):
    shell.good("bench", "--baseline", "baseline.json", "--save-baseline")
    path = shell.folder / "baseline.json"
    data = json.loads(path.read_text())
    data["figures"]["fmax_median_mhz"] = 49.0
    data["details"]["synthesis"] = {"used": {"lut": 12345}}
    path.write_text(json.dumps(data))
    result = shell("bench", "--baseline", "baseline.json")
    assert result.exit_code == 1
    assert "lut 12,345" in result.stdout and "--synth" in result.stdout
    result = shell("bench", "--baseline", "baseline.json", "--json", "-")
    assert json.loads(result.stdout)["details"]["synthesis"]["from_baseline"] is True


def test_attention_state_grows_with_the_logarithm_of_the_tokens(monkeypatch):
    monkeypatch.setattr(s2tdpt.scripts.bench, "SWEEP", (16, 64, 4096))
    monkeypatch.setattr(s2tdpt.scripts.bench, "attention_cycles", lambda *arguments, **options: 0)
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
