"""STDP self-attention and its gradient variants.

The kernel has a derivative problem. As a function of d = r_K(j) - r_Q(i) it rises on both sides of
d = 0 (slope kappa A exp(-kappa |d|)) and falls by about 2A at the tie, a step of the opposite sign that
plain differentiation cannot see. The variants differ only in the slope table used on the way back.

References
----------
S2TDPT: arXiv 2511.14691, sections 2.1 and 2.3 (latency code, STDP kernel, attention).
"""

from __future__ import annotations

import torch
from torch import Tensor

from s2tdpt.golden.attention.stdp import Stdp
from s2tdpt.golden.config import NetworkConfig
from s2tdpt.golden.errors import UserError
from s2tdpt.sw.attention.base import AttentionModule
from s2tdpt.sw.names import STDP_GRADIENTS, KernelGradient


def kernel_slope(mechanism: Stdp, head_dim: int, gradient: KernelGradient) -> Tensor:
    """Derivative table of the STDP kernel that a gradient variant uses.

    Parameters
    ----------
    mechanism : Stdp
    head_dim : int
        d_h.
    gradient : KernelGradient
        "autodiff" is the derivative of the two exponential branches; "window" adds the step at the tie,
        spread over a triangle of unit area with the half-width (> 0) as half of its base, in counts, centred
        at d = -1/2, between the last LTP entry and the tie; "detached" is zero, so that q and k stay as they
        are.

    Returns
    -------
    float32 tensor [2 d_h + 1], per count, in kernel units (1/256); entry d + d_h belongs to d.
    """
    if gradient.variant not in STDP_GRADIENTS:
        raise UserError(
            f"unknown STDP gradient {gradient.variant!r}; expected one of {', '.join(STDP_GRADIENTS)}; "
            "choose one of these"
        )
    half_width = gradient.half_width
    if not half_width > 0:
        raise UserError(
            f"window half-width {half_width} is not positive; expected a number of counts > 0; try 3"
        )
    d = torch.arange(-head_dim, head_dim + 1, dtype=torch.float64)
    if gradient.variant == "detached":
        return torch.zeros_like(d, dtype=torch.float32)
    slope = mechanism.kappa * mechanism.amplitude * torch.exp(-mechanism.kappa * d.abs())
    if gradient.variant == "window":
        window = (1.0 - (d + 0.5).abs() / half_width).clamp_min(0.0) / half_width
        slope = slope - 2.0 * mechanism.amplitude * window
    return slope.float()


class _LookUp(torch.autograd.Function):
    """Table look-up of integer-valued differences, with a second table as its derivative."""

    @staticmethod
    def forward(ctx, d: Tensor, table: Tensor, slope: Tensor) -> Tensor:
        index = d.detach().long() + (table.numel() - 1) // 2
        ctx.save_for_backward(index, slope)
        return table.to(d.dtype)[index]

    @staticmethod
    def backward(ctx, grad: Tensor):
        index, slope = ctx.saved_tensors
        return grad * slope.to(grad.dtype)[index], None, None


class _ByCounts(torch.autograd.Function):
    """The same product and gradient, linear in tokens: A depends on token i through r_Q(i) alone.

    With P the one-hot r_Q [N, d_h + 1], R the one-hot r_K and M[q, k] = LUT[k - q], A = P M R^T. So
    Y = P (M (R^T V)): V summed by key count, weighted by the table, read by query count; no N x N matrix.
    """

    @staticmethod
    def forward(ctx, q: Tensor, k: Tensor, v: Tensor, table: Tensor, slope: Tensor):
        q_hot, k_hot = _one_hot_counts(q), _one_hot_counts(k)
        by_key = k_hot.mT @ v  # [..., d_h + 1, d_h]
        ctx.save_for_backward(q_hot, k_hot, by_key, v, table, slope)
        return q_hot @ (_toeplitz(table).to(v.dtype) @ by_key)

    @staticmethod
    def backward(ctx, grad: Tensor):
        q_hot, k_hot, by_key, v, table, slope = ctx.saved_tensors
        by_query = q_hot.mT @ grad  # [..., d_h + 1, d_h]
        steep = _toeplitz(slope).to(grad.dtype)
        grad_v = k_hot @ (_toeplitz(table).to(grad.dtype).mT @ by_query)
        # d = r_K - r_Q: a channel of K_j takes the sum over i of (dY_i . V_j) slope, Q_i minus that over j.
        grad_q = -((q_hot @ (steep @ by_key)) * grad).sum(-1, keepdim=True).expand_as(grad)
        grad_k = ((k_hot @ (steep.mT @ by_query)) * v).sum(-1, keepdim=True).expand_as(grad)
        return grad_q, grad_k, grad_v, None, None


def _one_hot_counts(spikes: Tensor) -> Tensor:
    """{0,1} [..., N, d_h] -> one-hot spike count [..., N, d_h + 1], in the type of `spikes`."""
    levels = torch.arange(spikes.shape[-1] + 1, dtype=spikes.dtype, device=spikes.device)
    return (spikes.sum(-1, keepdim=True) == levels).to(spikes.dtype)


def _toeplitz(table: Tensor) -> Tensor:
    """Table over differences [2 d_h + 1] -> matrix [q, k] of entries at k - q, [d_h + 1, d_h + 1]."""
    counts = torch.arange((table.numel() + 1) // 2, device=table.device)
    return table[counts[None, :] - counts[:, None] + counts[-1]]


class StdpAttention(AttentionModule):
    """Y_i = sum_j LUT[r_K(j) - r_Q(i)] V_j, per head and time step (Ref: sections 2.1, 2.3).

    Few tokens: the matrix A, looked up. More tokens than counts: by counts, linear in tokens. Both are exact.
    """

    weighs_values = True

    def __init__(self, config: NetworkConfig, gradient: KernelGradient):
        super().__init__(config)
        table = torch.as_tensor(config.attention.kernel(config).astype("float32"))
        slope = kernel_slope(config.attention, config.head_dim, gradient)
        self.register_buffer("table", table, persistent=False)  # [2 d_h + 1]
        self.register_buffer("slope", slope, persistent=False)

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """q, k, v: {0,1} [..., N, d_h] -> Y [..., N, d_h], integers in steps of 1/256."""
        if q.shape[-2] > q.shape[-1]:
            return _ByCounts.apply(q, k, v, self.table, self.slope)
        d = k.sum(-1).unsqueeze(-2) - q.sum(-1).unsqueeze(-1)  # [..., i, j] = r_K(j) - r_Q(i)
        return _LookUp.apply(d, self.table, self.slope) @ v
