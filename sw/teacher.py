"""A residual network to distil from, and what it says about every training image.

The teacher is read from a safetensors file whose tensors tell its depth and classes. Its logits are computed
once, for every training image and its mirror image, and kept in a file beside the run: a student that sees an
image cropped by a few pixels learns from the logits of the whole one.

References
----------
Residual networks for CIFAR: He et al., arXiv 1512.03385, section 4.2 (three stages of n basic blocks with 16,
32, 64 channels; shortcuts without parameters).
Distillation: Hinton et al., arXiv 1503.02531.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from s2tdpt.golden.errors import UserError, shown
from s2tdpt.golden.strictjson import parse
from s2tdpt.sw.datasets import Dataset

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Normalisation of pixels / 255 that teachers were trained with."""
WIDTHS = (16, 32, 64)
FORMAT = "s2tdpt-teacher-logits"
TRIED = 256
"""Training images on which a teacher is tried before it is believed."""


class _BasicBlock(nn.Module):
    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.stride = 1 if inputs == outputs else 2
        self.conv1 = nn.Conv2d(inputs, outputs, 3, self.stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        if self.stride > 1:  # every second pixel, new channels zero on both sides equally
            side = (y.shape[1] - x.shape[1]) // 2
            x = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, side, side))
        return F.relu(x + y)


