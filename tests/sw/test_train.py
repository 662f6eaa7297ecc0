"""Training: exact resumption, determinism, faults that are caught, and the whole pipeline on a small task."""

import csv
import io
import json
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file, save_file

from s2tdpt.golden.complexity import input_trace
from s2tdpt.golden.config import config_from_dict
from s2tdpt.golden.errors import UserError
from s2tdpt.golden.network import GoldenNetwork
from s2tdpt.golden.params import Params
from s2tdpt.sw.augment import augment, flip_and_crop, jitter_digits
from s2tdpt.sw.checkpoint import read_checkpoint
from s2tdpt.sw.evaluate import evaluate
from s2tdpt.sw.names import MEMBERS
from s2tdpt.sw.regularise import count_spread_loss, synaptic_rate
from s2tdpt.sw.runlog import LOG_COLUMNS
from s2tdpt.sw.schedule import Stage, learning_rate
from s2tdpt.sw.settings import TrainSettings, default_settings
from s2tdpt.sw.stage import train_stage
from s2tdpt.sw.step import Stepper
from s2tdpt.sw.train import train_pipeline
from tests.sw.helpers import images_for, lively, separable, small

CONFIG = small(depth=1)
DATA = separable(CONFIG)
SETTINGS = TrainSettings(
    seed=3,
    float_epochs=4,
    qat_epochs=4,
    batch_size=16,
    lr=5e-3,
    warmup_epochs=1,
    rate_weight=0.1,
    count_weight=0.1,
)


def run(out, **options):
    return train_pipeline(CONFIG, DATA, SETTINGS, out, **options)


def tensors(path):
    return {name: value.numpy() for name, value in load_file(path).items()}


def without_time(path):
    _, meta = read_checkpoint(path)
    return [{key: value for key, value in row.items() if key != "seconds"} for row in meta["history"]]


def assert_same_run(one, other):
    for stage in ("float", "qat"):
        mine, theirs = tensors(one / f"{stage}.safetensors"), tensors(other / f"{stage}.safetensors")
        assert mine.keys() == theirs.keys()
        for name in mine:
            assert np.array_equal(mine[name], theirs[name]), name
        assert without_time(one / f"{stage}.safetensors") == without_time(other / f"{stage}.safetensors")


def test_stopped_and_resumed_is_bit_identical_to_uninterrupted(tmp_path):
    whole = run(tmp_path / "whole")
    part = run(tmp_path / "parts", stop_after=2)
    assert part.qat_result is None and not part.float_result.finished
    torch.randn(100)  # the caller's random state must not matter
    assert not run(tmp_path / "parts", resume=True, stop_after=3).float_result.finished
    finished = run(tmp_path / "parts", resume=True)
    assert_same_run(tmp_path / "whole", tmp_path / "parts")
    assert finished.params.tensors.keys() == whole.params.tensors.keys()
    for name, value in whole.params.tensors.items():
        assert np.array_equal(value, finished.params.tensors[name])
    rows = list(csv.reader((tmp_path / "parts" / "float.csv").open()))
    assert tuple(rows[0]) == LOG_COLUMNS and [row[0] for row in rows[1:]] == ["1", "2", "3", "4"]


def test_integer_stage_resumes_exactly(tmp_path):
    run(tmp_path / "whole")
    network, stage = whole_start(tmp_path / "whole"), Stage("qat", 4, SETTINGS.qat_lr, 0.0, 0.4)
    train_stage(network, stage, DATA, SETTINGS, tmp_path / "parts", stop_after=2)
    other = whole_start(tmp_path / "whole")
    train_stage(other, stage, DATA, SETTINGS, tmp_path / "parts", resume=True)
    mine, theirs = (
        tensors(tmp_path / "whole" / "qat.safetensors"),
        tensors(tmp_path / "parts" / "qat.safetensors"),
    )
    assert all(np.array_equal(mine[name], theirs[name]) for name in mine) and mine.keys() == theirs.keys()


def whole_start(folder):
    """The integer network as the pipeline starts it from a finished float stage."""
    from s2tdpt.sw.checkpoint import restore
    from s2tdpt.sw.fold import fold
    from s2tdpt.sw.network import Network
    from s2tdpt.sw.quantize import QatNetwork

    network = Network(CONFIG)
    path = folder / "float.safetensors"
    restore(path, read_checkpoint(path)[0], network)
    return QatNetwork.from_folded(fold(network), 8)


def test_seed_decides_everything(tmp_path):
    run(tmp_path / "one")
    run(tmp_path / "two")
    assert_same_run(tmp_path / "one", tmp_path / "two")
    other = TrainSettings(**{**SETTINGS.to_json(), "seed": 4})
    train_pipeline(CONFIG, DATA, other, tmp_path / "three")
    with pytest.raises(AssertionError):
        assert_same_run(tmp_path / "one", tmp_path / "three")


