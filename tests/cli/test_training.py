"""s2tdpt train and export on the built-in digits, with the smallest network that takes them."""

from __future__ import annotations

import json
import re
from dataclasses import fields
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from s2tdpt.golden.params import Params
from s2tdpt.scripts.cli import main
from s2tdpt.sw import runlog
from s2tdpt.sw.card import model_card
from s2tdpt.sw.settings import TrainSettings, default_settings
from tests.cli.conftest import listing

GUIDE = (Path(__file__).parents[2] / "docs" / "training.md").read_text(encoding="utf-8")


@pytest.fixture
def trained(shell, small_digits) -> str:
    """A finished run in the folder ``run``."""
    shell.good("train", *small_digits, "--out", "run")
    return "run"


def test_train_writes_what_the_other_commands_take(shell, small_digits):
    result = shell.json(
        "train",
        *small_digits,
        "--out",
        "run",
        "--weight-decay",
        0.01,
        "--label-smoothing",
        0,
        "--warmup-epochs",
        0.5,
        "--no-augment",
        "--seed",
        3,
    )
    names = sorted(path.name for path in (shell.folder / "run").iterdir())
    assert names == [
        "float.csv",
        "float.safetensors",
        "little.md",
        "little.safetensors",
        "qat.csv",
        "qat.safetensors",
    ]
    params = Params.load(result["params"])
    card = (shell.folder / "run" / "little.md").read_text()
    assert card == model_card(params, "little") and card.startswith("# little\n")
    accuracy = params.provenance["accuracy"]
    for known in (
        params.provenance["command"],
        params.provenance["digest"],
        params.checksum(),
        f"{100 * accuracy['float']:.2f} %",
        f"{100 * accuracy['qat']:.2f} %",
        f"**{100 * accuracy['integer']:.2f} %**",
    ):
        assert known in card
    settings = params.provenance["settings"]
    chosen = {"weight_decay": 0.01, "label_smoothing": 0.0, "warmup_epochs": 0.5, "augment": False, "seed": 3}
    assert {name: settings[name] for name in chosen} == chosen
    assert params.provenance["command"].startswith("s2tdpt train --config little.json ")
    evaluated = shell.json("evaluate", "--params", result["params"], "--qat")
    assert evaluated["accuracy"] == result["integer_accuracy"]
    assert evaluated["images"] == result["test_images"] == 360
    assert evaluated["qat"]["difference"] is None


def test_resumed_run_gives_the_same_bytes(shell, small_digits, trained):
    longer = [*small_digits, "--float-epochs", 2]
    assert "Stopped; continue with --resume." in shell.good(
        "train", *longer, "--out", "twice", "--stop-after", 1
    )
    message = shell.refused("train", *longer, "--out", "twice")
    assert message.startswith("twice/float.safetensors exists already; expected a new output folder; resume")
    message = shell.refused("train", *longer, "--out", "twice", "--resume", "--seed", 5)
    assert "belongs to another run (seed was 0 and is now 5)" in message
    shell.good("train", *longer, "--out", "twice", "--resume")
    shell.good("train", *longer, "--out", "once")
    once, twice = (Params.load(f"{folder}/little.safetensors") for folder in ("once", "twice"))
    assert all((once.tensors[name] == twice.tensors[name]).all() for name in once.tensors)
    assert shell.refused("train", *small_digits, "--out", trained).startswith(
        "run/little.safetensors exists already; expected a new file"
    )


def test_force_starts_anew(shell, small_digits, trained):
    first = Params.load("run/little.safetensors")
    again = ("train", *small_digits, "--out", trained, "--force")
    # Stopped in the first stage: of the earlier run nothing is left that a resumed run could take.
    shell.good(*again, "--float-epochs", 2, "--stop-after", 1)
    assert not (shell.folder / "run" / "qat.safetensors").exists()
    shell.good(*again)
    second = Params.load("run/little.safetensors")
    assert all((first.tensors[name] == second.tensors[name]).all() for name in first.tensors)
    # The own float stage as the start of another integer stage is kept.
    shell.good(*again, "--float-checkpoint", "run/float.safetensors", "--qat-lr", 0.001)
    assert (shell.folder / "run" / "float.safetensors").is_file()
    assert Params.load("run/little.safetensors").provenance["settings"]["qat_lr"] == 0.001


def test_quantise_another_runs_float_stage(shell, small_digits, trained):
    four = ("train", *small_digits, "--weight-bits", 4, "--out", "four")
    shell.good(*four, "--float-checkpoint", "run/float.safetensors")
    assert Params.load("four/little-int4.safetensors").config.weight_bits == 4
    message = shell.refused("train", *small_digits, "--out", "x", "--float-checkpoint", "run/qat.safetensors")
    assert "is a checkpoint of stage qat; expected the float stage" in message


