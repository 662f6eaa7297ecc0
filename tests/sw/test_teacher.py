"""Teachers: the network that a file describes, its kept logits, and files that are refused."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from s2tdpt.golden.errors import UserError
from s2tdpt.sw.datasets import Dataset
from s2tdpt.sw.step import distillation_loss
from s2tdpt.sw.teacher import Teacher, load_teacher, read_teacher, teacher_logits


def coloured(classes: int = 10, count: int = 12, seed: int = 0) -> Dataset:
    images = np.random.default_rng(seed).integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)
    labels = np.arange(count) % classes
    return Dataset("cifar10", images, labels, images[:4], labels[:4], classes, f"noise {seed}")


def known(data: Dataset) -> Dataset:
    """The same images, labelled by the teacher of `file`."""
    labels = a_teacher()(torch.as_tensor(data.train_images)).argmax(1).numpy()
    return replace(data, train_labels=labels)


def a_teacher() -> Teacher:
    torch.manual_seed(0)
    return Teacher(2, 10).eval()


@pytest.fixture
def file(tmp_path):
    teacher = a_teacher()
    path = tmp_path / "teacher.safetensors"
    save_file({n: t for n, t in teacher.state_dict().items()}, path)
    return path


def test_the_file_tells_the_network(file):
    tensors, meta = read_teacher(file, known(coloured()))
    teacher = load_teacher(tensors)
    assert len(teacher.layer1) == len(teacher.layer3) == 2 and len(meta["digest"]) == 64
    x = torch.as_tensor(coloured().train_images)
    assert teacher(x).shape == (12, 10)
    # A shortcut that widens: every second pixel, the new channels zero on both sides.
    block, maps = teacher.layer2[0], torch.rand(1, 16, 8, 8)
    torch.nn.init.zeros_(block.bn2.weight), torch.nn.init.zeros_(block.bn2.bias)
    out = block(maps)
    assert torch.equal(out[:, 8:24], maps[:, :, ::2, ::2]) and not out[:, :8].any() and not out[:, 24:].any()


def test_logits_are_computed_once_and_belong_to_their_data(file, tmp_path):
    data, keep, said = known(coloured()), tmp_path / "run" / "teacher.safetensors", []
    logits = teacher_logits(file, data, keep, batch=5, say=said.append)
    assert logits.shape == (2, 12, 10) and len(said) == 1
    mirrored = known(replace(data, train_images=data.train_images[:, :, ::-1].copy()))
    other = teacher_logits(file, mirrored, batch=5)
    torch.testing.assert_close(logits[0], other[1])
    assert torch.equal(teacher_logits(file, data, keep, say=said.append), logits) and len(said) == 1
    assert torch.equal(teacher_logits(keep, data), logits)
    with pytest.raises(UserError, match="logits of other data"):
        read_teacher(keep, coloured(seed=1))


def test_wrong_teachers_are_refused_in_one_line(file, tmp_path):
    with pytest.raises(UserError, match="knows 10 classes.*has 100"):
        read_teacher(file, coloured(100))
    small = replace(coloured(), train_images=np.zeros((12, 8, 8, 1), np.uint8))
    with pytest.raises(UserError, match="takes images of 32x32x3"):
        read_teacher(file, small)
    with pytest.raises(UserError, match="No such file|cannot read the teacher"):
        read_teacher(tmp_path / "none", coloured())
    odd = tmp_path / "odd.safetensors"
    save_file({"head.weight": torch.zeros(3)}, odd)
    with pytest.raises(UserError, match="no residual network"):
        read_teacher(odd, coloured())
    odd.write_bytes(b"not tensors")
    with pytest.raises(UserError, match="cannot read the teacher.*not a safetensors file"):
        read_teacher(odd, coloured())


def test_a_teacher_of_other_images_is_refused_before_its_logits_are_computed(file, tmp_path):
    data, said = known(coloured(count=40)), []
    moved = replace(data, train_labels=(data.train_labels + 1) % 10)
    with pytest.raises(UserError, match="gets 0 % of the first 40 training images.*expected at least 30 %"):
        teacher_logits(file, moved, tmp_path / "kept.safetensors", say=said.append)
    assert not said and not (tmp_path / "kept.safetensors").exists()
    teacher_logits(file, data, tmp_path / "kept.safetensors", say=said.append)
    assert len(said) == 1


def test_distillation_loss_is_zero_for_the_teacher_and_scales_its_gradient():
    teacher = torch.randn(6, 4, generator=torch.Generator().manual_seed(3))
    assert float(distillation_loss(teacher + 2.0, teacher, 3.0)) == pytest.approx(0.0, abs=1e-6)
    sizes = []
    for temperature in (8.0, 16.0):
        logits = torch.zeros_like(teacher, requires_grad=True)
        distillation_loss(logits, teacher, temperature).backward()
        sizes.append(float(logits.grad.norm()))
    assert sizes[0] == pytest.approx(sizes[1], rel=0.1)
