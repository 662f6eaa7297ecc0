"""What one tensor of the parameter file looks like."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np


class TensorLayout(NamedTuple):
    """Element type, shape and range of one tensor of the parameter file."""

    dtype: type[np.integer]
    shape: tuple[int, ...]
    lo: int
    hi: int

    @property
    def bytes(self) -> int:
        """Size of its elements."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize
