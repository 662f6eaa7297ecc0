"""The LIF neuron as one kernel each way, made by `torch.compile` (C++ on a CPU, Triton on a GPU).

A neuron of T steps reads T values and writes T bits, with a few operations between: written as separate
tensor operations it moves the same memory a dozen times. Here each direction is one pass, and the backward
pass computes the membranes again instead of having stored them. `sw.neuron` is the reference; the tests
hold the two against each other.

Kernels see a dense [T, M] block (or [T, M, C] with one threshold a channel), so that one compilation serves
every layer of a network.
"""

from __future__ import annotations

import torch
from torch import Tensor

from s2tdpt.golden.errors import UserError


def _membranes(current: Tensor, threshold: Tensor, floor_leak: bool, steps: int, repeated: bool):
    """Membrane of every step, as a list, in float32 or wider."""
    wide = threshold.dtype
    found, u = [], None
    for t in range(steps):
        x = (current if repeated else current[t]).to(wide)
        if u is not None:
            leak = u * 0.5
            if floor_leak:
                leak = leak.floor()
            x = torch.where(u >= threshold, torch.zeros_like(leak), leak) + x  # Ref: Eqs. 7, 9
        u = x
        found.append(u)
    return found


def _spikes(
    current: Tensor, threshold: Tensor, dtype: torch.dtype, floor_leak: bool, steps: int, repeated: bool
) -> Tensor:
    membranes = _membranes(current, threshold, floor_leak, steps, repeated)
    return torch.stack([(u >= threshold).to(dtype) for u in membranes])  # Ref: Eq. 8


def _gradient(
    current: Tensor,
    threshold: Tensor,
    steepness: Tensor,
    grad_spikes: Tensor,
    floor_leak: bool,
    steps: int,
    repeated: bool,
) -> Tensor:
    membranes = _membranes(current, threshold, floor_leak, steps, repeated)
    grads, later = [None] * steps, None
    for t in reversed(range(steps)):
        u = membranes[t]
        gate = torch.sigmoid((u - threshold) * steepness)
        grad = gate * (1.0 - gate) * steepness * grad_spikes[t].to(u.dtype)  # through S = step(u - threshold)
        if later is not None:  # through H = (1 - S) u / 2, S detached
            grad = grad + torch.where(u < threshold, later * 0.5, torch.zeros_like(later))
        grads[t] = later = grad
    if repeated:
        return sum(grads[1:], start=grads[0]).to(current.dtype)
    return torch.stack(grads).to(current.dtype)


VARIANTS = 64
"""Kernels of one function, at most: types, threshold layout, leak, T and repetition each make another."""

_compiled: dict[str, object] = {}


def _run(name: str, function, *arguments):
    if name not in _compiled:
        torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, VARIANTS)
        _compiled[name] = torch.compile(function, dynamic=True, fullgraph=True)
    try:
        return _compiled[name](*arguments)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:
        if "compiler" in str(error).lower():
            raise UserError(
                "the fused neuron could not be compiled (no working C++ or CUDA compiler was found); "
                "expected one, such as g++; install it or train with --no-fused"
            ) from None
        raise


def _order(x: Tensor, lead: int) -> list[int]:
    """Axes, the first `lead` and then the others as they lie in memory, outermost first."""
    rest = sorted(range(lead, x.dim()), key=lambda axis: -x.stride(axis))
    return [*range(lead), *rest]


def _block(current: Tensor, threshold: Tensor, steepness: Tensor, repeated: bool):
    """The ways into and out of a dense [T, M] or [T, M, C] block of `current`, and matching parameters."""
    lead = 0 if repeated else 1
    channels = [axis for axis in range(-threshold.dim(), 0) if threshold.shape[axis] > 1]
    if len(channels) > 1:
        raise ValueError(f"thresholds vary along several axes: {tuple(threshold.shape)}")
    order = _order(current, lead)
    if channels:  # the axis with its own thresholds goes last
        axis = current.dim() + channels[0]
        order = [a for a in order if a != axis] + [axis]
    shape = [current.shape[a] for a in order]
    tail = [current.shape[order[-1]]] if channels else []

    def down(x: Tensor, steps: bool) -> Tensor:
        """Into the block; `steps`: `x` has a time axis that `current` may lack."""
        extra = int(steps and repeated)
        axes = [0] * extra + [a + extra for a in order]
        first = [x.shape[0]] if steps or not repeated else []
        return x.permute(axes).reshape(*first, -1, *tail)

    def up(block: Tensor, steps: bool) -> Tensor:
        """Out of the block, in the order of `current`."""
        extra = int(steps and repeated)
        full = block.reshape(*([block.shape[0]] if extra else []), *shape)
        back = [0] * extra + [order.index(a) + extra for a in range(current.dim())]
        return full.permute(back)

    flat = [p.reshape(-1) if channels and p.numel() > 1 else p.reshape(()) for p in (threshold, steepness)]
    return down, up, *flat


def spikes(
    current: Tensor, threshold: Tensor, dtype: torch.dtype, floor_leak: bool, steps: int, repeated: bool
) -> Tensor:
    """Spikes [T, ...] of type `dtype` of `current`, [T, ...] or, `repeated`, [...]; see `sw.neuron.lif`."""
    down, up, theta, _ = _block(current, threshold, threshold, repeated)
    return up(_run("spikes", _spikes, down(current, False), theta, dtype, floor_leak, steps, repeated), True)


def gradient(
    current: Tensor,
    threshold: Tensor,
    steepness: Tensor,
    grad_spikes: Tensor,
    floor_leak: bool,
    steps: int,
    repeated: bool,
) -> Tensor:
    """Gradient with respect to `current` of a loss whose gradient in the spikes is `grad_spikes` [T, ...]."""
    down, up, theta, steep = _block(current, threshold, steepness, repeated)
    block = _run(
        "gradient",
        _gradient,
        down(current, False),
        theta,
        steep,
        down(grad_spikes, True),
        floor_leak,
        steps,
        repeated,
    )
    return up(block, False)
