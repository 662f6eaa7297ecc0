"""Runs that are cut, or run out of memory, disk or time, or meet other data: nothing is lost or mixed up."""

import errno
import os
import signal
from dataclasses import replace

import numpy as np
import pytest
import torch

from s2tdpt.golden.errors import UserError
from s2tdpt.sw import checkpoint, schedule
from s2tdpt.sw.average import Average
from s2tdpt.sw.checkpoint import read_checkpoint
from s2tdpt.sw.network import Network
from s2tdpt.sw.optimise import make_optimizer
from s2tdpt.sw.schedule import FINAL_LR, Clock, Stage
from s2tdpt.sw.settings import TrainSettings
from s2tdpt.sw.stage import train_stage
from s2tdpt.sw.step import Batch, Stepper
from s2tdpt.sw.train import train_pipeline
from tests.sw.helpers import images_for, lively, separable, small
from tests.sw.test_train import assert_same_run

CONFIG = small(depth=1)
DATA = separable(CONFIG)  # 48 images
SETTINGS = TrainSettings(
    seed=3, float_epochs=3, qat_epochs=2, batch_size=8, lr=5e-3, warmup_epochs=1, ema=0.9, mixup=0.5
)


def run(out, settings=SETTINGS, data=DATA, **options):
    return train_pipeline(CONFIG, data, settings, out, **options)


def signal_at(monkeypatch, number, step):
    """Send this process a signal in its `step`-th optimiser step."""
    plain, count = Stepper.step, [0]

    def counted(self, batch, lr):
        count[0] += 1
        if count[0] == step:
            os.kill(os.getpid(), number)
        return plain(self, batch, lr)

    monkeypatch.setattr(Stepper, "step", counted)


@pytest.mark.parametrize("step, number", [(2, signal.SIGINT), (9, signal.SIGTERM), (18, signal.SIGINT)])
def test_a_signal_in_the_middle_of_an_epoch_loses_nothing(tmp_path, monkeypatch, step, number):
    run(tmp_path / "whole")
    with monkeypatch.context() as patch:
        signal_at(patch, number, step)
        report = run(tmp_path / "cut")
    assert report.float_result.interrupted and report.qat_result is None
    _, meta = read_checkpoint(tmp_path / "cut" / "float.safetensors")
    assert (meta["epoch"], meta["step"]) == divmod(step, 6)
    assert signal.getsignal(number) is not None and run(tmp_path / "cut", resume=True).params is not None
    assert_same_run(tmp_path / "whole", tmp_path / "cut")


def test_a_second_signal_does_not_wait(tmp_path, monkeypatch):
    plain = Stepper.step

    def twice(self, batch, lr):
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        return plain(self, batch, lr)

    monkeypatch.setattr(Stepper, "step", twice)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path)


def test_a_checkpoint_within_a_long_epoch(tmp_path, monkeypatch):
    run(tmp_path / "whole")
    monkeypatch.setattr("s2tdpt.sw.stage.CHECKPOINT_SECONDS", 0.0)
    seen, plain = [], checkpoint.save_checkpoint

    def noted(path, network, optimizer, generators, meta, average=None):
        plain(path, network, optimizer, generators, meta, average)
        seen.append((meta["epoch"], meta["step"]))

    monkeypatch.setattr("s2tdpt.sw.stage.save_checkpoint", noted)
    run(tmp_path / "often")
    assert seen[:7] == [(0, 1), (0, 2), (0, 3), (0, 4), (0, 5), (1, 0), (1, 1)]
    assert_same_run(tmp_path / "whole", tmp_path / "often")


def test_other_data_are_not_mixed_in(tmp_path):
    run(tmp_path, stop_after=1)
    images = DATA.train_images.copy()
    images[5, 0, 0, 0] ^= 1
    with pytest.raises(UserError, match="trained on other data than.*expected the same bytes"):
        run(tmp_path, data=replace(DATA, train_images=images), resume=True)
    run(tmp_path, resume=True)


