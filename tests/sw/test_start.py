"""Training on from integers: the way back to a float network, and the files that a run begins with."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from s2tdpt.golden.errors import UserError
from s2tdpt.golden.network import GoldenNetwork
from s2tdpt.golden.shipped import shipped_models
from s2tdpt.sw.checkpoint import read_checkpoint
from s2tdpt.sw.export import export
from s2tdpt.sw.fold import fold
from s2tdpt.sw.network import Network
from s2tdpt.sw.quantize import QatNetwork
from s2tdpt.sw.settings import Phase, TrainSettings
from s2tdpt.sw.start import find, load_origin, load_start, save_float
from s2tdpt.sw.train import train_pipeline
from s2tdpt.sw.unfold import dequantised, unfolded
from tests.sw.helpers import ODD_SHAPES, images_for, lively, separable, small

CONFIG = small(depth=1)
DATA = separable(CONFIG)
SETTINGS = TrainSettings(float_epochs=1, qat_epochs=1, batch_size=16, threads=1)


def integers(config=CONFIG, seed: int = 0) -> QatNetwork:
    return QatNetwork.from_folded(fold(lively(config, seed)), config.weight_bits).eval()


@pytest.mark.parametrize("config", ODD_SHAPES.values(), ids=ODD_SHAPES)
def test_the_way_back_ends_where_it_began(config):
    folded = fold(lively(config))
    images = torch.as_tensor(images_for(config, 24))
    network = unfolded(folded, images)
    again = fold(network)
    for name, value in folded.state_dict().items():
        torch.testing.assert_close(again.state_dict()[name], value, rtol=1e-4, atol=1e-5)
    for place in config.layers()[:-1]:
        rows = network.layer(place.name).map.weight.detach().flatten(1).norm(dim=1)
        torch.testing.assert_close(rows, torch.ones_like(rows))


def test_norms_hold_the_statistics_of_the_images():
    images = torch.as_tensor(images_for(CONFIG, 24))
    network = unfolded(fold(lively(CONFIG)), images, batch_size=10)  # batches of unequal size count alike
    norm, seen = network.sps.stages[1].norm, []
    network.sps.stages[1].map.register_forward_hook(lambda module, args, out: seen.append(out))
    with torch.no_grad():
        network(images)
    sums = seen[0].transpose(0, 1).flatten(1).double()
    torch.testing.assert_close(norm.running_mean, sums.mean(1).float(), rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(norm.running_var, sums.var(1, correction=0).float(), rtol=1e-3, atol=1e-4)


def test_integers_are_quantised_to_themselves():
    """A network of integers becomes a float network whose weights and biases are those integers' values."""
    whole = integers()
    folded = dequantised(whole)
    for place in CONFIG.layers():
        layer, mine = whole.layer(place.name), folded.layer(place.name)
        linear = mine if place.head else mine.map
        unit = (layer.scale * (64 if place.reads_pixels else 1)).reshape(-1, *[1] * (linear.weight.dim() - 1))
        torch.testing.assert_close(linear.weight.double() / unit, layer.integer_weight().double())
        torch.testing.assert_close(linear.bias.double() / layer.unit, layer.integer_bias())
    images = torch.as_tensor(images_for(CONFIG, 64, seed=5))
    with torch.no_grad():
        theirs, ours = whole(images) * whole.logit_scale, folded(images)
    assert float((theirs - ours).abs().mean()) < 0.1 * float(theirs.std())


def test_a_silent_channel_stays_silent():
    folded = fold(lively(CONFIG))
    with torch.no_grad():
        folded.blocks[0].q.map.weight[2] = 0.0
        folded.blocks[0].q.map.bias[2] = -1.0
    network = unfolded(folded, torch.as_tensor(images_for(CONFIG, 16)))
    assert float(network.blocks[0].q.norm.weight.detach()[2]) == 0.0
    assert all(torch.isfinite(p).all() for p in network.state_dict().values())
    torch.testing.assert_close(fold(network).blocks[0].q.map.bias[2], torch.tensor(-1.0))


def test_unfolding_is_done_once():
    with pytest.raises(UserError, match="norms already"):
        unfolded(lively(CONFIG), torch.as_tensor(images_for(CONFIG, 4)))


