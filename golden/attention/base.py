"""What every attention mechanism says about itself; nothing else in the package asks which one it is.

A mechanism is its options (a frozen, validated object in `NetworkConfig.attention`) and everything that
follows from them: which of the projections q, k, v exist, the tensors that it adds to a parameter file, what
it computes, the proven intervals of that, and what it costs.

Shapes: q, k, v and the result Y are ``[T, B, H, N, d_h]``: T steps, B images, H heads of d_h channels, N
tokens in raster order of the last map. Where `projections` lacks one of them it is None. They are spikes, 0
or 1, unless `operands` says otherwise. All of Y are whole numbers in the mechanism's own unit; the attention
neurons behind it have an integer threshold in that unit.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from pydantic import BaseModel, ConfigDict

from s2tdpt.golden.attention.work import Row, Work
from s2tdpt.golden.layers import Kind
from s2tdpt.golden.layout import TensorLayout
from s2tdpt.golden.operand import BINARY, Operand

if TYPE_CHECKING:
    from torch import Tensor

    from s2tdpt.golden.bounds import Bounds, Interval
    from s2tdpt.golden.config import NetworkConfig

Values = Mapping[str, np.ndarray]
"""A block's tensors by their short names: the network's and its own."""


class Mechanism(BaseModel, ABC):
    """Base of all attention mechanisms: pydantic fields are the options.

    Every mechanism has a field ``kind``, a literal, by which it is told apart in files.

    Attributes
    ----------
    projections : tuple of Kind
        Which of q, k and v exist, in this order.
    operands : mapping of Kind to Operand
        What those of them are that are no spikes.
    binary : bool
        Whether Y is spikes, which neurons of threshold 1 pass on as they are.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    projections: ClassVar[tuple[Kind, ...]] = (Kind.Q, Kind.K, Kind.V)
    operands: ClassVar[Mapping[Kind, Operand]] = {}
    binary: ClassVar[bool] = False

    def operand(self, kind: Kind) -> Operand:
        """What the neurons of the projection `kind` hand on."""
        return self.operands.get(kind, BINARY)

    def check(self, config: NetworkConfig) -> None:  # noqa: B027 (most have nothing to check)
        """ValueError, one line, if the options do not suit the network."""

    def kernel(self, config: NetworkConfig) -> np.ndarray | None:
        """Weights of A by difference of spike counts r_K - r_Q, -d_h..d_h, if they depend on it alone."""
        return None

    # Tensors ------------------------------------------------------------------------------------------------

    def network_tensors(self, config: NetworkConfig) -> dict[str, TensorLayout]:
        """Tensors that all blocks share, by name."""
        return {}

    def block_tensors(self, config: NetworkConfig) -> dict[str, TensorLayout]:
        """Tensors of every block, by short name; block b's is called ``block.{b}.{name}`` in the file."""
        return {}

    def layout(self, config: NetworkConfig) -> dict[str, TensorLayout]:
        """All tensors that the mechanism adds to a parameter file, by full name."""
        own = self.block_tensors(config)
        blocks = {f"block.{b}.{name}": entry for b in range(config.depth) for name, entry in own.items()}
        return blocks | self.network_tensors(config)

    def values(self, config: NetworkConfig, tensors: Values, block: int) -> dict[str, np.ndarray]:
        """The tensors of `block` by short name, out of all `tensors` of a file."""
        shared = {name: tensors[name] for name in self.network_tensors(config)}
        return shared | {name: tensors[f"block.{block}.{name}"] for name in self.block_tensors(config)}

    def derived_tensors(self, config: NetworkConfig) -> dict[str, np.ndarray]:
        """The tensors, by full name, that follow from the options alone and are not trained."""
        return {}

    def random_tensors(self, config: NetworkConfig, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """Values for all tensors of `layout`, for networks without training: derived, or drawn from `rng`."""
        return self.derived_tensors(config)

    # What it computes ---------------------------------------------------------------------------------------

    @property
    @abstractmethod
    def threshold(self) -> int:
        """Threshold of the attention neurons that follows from the options."""

    @abstractmethod
    def lively_threshold(self, config: NetworkConfig, rate: float) -> int:
        """A threshold near the mean of Y where q, k and v fire at `rate`: for networks without training."""

    @abstractmethod
    def y(
        self,
        config: NetworkConfig,
        values: Mapping[str, Tensor],
        q: Tensor | None,
        k: Tensor | None,
        v: Tensor | None,
    ) -> Tensor:
        """Y as it is defined, on int64 or on floats that hold every whole number of `inner` exactly."""

    @abstractmethod
    def streamed(
        self,
        config: NetworkConfig,
        values: Mapping[str, Tensor],
        q: Tensor | None,
        k: Tensor | None,
        v: Tensor | None,
    ) -> Tensor:
        """The same integers in the order of a machine: token after token, without an N x N matrix."""

    @abstractmethod
    def interval(self, config: NetworkConfig, values: Values) -> Interval:
        """Interval of Y and of its partial sums, for any operands."""

    def inner(self, config: NetworkConfig, values: Values) -> dict[str, Interval]:
        """Intervals of what is kept on the way to Y, by name, for any operands."""
        return {}

    # What it costs ------------------------------------------------------------------------------------------

    @abstractmethod
    def rows(self, config: NetworkConfig) -> tuple[Row, ...]:
        """Its rows of the cost tables, in the order of evaluation."""

    @abstractmethod
    def count(
        self, config: NetworkConfig, q: np.ndarray | None, k: np.ndarray | None, v: np.ndarray | None
    ) -> dict[str, int]:
        """Events of the streamed form, by name, on operands [..., H, N, d_h]; counts of more add up."""

    @abstractmethod
    def work(self, config: NetworkConfig, bounds: Bounds, counts: Mapping[str, int]) -> dict[str, Work]:
        """Integer work of every row of `rows` for `counts`, by name."""


class SpikingMechanism(Mechanism):
    """Base of the mechanisms whose Y is spikes, which the attention neurons pass on."""

    binary: ClassVar[bool] = True

    @property
    def threshold(self) -> int:
        return 1

    def lively_threshold(self, config: NetworkConfig, rate: float) -> int:
        return 1

    def interval(self, config: NetworkConfig, values: Values) -> Interval:
        from s2tdpt.golden.bounds import Interval

        return Interval(0, 1)