def test_a_full_disk_is_one_line_and_the_last_checkpoint_stays(tmp_path, monkeypatch):
    run(tmp_path, stop_after=1)
    before = (tmp_path / "float.safetensors").read_bytes()

    def full(tensors, path, metadata):
        path.write_bytes(b"half a file")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save_file", full)
        with pytest.raises(
            UserError, match="No space left on device.*last good state stays.*make room"
        ) as caught:
            run(tmp_path, resume=True)
    assert "\n" not in str(caught.value)
    assert (tmp_path / "float.safetensors").read_bytes() == before
    assert not list(tmp_path.glob(".*.tmp"))
    run(tmp_path, resume=True)


# ------------------------------------------------------------------------------------------- memory


def stepper(say=lambda text: None, **settings):
    """On a folded network: without norms a batch's gradient is the sum of its pieces'."""
    torch.manual_seed(0)
    network = Network(CONFIG, folded=True).double()
    with torch.no_grad():
        for name in CONFIG.layer_names()[:-1]:
            network.layer(name).map.weight.mul_(4.0)
            network.layer(name).map.bias.add_(0.7)
    made = Stepper(network, make_optimizer(network, 1e-3, 0.0), replace(SETTINGS, **settings), say)
    return made, network


def batch_of(count):
    images = torch.as_tensor(images_for(CONFIG, count))
    labels = torch.arange(count) % CONFIG.num_classes
    return Batch(images, labels, labels.flip(0), 0.7)


def limit_memory(network, images):
    """As if the device held no more than so many images."""

    def check(module, arguments):
        if len(arguments[0]) > images:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    network.register_forward_pre_hook(check)


def test_out_of_memory_halves_the_pass_and_keeps_the_batch():
    said = []
    whole, network = stepper(batch_size=22)
    pieces, other = stepper(said.append, batch_size=22)
    limit_memory(other, 6)
    for _ in range(2):
        one, two = whole.step(batch_of(22), 1e-3), pieces.step(batch_of(22), 1e-3)
        assert one.correct == two.correct and one.loss == pytest.approx(two.loss, rel=1e-12)
    assert pieces.piece == 5  # 22, 11, 5: the last piece of 2 is the rest
    assert said == [
        "out of memory at 22 images: passes of 11 from here on, 22 images a step as before",
        "out of memory at 11 images: passes of 5 from here on, 22 images a step as before",
    ]
    for mine, theirs in zip(network.parameters(), other.parameters(), strict=True):
        assert torch.allclose(mine, theirs, rtol=1e-6, atol=1e-9)
        assert not torch.equal(mine, torch.zeros_like(mine)) or mine.dim() == 1


def test_no_piece_of_a_single_image_is_made():
    made, network = stepper(batch_size=22)
    made.piece, sizes = 7, []
    network.register_forward_pre_hook(lambda module, arguments: sizes.append(len(arguments[0])))
    made.step(batch_of(22), 1e-3)
    assert sizes == [7, 7, 8]  # BatchNorm needs two images


def test_memory_for_less_than_two_images_is_a_clear_error():
    made, network = stepper(batch_size=8)
    limit_memory(network, 1)
    with pytest.raises(UserError, match="ran out of memory at 2 images a pass.*at least two"):
        made.step(batch_of(8), 1e-3)


def test_the_halved_pass_survives_a_resume(tmp_path, monkeypatch):
    plain = torch.nn.Module.__call__

    def small_device(self, *arguments, **options):
        if isinstance(self, Network) and self.training and len(arguments[0]) > 4:
            raise torch.OutOfMemoryError("out of memory")
        return plain(self, *arguments, **options)

    monkeypatch.setattr(Network, "__call__", small_device)
    run(tmp_path, stop_after=1)
    assert read_checkpoint(tmp_path / "float.safetensors")[1]["piece"] == 4


# --------------------------------------------------------------------------------------------- time


class FakeTime:
    def __init__(self):
        self.now = 100.0

    def monotonic(self):
        return self.now