def test_pipeline_learns_and_its_file_says_how(tmp_path):
    settings = TrainSettings(**{**SETTINGS.to_json(), "float_epochs": 20, "augment": False})
    report = train_pipeline(CONFIG, DATA, settings, tmp_path, command="s2tdpt train --seed 3")
    assert report.params_path == tmp_path / "small.safetensors"
    params = Params.load(report.params_path)
    correct = (GoldenNetwork(params).classify(DATA.test_images).numpy() == DATA.test_labels).sum()
    assert correct == report.integer_correct == report.qat_result.evaluation.correct
    assert report.integer_accuracy >= 0.75  # three brightness classes, chance is a third
    known = params.provenance
    assert known["command"] == "s2tdpt train --seed 3" and known["seed"] == 3
    assert known["accuracy"]["integer"] == report.integer_accuracy and known["data"] == DATA.source
    assert known["versions"]["torch"] and known["settings"]["float_epochs"] == 20


def test_int4_starts_from_a_finished_float_stage(tmp_path):
    run(tmp_path / "eight")
    four = CONFIG.model_copy(update={"weight_bits": 4})
    report = train_pipeline(
        four, DATA, SETTINGS, tmp_path / "four", float_checkpoint=tmp_path / "eight" / "float.safetensors"
    )
    assert report.params_path.name == "small-int4.safetensors"
    assert np.abs(report.params.weight("block.0.fc1")).max() <= 7
    with pytest.raises(UserError, match="stage qat.*float"):
        train_pipeline(
            four, DATA, SETTINGS, tmp_path / "wrong", float_checkpoint=tmp_path / "eight" / "qat.safetensors"
        )
    wider = small(depth=1, mlp_ratio=3)
    with pytest.raises(UserError, match="another configuration.*mlp_ratio"):
        train_pipeline(
            wider,
            DATA,
            SETTINGS,
            tmp_path / "wider",
            float_checkpoint=tmp_path / "eight" / "float.safetensors",
        )


@pytest.mark.parametrize("kind", MEMBERS)
def test_other_attentions_train_and_are_exported(kind, tmp_path):
    settings = replace(SETTINGS, float_epochs=1, qat_epochs=1)
    config = config_from_dict(CONFIG.model_dump() | {"attention": {"kind": kind}})
    report = train_pipeline(config, DATA, settings, tmp_path)
    assert report.qat_result.finished  # and the golden model agreed with it
    assert Params.load(report.params_path).config.attention == config.attention


def test_nan_in_the_loss_keeps_the_last_good_checkpoint(tmp_path):
    run(tmp_path, stop_after=2)
    before = (tmp_path / "float.safetensors").read_bytes()
    network, stage = lively(CONFIG), Stage("float", 4, 5e-3, 0.06, 1)
    network.register_forward_hook(lambda module, args, out: out * float("nan") if module.training else out)
    with pytest.raises(UserError, match="loss became nan in float epoch 3, step 1.*last good checkpoint"):
        train_stage(network, stage, DATA, SETTINGS, tmp_path, resume=True)
    assert (tmp_path / "float.safetensors").read_bytes() == before


def test_nan_in_the_weights_is_never_written(tmp_path):
    run(tmp_path, stop_after=1)
    before = (tmp_path / "float.safetensors").read_bytes()
    network, stage = lively(CONFIG), Stage("float", 4, 5e-3, 0.06, 1)

    def poison(module, args, out):
        if module.training:
            module.blocks[0].q.norm.running_var.data.fill_(float("nan"))

    network.register_forward_hook(poison)
    with pytest.raises(UserError, match="running_var became NaN"):
        train_stage(network, stage, DATA, SETTINGS, tmp_path, resume=True)
    assert (tmp_path / "float.safetensors").read_bytes() == before


def rewrite(path, change_tensors=None, change_meta=None):
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        meta = json.loads(file.metadata()["s2tdpt"])
        content = {name: file.get_tensor(name) for name in file.keys()}
    if change_tensors:
        change_tensors(content)
    if change_meta:
        change_meta(meta)
    save_file(content, path, {"s2tdpt": json.dumps(meta)})


@pytest.mark.parametrize(
    "tensors_change, meta_change, message",
    [
        (
            lambda t: t["model.head.bias"].fill_(float("nan")),
            None,
            "holds NaN or infinity in model.head.bias",
        ),
        (lambda t: t.pop("model.head.bias"), None, "does not fit the network"),
        (None, lambda m: m.update(version=99), "has version 99"),
        (None, lambda m: m.update(format="other"), "not a readable checkpoint"),
        (None, lambda m: m["settings"].update(lr=1.0), "another run.*lr was 1.0"),
        (None, lambda m: m["config"].update(heads=4), "another run.*heads"),
    ],
)
def test_checkpoints_are_checked(tmp_path, tensors_change, meta_change, message):
    run(tmp_path, stop_after=1)
    rewrite(tmp_path / "float.safetensors", tensors_change, meta_change)
    with pytest.raises(UserError, match=message):
        run(tmp_path, resume=True)