def test_another_attention_is_trained_and_exported(shell, small_digits):
    fields = json.loads((shell.folder / "little.json").read_text())
    (shell.folder / "other.json").write_text(json.dumps({**fields, "attention": {"kind": "ssa"}}))
    shell.good("train", "--config", "other.json", *small_digits[2:], "--out", "run")
    assert Params.load("run/little.safetensors").config.attention.kind == "ssa"
    message = shell.refused("train", *small_digits, "--out", "x", "--start", "run/little.safetensors")
    assert "run/little.safetensors was trained for another configuration (attention" in message


def test_other_neurons_are_trained_and_exported(shell, small_digits):
    shell.good("train", *small_digits, "--neuron", '{"kind": "plif", "leak": 6}', "--out", "run")
    params = Params.load("run/little-plif.safetensors")
    assert params.config.neuron.leak == 6 and params.manifest()["version"] == 3
    shell.good("evaluate", "-p", "run/little-plif.safetensors", "--qat", "--limit", 8)
    for given, words in (
        ("other", "neuron.kind is 'other'; expected one of lif, plif, klif, glif; choose one"),
        ('{"kind": "lif", "leak": 4}', "unknown field 'neuron.leak'; expected only kind of this neuron"),
        ('{"kind": "plif", "leak": 5}', "field 'neuron.leak' is 5; expected 0, 2, 4, 6 or 7"),
    ):
        assert words in shell.refused("train", *small_digits, "--neuron", given, "--out", "none")
        assert not (shell.folder / "none").exists()


def test_export_gives_the_integers_of_the_run(shell, trained):
    export = ("export", "run/qat.safetensors", "--out", "mine.safetensors")
    assert shell.good(*export) == "wrote mine.safetensors\n"
    mine, theirs = Params.load("mine.safetensors"), Params.load("run/little.safetensors")
    assert mine.config == theirs.config
    assert all((mine.tensors[name] == theirs.tensors[name]).all() for name in theirs.tensors)
    before = listing(shell.folder)
    assert shell.refused(*export).startswith("mine.safetensors exists already; expected a new file")
    shell.good(*export, "--force")
    assert listing(shell.folder).keys() == before.keys()
    message = shell.refused("export", "run/little.safetensors", "--out", "x.safetensors")
    assert "run/little.safetensors is not a readable checkpoint" in message


def test_export_gives_the_float_network_of_the_run(shell, small_digits, trained):
    export = ("export", "run/float.safetensors", "--out", "mine.safetensors")
    written = shell.json(*export)
    assert written["config"] == "little" and 0 <= written["accuracy"] <= 1
    sizes = [(shell.folder / name).stat().st_size for name in ("mine.safetensors", "run/float.safetensors")]
    assert 2 * sizes[0] < sizes[1]
    assert shell.refused(*export).startswith("mine.safetensors exists already; expected a new file")
    for option in ("--float-checkpoint", "--start"):
        shell.good("train", *small_digits, "--out", option.strip("-"), option, "mine.safetensors")
    shell.good("train", *small_digits, "--out", "again", "--float-checkpoint", "run/float.safetensors")
    one, two = (Params.load(f"{folder}/little.safetensors") for folder in ("float-checkpoint", "again"))
    assert all((one.tensors[name] == two.tensors[name]).all() for name in one.tensors)
    assert one.provenance["accuracy"] == two.provenance["accuracy"]
    # A stage that did not reach its end is no network yet.
    shell.good("train", *small_digits, "--out", "part", "--float-epochs", 2, "--stop-after", 1)
    message = shell.refused("export", "part/float.safetensors", "--out", "x.safetensors")
    assert "part/float.safetensors stopped after 1 epochs, before its end" in message


