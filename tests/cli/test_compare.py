"""s2tdpt compare on the built-in digits with the smallest network."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

import s2tdpt.sw.comparison as comparison
from s2tdpt.golden.config import load_config
from s2tdpt.golden.errors import UserError
from s2tdpt.golden.params import Params
from s2tdpt.hw.attention import HARDWARE
from s2tdpt.hw.estimate.attention_area import markdown, read_units
from s2tdpt.scripts.estimate import check_kinds
from s2tdpt.sim.cases import network
from s2tdpt.sw.ablation import ABLATIONS
from s2tdpt.sw.comparison import Base, alike
from s2tdpt.sw.datasets import load_dataset

COSTS = ("--cost-images", 1, "--tokens", "4,16")


@pytest.fixture
def small(write) -> tuple:
    """Options of a comparison of some seconds."""
    changes = {"name": "little", "image_height": 8, "image_width": 8, "num_classes": 10}
    config = write("little.json", network().model_dump(mode="json") | changes)
    epochs = ("--float-epochs", 1, "--qat-epochs", 1)
    return ("compare", "--config", config, "--images", 128, "--test-images", 40, *epochs, *COSTS)


def test_trains_counts_writes_and_never_repeats(shell, small, monkeypatch):
    both = (*small, "--out", "runs", "--kind", "none", "--kind", "stdp")
    found = shell.json(*both, "--plot", "c.png", "--markdown", "c.md")
    assert list(found["kinds"]) == ["none", "stdp"] and found["settings"]["count_weight"] == 0
    for kind, row in found["kinds"].items():
        (run,) = (run for run in found["runs"] if run["kind"] == kind)
        params = Params.load(shell.folder / "runs" / f"{kind}-0" / run["file"])
        assert params.config.name == f"little-{kind}" and params.checksum() == run["sha256"]
        right = run["correct"] / 40
        assert row["integer"] == {"mean": right, "deviation": None, "each": [right]}
        assert right == params.recorded_accuracy(40)
        assert row["cost"]["attention_cycles"] > 0 and 0 < row["cost"]["share"] < 1
        assert row["cost"]["attention_theory_pj"] < row["cost"]["theory_pj"]
        assert 0 < row["cost"]["attention_counted_pj"] < row["cost"]["counted_pj"]
        assert [head["tokens"] for head in row["unit"]["by_tokens"]] == [4, 16]
    none, stdp = found["kinds"].values()
    assert set(none["rates"]) == {"x", "v", "attn", "mlp_in", "hidden"} and "q" in stdp["rates"]
    assert set(none["drops"]) == {"zero"} and set(stdp["drops"]) == set(ABLATIONS)
    assert none["cost"]["memory_bits"] == 0 < stdp["cost"]["memory_bits"]
    assert none["unit"]["lut"] == 247  # of the committed table
    assert (shell.folder / "c.md").read_text().count("| `stdp` |") == 3
    with Image.open(shell.folder / "c.png") as picture:
        assert picture.format == "PNG"

    trained = []
    real = comparison.train_run
    monkeypatch.setattr(comparison, "train_run", lambda *a, **k: trained.append(a[1:3]) or real(*a, **k))
    again = shell.json(*small, "--out", "runs", "--kind", "none", "--seeds", "0,2")
    assert trained == [("none", 2)]
    assert again["runs"][0] == found["runs"][0]
    assert again["kinds"]["none"]["seeds"] == [0, 2] and again["kinds"]["none"]["integer"]["deviation"] >= 0
    assert "±" in shell.good(*small, "--out", "runs", "--kind", "none", "--seeds", "0,2")
    assert trained == [("none", 2)]


def test_interrupted_work_goes_on(shell, small, monkeypatch):
    one = (*small, "--out", "runs", "--kind", "uniform")
    real = comparison.ablate

    def stopped(*arguments, **more):
        raise KeyboardInterrupt

    monkeypatch.setattr(comparison, "ablate", stopped)
    assert shell(*one).exit_code == 130
    folder = shell.folder / "runs" / "uniform-0"
    kept = (folder / "qat.safetensors").read_bytes()
    assert not (folder / "run.json").exists()
    monkeypatch.setattr(comparison, "ablate", real)
    assert shell.json(*one)["runs"][0]["kind"] == "uniform"
    assert (folder / "qat.safetensors").read_bytes() == kept


def test_costs_follow_the_machine(shell, small):
    one = (*small, "--out", "runs", "--kind", "none")
    narrow = shell.json(*one, "--set", "lanes=4", "--set", "banks=1", "--set", "post_lanes=4")
    wide = shell.json(*one, "--set", "lanes=16", "--set", "banks=1", "--set", "post_lanes=4")
    assert narrow["runs"][0]["sha256"] == wide["runs"][0]["sha256"]
    assert narrow["kinds"]["none"]["cost"]["cycles"] > wide["kinds"]["none"]["cost"]["cycles"]


def test_mistakes_are_named_before_anything_is_trained(shell, small, monkeypatch):
    monkeypatch.setattr(comparison, "train_run", lambda *a, **k: pytest.fail("trained"))
    out = ("--out", "runs")
    assert "--kind is 'tanh'; expected one of none, uniform" in shell.refused(*small, *out, "--kind", "tanh")
    for wrong in ("", "0,", "0,0", "-1", "a", "1.5", "0,00"):
        message = shell.refused(*small, *out, "--seeds", wrong)
        assert message.startswith(f"--seeds is {wrong!r}; expected different whole numbers with commas")
    assert "expected powers of two" in shell.refused(*small, *out, "--tokens", "9")
    assert "leave one out" in shell.refused(*small, *out, "--budget-minutes", 1)
    assert "data set cifar10 needs its files" in shell.refused("compare", *out, "--data", "cifar10")
    assert "nothing" in shell.refused("compare", *out, "--data", "cifar10", "--data-dir", "nothing")
    assert "choose another --config" in shell.refused(*small, *out, "--shrink", 1)
    assert "--images 2000 of 1437" in shell.refused(*small[:3], *out, "--images", 2000)
    assert "no known format" in shell.refused(*small, *out, "--plot", "c.bmp")
    (shell.folder / "file").write_text("")
    assert "is no folder" in shell.refused(*small, "--out", "file")


def test_other_folders_are_refused_and_stay(shell, small):
    (shell.folder / "mine").mkdir()
    (shell.folder / "mine" / "letter").write_text("dear")
    assert "holds other files and no comparison.json" in shell.refused(*small, "--out", "mine")
    for text in ("", "{}", "[]", '{"format": "s2tdpt-controls"}'):
        (shell.folder / "mine" / "comparison.json").write_text(text)
        assert "does not describe a comparison" in shell.refused(*small, "--out", "mine")
    shell.good(*small, "--out", "runs", "--kind", "none")
    message = shell.refused(*small, "--out", "runs", "--kind", "none", "--qat-epochs", 2)
    assert message.startswith("--out runs holds runs with settings qat_epochs 1, not 2; expected the same")
    assert "data train_images 128, not 100" in shell.refused(*small, "--out", "runs", "--images", 100)
    none = (*small, "--out", "runs", "--kind", "none")
    run = shell.folder / "runs" / "none-0" / "run.json"
    good = run.read_text()
    for text in ("", "{}", good.replace('"none"', '"stdp"', 1)):
        run.write_text(text)
        assert "does not hold the run none, seed 0" in shell.refused(*none)
    run.write_text(good.replace(json.loads(good)["sha256"], "0" * 64))
    assert "is not the network that" in shell.refused(*none)
    run.write_text(good)
    (run.parent / "little-none.safetensors").unlink()
    (run.parent / "cost.json").unlink()
    assert "little-none.safetensors" in shell.refused(*none)


@pytest.mark.parametrize("kind", HARDWARE)
def test_every_kind_fits_the_digits(kind):
    check_kinds([kind])
    base = Base(load_config("digits"), alike("digits"), load_dataset("digits"))
    assert base.network(kind).attention.kind == kind
    assert base.network(kind).name == f"digits-{kind}"
    assert base.network("stdp").attention == base.config.attention


def test_committed_cells_are_those_of_the_page(shell):
    page = (Path(__file__).parents[2] / "docs" / "attentions.md").read_text()
    for kind, cells in read_units().items():
        assert markdown(kind, cells) in page, kind
    for text in ("", "{}", '{"format": "s2tdpt-area"}'):
        (place := Path("units.json")).write_text(text)
        with pytest.raises(UserError, match="is no table of attention units"):
            read_units(place)
