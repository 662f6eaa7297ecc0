"""What every neuron model says about itself; nothing else in the package asks which one it is.

A neuron model is its options (a frozen, validated object in `NetworkConfig.neuron`) and the *laws* that its
integers give: the neurons of one place, a layer or the readers of the stream or an attention's, follow one
law.

Every law is the same recurrence over the time steps. It differs in what a step brings and in what is carried
on:

    h = 0
    for t in 0 .. T-1:
        u = h + drive(x[t], t)
        s[t] = fires(u, threshold)                         # u >= threshold: equality fires
        h = reset(u, threshold) if s[t] else keep(u, threshold)

Neurons of some laws emit other numbers than 0 and 1 (`Law.emits`, `golden.neuron.graded`). An attention asks
for them; a layer whose neurons emit them has its law from there, and the model has no say in it.

`drive`, `keep` and `reset` never fall when x or u rises: what lies between two ends is carried to what lies
between their results (`golden.bounds`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import numpy as np
from pydantic import BaseModel, ConfigDict

from s2tdpt.golden.errors import UserError
from s2tdpt.golden.layers import Attention, Layer
from s2tdpt.golden.layout import TensorLayout
from s2tdpt.golden.operand import BINARY, Operand

if TYPE_CHECKING:  # torch too: a configuration needs none
    import torch

    from s2tdpt.golden.config import NetworkConfig

Number = TypeVar("Number", int, np.ndarray, "torch.Tensor")
"""Whole numbers: Python's, arrays of any integer type or of Python's, tensors of integers or of floats."""

LEAKS = (0, 2, 4, 6, 7)
"""Parts of the membrane, in eighths, that an arithmetic shift and at most one subtraction give."""
WHOLE = 8
"""Eighths of a membrane that stays."""
GAIN = 16
"""A threshold divided by `gain` / GAIN; a gain of GAIN leaves it."""


def is_tensor(value: Number) -> bool:
    """Whether `value` is one of torch's."""
    return hasattr(value, "is_floating_point")


def shifted(value: Number, bits: int) -> Number:
    """floor(value / 2^bits), also of whole numbers in floats."""
    if is_tensor(value) and value.dtype.is_floating_point:
        return (value * 2.0**-bits).floor()
    return value >> bits


def leaked(value: Number, eighths: int) -> Number:
    """floor(value * eighths / 8) for the parts of `LEAKS`, and all of it for 8."""
    match eighths:
        case 0:
            return value * 0
        case 2 | 4:
            return shifted(value, 2 if eighths == 2 else 1)
        case 6 | 7:  # less ceil(value / 4), less ceil(value / 8); exact in floats as far as value is
            return value + shifted(-value, 2 if eighths == 6 else 3)
        case 8:  # WHOLE
            return value
    raise ValueError(f"a leak of {eighths}/8 is none of {LEAKS} eighths")


def limited(value: Number, lo: int, hi: int) -> Number:
    """`value`, but `lo` where it is less and `hi` where it is more."""
    return value.clamp(lo, hi) if is_tensor(value) else np.clip(value, lo, hi)