def test_truncated_checkpoint_and_existing_runs(tmp_path):
    run(tmp_path, stop_after=1)
    with pytest.raises(UserError, match="exists already.*--resume"):
        run(tmp_path)
    path = tmp_path / "float.safetensors"
    path.write_bytes(path.read_bytes()[:-7])
    with pytest.raises(UserError, match="not a readable checkpoint"):
        run(tmp_path, resume=True)


def test_data_and_configuration_must_fit(tmp_path):
    with pytest.raises(UserError, match="synthetic has images"):
        train_pipeline(small(image_width=6), DATA, SETTINGS, tmp_path)


@pytest.mark.parametrize(
    "field, value",
    [
        ("lr", float("nan")),
        ("batch_size", 1),
        ("label_smoothing", 1.0),
        ("gradient", "softmax"),
        ("seed", -1),
        ("rate_weight", -1.0),
        ("half_width", 0.0),
        ("float_epochs", -1),
    ],
)
def test_settings_are_checked(field, value):
    with pytest.raises(UserError, match=f"training setting {field} is"):
        TrainSettings(**{field: value})
    assert default_settings("digits").rate_weight > 0 and default_settings("cifar10").optimizer == "muon"


def test_learning_rate_warms_up_and_falls():
    rates = [learning_rate(Stage("float", 10, 1.0, 0.0, 2.0), step, 5) for step in range(50)]
    assert rates[9] == 1.0 and all(a < b for a, b in zip(rates[:9], rates[1:10], strict=True))
    assert all(a > b for a, b in zip(rates[10:], rates[11:], strict=False)) and 0.01 <= rates[-1] < 0.02


def test_synaptic_rate_is_what_the_hardware_adds():
    """Counted one spike at a time, without borders (every spike meets all outputs it can reach inside)."""
    config = small()
    network, record = lively(config), {}
    network(torch.as_tensor(images_for(config, 4)), record)
    done, dense = 0.0, 0
    for layer, source in input_trace(config).items():
        shape, positions = config.weight_shape(layer), record[source].shape[2]
        if layer.startswith("sps."):
            height, width = config.map_size(int(layer[4:]))
            positions = height * width
        fan_out = shape[0] * int(np.prod(shape[2:]))
        done += float(record[source].detach().double().sum()) * fan_out / (config.timesteps * 4)
        dense += positions * shape[1] * fan_out
    assert abs(float(synaptic_rate(record, config).detach()) - done / dense) < 1e-6
    assert evaluate(network, images_for(config, 4), np.zeros(4)).synaptic_rate == pytest.approx(done / dense)


def test_count_spread_is_zero_for_varied_counts_and_one_for_equal_ones():
    config = small(heads=1, sps_channels=(4, 6, 16))
    shape = (3, 2, config.tokens, 16)
    even = {f"block.{b}.{p}": torch.ones(shape) for b in range(2) for p in "qk"}
    assert count_spread_loss(even, config) > 0.95
    ramp = (torch.arange(16) < torch.arange(config.tokens)[:, None]).float().expand(shape)
    assert count_spread_loss({name: ramp for name in even}, config) == 0.0


def test_augmentation_is_drawn_from_the_generator_alone():
    digits = torch.as_tensor(images_for(small(image_channels=1), 6))
    for name in ("digits", "cifar10"):
        one, two = (augment(digits, torch.Generator().manual_seed(5), name, 128) for _ in range(2))
        other = augment(digits, torch.Generator().manual_seed(6), name, 128)
        assert torch.equal(one, two) and not torch.equal(one, other)
        assert one.shape == digits.shape and one.dtype == torch.uint8
    flat = torch.full((4, 8, 8, 1), 128, dtype=torch.uint8)
    assert torch.equal(flip_and_crop(flat, torch.Generator().manual_seed(1), 128), flat)
    assert jitter_digits(flat, torch.Generator().manual_seed(1)).float().mean() > 100


def test_progress_and_tensorboard(tmp_path, monkeypatch):
    text = io.StringIO()
    console = Console(file=text, force_terminal=True, width=120)
    run(tmp_path / "shown", console=console, tensorboard=True, stop_after=1)
    assert "loss" in text.getvalue() and "train" in text.getvalue() and "rate" in text.getvalue()
    assert list((tmp_path / "shown" / "tensorboard" / "float").glob("events*"))
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(UserError, match="TensorBoard is not installed"):
        run(tmp_path / "absent", tensorboard=True, stop_after=1)


@pytest.mark.parametrize("batch, sizes", [(20, [20, 20]), (48, [48]), (100, [48])])
def test_the_rest_of_an_epoch_is_dropped(tmp_path, monkeypatch, batch, sizes):
    taken, plain = [], Stepper.step
    monkeypatch.setattr(
        Stepper, "step", lambda self, part, lr: (taken.append(len(part.images)), plain(self, part, lr))[1]
    )
    settings = TrainSettings(**{**SETTINGS.to_json(), "batch_size": batch})
    train_stage(lively(CONFIG), Stage("float", 2, 1e-3, 0.0, 1), DATA, settings, tmp_path)
    assert taken == sizes * 2
