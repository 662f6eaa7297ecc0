"""s2tdpt controls on the built-in digits with the smallest network; s2tdpt ablate on the shipped ones."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

import s2tdpt.scripts.controls as command
import s2tdpt.sw.controls as sw_controls
from s2tdpt.golden.network import GoldenNetwork
from s2tdpt.scripts.options import load_params
from s2tdpt.sim.cases import network
from s2tdpt.sw.ablation import ABLATIONS
from s2tdpt.sw.datasets import load_dataset
from s2tdpt.sw.names import NAMED_CASES


@pytest.fixture
def small(write) -> tuple[str, ...]:
    """Options of a comparison of some seconds."""
    changes = {"name": "little", "image_height": 8, "image_width": 8, "num_classes": 10}
    config = write("little.json", network().model_dump(mode="json") | changes)
    return ("controls", "--config", config, "--images", 128, "--test-images", 40, "--epochs", 1)


def test_writes_extends_and_never_repeats(shell, small, monkeypatch):
    text = shell.good(*small, "--out", "c.json", "--case", "window", "--case", "none", "--plot", "c.png")
    assert "points lost" in text and "none" in text
    first = json.loads((shell.folder / "c.json").read_text())
    assert [(run["case"], run["seed"]) for run in first["runs"]] == [("window", 0), ("none", 0)]
    assert first["network"]["name"] == "little" and first["data"]["train_images"] == 128
    assert first["settings"]["float_epochs"] == 1
    assert command.PLAIN.items() <= first["settings"].items()  # digits' own settings regularise
    assert set(first["tools"]) >= {"python", "torch", "numpy"}
    assert first["runs"][0]["images"] == first["data"]["test_images"] == 40
    assert tuple(first["runs"][0]["ablations"]) == ABLATIONS
    with Image.open(shell.folder / "c.png") as picture:
        assert picture.format == "PNG" and picture.size[0] > 300

    trained = []
    real = sw_controls.run_case

    def noted(case, seed, *rest, **more):
        trained.append((case.label, seed))
        return real(case, seed, *rest, **more)

    monkeypatch.setattr(sw_controls, "run_case", noted)
    shell.good(*small, "--out", "c.json", "--case", "ssa:heads=1", "--case", "window", "--seeds", 2)
    assert trained == [("ssa:heads=1", 0), ("ssa:heads=1", 1), ("window", 1)]
    second = json.loads((shell.folder / "c.json").read_text())
    assert second["runs"][:2] == first["runs"] and len(second["runs"]) == 5
    assert len(second["commands"]) == 2 and all(c.startswith("s2tdpt controls ") for c in second["commands"])
    assert second["summary"]["window"]["seeds"] == [0, 1] and second["summary"]["window"]["deviation"] >= 0
    assert shell.good(*small, "--out", "c.json", "--case", "window")  # nothing to do, the table still
    assert len(trained) == 3


def test_interruption_keeps_finished_runs(shell, small, monkeypatch):
    real, calls = sw_controls.run_case, []

    def second_fails(*arguments, **more):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(*arguments, **more)

    monkeypatch.setattr(sw_controls, "run_case", second_fails)
    both = (*small, "--out", "c.json", "--case", "none", "--case", "uniform")
    assert shell(*both).exit_code == 130
    kept = json.loads((shell.folder / "c.json").read_text())
    assert [run["case"] for run in kept["runs"]] == ["none"]
    shell.good(*both)
    done = json.loads((shell.folder / "c.json").read_text())
    assert [run["case"] for run in done["runs"]] == ["none", "uniform"] and done["runs"][0] == kept["runs"][0]
    assert len(calls) == 3


def test_weak_stem_shrinks_and_takes_any_data(shell):
    shell.good(
        "controls",
        "--config",
        "digits",
        "--stem",
        "weak",
        "--shrink",
        1,
        "--images",
        64,
        "--epochs",
        1,
        "--test-images",
        20,
        "--case",
        "none",
        "--set",
        "depth=1",
        "--out",
        "w.json",
    )
    result = json.loads((shell.folder / "w.json").read_text())
    assert result["network"]["sps_channels"] == [64] and result["network"]["depth"] == 1
    assert (result["network"]["image_height"], result["network"]["image_width"]) == (4, 4)
    assert result["data"]["source"].endswith("halved to 4x4")


def test_other_base_is_refused_and_the_file_stays(shell, small):
    shell.good(*small, "--out", "c.json", "--case", "none")
    message = shell.refused(*small, "--out", "c.json", "--case", "none", "--set", "heads=1")
    assert message.startswith("--out c.json holds runs with network heads 2, not 1; expected the same base")
    assert "settings lr 0.002, not 0.01" in shell.refused(*small, "--out", "c.json", "--set", "lr=0.01")
    assert "data train_images 128, not 100" in shell.refused(*small, "--out", "c.json", "--images", 100)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        "[]",
        '{"format": "s2tdpt-controls"}',
        '{"format": "s2tdpt-bench"}',
        '{"format": "s2tdpt-controls", "runs": [{}], "commands": []}',
    ],
)
def test_other_files_are_refused(shell, small, write, text):
    write("other.json", text)
    assert "--out other.json is no file of this command" in shell.refused(*small, "--out", "other.json")


def test_bad_options_are_refused_before_training(shell, small, monkeypatch):
    monkeypatch.setattr(sw_controls, "run_case", lambda *a, **k: pytest.fail("trained"))
    out = ("--out", "c.json")
    assert "unknown case 'windw'" in shell.refused(*small, *out, "--case", "windw")
    assert "heads 5 does not divide" in shell.refused(
        *small, *out, "--case", "window", "--case", "window:heads=5"
    )
    assert "unknown setting 'speed=1'" in shell.refused(*small, *out, "--set", "speed=1")
    assert "--images 2000 of 1437 images" in shell.refused(*small, *out, "--images", 2000)
    assert "cannot be halved 4 times" in shell.refused(*small, *out, "--shrink", 4)
    assert "choose another --config, or --stem weak" in shell.refused(*small, *out, "--shrink", 1)
    assert "--out no/c.json is in no folder" in shell.refused(*small, "--out", "no/c.json")
    assert "--plot . is a folder" in shell.refused(*small, *out, "--plot", ".")


def test_help_names_every_case(shell):
    text = " ".join(shell.good("controls", "--help").split())
    assert all(name in text for name in NAMED_CASES)
    assert "s2tdpt controls --out controls.json --seeds 3" in text


def test_ablate_counts_on_the_integer_network(shell):
    report = shell.json("ablate", "--limit", 60)
    params = load_params("digits")
    dataset = load_dataset("digits")
    images, labels = dataset.test_images[:60], dataset.test_labels[:60]
    assert report["images"] == 60 and report["params"] == params.checksum()
    assert report["correct"] == int((np.asarray(GoldenNetwork(params).classify(images)) == labels).sum())
    assert tuple(report["ablations"]) == ABLATIONS
    assert report == shell.json("ablate", "--limit", 60, "--seed", 0)
    # Without Y the golden model, whose projections are made to see nothing, gives the same count.
    silent = {
        name: np.zeros_like(tensor) if name.endswith("proj.weight") else tensor
        for name, tensor in params.tensors.items()
    }
    silent = GoldenNetwork(replace(params, tensors=silent))
    right = int((np.asarray(silent.classify(images)) == labels).sum())
    assert report["ablations"]["zero"]["correct"] == right
    assert "shuffled queries" in shell.good("ablate", "--limit", 60)


def test_ablate_refuses_what_does_not_fit(shell, tiny):
    assert "data set digits has images [8, 8, 1]; expected [5, 4, 1]" in shell.refused("ablate", "-p", tiny)
    assert "'--limit': 1 is not in the range" in shell.refused("ablate", "--limit", 1)
    assert "no parameter file nothing" in shell.refused("ablate", "-p", "nothing")