class Law(ABC):
    """What the neurons of one place do. Derived classes are frozen dataclasses of whole numbers.

    What a law is made of stands in its attributes: hardware and gradients follow from them, `keep`, `reset`,
    `drive` and `fires` say the same in whole numbers.

    Attributes
    ----------
    leak : int
        Eighths of the membrane that stay, of `LEAKS` or 8.
    rectified : bool
        Whether a negative membrane carries nothing.
    linear : int or None
        threshold >> linear is taken from what is carried on; None: nothing.
    soft : int
        0: a spike leaves nothing of the membrane; else it takes threshold >> (soft - 1) from it.
    conduct : tuple of int
        Inputs of step t are shifted right by conduct[t]; empty: by nothing.
    emits : Operand
        What a neuron hands on in a step; one that emits other than 0 has fired.
    """

    leak: int
    emits: ClassVar[Operand] = BINARY
    rectified: ClassVar[bool] = False
    linear: int | None = None
    soft: int = 0
    conduct: tuple[int, ...] = ()

    @property
    def slope(self) -> float:
        """Derivative of `keep`, its floor taken as the identity; for `rectified` laws that of positive u."""
        return self.leak / WHOLE

    @property
    def form(self) -> tuple:
        """What a law is made of: laws of one form differ in thresholds at most."""
        conduct = self.conduct if any(self.conduct) else ()
        return self.leak, self.rectified, self.linear, self.soft, conduct, self.emits

    @property
    def subtracts(self) -> bool:
        """Whether parts of the threshold, twice it at most, are taken from the membrane."""
        return self.linear is not None or self.soft > 0

    @property
    def scale_free(self) -> bool:
        """Whether neurons with 2^n times the inputs and the threshold fire alike, for any n."""
        return self.leak <= 4 and not self.subtracts and not any(self.conduct)

    @property
    def additions(self) -> int:
        """Additions of a neuron in a step: input to membrane, membrane to threshold, the law's own."""
        return 2 + (self.leak in (6, 7)) + self.subtracts

    @abstractmethod
    def keep(self, u: Number, threshold: Number) -> Number:
        """What a neuron with the membrane `u`, below its threshold, carries into the next step."""

    def reset(self, u: Number, threshold: Number) -> Number:
        """What a neuron with the membrane `u`, which fired, carries into the next step."""
        return u * 0

    def fires(self, u: Number, threshold: Number) -> Number:
        """What a neuron with the membrane `u` emits."""
        return u >= threshold

    def least_quiet(self, threshold: Number) -> Number | None:
        """Smallest membrane that does not fire; None where only large ones fire."""
        return None

    def drive(self, x: Number, t: int) -> Number:
        """What the input `x` adds to the membrane in step `t`."""
        return x

    def drive_slope(self, t: int) -> float:
        """Derivative of `drive`."""
        return 2.0 ** -self.conduct[t] if self.conduct else 1.0

    @property
    def factor(self) -> tuple[int, int]:
        """What multiplies the threshold of a place in the network, as a fraction."""
        return 1, 1

    def threshold(self, base: int) -> int:
        """Threshold of neurons that have none of their own: the place's times `factor`, rounded up."""
        over, under = self.factor
        return -(-over * base // under)

    def passes_spikes(self, threshold: int) -> bool:
        """Whether the spikes of neurons that are driven by spikes are these, for this law."""
        return threshold == 1

    def growth(self, steps: int) -> int:
        """A membrane's magnitude is at most this times that of the largest input or threshold."""
        return 2

    def spikes(
        self, current: torch.Tensor, threshold: torch.Tensor | int, out: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Spikes of a layer over all time steps.

        Parameters
        ----------
        current : tensor, shape (T, ..., C)
            Integer inputs, of an integer type or of a floating type that holds every membrane value exactly.
            Not changed.
        threshold : tensor broadcastable to (..., C), or int
            Firing thresholds, whole, at least 1; a membrane equal to the threshold fires.
        out : tensor, shape (T, ..., C), optional
            Where to write; may be a strided view of another type.

        Returns
        -------
        tensor, shape (T, ..., C)
            Numbers of `emits`, `out` or a tensor of the type of `current`.
        """
        import torch

        steps = current.shape[0]
        out = torch.empty_like(current) if out is None else out
        h = 0
        for t in range(steps):
            u = self.drive(current[t], t) + h
            emitted = self.fires(u, threshold)
            out[t] = emitted
            if t + 1 < steps:
                h = torch.where(emitted != 0, self.reset(u, threshold), self.keep(u, threshold))
        return out


class Neuron(BaseModel, ABC):
    """Base of all neuron models: pydantic fields are the options.

    Every model has a field ``kind``, a literal, by which it is told apart in files. Its tensors have an entry
    for every place whose neurons are of the model, in network order (`model_places`).
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @abstractmethod
    def initial(self, config: NetworkConfig) -> Law:
        """The law that training begins with."""

    @abstractmethod
    def neutral(self, config: NetworkConfig) -> Law:
        """The law that is that of `lif` on inputs that are not negative."""

    @abstractmethod
    def fields(self, config: NetworkConfig) -> dict[str, TensorLayout]:
        """By short name the integers of one place; the tensor in the file is called ``neuron.{name}``."""

    @abstractmethod
    def law(self, values: Mapping[str, np.ndarray]) -> Law:
        """The law of a place by its `fields`; ValueError, words for a message, if there is no such law."""

    @abstractmethod
    def values(self, law: Any, config: NetworkConfig) -> dict[str, np.ndarray | int]:
        """The `fields` of a place by its law: the opposite of `law`."""

    @abstractmethod
    def random_law(self, config: NetworkConfig, rng: np.random.Generator) -> Law:
        """Any law, for networks without training."""

    def layout(self, config: NetworkConfig) -> dict[str, TensorLayout]:
        """All tensors that the model adds to a parameter file, by name."""
        count = len(model_places(config))
        return {
            f"neuron.{name}": one._replace(shape=(count, *one.shape))
            for name, one in self.fields(config).items()
        }

    def laws(self, config: NetworkConfig, tensors: Mapping[str, np.ndarray]) -> dict[str, Law]:
        """The law of every place by the trace of its spikes, out of all `tensors` of a file.

        Raises
        ------
        UserError
            The integers of a place are no law.
        """
        found = dict.fromkeys(places(config)) | dict(prescribed(config))
        for number, place in enumerate(model_places(config)):
            values = {name: tensors[f"neuron.{name}"][number] for name in self.fields(config)}
            try:
                found[place] = self.law(values)
            except ValueError as error:
                raise UserError(f"neurons of {place}: {error}; export them again") from None
        return found

    def tensors(self, config: NetworkConfig, laws: Mapping[str, Law]) -> dict[str, np.ndarray]:
        """The tensors of a file for the law of every place."""
        rows = [self.values(laws[place], config) for place in model_places(config)]
        return {
            f"neuron.{name}": np.array([row[name] for row in rows]).astype(one.dtype)
            for name, one in self.fields(config).items()
        }

    def random_tensors(self, config: NetworkConfig, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """Values for all tensors of `layout`, for networks without training.

        The law of every place is drawn from `rng`, but where there is nothing to learn.
        """
        laws = {place: self.random_law(config, rng) for place in learned_places(config)}
        return self.tensors(config, self.initial_laws(config) | laws)

    def initial_laws(self, config: NetworkConfig) -> dict[str, Law]:
        """The law of every place where training begins."""
        first, learned = self.initial(config), learned_places(config)
        found = {place: first if place in learned else self.neutral(config) for place in places(config)}
        return found | dict(prescribed(config))


@lru_cache(maxsize=256)
def places(config: NetworkConfig) -> tuple[str, ...]:
    """Traces of the spikes of all neurons, in network order: a law each."""
    parts = config.parts()
    return tuple(part.writes for part in parts if not isinstance(part, Layer) or part.lif_fed)


@lru_cache(maxsize=256)
def prescribed(config: NetworkConfig) -> Mapping[str, Law]:
    """`places` whose law follows from what their attention reads, and that law."""
    from s2tdpt.golden.neuron.graded import PRESCRIBED

    graded = (layer for layer in config.layers() if layer.lif_fed and layer.emits != BINARY)
    return MappingProxyType({layer.writes: PRESCRIBED[layer.emits] for layer in graded})


@lru_cache(maxsize=256)
def model_places(config: NetworkConfig) -> tuple[str, ...]:
    """`places` whose neurons are of the network's model."""
    return tuple(place for place in places(config) if place not in prescribed(config))


@lru_cache(maxsize=256)
def learned_places(config: NetworkConfig) -> tuple[str, ...]:
    """`model_places` whose law is learned: not those behind an attention of spikes, which they pass on."""
    passed = {p.writes for p in config.parts() if isinstance(p, Attention) and config.attention.binary}
    return tuple(place for place in model_places(config) if place not in passed)
