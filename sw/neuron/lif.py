"""Leaky integrate-and-fire neuron over T steps, with a surrogate gradient.

The neuron is the paper's (Eqs. 7-9) with beta = 1/2 and a hard reset to 0. SpikingJelly's form of the
same neuron halves its input; here the input stays whole and the threshold doubles (2 V_th), which
gives the same spikes and keeps every value on the integer grid once weights are integers.

Two implementations compute it: a plain loop over tensors, which is the reference, and the same arithmetic
fused into one pass over memory by `torch.compile` (`sw.fused`), which `use_fused` chooses.

References
----------
S2TDPT: arXiv 2511.14691, Eqs. 7-9 (neuron).
Spikingformer: arXiv 2304.11954 (sigmoid surrogate, alpha = 4, detached reset).
"""

from __future__ import annotations

from contextlib import contextmanager

import torch
from torch import Tensor

from s2tdpt.sw import fused
from s2tdpt.sw.names import ALPHA

HALF = 0.5
"""The surrogate sees u/2, because the public code's membrane is half of the one kept here."""

_fused, _alpha = False, ALPHA


@contextmanager
def use_fused(enabled: bool = True, alpha: float = ALPHA):
    """Within this context `lif` runs fused (or not), with a surrogate of steepness `alpha`."""
    global _fused, _alpha
    before, (_fused, _alpha) = (_fused, _alpha), (enabled, alpha)
    try:
        yield
    finally:
        _fused, _alpha = before


def surrogate_steepness() -> float:
    """Steepness of the surrogate in units of a membrane that is not halved."""
    return HALF * _alpha


def result_type(current: Tensor) -> torch.dtype:
    """Type of the spikes of `current`: its own, or that of autocast where it is on."""
    kind = current.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else current.dtype


def wide(x: Tensor) -> Tensor:
    """`x`, in float32 if it is half precision: for sums and thresholds."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x


class _MultiStepLIF(torch.autograd.Function):
    """Forward: T steps of the neuron. Backward: time-reversed sum with the reset detached.

    One saved tensor (the membrane) instead of the five a step that autograd would keep: the neuron is
    memory-bound, not compute-bound.
    """

    @staticmethod
    def forward(ctx, current: Tensor, threshold: Tensor, steepness: Tensor, floor_leak: bool) -> Tensor:
        membrane = torch.empty_like(current)
        carried = torch.zeros_like(current[0])
        for t in range(current.shape[0]):
            u = torch.add(carried, current[t], out=membrane[t])  # Ref: Eq. 7
            decayed = u * 0.5
            if floor_leak:
                decayed.floor_()  # arithmetic shift of the hardware
            carried = decayed.masked_fill_(u >= threshold, 0.0)  # Ref: Eq. 9, V_reset = 0
        ctx.save_for_backward(membrane, threshold, steepness)
        return (membrane >= threshold).to(current.dtype)  # Ref: Eq. 8, a tie fires

    @staticmethod
    def backward(ctx, grad_spikes: Tensor):
        membrane, threshold, steepness = ctx.saved_tensors
        gate = (membrane - threshold).mul_(steepness).sigmoid_()
        grad = torch.addcmul(gate, gate, gate, value=-1.0)  # gate (1 - gate)
        grad.mul_(steepness).mul_(grad_spikes)  # through S = step(u - threshold)
        keep = torch.lt(membrane, threshold, out=gate).mul_(0.5)  # through H = (1 - S) u / 2, S detached
        for t in range(membrane.shape[0] - 2, -1, -1):
            grad[t].addcmul_(keep[t], grad[t + 1])
        return grad, None, None, None


class _FusedLIF(torch.autograd.Function):
    """The same neuron, one kernel each way; only the input is kept, membranes are computed again."""

    @staticmethod
    def forward(ctx, current, threshold, steepness, dtype, floor_leak: bool, steps: int, repeated: bool):
        ctx.save_for_backward(current, threshold, steepness)
        ctx.form = floor_leak, steps, repeated
        return fused.spikes(current, threshold, dtype, *ctx.form)

    @staticmethod
    def backward(ctx, grad_spikes: Tensor):
        current, threshold, steepness = ctx.saved_tensors
        return fused.gradient(current, threshold, steepness, grad_spikes, *ctx.form), *[None] * 6


def lif(
    current: Tensor,
    threshold: Tensor | float,
    scale: Tensor | float = 1.0,
    floor_leak: bool = False,
    steps: int | None = None,
) -> Tensor:
    """Spikes of LIF neurons driven by `current` from a resting membrane.

    Parameters
    ----------
    current : float tensor [T, ...]
        Synaptic input of each step, in any unit. Half-precision inputs are summed in float32.
    threshold : float or tensor broadcastable to ``current[0]``
        Firing threshold in the unit of `current` (2 V_th; 1.0 for the attention). ``u >= threshold`` fires.
    scale : float or tensor broadcastable to ``current[0]``
        Real value of one unit of `current`: 1 in the float network, the channel's scale where the unit
        is an integer step. It only enters the surrogate gradient.
    floor_leak : bool
        Leak by floor(u/2), an arithmetic shift, as the hardware does. With integer inputs and threshold
        the spikes are those of the real leak (floor(y/2) = floor(floor(y)/2)).
    steps : int, optional
        If given, `current` has no time axis and drives every one of these T steps.

    Returns
    -------
    tensor [T, ...] of 0 and 1, in the type of `current`, or of autocast where that is on.
    """
    result = result_type(current)
    dtype = torch.float32 if current.dtype in (torch.bfloat16, torch.float16) else current.dtype
    as_tensor = lambda value: torch.as_tensor(value, dtype=dtype, device=current.device)  # noqa: E731
    steepness = as_tensor(scale) * surrogate_steepness()
    if _fused:
        return _FusedLIF.apply(
            current,
            as_tensor(threshold),
            steepness,
            result,
            floor_leak,
            current.shape[0] if steps is None else steps,
            steps is not None,
        )
    if steps is not None:
        current = current.unsqueeze(0).expand(steps, *[-1] * current.dim())
    spikes = _MultiStepLIF.apply(wide(current), as_tensor(threshold), steepness, floor_leak)
    return spikes.to(result)
