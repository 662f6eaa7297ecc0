"""Addition-only self-attention on three kinds of numbers: ``Y = Q K^T V``, quarters of a count.

Q is spikes, K a ReLU of four bits in quarters (0, 1/4 .. 15/4), V spikes of either sign; their layers have
neurons of their own for that (`golden.neuron.graded`). A product with 0, 1 or -1 is no multiplication: token
j adds K_jc, or takes it away, in row c of the state K^T V, and token i adds up the rows with Q_ic = 1.

Ref: "Spiking Transformer: Introducing Accurate Addition-Only Spiking Self-Attention" (A2OS2A, arXiv
2503.00226); no public code is known. The four bits of K are chosen here; so is what follows Y, which is the
slot of all attentions.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Literal

from s2tdpt.golden.attention.ssa import Ssa
from s2tdpt.golden.layers import Kind
from s2tdpt.golden.operand import LEVELS, TERNARY, Operand

if TYPE_CHECKING:
    from s2tdpt.golden.config import NetworkConfig

FRACTION_BITS = 2
"""Of K, and of Y."""
LEVEL_SQUARE = 14
"""Mean square of K where its sums are as wide as a neuron's threshold and a half: without training."""


class A2os2a(Ssa):
    """``Y_i = sum_c Q_ic sum_j K_jc V_j``: SSA with K of four bits and V of two signs.

    Attributes
    ----------
    scale_log2 : int
        As of SSA; the threshold of the attention neurons is 2^scale_log2 counts, four times as many of Y.
    """

    operands: ClassVar[Mapping[Kind, Operand]] = {Kind.K: LEVELS, Kind.V: TERNARY}
    kind: Literal["a2os2a"] = "a2os2a"

    @property
    def threshold(self) -> int:
        return super().threshold << FRACTION_BITS

    def lively_threshold(self, config: NetworkConfig, rate: float) -> int:
        # V has either sign: the mean of Y is near 0, and its spread counts.
        return round(math.sqrt(config.tokens * config.head_dim * rate * rate * LEVEL_SQUARE))