def test_training_goes_on_from_a_parameter_file(tmp_path):
    params = export(integers())
    params.save(tmp_path / "whole.safetensors")
    network = Network(CONFIG)
    load_start(network, tmp_path / "whole.safetensors", DATA)
    expected = unfolded(dequantised(integers()), torch.as_tensor(DATA.train_images))
    for name, value in expected.state_dict().items():
        torch.testing.assert_close(network.state_dict()[name], value, msg=name)
    settings = TrainSettings(float_epochs=1, qat_epochs=1, batch_size=16, lr=1e-30, optimizer="adamw")
    train_pipeline(
        CONFIG.model_copy(update={"timesteps": 2, "weight_bits": 4}),
        DATA,
        settings,
        tmp_path / "run",
        start=tmp_path / "whole.safetensors",
        float_only=True,
    )
    tensors, _ = read_checkpoint(tmp_path / "run" / "float.safetensors")
    assert torch.equal(tensors["model.head.weight"], network.head.weight)


def test_other_integers_are_refused(tmp_path):
    params = export(integers())
    params.save(tmp_path / "whole.safetensors")
    with pytest.raises(UserError, match="another configuration.*depth"):
        load_start(Network(small(depth=2)), tmp_path / "whole.safetensors", DATA)
    with pytest.raises(UserError, match="another configuration.*timesteps"):
        load_origin(Network(small(depth=1, timesteps=2)), tmp_path / "whole.safetensors", DATA)
    odd = integers()
    odd.attention_threshold += 1
    export(odd).save(tmp_path / "odd.safetensors")
    with pytest.raises(UserError, match="attention_threshold.*expected"):
        load_start(Network(CONFIG), tmp_path / "odd.safetensors", DATA)


def test_names_are_known_or_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in shipped_models():
        assert find(name).is_file()
    with pytest.raises(UserError, match="no network nothing to begin with; expected .*digits"):
        find("nothing")
    (tmp_path / "digits").write_bytes(b"")
    assert find("digits").resolve() == tmp_path / "digits"
    with pytest.raises(UserError, match="not a readable checkpoint"):
        load_start(Network(CONFIG), "digits", DATA)


def test_a_float_network_travels_without_its_run(tmp_path):
    train_pipeline(CONFIG, DATA, SETTINGS, tmp_path / "run", float_only=True)
    source, target = tmp_path / "run" / "float.safetensors", tmp_path / "float.safetensors"
    save_float(source, target)
    assert target.stat().st_size < source.stat().st_size / 2
    one, two = Network(CONFIG), Network(CONFIG)
    mine, theirs = (load_origin(to, path, DATA) for to, path in ((one, source), (two, target)))
    assert mine.history == theirs.history and mine.accuracy == theirs.accuracy is not None
    for name, value in one.state_dict().items():
        assert np.array_equal(value, two.state_dict()[name]), name
    tensors, _ = read_checkpoint(target)
    assert set(tensors) == {f"model.{name}" for name in one.state_dict()}
    with pytest.raises(UserError, match="another configuration.*timesteps"):
        load_origin(Network(CONFIG.model_copy(update={"timesteps": 1})), target, DATA)
    assert load_origin(two, target, replace(DATA, train_labels=DATA.train_labels[::-1])).accuracy is None


def test_integers_are_quantised_again(tmp_path):
    whole = train_pipeline(CONFIG, DATA, SETTINGS, tmp_path / "whole")
    again = TrainSettings(qat_epochs=1, batch_size=16, qat_lr=1e-30)
    narrow = CONFIG.model_copy(update={"weight_bits": 4})
    four = train_pipeline(narrow, DATA, again, tmp_path / "four", float_checkpoint=whole.params_path)
    assert four.float_accuracy == whole.integer_accuracy and four.origin == whole.params.checksum()
    same = train_pipeline(CONFIG, DATA, again, tmp_path / "same", float_checkpoint=whole.params_path)
    for name in CONFIG.layer_names():  # the same grid or a finer one: nothing is lost
        mine, theirs = (p.weight(name) * _steps(p, name) for p in (same.params, whole.params))
        assert np.abs(mine - theirs).max() <= _steps(same.params, name).max() / 2, name
        assert np.abs(four.params.weight(name)).max() <= 7
    assert "integer network that was quantised again" in four.params_path.with_suffix(".md").read_text()
    assert four.params.provenance["accuracy"]["equal_logits"] == DATA.test_labels.size * 3


