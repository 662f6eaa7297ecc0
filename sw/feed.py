"""What a training step sees: a batch of augmented images, their labels and what a teacher says about them.

Which images are mirrored alternates from epoch to epoch, so that two epochs show every image both ways; this
also says which of the teacher's two answers belongs to a view.

References
----------
Alternating flip: Jordan, arXiv 2404.00498 (against an independent draw every time).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from s2tdpt.golden.config import NetworkConfig
from s2tdpt.sw import distributed
from s2tdpt.sw.augment import augment, draw, mixup
from s2tdpt.sw.datasets import Dataset
from s2tdpt.sw.evaluate import as_images
from s2tdpt.sw.settings import TrainSettings
from s2tdpt.sw.step import Batch

MIXUP_UNTIL = 0.5
"""Mixup ends at this position of the float stage (published recipe: half way)."""


def resized(images: Tensor, size: tuple[int, int]) -> Tensor:
    """Images uint8 [B, H, W, C] averaged down to height and width `size`."""
    if tuple(images.shape[1:3]) == size:
        return images
    maps = images.permute(0, 3, 1, 2).float()
    maps = F.interpolate(maps, size, mode="bilinear", antialias=True, align_corners=False)
    return maps.round_().clamp_(0, 255).to(torch.uint8).permute(0, 2, 3, 1)


class Feed:
    """Batches of a data set, drawn from one generator.

    Parameters
    ----------
    teacher : float tensor [2, M, K], optional
        Logits of the training images as they are and mirrored.
    """

    def __init__(
        self,
        dataset: Dataset,
        settings: TrainSettings,
        config: NetworkConfig,
        device: torch.device,
        teacher: Tensor | None = None,
    ):
        self.settings, self.config, self.name = settings, config, dataset.name
        self.images = as_images(dataset.train_images).to(device)
        self.labels = torch.as_tensor(dataset.train_labels).to(device)
        self.teacher = None if teacher is None else teacher.to(device)
        first = torch.rand(len(self.images), generator=torch.Generator().manual_seed(settings.seed)) < 0.5
        self.first_mirrored = first.to(device)

    def __len__(self) -> int:
        return len(self.images)

    def batch(self, chosen: Tensor, generator: torch.Generator, epoch: int, size: int, mix: bool) -> Batch:
        """The images `chosen` (indices [B]) as they appear in `epoch`, this process's share of them.

        `size`: side of the images, 0 for the configuration's; `mix`: blend them, if the settings say so.
        """
        settings = self.settings
        images, labels = self.images[chosen], self.labels[chosen]
        others, own, mirrored = labels, 1.0, None
        if settings.augment:
            if settings.alternate_flip:
                mirrored = self.first_mirrored[chosen] ^ bool(epoch % 2)
            elif self.teacher is not None:  # which of its answers counts must be known
                mirrored = draw(len(chosen), generator) < 0.5
            images = augment(
                images,
                generator,
                self.name,
                self.config.pixel_zero_point,
                settings.randaugment,
                settings.erasing,
                settings.crop_padding,
                mirrored,
            )
        soft = None
        if self.teacher is not None:
            view = mirrored.long() if mirrored is not None else torch.zeros_like(chosen)
            soft = self.teacher[view, chosen]
        if settings.augment and settings.mixup and mix:
            images, others, own = mixup(images, labels, generator, settings.mixup)
        if size:
            images = resized(images, (size, size))
        return Batch(
            *(distributed.share(part) for part in (images, labels, others)),
            own,
            None if soft is None else distributed.share(soft),
        )
