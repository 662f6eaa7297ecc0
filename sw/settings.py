"""Choices of one training run, validated once."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields
from typing import Any

from s2tdpt.golden.errors import UserError
from s2tdpt.sw.attention import DEFAULT_HALF_WIDTH, DEFAULT_VARIANT, VARIANTS

PRECISIONS = ("float32", "bfloat16")


@dataclass(frozen=True)
class TrainSettings:
    """Hyper-parameters. Without a time budget equal settings, data, threads and versions give equal models.

    Attributes
    ----------
    seed : int
        Initial weights, order of the data, augmentation.
    float_epochs, qat_epochs : int
        Length of the two stages (BatchNorm network, folded integer network).
    batch_size : int
    lr, qat_lr : float
        Peak AdamW rates of the two stages; each stage warms up linearly, then follows a cosine to 1 %.
    weight_decay : float
        On weight matrices only, in the float stage only.
    warmup_epochs : float
        Of the float stage; the integer stage warms up over a tenth of its length.
    label_smoothing : float
    augment : bool
    rate_weight : float
        Weight of `sw.regularise.synaptic_rate` in the loss; larger gives fewer spikes.
    count_weight : float
        Weight of `sw.regularise.count_spread_loss`; keeps the STDP attention's counts apart.
    variant, half_width
        Attention and gradient, `sw.attention`.
    precision : {"float32", "bfloat16"}
        Arithmetic of the float stage's layers; neurons, attention and U are float32 in either. The integer
        stage is float32 always: its sums are whole numbers.
    fused : bool
        Neurons as compiled kernels (`sw.fused`).
    ema : float
        Decay of the moving average of the weights that is evaluated and exported; 0: none.
    randaugment : float
        Magnitude, 0..30, of one random operation an image; 0: none. `sw.randaugment`.
    erasing : float
        Probability that a rectangle of an image is replaced by noise.
    mixup : float
        Alpha of mixup, 0: none; off in the second half of the float stage and in the integer stage.
    budget_minutes : float
        If not 0: time for both stages; schedules are stretched to it and epochs only give proportions.
    qat_share : float
        Part of the budget that the integer stage gets.
    monitor_images : int
        Test images evaluated after each epoch, 0 for all; the end of a stage always evaluates all.
    threads : int
        CPU threads, 0 for torch's own choice. Sums split over threads round differently, so a bit-identical
        rerun needs the same number.
    """

    seed: int = 0
    float_epochs: int = 100
    qat_epochs: int = 30
    batch_size: int = 64
    lr: float = 2e-3
    qat_lr: float = 5e-4
    weight_decay: float = 0.06
    warmup_epochs: float = 5.0
    label_smoothing: float = 0.1
    augment: bool = True
    rate_weight: float = 0.0
    count_weight: float = 0.0
    variant: str = DEFAULT_VARIANT
    half_width: float = DEFAULT_HALF_WIDTH
    precision: str = "float32"
    fused: bool = False
    ema: float = 0.0
    randaugment: float = 0.0
    erasing: float = 0.0
    mixup: float = 0.0
    budget_minutes: float = 0.0
    qat_share: float = 0.2
    monitor_images: int = 0
    threads: int = 0

    def __post_init__(self) -> None:
        rules = {
            "seed": (0 <= self.seed < 2**63, "0 or more"),
            "float_epochs": (self.float_epochs >= 0, "0 or more"),
            "qat_epochs": (self.qat_epochs >= 0, "0 or more"),
            "batch_size": (self.batch_size >= 2, "2 or more (BatchNorm needs statistics)"),
            "lr": (0 < self.lr < math.inf, "a positive number"),
            "qat_lr": (0 < self.qat_lr < math.inf, "a positive number"),
            "weight_decay": (0 <= self.weight_decay < math.inf, "0 or more"),
            "warmup_epochs": (0 <= self.warmup_epochs < math.inf, "0 or more"),
            "label_smoothing": (0 <= self.label_smoothing < 1, "0 to below 1"),
            "rate_weight": (0 <= self.rate_weight < math.inf, "0 or more"),
            "count_weight": (0 <= self.count_weight < math.inf, "0 or more"),
            "variant": (self.variant in VARIANTS, f"one of {', '.join(VARIANTS)}"),
            "precision": (self.precision in PRECISIONS, f"one of {', '.join(PRECISIONS)}"),
            "ema": (0 <= self.ema < 1, "0 to below 1"),
            "randaugment": (0 <= self.randaugment <= 30, "0 to 30"),
            "erasing": (0 <= self.erasing <= 1, "a probability"),
            "mixup": (0 <= self.mixup < math.inf, "0 or more"),
            "budget_minutes": (0 <= self.budget_minutes < math.inf, "0 or more"),
            "qat_share": (0 < self.qat_share < 1, "between 0 and 1"),
            "monitor_images": (self.monitor_images >= 0, "0 or more"),
            "threads": (0 <= self.threads <= 1024, "0 to 1024"),
            "half_width": (0 < self.half_width < math.inf, "a positive number of counts"),
        }
        for name, (good, expected) in rules.items():
            if not good:
                raise UserError(
                    f"training setting {name} is {getattr(self, name)!r}; expected {expected}; "
                    "correct the option"
                )

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def difference(self, other: dict[str, Any]) -> str | None:
        """The first setting in which a stored dictionary differs, in words."""
        for field in fields(self):
            mine, theirs = getattr(self, field.name), other.get(field.name)
            if mine != theirs:
                return f"{field.name} was {theirs!r} and is now {mine!r}"
        return None


def default_settings(dataset: str) -> TrainSettings:
    """Starting point for a data set: ours for digits, the published recipe (and an average) for CIFAR."""
    if dataset == "digits":
        return TrainSettings(float_epochs=60, qat_epochs=10, rate_weight=1.0, count_weight=0.25, threads=1)
    return TrainSettings(
        float_epochs=400,
        qat_epochs=40,
        lr=5e-4,
        qat_lr=1e-4,
        warmup_epochs=20.0,
        precision="bfloat16",
        fused=True,
        ema=0.999,
        randaugment=9.0,
        erasing=0.25,
        mixup=0.5,
    )
