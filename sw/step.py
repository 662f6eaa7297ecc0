"""One optimiser step: forward, loss, backward, in as many pieces as memory allows.

References
----------
Recipe (label smoothing): Spikingformer, arXiv 2304.11954, public code.
Distillation: Hinton et al., arXiv 1503.02531.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from s2tdpt.golden.config import NetworkConfig
from s2tdpt.golden.errors import UserError
from s2tdpt.sw import distributed
from s2tdpt.sw.neuron import use_fused
from s2tdpt.sw.quantize import QatNetwork
from s2tdpt.sw.regularise import count_spread_loss, synaptic_rate
from s2tdpt.sw.settings import TrainSettings


@dataclass(frozen=True)
class Batch:
    """Images uint8 [B, H, W, C], their labels [B], and what mixup blended in: `share` is the own label's.

    `soft`: a teacher's logits [B, K], if there is one.
    """

    images: Tensor
    labels: Tensor
    others: Tensor
    share: float = 1.0
    soft: Tensor | None = None

    def part(self, start: int, end: int) -> Batch:
        soft = None if self.soft is None else self.soft[start:end]
        return Batch(self.images[start:end], self.labels[start:end], self.others[start:end], self.share, soft)


@dataclass(frozen=True)
class StepResult:
    """Of one step, over this process's images: mean loss, right answers, synaptic rate."""

    loss: float
    correct: int
    rate: float


def distillation_loss(logits: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Divergence of softened predictions [B, K] from a teacher's, times the temperature squared.

    The factor keeps its gradient as large as that of the labels. Ref: arXiv 1503.02531, section 2.
    """
    theirs = F.log_softmax(teacher.to(logits.dtype) / temperature, 1)
    mine = F.log_softmax(logits / temperature, 1)
    return temperature**2 * F.kl_div(mine, theirs, reduction="batchmean", log_target=True)


class Stepper:
    """Takes optimiser steps on `network` and halves the piece that goes through it when memory runs out.

    Attributes
    ----------
    piece : int
        Images in one forward and backward pass; gradients of a batch's pieces add up, so the step is that of
        the whole batch (its BatchNorm statistics are those of the pieces).
    """

    def __init__(
        self,
        network: nn.Module,
        optimizer: torch.optim.Optimizer,
        settings: TrainSettings,
        say: Callable[[str], None],
        piece: int | None = None,
    ):
        self.network, self.optimizer, self.settings, self.say = network, optimizer, settings, say
        self.model = distributed.wrap(network)
        self.config: NetworkConfig = network.config
        self.device = next(network.parameters()).device
        self.piece = piece or settings.batch_size
        self.integer = isinstance(network, QatNetwork)

    def step(self, batch: Batch, lr: float) -> StepResult:
        """One step at rate `lr`; the loss may be infinite or NaN, then the weights stay as they were.

        Raises
        ------
        UserError
            Not even two images fit into memory.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = lr * group.get("factor", 1.0)
        while True:
            self.optimizer.zero_grad(set_to_none=True)
            try:
                result = self._gradients(batch)
                break
            except torch.OutOfMemoryError:
                self._halve(min(self.piece, len(batch.images)))
        if result.loss - result.loss == 0.0:  # finite
            self.optimizer.step()
            if self.integer:
                self.network.clip_()
        return result

    def _halve(self, piece: int) -> None:
        if distributed.world_size() > 1:
            raise UserError(
                f"a device ran out of memory at {piece} images; expected room for its share of the batch; "
                "lower --batch-size or add devices"
            )
        self.optimizer.zero_grad(set_to_none=True)
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        if piece < 4:
            raise UserError(
                f"the device ran out of memory at {piece} images a pass; expected room for at least two; "
                "use a smaller configuration or a device with more memory"
            )
        self.piece = piece // 2
        self.say(
            f"out of memory at {piece} images: passes of {self.piece} from here on, "
            f"{self.settings.batch_size} images a step as before"
        )

    def _gradients(self, batch: Batch) -> StepResult:
        count = len(batch.images)
        edges = list(range(0, count, self.piece))
        if len(edges) > 1 and count - edges[-1] < 2:  # BatchNorm needs two
            edges.pop()
        sums = torch.zeros(3, dtype=torch.float64, device=self.device)
        for start, end in zip(edges, [*edges[1:], count], strict=True):
            loss, logits, rate = self._loss(batch.part(start, end))
            weight = (end - start) / count
            (loss if len(edges) == 1 else loss * weight).backward()
            right = (logits.detach().argmax(1) == batch.labels[start:end]).sum()
            sums += torch.stack([loss.detach().double() * weight, right.double(), rate.double() * weight])
        loss, correct, rate = sums.tolist()  # the one wait for a GPU in a step
        return StepResult(loss, int(correct), rate)

    def _loss(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        settings, record = self.settings, {}
        half = (settings.qat_precision if self.integer else settings.precision) == "bfloat16"
        autocast = torch.autocast(self.device.type, torch.bfloat16) if half else nullcontext()
        with autocast, use_fused(settings.fused, settings.surrogate):
            logits = self.model(batch.images, record)
        logits = (logits if logits.dtype == torch.float64 else logits.float()) * self.network.logit_scale
        smoothing = settings.label_smoothing
        loss = F.cross_entropy(logits, batch.labels, label_smoothing=smoothing)
        if batch.share < 1.0:
            other = F.cross_entropy(logits, batch.others, label_smoothing=smoothing)
            loss = batch.share * loss + (1.0 - batch.share) * other
        if batch.soft is not None:
            soft = distillation_loss(logits, batch.soft, settings.temperature)
            loss = (1.0 - settings.distill) * loss + settings.distill * soft
        with torch.set_grad_enabled(settings.rate_weight > 0):
            rate = synaptic_rate(record, self.config)
        if settings.rate_weight:
            loss = loss + settings.rate_weight * rate
        if settings.count_weight:
            loss = loss + settings.count_weight * count_spread_loss(record, self.config)
        return loss, logits, rate.detach()