def test_clock_by_steps_and_by_time(monkeypatch):
    fake = FakeTime()
    monkeypatch.setattr(schedule, "time", fake)
    clock = Clock(Stage("float", 4, 1.0, 0.0, 1.0), 10)
    fake.now += 1e6
    assert [clock.position(step) for step in (0, 20, 40)] == [0.0, 0.5, 1.0]
    timed = Clock(Stage("float", 4, 1.0, 0.0, 1.0, minutes=2.0), 10, elapsed=30.0)
    assert timed.position(7) == 0.25 and timed.rate(7, 0.25) == 1.0  # the end of the warm-up, a quarter
    fake.now += 30.0
    assert timed.position(7) == 0.5 and FINAL_LR < timed.rate(7, 0.5) < 1.0
    fake.now += 75.0
    assert timed.position(7) > 1.0 and timed.rate(7, timed.position(7)) == pytest.approx(FINAL_LR)


@pytest.mark.parametrize("second", [0.9, 7.0, 100.0])
def test_a_run_with_a_budget_ends_annealed_and_on_time(tmp_path, monkeypatch, second):
    """Whatever a step takes: several epochs, part of one, or one step that is longer than the budget."""
    fake = FakeTime()
    monkeypatch.setattr(schedule, "time", fake)
    rates, plain = [], Stepper.step

    def slow(self, batch, lr):
        fake.now += second
        rates.append(lr)
        return plain(self, batch, lr)

    monkeypatch.setattr(Stepper, "step", slow)
    stage = Stage("float", 4, 1.0, 0.0, 0.4, minutes=0.5)
    settings = replace(SETTINGS, lr=1.0)
    result = train_stage(lively(CONFIG), stage, DATA, settings, tmp_path)
    assert result.finished and len(rates) == int(np.ceil(30.0 / second))
    assert result.history[-1]["epoch"] == pytest.approx(len(rates) / 6)
    if second < 1.0:
        assert rates[-1] < 2.0 * FINAL_LR and max(rates) > 0.9
        assert rates[4:] == sorted(rates[4:], reverse=True)
    # It is over: another start changes nothing.
    before = (tmp_path / "float.safetensors").read_bytes()
    again = train_stage(lively(CONFIG, 1), stage, DATA, settings, tmp_path, resume=True)
    assert again.finished and (tmp_path / "float.safetensors").read_bytes() == before


def test_time_is_counted_over_an_interruption(tmp_path, monkeypatch):
    fake = FakeTime()
    monkeypatch.setattr(schedule, "time", fake)
    plain, steps = Stepper.step, []

    def slow(self, batch, lr):
        fake.now += 1.0
        steps.append(lr)
        if len(steps) == 10:
            os.kill(os.getpid(), signal.SIGTERM)
        return plain(self, batch, lr)

    monkeypatch.setattr(Stepper, "step", slow)
    stage = Stage("float", 4, 1e-2, 0.0, 0.4, minutes=0.5)
    assert train_stage(lively(CONFIG), stage, DATA, SETTINGS, tmp_path).interrupted
    fake.now += 1e5  # the machine was off
    assert train_stage(lively(CONFIG), stage, DATA, SETTINGS, tmp_path, resume=True).finished
    assert len(steps) == 30


# ------------------------------------------------------------------------------------------ average


def test_average_follows_by_the_formula():
    network = torch.nn.Sequential(torch.nn.Linear(2, 1), torch.nn.BatchNorm1d(1))
    average, expected = Average(network, 0.5), network[0].weight.detach().clone()
    for n in range(1, 9):
        with torch.no_grad():
            network[0].weight.add_(1.0)
            network[1].num_batches_tracked.add_(1)
        average.update(network)
        share = 1.0 - min(0.5, (1 + n) / (10 + n))
        expected = expected + share * (network[0].weight.detach() - expected)
    assert torch.allclose(average.network[0].weight, expected, rtol=1e-6)
    assert int(average.network[1].num_batches_tracked) == 8


def test_the_average_is_what_a_run_evaluates_and_hands_on(tmp_path):
    network = lively(CONFIG)
    stage = Stage("float", 3, 5e-3, 0.06, 1)
    train_stage(network, stage, DATA, SETTINGS, tmp_path)
    tensors, meta = read_checkpoint(tmp_path / "float.safetensors")
    assert meta["updates"] == 18
    name = "blocks.0.fc1.map.weight"
    assert torch.equal(network.state_dict()[name], tensors[f"average.{name}"])
    assert not torch.equal(tensors[f"model.{name}"], tensors[f"average.{name}"])
