"""Optimisers: AdamW for everything, or Muon for the matrices and AdamW for the rest.

Muon takes the momentum of a matrix, replaces it by the nearest orthogonal one (all singular values near 1, by
a few matrix products) and steps by that: every direction of a layer learns at the same rate, which pays most
where the number of steps is small.

Every matrix and kernel of the float network but the head is followed by a BatchNorm, so its scale means
nothing. Muon keeps each on the sphere of radius sqrt(rows); its rate is then the relative change of a step,
the same for every layer, and there is no weight decay to choose.

References
----------
Muon: Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/ (orthogonalised momentum, quintic
Newton-Schulz iteration and its coefficients; normalised weights in the CIFAR-10 speed runs of that author).
AdamW: Loshchilov and Hutter, arXiv 1711.05101; recipe of Spikingformer, arXiv 2304.11954, public code.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
"""Coefficients of the odd quintic that pulls singular values towards 1 (they end between 0.7 and 1.2)."""
ITERATIONS = 5
MOMENTUM = 0.9
"""Of Muon, with Nesterov's look-ahead. Batches of 128 are noisy, so the average is longer than in the
speed runs, whose batches hold 2000 images (0.6)."""


def orthogonalised(matrix: Tensor) -> Tensor:
    """The semi-orthogonal matrix nearest to `matrix` [rows, columns], roughly, in bfloat16 precision."""
    a, b, c = NEWTON_SCHULZ
    x = matrix.bfloat16()
    x = x / (x.norm() + 1e-7)
    if wide := x.shape[0] < x.shape[1]:
        x = x.T
    for _ in range(ITERATIONS):  # the smaller Gram matrix: columns x columns
        gram = x.T @ x
        x = a * x + x @ (b * gram + c * gram @ gram)
    return (x.T if wide else x).to(matrix.dtype)


class Muon(torch.optim.Optimizer):
    """Muon on normed matrices and kernels, AdamW on everything else, as one optimiser.

    Parameters
    ----------
    matrices : list of parameters [rows, ...]
        Each followed by a norm; a kernel counts as a matrix [Co, Ci k k].
    others : list of parameters
    lr : float
        Rate of AdamW.
    matrix_lr : float
        Relative change of a matrix in one step. A group's ``factor`` is its rate over `lr`, so that one
        schedule drives both.
    """

    def __init__(self, matrices: list[nn.Parameter], others: list[nn.Parameter], lr: float, matrix_lr: float):
        groups = [
            {"params": matrices, "muon": True, "factor": matrix_lr / lr},
            {"params": others, "muon": False, "factor": 1.0},
        ]
        super().__init__([group for group in groups if group["params"]], {"lr": lr})

    @torch.no_grad()
    def step(self, closure=None) -> None:
        """One step; parameters without a gradient stay."""
        for group in self.param_groups:
            take = self._muon if group["muon"] else self._adam
            for p in group["params"]:
                if p.grad is not None:
                    take(p, group["lr"])

    def _muon(self, p: nn.Parameter, lr: float) -> None:
        state = self.state[p]
        if not state:
            state["momentum"] = torch.zeros_like(p)
        momentum = state["momentum"].lerp_(p.grad, 1.0 - MOMENTUM)
        ahead = p.grad.lerp(momentum, MOMENTUM).flatten(1)
        p.mul_(math.sqrt(len(p)) / p.norm().clamp_min(1e-12))
        p.add_(orthogonalised(ahead).reshape(p.shape), alpha=-lr * _update_scale(*ahead.shape))

    def _adam(self, p: nn.Parameter, lr: float, betas=(0.9, 0.99), eps: float = 1e-8) -> None:
        state = self.state[p]
        if not state:
            state |= {"step": torch.zeros(()), "mean": torch.zeros_like(p), "square": torch.zeros_like(p)}
        count = state["step"].add_(1.0)
        mean = state["mean"].lerp_(p.grad, 1.0 - betas[0])
        square = state["square"].mul_(betas[1]).addcmul_(p.grad, p.grad, value=1.0 - betas[1])
        first, second = (1.0 - beta ** float(count) for beta in betas)
        p.addcdiv_(mean, (square / second).sqrt_().add_(eps), value=-lr / first)


def _update_scale(rows: int, columns: int) -> float:
    """Factor that gives the update the norm of the weights, sqrt(rows), whatever the shape."""
    return math.sqrt(rows / min(rows, columns))


def normed_matrices(network: nn.Module) -> list[nn.Parameter]:
    """Matrices and kernels of `network` that a BatchNorm follows, in order."""
    return [
        module.map.weight
        for module in network.modules()
        if hasattr(module, "map")
        and isinstance(getattr(module, "norm", None), nn.modules.batchnorm._BatchNorm)
    ]


def make_optimizer(
    network: nn.Module, lr: float, weight_decay: float, kind: str = "adamw", matrix_lr: float = 0.0
) -> torch.optim.Optimizer:
    """The optimiser of a stage.

    "adamw": decay on matrices and kernels only, never on biases and norms. "muon": `Muon` where the network
    has normed matrices, else AdamW (the integer network has no norms).
    """
    if kind == "muon" and (matrices := normed_matrices(network)):
        known = {id(p) for p in matrices}
        return Muon(matrices, [p for p in network.parameters() if id(p) not in known], lr, matrix_lr)
    decayed = [p for p in network.parameters() if p.dim() > 1]
    plain = [p for p in network.parameters() if p.dim() <= 1]
    on_gpu = any(p.is_cuda for p in decayed)
    return torch.optim.AdamW(
        [{"params": decayed, "weight_decay": weight_decay}, {"params": plain, "weight_decay": 0.0}],
        lr=lr,
        fused=on_gpu or None,
    )
