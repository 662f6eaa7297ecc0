"""STDP self-attention, its gradient variants, and the controls it is compared with.

Every attention here has one interface: binary q, k, v in, the integer-valued Y out, and a firing
threshold in Y's own unit, so that the scale s of the paper is folded into the threshold and no
multiplication is left. ``threshold`` stands for the real value 1.0 (twice the paper's 0.5).

The kernel has a derivative problem. As a function of d = r_K(j) - r_Q(i) it rises on both sides of
d = 0 (slope kappa A exp(-kappa |d|)) and falls by about 2A at the tie, a step of the opposite sign that
plain differentiation cannot see. The variants differ only in the slope table used on the way back.

References
----------
S2TDPT: arXiv 2511.14691, sections 2.1 and 2.3 (latency code, STDP kernel, attention).
STEP: arXiv 2505.11151 (random attention as a control).
Spikformer: arXiv 2209.15425 (SSA, scale 1/8).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from s2tdpt.golden.config import NetworkConfig
from s2tdpt.golden.errors import UserError
from s2tdpt.golden.stdp import build_lut
from s2tdpt.sw.names import DEFAULT_HALF_WIDTH, DEFAULT_VARIANT, STDP_GRADIENTS, VARIANTS

SSA_SCALE_LOG2 = 3
"""s = 1/8 in Spikformer and Spikingformer."""


def kernel_slope(config: NetworkConfig, gradient: str, half_width: float = DEFAULT_HALF_WIDTH) -> Tensor:
    """Derivative table of the STDP kernel that a gradient variant uses.

    Parameters
    ----------
    config : NetworkConfig
    gradient : {"autodiff", "window", "detached"}
        "autodiff" is the derivative of the two exponential branches; "window" adds the step at the tie,
        spread over a triangle of unit area; "detached" is zero, so that q and k stay as they are.
    half_width : float
        Half of the triangle's base, in counts (> 0). The triangle is centred at d = -1/2, between the
        last LTP entry and the tie.

    Returns
    -------
    float32 tensor [2 d_h + 1], per count, in kernel units (1/256); entry d + d_h belongs to d.
    """
    if gradient not in STDP_GRADIENTS:
        raise UserError(
            f"unknown STDP gradient {gradient!r}; expected one of {', '.join(STDP_GRADIENTS)}; "
            "choose one of these"
        )
    if not half_width > 0:
        raise UserError(
            f"window half-width {half_width} is not positive; expected a number of counts > 0; try 3"
        )
    d = torch.arange(-config.head_dim, config.head_dim + 1, dtype=torch.float64)
    if gradient == "detached":
        return torch.zeros_like(d, dtype=torch.float32)
    slope = config.kappa * config.stdp_amplitude * torch.exp(-config.kappa * d.abs())
    if gradient == "window":
        window = (1.0 - (d + 0.5).abs() / half_width).clamp_min(0.0) / half_width
        slope = slope - 2.0 * config.stdp_amplitude * window
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


class StdpAttention(nn.Module):
    """Y_i = sum_j LUT[r_K(j) - r_Q(i)] V_j, per head and time step (Ref: sections 2.1, 2.3).

    Few tokens: the matrix A, looked up. More tokens than counts: by counts, linear in tokens. Both are exact.
    """

    def __init__(
        self, config: NetworkConfig, gradient: str = DEFAULT_VARIANT, half_width: float = DEFAULT_HALF_WIDTH
    ):
        super().__init__()
        table = torch.as_tensor(build_lut(config).astype("float32"))
        self.register_buffer("table", table, persistent=False)  # [2 d_h + 1]
        self.register_buffer("slope", kernel_slope(config, gradient, half_width), persistent=False)
        self.threshold = config.attention_threshold  # real 1.0, in steps of s/256

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """q, k, v: {0,1} [..., N, d_h] -> Y [..., N, d_h], integers in steps of 1/256."""
        if q.shape[-2] > q.shape[-1]:
            return _ByCounts.apply(q, k, v, self.table, self.slope)
        d = k.sum(-1).unsqueeze(-2) - q.sum(-1).unsqueeze(-1)  # [..., i, j] = r_K(j) - r_Q(i)
        return _LookUp.apply(d, self.table, self.slope) @ v


class SsaAttention(nn.Module):
    """Control: Y = Q K^T V, the spiking self-attention without softmax."""

    def __init__(self, config: NetworkConfig):
        super().__init__()
        self.threshold = 1 << SSA_SCALE_LOG2

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """q, k, v: {0,1} [..., N, d_h] -> Y [..., N, d_h], non-negative integers."""
        return (q @ k.transpose(-1, -2)) @ v


class RandomAttention(nn.Module):
    """Control: a fixed random A with the STDP kernel's range and grid; q and k are ignored."""

    def __init__(self, config: NetworkConfig, seed: int = 0):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        low, high = config.stdp_offset - config.stdp_amplitude, config.stdp_offset + config.stdp_amplitude
        matrix = torch.randint(
            low, high + 1, (config.heads, config.tokens, config.tokens), generator=generator
        )
        self.register_buffer("matrix", matrix.float())  # [heads, N, N], same for every step
        self.threshold = config.attention_threshold

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """v: {0,1} [..., heads, N, d_h] -> Y [..., heads, N, d_h], integers in steps of 1/256."""
        return self.matrix.to(v.dtype) @ v


def make_attention(
    config: NetworkConfig,
    variant: str = DEFAULT_VARIANT,
    half_width: float = DEFAULT_HALF_WIDTH,
    seed: int = 0,
) -> nn.Module:
    """The attention named `variant` (one of `VARIANTS`); raises UserError for another name."""
    if variant in STDP_GRADIENTS:
        return StdpAttention(config, variant, half_width)
    if variant == "ssa":
        return SsaAttention(config)
    if variant == "random":
        return RandomAttention(config, seed)
    raise UserError(
        f"unknown attention {variant!r}; expected one of {', '.join(VARIANTS)}; choose one of these"
    )