def _steps(params, name: str) -> np.ndarray:
    scales = np.asarray(params.scales[name])
    return scales.reshape(-1, *[1] * (params.weight(name).ndim - 1))


def test_logits_that_differ_end_the_run(tmp_path, monkeypatch):
    """The last line of defence: a golden network that is wrong about one image in all."""
    plain = GoldenNetwork.forward

    def wrong(self, images):
        logits = plain(self, images)
        logits[-1, 0] += 1
        return logits

    monkeypatch.setattr(GoldenNetwork, "forward", wrong)
    with pytest.raises(RuntimeError, match="differ in 1 logits"):
        train_pipeline(CONFIG, DATA, SETTINGS, tmp_path / "run")
    assert not (tmp_path / "run" / "small.safetensors").exists()


def test_nothing_is_lost_when_a_run_cannot_begin(tmp_path):
    """With --force an earlier run goes only when everything that the new one needs has been read."""
    run = tmp_path / "run"
    train_pipeline(CONFIG, DATA, SETTINGS, run)
    kept = {path.name: path.read_bytes() for path in run.iterdir()}
    for options in (
        {"float_checkpoint": "none"},
        {"start": tmp_path / "none"},
        {"start": run / "qat.safetensors"},
    ):
        with pytest.raises(UserError):
            train_pipeline(CONFIG, DATA, SETTINGS, run, force=True, **options)
        assert {path.name: path.read_bytes() for path in run.iterdir()} == kept
    head = read_checkpoint(run / "float.safetensors")[0]["model.head.weight"]
    still = TrainSettings(float_epochs=1, batch_size=16, lr=1e-30)
    train_pipeline(CONFIG, DATA, still, run, force=True, start=run / "float.safetensors", float_only=True)
    assert torch.equal(read_checkpoint(run / "float.safetensors")[0]["model.head.weight"], head)


@pytest.mark.parametrize(
    ("changes", "options", "message"),
    [
        ({}, {"float_checkpoint": "x", "start": "y"}, "and a start of the float stage; expected one of them"),
        ({}, {"float_checkpoint": "x", "float_only": True}, "and an end of the float stage"),
        ({"phases": (Phase(0.5, 1, 7), Phase(1.0))}, {}, "images of 7 pixels a side; expected at most 5"),
    ],
)
def test_options_that_contradict_each_other_are_refused(tmp_path, changes, options, message):
    with pytest.raises(UserError, match=message):
        train_pipeline(CONFIG, DATA, replace(SETTINGS, **changes), tmp_path / "run", **options)
    assert not (tmp_path / "run").exists()


def test_another_integer_stage_is_not_resumed_after_the_float_stage_was_trained(tmp_path):
    train_pipeline(CONFIG, DATA, SETTINGS, tmp_path / "whole")
    (tmp_path / "run").mkdir()
    path = tmp_path / "run" / "qat.safetensors"
    path.write_bytes((tmp_path / "whole" / "qat.safetensors").read_bytes())
    other = replace(SETTINGS, qat_lr=1e-3)
    for resume, message in (
        (True, "belongs to another run .qat_lr"),
        (False, "qat.safetensors exists already"),
    ):
        with pytest.raises(UserError, match=message):
            train_pipeline(CONFIG, DATA, other, tmp_path / "run", resume=resume)
        assert [file.name for file in (tmp_path / "run").iterdir()] == ["qat.safetensors"]


def test_a_setting_of_a_newer_version_is_named():
    assert (
        SETTINGS.difference({**SETTINGS.to_json(), "novel": 3})
        == "novel was 3 and is not known to this version"
    )


@pytest.mark.parametrize(
    ("field", "value"),
    [("image_height", 8), ("sps_channels", (4, 6, 12)), ("heads", 4), ("v_threshold", 0.5), ("depth", 2)],
)
def test_another_network_is_refused_before_any_time_is_spent(tmp_path, field, value):
    train_pipeline(CONFIG, DATA, SETTINGS, tmp_path / "run")
    other = small(**{"depth": 1, field: value})
    source = tmp_path / "run" / "float.safetensors"
    for options in (
        {"float_checkpoint": source},
        {"start": source},
        {"start": tmp_path / "run" / "small.safetensors"},
    ):
        with pytest.raises(UserError, match=f"trained for another configuration .{field}"):
            train_pipeline(other, separable(other), SETTINGS, tmp_path / "new", **options)
        assert not (tmp_path / "new").exists()
