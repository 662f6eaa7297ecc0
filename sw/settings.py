"""Choices of one training run, validated once."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from s2tdpt.golden.errors import UserError
from s2tdpt.sw.names import (
    ALPHA,
    CLOCKS,
    CROP_PADDING,
    DEFAULT_GRADIENT,
    DEFAULT_HALF_WIDTH,
    OPTIMIZERS,
    PRECISIONS,
    STDP_GRADIENTS,
    KernelGradient,
)


@dataclass(frozen=True)
class Phase:
    """A part of the float stage, up to position `until` of it (0 to 1; the last ends at 1).

    `timesteps` and `image_size` (side, pixels) hold meanwhile; 0 stands for the configuration's.
    """

    until: float
    timesteps: int = 0
    image_size: int = 0


def parse_phase(text: str) -> Phase:
    """``UNTIL:T`` or ``UNTIL:T:SIZE`` as typed, for example ``0.7:1:24``; UserError if it is none."""
    until, *rest = text.split(":")
    try:
        return Phase(float(until), *map(int, rest))
    except (ValueError, TypeError):
        raise UserError(
            f"phase {text!r} is not understood; expected UNTIL:T or UNTIL:T:SIZE, such as 0.7:1:24"
        ) from None


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
    optimizer : {"adamw", "muon"}
        Of the float stage, `sw.optimise`; the integer stage takes AdamW always.
    lr, qat_lr : float
        Peak AdamW rates of the two stages; each stage warms up linearly, then follows a cosine to 1 %.
    matrix_lr : float
        Peak relative change of a matrix in a step of Muon.
    weight_decay : float
        On weight matrices only, in the float stage only, by AdamW only.
    phases : tuple of Phase
        Steps and image size of the parts of the float stage; empty: the configuration's throughout.
    initial_rate : float
        Firing rate that every layer starts with (`sw.initialise`); 0: norms start at 0 and 1.
    surrogate : float
        Steepness of the sigmoid surrogate.
    norm_images : int
        Training images over which norm statistics are taken anew before an evaluation; 0: running averages.
    warmup_epochs : float
        Of the float stage; the integer stage warms up over a tenth of its length.
    label_smoothing : float
    teacher : str
        Digest of the teacher whose logits are learnt from, "" for none.
    distill : float
        Share of the teacher in the loss; the labels get the rest.
    temperature : float
        Of the softened predictions.
    augment : bool
    crop_padding : int
        CIFAR images are shifted by up to this many pixels.
    alternate_flip : bool
        Mirror an image every other epoch instead of at random.
    rate_weight : float
        Weight of `sw.regularise.synaptic_rate` in the loss; larger gives fewer spikes.
    count_weight : float
        Weight of `sw.regularise.count_spread_loss`; keeps the STDP attention's counts apart.
    gradient, half_width
        Gradient of the STDP kernel, `sw.attention.stdp`; other attentions do not look at it.
    precision : {"float32", "bfloat16"}
        Arithmetic of the float stage's layers; neurons, attention and U are float32 in either.
    qat_precision : {"float32", "bfloat16"}
        The same for training steps of the integer stage. Weights and spikes are whole numbers that bfloat16
        holds; large sums it rounds. Evaluation, and so every figure and the export, is exact in either.
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
    budget_clock : {"wall", "cpu"}
        What the budget counts: time, or processor time of this process (for comparisons on a shared machine).
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
    optimizer: str = "adamw"
    lr: float = 2e-3
    matrix_lr: float = 0.03
    qat_lr: float = 5e-4
    weight_decay: float = 0.06
    warmup_epochs: float = 5.0
    phases: tuple[Phase, ...] = ()
    initial_rate: float = 0.0
    surrogate: float = ALPHA
    norm_images: int = 0
    label_smoothing: float = 0.1
    teacher: str = ""
    distill: float = 0.5
    temperature: float = 4.0
    augment: bool = True
    crop_padding: int = CROP_PADDING
    alternate_flip: bool = False
    rate_weight: float = 0.0
    count_weight: float = 0.0
    gradient: str = DEFAULT_GRADIENT
    half_width: float = DEFAULT_HALF_WIDTH
    precision: str = "float32"
    qat_precision: str = "float32"
    fused: bool = False
    ema: float = 0.0
    randaugment: float = 0.0
    erasing: float = 0.0
    mixup: float = 0.0
    budget_minutes: float = 0.0
    budget_clock: str = "wall"
    qat_share: float = 0.2
    monitor_images: int = 0
    threads: int = 0

    def __post_init__(self) -> None:
        phases = tuple(Phase(**p) if isinstance(p, dict) else p for p in self.phases)  # from JSON
        object.__setattr__(self, "phases", phases)
        rules = {
            "seed": (0 <= self.seed < 2**63, "0 or more"),
            "float_epochs": (self.float_epochs >= 0, "0 or more"),
            "qat_epochs": (self.qat_epochs >= 0, "0 or more"),
            "batch_size": (self.batch_size >= 2, "2 or more (BatchNorm needs statistics)"),
            "lr": (0 < self.lr < math.inf, "a positive number"),
            "qat_lr": (0 < self.qat_lr < math.inf, "a positive number"),
            "optimizer": (self.optimizer in OPTIMIZERS, f"one of {', '.join(OPTIMIZERS)}"),
            "matrix_lr": (0 < self.matrix_lr < 1, "between 0 and 1"),
            "phases": (
                all(0 < p.until <= 1 and 0 <= p.timesteps <= 8 and p.image_size >= 0 for p in phases)
                and list(phases) == sorted(phases, key=lambda p: p.until)
                and (not phases or phases[-1].until == 1.0),
                "ends (above 0, rising, the last 1), 0 to 8 steps, sizes of 0 or more",
            ),
            "initial_rate": (0 <= self.initial_rate < 1, "0 to below 1"),
            "surrogate": (0 < self.surrogate < math.inf, "a positive number"),
            "norm_images": (self.norm_images >= 0, "0 or more"),
            "distill": (0 <= self.distill <= 1, "0 to 1"),
            "temperature": (0 < self.temperature < math.inf, "a positive number"),
            "crop_padding": (0 <= self.crop_padding <= 16, "0 to 16"),
            "budget_clock": (self.budget_clock in CLOCKS, f"one of {', '.join(CLOCKS)}"),
            "weight_decay": (0 <= self.weight_decay < math.inf, "0 or more"),
            "warmup_epochs": (0 <= self.warmup_epochs < math.inf, "0 or more"),
            "label_smoothing": (0 <= self.label_smoothing < 1, "0 to below 1"),
            "rate_weight": (0 <= self.rate_weight < math.inf, "0 or more"),
            "count_weight": (0 <= self.count_weight < math.inf, "0 or more"),
            "gradient": (self.gradient in STDP_GRADIENTS, f"one of {', '.join(STDP_GRADIENTS)}"),
            "precision": (self.precision in PRECISIONS, f"one of {', '.join(PRECISIONS)}"),
            "qat_precision": (self.qat_precision in PRECISIONS, f"one of {', '.join(PRECISIONS)}"),
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

    @property
    def kernel_gradient(self) -> KernelGradient:
        """`gradient` and `half_width` as networks take them."""
        return KernelGradient(self.gradient, self.half_width)

    def phase(self, position: float) -> Phase:
        """What holds at `position` (0 to 1) of the float stage."""
        return next(
            (p for p in self.phases if position < p.until), self.phases[-1] if self.phases else Phase(1.0)
        )

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "phases": [asdict(p) for p in self.phases]}

    def difference(self, other: dict[str, Any]) -> str | None:
        """The first setting in which a stored dictionary differs, in words."""
        for name, mine in self.to_json().items():
            theirs = other.get(name, "not known")
            if mine != theirs:
                return f"{name} was {theirs!r} and is now {mine!r}"
        if odd := sorted(set(other) - set(self.to_json())):
            return f"{odd[0]} was {other[odd[0]]!r} and is not known to this version"
        return None


def default_settings(dataset: str) -> TrainSettings:
    """Starting point for a data set: for CIFAR the recipe measured in docs/training.md for little time."""
    if dataset == "digits":
        return TrainSettings(float_epochs=60, qat_epochs=10, rate_weight=1.0, count_weight=0.25, threads=1)
    return TrainSettings(
        float_epochs=20,
        qat_epochs=2,
        batch_size=128,
        optimizer="muon",
        lr=4e-3,
        matrix_lr=0.03,
        qat_lr=3e-4,
        warmup_epochs=0.5,
        phases=(Phase(0.72, 1), Phase(1.0)),
        initial_rate=0.1,
        norm_images=512,
        crop_padding=2,
        alternate_flip=True,
        precision="bfloat16",
        qat_precision="bfloat16",
        fused=True,
        ema=0.998,
        monitor_images=1000,
    )
