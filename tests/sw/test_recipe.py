"""Phases, the data-driven start, fresh norm statistics, continued weights and logs that nobody watches."""

import io
from dataclasses import replace

import numpy as np
import pytest
import torch
from rich.console import Console

from s2tdpt.golden.errors import UserError
from s2tdpt.sw import runlog
from s2tdpt.sw.average import renew_statistics
from s2tdpt.sw.feed import Feed, resized
from s2tdpt.sw.initialise import set_rates
from s2tdpt.sw.network import Network
from s2tdpt.sw.settings import Phase, TrainSettings, parse_phase
from s2tdpt.sw.step import Stepper
from s2tdpt.sw.train import train_pipeline
from tests.sw.helpers import images_for, lively, separable, small
from tests.sw.test_train import assert_same_run, tensors

CONFIG = small(depth=1, image_height=8, image_width=8)
DATA = separable(CONFIG)
SETTINGS = TrainSettings(
    seed=3,
    float_epochs=4,
    qat_epochs=2,
    batch_size=16,
    lr=5e-3,
    warmup_epochs=1,
    optimizer="muon",
    matrix_lr=0.05,
    phases=(Phase(0.5, 1, 6), Phase(0.75, 2), Phase(1.0)),
    initial_rate=0.15,
    norm_images=32,
    alternate_flip=True,
    ema=0.9,
)


def test_phases_hold_one_after_the_other_and_resume_exactly(tmp_path, monkeypatch):
    taken, plain = [], Stepper.step

    def note(self, batch, lr):
        if not self.integer:
            taken.append((self.network.timesteps, batch.images.shape[1]))
        return plain(self, batch, lr)

    monkeypatch.setattr(Stepper, "step", note)
    train_pipeline(CONFIG, DATA, SETTINGS, tmp_path / "whole")
    assert taken == [(1, 6)] * 6 + [(2, 8)] * 3 + [(3, 8)] * 3
    for epochs in (1, 3):
        train_pipeline(
            CONFIG, DATA, SETTINGS, tmp_path / "parts", stop_after=epochs, resume=epochs > 1, float_only=True
        )
    train_pipeline(CONFIG, DATA, SETTINGS, tmp_path / "parts", resume=True)
    assert_same_run(tmp_path / "whole", tmp_path / "parts")


@pytest.mark.parametrize("text", ["", "x:1", "0.5", "0.5:1:2:3", "0.5:1.5"])
def test_phases_are_parsed(text):
    assert parse_phase("0.7:1:24") == Phase(0.7, 1, 24) and parse_phase("1:4") == Phase(1.0, 4)
    if text != "0.5":
        with pytest.raises(UserError, match="not understood.*UNTIL:T"):
            parse_phase(text)


@pytest.mark.parametrize("phases", [(Phase(0.5),), (Phase(0.6), Phase(0.5), Phase(1.0)), (Phase(1.0, 9),)])
def test_phases_are_checked(phases):
    with pytest.raises(UserError, match="training setting phases"):
        TrainSettings(phases=phases)


def test_settings_survive_json():
    again = TrainSettings(**SETTINGS.to_json())
    assert again == SETTINGS and again.difference(SETTINGS.to_json()) is None
    older = {name: value for name, value in SETTINGS.to_json().items() if name != "optimizer"}
    assert "optimizer was 'not known'" in SETTINGS.difference(older)


def test_every_layer_starts_at_the_wanted_rate():
    config = small(sps_channels=(16, 16, 32), image_height=12, image_width=12)
    torch.manual_seed(0)
    network, record = Network(config), {}
    images, running = torch.as_tensor(images_for(config, 32)), network.sps.stages[0].norm.running_mean.clone()
    set_rates(network, images, 0.15)
    assert torch.equal(network.sps.stages[0].norm.running_mean, running)
    with torch.no_grad():
        network.train()(images, record)
    for name, spikes in record.items():
        if name.rpartition(".")[2] in ("spikes", "x", "q", "k", "v", "mlp_in", "hidden"):
            assert abs(float(spikes.mean()) - 0.15) < 0.02, name