def test_checkpoints_that_must_not_be_used(shell, small_digits, trained):
    path = shell.folder / "run" / "qat.safetensors"
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
        tensors = {name: file.get_tensor(name) for name in file.keys()}
    whole = path.read_bytes()
    commands = (
        ("export", "run/qat.safetensors", "--out", "x.safetensors"),
        ("train", *small_digits, "--out", "run", "--resume"),
    )
    weight = next(name for name in tensors if name.endswith("weight"))
    tensors[weight].view(-1)[0] = torch.nan
    save_file(tensors, path, metadata)
    for command in commands:
        assert f"holds NaN or infinity in {weight}; expected finite values" in shell.refused(*command)
    path.write_bytes(whole[: len(whole) // 2])
    for command in commands:
        assert "run/qat.safetensors is not a readable checkpoint" in shell.refused(*command)
    tensors[weight].view(-1)[0] = 0
    save_file(tensors, path, {"s2tdpt": metadata["s2tdpt"].replace('"version": 3', '"version": 4')})
    for command in commands:
        assert "has version 4; expected 3; use the program version that wrote it" in shell.refused(*command)
    save_file(tensors, path, {"s2tdpt": metadata["s2tdpt"].replace('"stage"', '"state"')})
    assert "lacks stage in its header; expected" in shell.refused(*commands[0])
    path.unlink()
    assert shell.refused(*commands[0]).startswith("no checkpoint run/qat.safetensors")


def test_the_guide_names_the_options_that_exist():
    """docs/training.md and the command agree: names, and defaults of both data sets."""
    options = {
        name
        for parameter in main.get_command(None, "train").params
        for name in (*parameter.opts, *parameter.secondary_opts)
    }
    # Of other commands.
    others = {"--nproc-per-node", "--qat-logits", "--limit", "--count", "--json", "--machine", "--set"}
    named = set(re.findall(r"--[a-z][a-z-]+", GUIDE)) - others
    assert named <= options
    table = GUIDE.split("## Options")[1].split("## ")[0]
    for setting in fields(TrainSettings):
        odd = {"augment": "--no-augment", "phases": "--phase"}
        option = odd.get(setting.name, "--" + setting.name.replace("_", "-"))
        assert option in named, option
        assert option in options
    rows = {}
    for line in table.splitlines():
        cells = [cell.strip() for cell in line.strip("| ").split("|")]
        for position, option in enumerate(re.findall(r"--[a-z][a-z-]+", cells[0])):
            rows[option] = [cell.split(",")[position if "," in cell else 0].strip() for cell in cells[1:3]]
    for column, data in enumerate(("digits", "cifar10")):
        for name, value in default_settings(data).to_json().items():
            cells = rows.get("--" + name.replace("_", "-"))
            if cells and cells[column] and name not in ("augment", "fused"):
                shown = cells[column] if isinstance(value, str) else float(cells[column])
                assert shown == value, (data, name)


def test_mistakes_are_found_before_any_time_is_spent(shell, small_digits, trained):
    train = ("train", *small_digits)
    message = shell.refused(*train, "--out", "new", "--resume")
    assert message.startswith("no run to resume in new; expected a folder with float.safetensors")
    assert "is a checkpoint of stage qat; expected the float stage" in shell.refused(
        *train, "--out", "x", "--start", "run/qat.safetensors"
    )
    message = shell.refused(*train, "--out", "x", "--teacher", "run/float.safetensors")
    assert message.startswith("run/float.safetensors is no residual network")
    message = shell.refused(*train, "--out", "x", "--phase", "half:1")
    assert message.startswith("phase 'half:1' is not understood; expected UNTIL:T")
    message = shell.refused(*train, "--out", "x", "--phase", "0.5:1")
    assert message.startswith("training setting phases is")
    wider = json.loads((shell.folder / "little.json").read_text())
    for field, value in (("timesteps", wider["timesteps"] + 1), ("mlp_ratio", wider["mlp_ratio"] + 1)):
        (shell.folder / "other.json").write_text(json.dumps({**wider, field: value}))
        other = ("train", "--config", "other.json", *small_digits[2:], "--out", "x")
        message = shell.refused(*other, "--float-checkpoint", "run/float.safetensors")
        assert f"was trained for another configuration ({field}: {value}, {wider[field]})" in message
    message = shell.refused(*other, "--start", "run/float.safetensors")
    assert f"was trained for another configuration (mlp_ratio: {value}, {wider['mlp_ratio']})" in message


def test_an_older_recipe_is_not_resumed(shell, small_digits, trained):
    path = shell.folder / "run" / "float.safetensors"
    with safe_open(path, "pt") as file:
        meta = json.loads(file.metadata()["s2tdpt"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}
    del meta["settings"]["optimizer"]
    save_file(tensors, path, {"s2tdpt": json.dumps(meta)})
    message = shell.refused("train", *small_digits, "--out", "run", "--resume")
    assert "belongs to another run (optimizer was 'not known' and is now 'adamw')" in message


def test_float_only_ends_with_the_float_network(shell, small_digits):
    text = shell.good("train", *small_digits, "--out", "run", "--float-only")
    assert "The float network is in run; quantise it with --float-checkpoint." in text
    names = sorted(path.name for path in (shell.folder / "run").iterdir())
    assert names == ["float.csv", "float.safetensors"]
    shell.good("train", *small_digits, "--out", "more", "--float-checkpoint", "run/float.safetensors")


def test_a_log_gets_a_line_a_minute(shell, small_digits, monkeypatch):
    monkeypatch.setattr(runlog, "LINE_SECONDS", 0.0)
    result = shell("train", *small_digits, "--out", "run", "--float-only")
    lines = result.stderr.splitlines()
    assert lines and all(line.startswith("float epoch 1 ") for line in lines)
    assert all("images/s" in line and "left" in line and "loss" in line for line in lines)