class Teacher(nn.Module):
    """Residual network of 6 `blocks` + 2 layers; images uint8 [B, 32, 32, 3] -> logits [B, K]."""

    def __init__(self, blocks: int, classes: int):
        super().__init__()
        self.conv1 = nn.Conv2d(3, WIDTHS[0], 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(WIDTHS[0])
        before = WIDTHS[0]
        for stage, width in enumerate(WIDTHS, 1):
            sizes = [before, *[width] * blocks]
            pairs = zip(sizes[:-1], sizes[1:], strict=True)
            setattr(self, f"layer{stage}", nn.Sequential(*(_BasicBlock(a, b) for a, b in pairs)))
            before = width
        self.linear = nn.Linear(before, classes)

    def forward(self, images: Tensor) -> Tensor:
        mean, std = (torch.tensor(v, device=images.device).reshape(3, 1, 1) * 255.0 for v in (MEAN, STD))
        x = (images.permute(0, 3, 1, 2).float() - mean) / std
        x = F.relu(self.bn1(self.conv1(x.contiguous(memory_format=torch.channels_last))))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.linear(x.mean((2, 3)))


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        with safe_open(path, "pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or "not a safetensors file"
        raise UserError(
            f"cannot read the teacher {path}: {reason}; expected the safetensors file of a residual network "
            "or of its logits; correct the path"
        ) from None


def _header(path: Path, meta: dict[str, str]) -> dict[str, str]:
    """What `teacher_logits` wrote beside logits; empty for a network."""
    try:
        known = parse(meta.get("s2tdpt", "{}"))
        if known.get("format") == FORMAT:
            return {name: str(known[name]) for name in ("format", "data", "source", "digest")}
        return known
    except (ValueError, KeyError, AttributeError) as error:
        raise UserError(
            f"the header of the teacher {path} cannot be read ({shown(str(error))}); expected a file that "
            "training wrote; name the teacher itself"
        ) from None


def load_teacher(tensors: dict[str, Tensor], source: str = "teacher") -> Teacher:
    """The network that `tensors` describe, in evaluation mode; UserError if they describe none."""
    tensors = {n: t for n, t in tensors.items() if not n.endswith("num_batches_tracked")}
    blocks = len({n.split(".")[1] for n in tensors if n.startswith("layer1.")})
    try:
        teacher = Teacher(blocks, len(tensors["linear.bias"])).eval()
        wanted = {n for n in teacher.state_dict() if not n.endswith("num_batches_tracked")}
        if wanted != set(tensors):
            raise KeyError(sorted(wanted ^ set(tensors))[0])
        teacher.load_state_dict(tensors, strict=False)
    except (KeyError, RuntimeError) as error:
        what = str(error.args[0]).splitlines()[0] if isinstance(error, KeyError) else "a shape"
        raise UserError(
            f"{source} is no residual network with {', '.join(map(str, WIDTHS))} channels ({what} does not "
            "fit); expected tensors conv1, bn1, layerS.B.*, linear; name another teacher"
        ) from None
    return teacher.requires_grad_(False)


def _digest(tensors: dict[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(f"{name}{list(tensors[name].shape)}".encode())
        digest.update(tensors[name].detach().contiguous().float().numpy().tobytes())
    return digest.hexdigest()


def read_teacher(path: str | Path, dataset: Dataset) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors of a teacher or of its logits, and a header with its ``digest``, checked against `dataset`.

    Raises
    ------
    UserError
        Not readable, another number of classes, images of another size, logits of another data set, or right
        on few of the first training images.
    """
    path = Path(path)
    tensors, meta = _read(path)
    known = _header(path, meta)
    if known.get("format") == FORMAT:
        if known["data"] != dataset.digest:
            raise UserError(
                f"{path} holds a teacher's logits of other data ({known['source']}) than {dataset.source}; "
                "expected the same bytes; name the teacher itself"
            )
        classes = tensors["logits"].shape[-1]
    else:
        teacher = load_teacher(tensors, str(path))
        classes, known = len(tensors["linear.bias"]), {"digest": _digest(tensors)}
        if dataset.train_images.shape[1:] != (32, 32, 3):
            raise UserError(
                f"the teacher {path} takes images of 32x32x3, but {dataset.name} has others; expected CIFAR; "
                "train without a teacher"
            )
    if classes != dataset.num_classes:
        raise UserError(
            f"the teacher {path} knows {classes} classes, {dataset.name} has {dataset.num_classes}; expected "
            "a teacher of the same data set; name another"
        )
    if "logits" not in tensors:  # kept ones were, and their digest is that of images and labels
        _refuse_stranger(path, teacher, dataset)
    return tensors, known


@torch.no_grad()
def _refuse_stranger(path: Path, teacher: Teacher, dataset: Dataset) -> None:
    """Refuse a teacher that is hardly better than chance on the first training images."""
    answers = teacher(torch.as_tensor(dataset.train_images[:TRIED])).argmax(1)
    right = float((answers == torch.as_tensor(dataset.train_labels[:TRIED])).double().mean())
    least = min(0.5, 3.0 / dataset.num_classes)
    if right < least:
        raise UserError(
            f"the teacher {path} gets {100 * right:.0f} % of the first {len(answers)} training images of "
            f"{dataset.name} right; expected at least {100 * least:.0f} %, as of a teacher of the same data "
            "set and order of classes; name another"
        )


@torch.no_grad()
def teacher_logits(
    path: str | Path, dataset: Dataset, keep: Path | None = None, batch: int = 250, say=lambda text: None
) -> Tensor:
    """Logits float32 [2, M, K] of the training images as they are and mirrored.

    Parameters
    ----------
    path : path
        The teacher, or logits that an earlier call kept.
    keep : path, optional
        File to read the same teacher's logits from if it is there, and to write them to if not.
    """
    tensors, known = read_teacher(path, dataset)
    if "logits" in tensors:
        return tensors["logits"]
    if keep is not None and keep.is_file():
        kept, meta = read_teacher(keep, dataset)
        if meta["digest"] == known["digest"] and "logits" in kept:
            return kept["logits"]
    teacher = load_teacher(tensors, str(path)).to(memory_format=torch.channels_last)
    images = torch.as_tensor(dataset.train_images)
    say(f"computing the teacher's logits of {2 * len(images):,} views, once")
    with torch.autocast("cpu", torch.bfloat16):  # half the time; the answers are soft anyway
        parts = [
            torch.stack([teacher(chunk).float(), teacher(chunk.flip(2)).float()])
            for chunk in images.split(batch)
        ]
    logits = torch.cat(parts, 1).contiguous()
    if keep is not None:
        header = {
            "format": FORMAT,
            "digest": known["digest"],
            "data": dataset.digest,
            "source": dataset.source,
        }
        temporary = keep.with_name(f".{keep.name}.tmp")
        try:
            keep.parent.mkdir(parents=True, exist_ok=True)
            save_file({"logits": logits}, temporary, {"s2tdpt": json.dumps(header)})
            os.replace(temporary, keep)
        except (OSError, SafetensorError) as error:
            raise UserError(
                f"cannot keep the teacher's logits in {keep} ({error}); expected a writable folder with "
                "room; choose another output folder"
            ) from None
    return logits