def test_statistics_are_those_of_the_images():
    network = lively(CONFIG)
    images = torch.as_tensor(images_for(CONFIG, 24, seed=9))
    renew_statistics(network, images, batch_size=24)
    assert not network.training and network.sps.stages[0].norm.momentum == 0.1
    pixels = (images.permute(0, 3, 1, 2).float() - CONFIG.pixel_zero_point) / 64
    sums = network.sps.stages[0].map(pixels)
    torch.testing.assert_close(network.sps.stages[0].norm.running_mean, sums.mean((0, 2, 3)).detach())


def test_views_alternate_and_take_their_own_soft_targets():
    settings = replace(SETTINGS, crop_padding=0)
    teacher = torch.stack([torch.zeros(48, 3), torch.ones(48, 3)])
    feed = Feed(DATA, settings, CONFIG, torch.device("cpu"), teacher)
    chosen, draw = torch.arange(48), torch.Generator().manual_seed(0)
    first, second = (feed.batch(chosen, draw, epoch, 0, False) for epoch in (0, 1))
    plain = torch.as_tensor(DATA.train_images)
    mirrored = first.soft[:, 0] == 1.0
    assert 10 < int(mirrored.sum()) < 38 and torch.equal(second.soft[:, 0] == 1.0, ~mirrored)
    assert torch.equal(first.images[mirrored], plain[mirrored].flip(2))
    assert torch.equal(second.images[mirrored], plain[mirrored])


def test_smaller_images_are_means():
    image = torch.arange(16, dtype=torch.uint8).reshape(1, 4, 4, 1) * 16
    assert resized(image, (4, 4)) is image
    small_image = resized(image, (2, 2))
    assert small_image.shape == (1, 2, 2, 1) and small_image.dtype == torch.uint8
    assert abs(float(small_image.float().mean()) - float(image.float().mean())) <= 1.0


def test_weights_may_continue_with_another_number_of_steps(tmp_path):
    narrow = CONFIG.model_copy(update={"timesteps": 1})
    plain = replace(SETTINGS, phases=(), ema=0.0, norm_images=0)
    train_pipeline(narrow, DATA, plain, tmp_path / "one", float_only=True)
    start = tmp_path / "one" / "float.safetensors"
    frozen = replace(plain, float_epochs=1, lr=1e-30, matrix_lr=1e-30)
    train_pipeline(CONFIG, DATA, frozen, tmp_path / "three", start=start, float_only=True)
    before, after = tensors(start), tensors(tmp_path / "three" / "float.safetensors")
    assert np.array_equal(before["model.head.weight"], after["model.head.weight"])
    with pytest.raises(UserError, match="another configuration.*mlp_ratio"):
        train_pipeline(small(**{**SIZES, "mlp_ratio": 3}), DATA, plain, tmp_path / "other", start=start)
    with pytest.raises(UserError, match="another configuration.*timesteps"):
        train_pipeline(CONFIG, DATA, plain, tmp_path / "quantised", float_checkpoint=start)


SIZES = {"depth": 1, "image_height": 8, "image_width": 8}


def test_resuming_nothing_is_an_error(tmp_path):
    with pytest.raises(UserError, match="no run to resume in .*new"):
        train_pipeline(CONFIG, DATA, SETTINGS, tmp_path / "new", resume=True)
    assert not (tmp_path / "new").exists()


def test_a_log_gets_plain_lines(tmp_path, monkeypatch):
    monkeypatch.setattr(runlog, "LINE_SECONDS", 0.0)
    text = io.StringIO()
    train_pipeline(CONFIG, DATA, SETTINGS, tmp_path, console=Console(file=text, force_terminal=False))
    lines = text.getvalue().splitlines()
    assert len(lines) == (4 + 2) * 3 and "\x1b" not in text.getvalue()
    for part in ("float epoch 2 33%", "loss", "train", "test", "images/s", "min left"):
        assert part in lines[3], part
