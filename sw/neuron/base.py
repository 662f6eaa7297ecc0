"""What trainable neurons share: a law that is learned, and the exact neurons of a law.

The float network computes with constants that are snapped, in the forward pass, to those that a law can have;
the gradient passes straight through. What is quantised later is therefore what was trained.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from s2tdpt.golden.neuron import Law
from s2tdpt.golden.operand import BINARY, LEVELS, TERNARY
from s2tdpt.sw.neuron.lif import result_type, surrogate_steepness, wide

PACE = 8.0
"""A learned constant is this times its parameter: at a learning rate that suits weights it has to get from
one of few values to the next."""


def snapped(soft: Tensor, hard: Tensor) -> Tensor:
    """`hard` in the forward pass, the gradient of `soft`."""
    return soft + (hard - soft).detach()


class _Spike(torch.autograd.Function):
    """Step at 0 (a tie fires) with the gradient of a sigmoid."""

    @staticmethod
    def forward(ctx, excess: Tensor, steepness: float) -> Tensor:
        ctx.save_for_backward(excess)
        ctx.steepness = steepness
        return (excess >= 0).to(excess.dtype)

    @staticmethod
    def backward(ctx, grad: Tensor):
        (excess,) = ctx.saved_tensors
        gate = (excess * ctx.steepness).sigmoid_()
        return grad * gate * (1.0 - gate) * ctx.steepness, None


@dataclass(frozen=True)
class Constants:
    """A law in real numbers, tensors without axes that carry gradients; as `golden.neuron.Law` has them.

    `gain` multiplies the membrane where it meets the threshold; `linear` and `soft` are parts of the
    threshold over `gain`; `conduct`, one a step, multiplies the input; `hard` is 1 where a spike leaves
    nothing.
    """

    leak: Tensor
    gain: Tensor
    rectified: bool = False
    linear: Tensor | None = None
    soft: Tensor | None = None
    hard: Tensor | None = None
    conduct: Tensor | None = None


class LearnedNeurons(nn.Module, ABC):
    """Neurons of one place with a law that is learned; the same module in the float network and behind it."""

    @abstractmethod
    def constants(self) -> Constants:
        """The law that the parameters stand for, differentiable."""

    @abstractmethod
    def law(self) -> Law:
        """The same in whole numbers."""

    @abstractmethod
    def set_law(self, law: Law) -> None:
        """Take the parameters from a law, in place; what it does not say begins anew."""

    def forward(
        self, current: Tensor, threshold: float, scale: float = 1.0, steps: int | None = None
    ) -> Tensor:
        """Spikes of the float network; arguments as of `sw.neuron.lif`, `threshold` that of the place."""
        result = result_type(current)
        x = wide(current)
        if steps is not None:
            x = x.unsqueeze(0).expand(steps, *[-1] * current.dim())
        law, steepness, spikes, h = self.constants(), scale * surrogate_steepness(), [], None
        part = threshold / law.gain
        for t in range(x.shape[0]):
            driven = x[t] if law.conduct is None else x[t] * law.conduct[t]
            u = driven if h is None else h + driven
            spikes.append(_Spike.apply(u * law.gain - threshold, steepness))
            fired = spikes[-1].detach()
            kept = law.leak * (u.clamp(min=0) if law.rectified else u)
            h = kept * (1.0 - fired if law.hard is None else 1.0 - law.hard * fired)
            if law.linear is not None:
                h = h - law.linear * part
            if law.soft is not None:
                h = h - law.soft * part * fired
        return torch.stack(spikes).to(result)


def _step_slope(membrane: Tensor, threshold: Tensor, steepness: Tensor) -> Tensor:
    """Of a step at the threshold: that of a sigmoid."""
    gate = (membrane - threshold).mul_(steepness).sigmoid_()
    return torch.addcmul(gate, gate, gate, value=-1.0).mul_(steepness)


def _steps_slope(membrane: Tensor, threshold: Tensor, steepness: Tensor) -> Tensor:
    """Of a step up at either end of what does not fire."""
    return _step_slope(membrane, threshold, steepness) + _step_slope(membrane, -threshold, steepness)


def _stairs_slope(membrane: Tensor, threshold: Tensor, steepness: Tensor) -> Tensor:
    """Of stairs, rounding taken as the identity; none beside them."""
    inside = (membrane >= 0) & (membrane < (LEVELS.hi + 1) * threshold)
    return inside / threshold


SLOPES = {BINARY: _step_slope, TERNARY: _steps_slope, LEVELS: _stairs_slope}
"""Derivative of what a neuron emits by its membrane, for the backward pass."""


class _Following(torch.autograd.Function):
    """Forward: `Law.spikes` on whole numbers, or with a leak that is not floored on real ones. Backward:
    time-reversed sum with the reset detached."""

    @staticmethod
    def forward(ctx, current: Tensor, threshold: Tensor, steepness: Tensor, law: Law, floor: bool) -> Tensor:
        membrane, emitted, h = torch.empty_like(current), torch.empty_like(current), 0
        for t in range(current.shape[0]):
            u = torch.add(law.drive(current[t], t), h, out=membrane[t])
            emitted[t] = law.fires(u, threshold)
            if t + 1 < current.shape[0]:
                kept = law.keep(u, threshold) if floor else law.slope * u
                h = torch.where(emitted[t] != 0, law.reset(u, threshold), kept)
        quiet = None if law.emits == BINARY else emitted == 0
        ctx.save_for_backward(membrane, threshold, steepness, quiet)
        ctx.law = law
        return emitted

    @staticmethod
    def backward(ctx, grad_spikes: Tensor):
        membrane, threshold, steepness, quiet = ctx.saved_tensors
        law, steps = ctx.law, membrane.shape[0]
        grad = SLOPES[law.emits](membrane, threshold, steepness).mul_(grad_spikes)
        for t in range(steps - 2, -1, -1):
            through = law.slope * grad[t + 1]
            if law.rectified:
                through = through * (membrane[t] > 0)
            if not law.soft:
                through = through * (membrane[t] < threshold if quiet is None else quiet[t])
            grad[t] += through
        if law.conduct:
            for t in range(steps):
                grad[t] *= law.drive_slope(t)
        return grad, None, None, None, None


def follow(
    law: Law,
    current: Tensor,
    threshold: Tensor | float,
    scale: Tensor | float = 1.0,
    steps: int | None = None,
    floor_leak: bool = True,
) -> Tensor:
    """What neurons of a law emit on whole numbers, as `golden.neuron`; arguments as of `sw.neuron.lif`.

    `threshold` is the one at which the neurons fire, the law's factor included; the surrogate sees the
    membrane over that factor. Without `floor_leak` numbers may be any, of a law that takes nothing from the
    membrane.
    """
    result = result_type(current)
    dtype = torch.float32 if current.dtype in (torch.bfloat16, torch.float16) else current.dtype
    as_tensor = lambda value: torch.as_tensor(value, dtype=dtype, device=current.device)  # noqa: E731
    over, under = law.factor
    steepness = as_tensor(scale) * (surrogate_steepness() * under / over)
    if steps is not None:
        current = current.unsqueeze(0).expand(steps, *[-1] * current.dim())
    return _Following.apply(wide(current), as_tensor(threshold), steepness, law, floor_leak).to(result)
