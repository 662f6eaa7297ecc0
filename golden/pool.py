"""OR-pooling of spike maps: max-pooling 3x3, stride 2, padding 1 on binary values."""

from __future__ import annotations

import torch


def or_pool(spikes: torch.Tensor) -> torch.Tensor:
    """A place spikes if any of its 3x3 neighbourhood (stride 2, zeros outside) does.

    Parameters
    ----------
    spikes : tensor, shape (M, H, W, C)
        0 or 1, a floating or 8-bit type.

    Returns
    -------
    tensor, shape (M, (H + 1) // 2, (W + 1) // 2, C)
    """
    # The permuted view is a channels-last tensor: no data moves on the way in or out.
    pooled = torch.nn.functional.max_pool2d(spikes.permute(0, 3, 1, 2), 3, stride=2, padding=1)
    return pooled.permute(0, 2, 3, 1)
