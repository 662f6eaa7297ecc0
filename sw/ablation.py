"""What the attention of a trained network contributes: take it away, or its information, and count again.

Accuracy alone does not show that an attention works: stem and MLPs may carry the answer. Here one part of
the attention is replaced while everything else stays as trained, and the same images are classified again:

- ``zero``: Y = 0, no attention at all (the projection's bias remains);
- ``table_mean``: every A_ij is the mean of the STDP table, so that Y is a plain sum of V;
- ``data_mean``: every A_ij of a head is the mean of A over the images, the fairest constant;
- ``shuffled_queries``: Q_i goes to another token of the same image, head and step;
- ``shuffled_keys``: K_j does;
- ``other_image``: what steers the attention comes from another image, what it passes on from this one.

The last of the projections that exist (V, or K where there is no V) is passed on, those before it steer. An
ablation that an attention has no part for is left out: `table_mean` without a table, `data_mean` where Y is
not A V, the last three where nothing steers.

The constants of a table lie on its grid (1/256), so that an integer network stays one. The last three keep
every statistic of the spikes and remove only what they say about tokens or images: where they cost nothing,
the attention's answers do not matter, however alive its neurons are.

References
----------
STEP: arXiv 2505.11151 (random attention reaches the accuracy of a trained one: controls are needed).
S2TDPT: arXiv 2511.14691 (A_ij depends on r_K(j) - r_Q(i); LTP where r_K(j) < r_Q(i)).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from s2tdpt.golden.config import NetworkConfig
from s2tdpt.golden.errors import UserError
from s2tdpt.golden.layers import Kind
from s2tdpt.sw.evaluate import as_images

ABLATIONS = ("zero", "table_mean", "data_mean", "shuffled_queries", "shuffled_keys", "other_image")
"""What `ablate` knows; see the module text."""

_SHUFFLES = {"shuffled_queries": Kind.Q, "shuffled_keys": Kind.K}


def table_mean(config: NetworkConfig) -> int:
    """Mean of the kernel of an attention that has one, on its own grid: an integer in 1/256."""
    return round(float(config.attention.kernel(config).astype(np.float64).mean()))


def applicable(network: nn.Module) -> tuple[str, ...]:
    """The `ABLATIONS` for which the attention of `network` has a part."""
    mechanism = network.config.attention
    steering = mechanism.projections[:-1]
    have = {
        "table_mean": _kernel(network) is not None,
        "data_mean": _weighs_values(network),
        "other_image": bool(steering),
        **{name: kind in steering for name, kind in _SHUFFLES.items()},
    }
    return tuple(name for name in ABLATIONS if have.get(name, True))


def _kernel(network: nn.Module) -> np.ndarray | None:
    return getattr(attention_modules(network)[0], "kernel", None)


def _weighs_values(network: nn.Module) -> bool:
    return all(getattr(module, "weighs_values", False) for module in attention_modules(network))


def attention_modules(network: nn.Module) -> list[nn.Module]:
    """The attention of every block, of a float `Network` or an integer `QatNetwork`."""
    if hasattr(network, "attentions"):
        return list(network.attentions)
    return [block.attention for block in network.blocks]


@contextmanager
def replaced_attention(network: nn.Module, make: Callable[[int, nn.Module], nn.Module]) -> Iterator[None]:
    """Within the context, block b's attention is ``make(b, trained)``; afterwards it is the trained one."""
    trained = attention_modules(network)

    def put(modules: list[nn.Module]) -> None:
        for b, module in enumerate(modules):
            if hasattr(network, "attentions"):
                network.attentions[b] = module
            else:
                network.blocks[b].attention = module

    replacements = [make(b, module).train(network.training) for b, module in enumerate(trained)]
    for replacement, module in zip(replacements, trained, strict=True):
        replacement.integers = module.integers  # what an integer network derives its bounds from
    put(replacements)
    try:
        yield
    finally:
        put(trained)


class ConstantAttention(nn.Module):
    """Y_i = a sum_j V_j: all tokens attend alike; a = 0 is no attention.

    Parameters
    ----------
    weight : float, or tensor [heads]
        a, in the unit of the replaced attention (1/256 for STDP).
    threshold : int
        Firing threshold of LIF_attn, as in `sw.attention`.
    """

    def __init__(self, weight: float | Tensor, threshold: int):
        super().__init__()
        self.register_buffer("weight", torch.as_tensor(weight, dtype=torch.float64), persistent=False)
        self.threshold = threshold

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """The last projection, {0,1} [T, B, h, N, d_h] -> Y, same shape."""
        last = next(spikes for spikes in (v, k, q) if spikes is not None)
        weight = self.weight.to(last.dtype)
        weight = weight[:, None, None] if weight.dim() else weight
        return (weight * last.sum(-2, keepdim=True)).expand_as(last)


class _Rearranged(nn.Module):
    """The trained attention with q or k, or both, from another token or another image."""

    def __init__(self, trained: nn.Module, name: str, seed: int):
        super().__init__()
        self.trained, self.name, self.threshold = trained, name, trained.threshold
        self.generator = torch.Generator().manual_seed(seed)

    def _shuffled(self, spikes: Tensor) -> Tensor:
        """Tokens in an order drawn for every step, image and head."""
        order = torch.rand(spikes.shape[:-1], generator=self.generator).argsort(-1)
        return spikes.gather(-2, order.to(spikes.device).unsqueeze(-1).expand_as(spikes))

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        parts = {kind: s for kind, s in ((Kind.Q, q), (Kind.K, k), (Kind.V, v)) if s is not None}
        if (kind := _SHUFFLES.get(self.name)) is not None:
            parts[kind] = self._shuffled(parts[kind])
        else:  # [T, B, h, N, d_h]: the image before in the batch
            for kind in list(parts)[:-1]:
                parts[kind] = parts[kind].roll(1, dims=1)
        return self.trained(*(parts.get(kind) for kind in (Kind.Q, Kind.K, Kind.V)))


class _Probe(nn.Module):
    """The trained attention Y = A V; remembers the sum of A_ij per head (A times V = 1 is its row sum)."""

    def __init__(self, trained: nn.Module):
        super().__init__()
        self.trained, self.threshold = trained, trained.threshold
        self.total, self.pairs = 0.0, 0

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        rows = self.trained(q, k, torch.ones_like(v))[..., 0].double()  # [T, B, h, N]
        self.total = self.total + rows.sum(dim=(0, 1, 3)).cpu()
        self.pairs += rows.shape[0] * rows.shape[1] * rows.shape[3] ** 2
        return self.trained(q, k, v)

    @property
    def mean(self) -> Tensor:
        """Mean of A_ij, [heads]."""
        return self.total / self.pairs


@dataclass(frozen=True)
class Ablation:
    """One replacement on `images` labelled images.

    `lost` were right with the trained attention and are wrong without it, `gained` the other way round.
    """

    images: int
    correct: int
    lost: int
    gained: int

    @property
    def accuracy(self) -> float:
        return self.correct / self.images

    @property
    def drop(self) -> float:
        """Accuracy that the replaced part contributes, in 0..1 (negative if it did harm)."""
        return (self.lost - self.gained) / self.images

    @property
    def error(self) -> float:
        """Standard error of `drop`: the images are the same, so only those that changed count (McNemar)."""
        spread = self.lost + self.gained - (self.lost - self.gained) ** 2 / self.images
        return float(np.sqrt(max(spread, 0.0))) / self.images


@dataclass
class AblationReport:
    """Result of `ablate`.

    `rates` by ``block.b.part`` (share of neurons and steps that fire, part q, k, v or attn), `spread` by
    ``block.b.q`` and ``.k`` (standard deviation over tokens of a head's count, mean over images, steps and
    heads), `ltp_share` a block (share of pairs i, j with r_K(j) < r_Q(i), 0..1), `a_mean` and `a_deviation`
    a block (mean and standard deviation of A_ij over everything, 0..1). Rates, spreads and shares of
    projections that do not exist are left out, and the last two where the attention is no kernel of counts.
    """

    images: int
    correct: int
    ablations: dict[str, Ablation] = field(default_factory=dict)
    rates: dict[str, float] = field(default_factory=dict)
    spread: dict[str, float] = field(default_factory=dict)
    ltp_share: list[float] = field(default_factory=list)
    a_mean: list[float] = field(default_factory=list)
    a_deviation: list[float] = field(default_factory=list)

    @property
    def accuracy(self) -> float:
        return self.correct / self.images

    def to_json(self) -> dict[str, Any]:
        """Plain values; rates rounded to 1e-6."""
        digits = lambda table: {key: round(value, 6) for key, value in table.items()}  # noqa: E731
        return {
            "images": self.images,
            "correct": self.correct,
            "ablations": {
                name: {"correct": a.correct, "lost": a.lost, "gained": a.gained}
                for name, a in self.ablations.items()
            },
            "rates": digits(self.rates),
            "spread": digits(self.spread),
            "ltp_share": [round(value, 6) for value in self.ltp_share],
            "a_mean": [round(value, 6) for value in self.a_mean],
            "a_deviation": [round(value, 6) for value in self.a_deviation],
        }


class _Statistics:
    """Rates, spreads and pair differences, summed batch by batch."""

    def __init__(self, config: NetworkConfig):
        self.config, self.images = config, 0
        self.sums: dict[str, float] = {}
        self.spreads: dict[str, float] = {}
        self.pairs = [torch.zeros(2 * config.head_dim + 1, dtype=torch.float64) for _ in range(config.depth)]

    def add(self, record: dict[str, Tensor], count: int) -> None:
        config, span = self.config, self.config.head_dim
        self.images += count
        for b in range(config.depth):
            counts = {}
            for part in (*config.attention.projections, "attn"):
                name = f"block.{b}.{part}"
                fired = (record[name] != 0).double()
                self.sums[name] = self.sums.get(name, 0.0) + float(fired.mean()) * count
                if part in "qk":
                    counts[part] = fired.unflatten(-1, (config.heads, -1)).sum(-1)  # [T, B, N, h]
                    if config.tokens > 1:
                        deviation = float(counts[part].std(dim=2).mean())
                        self.spreads[name] = self.spreads.get(name, 0.0) + deviation * count
            if len(counts) < 2:
                continue
            # Pairs with difference d: the cross-correlation of the two histograms of counts.
            q, k = (self._histogram(counts[part]) for part in "qk")  # [M, d_h + 1]
            for d in range(-span, span + 1):
                low, high = max(0, -d), min(span, span - d)
                pairs = (q[:, low : high + 1] * k[:, low + d : high + d + 1]).sum()
                self.pairs[b][d + span] += float(pairs)

    def _histogram(self, counts: Tensor) -> Tensor:
        """[T, B, N, h] -> for every step, image and head, how many tokens have each count."""
        flat = counts.transpose(2, 3).flatten(0, 2).long()  # [M, N]
        table = torch.zeros(len(flat), self.config.head_dim + 1, dtype=torch.float64, device=flat.device)
        return table.scatter_add_(1, flat, torch.ones_like(flat, dtype=torch.float64))

    def finish(self, report: AblationReport, kernel: np.ndarray | None) -> None:
        report.rates = {name: value / self.images for name, value in self.sums.items()}
        report.spread = {name: value / self.images for name, value in self.spreads.items()}
        if not {Kind.Q, Kind.K} <= set(self.config.attention.projections):
            return
        for pairs in self.pairs:
            share = pairs / pairs.sum()
            report.ltp_share.append(float(share[: self.config.head_dim].sum()))
            if kernel is not None:
                table = torch.as_tensor(kernel.astype(np.float64)) / 256.0
                mean = float((share * table).sum())
                report.a_mean.append(mean)
                report.a_deviation.append(float((share * (table - mean) ** 2).sum().sqrt()))


def _classes(
    network: nn.Module, images: Tensor, batch_size: int, statistics: _Statistics | None = None
) -> Tensor:
    """Class of every image; of equal logits the first wins. No batch is smaller than `batch_size` unless
    there are too few images, so that every image has another one beside it."""
    device, classes = next(network.parameters()).device, []
    for batch in images.tensor_split(max(1, len(images) // batch_size)):
        record: dict[str, Tensor] = {}
        logits = network(batch.to(device), record)
        top = logits == logits.amax(1, keepdim=True)
        index = torch.arange(logits.shape[1], device=device)
        classes.append(torch.where(top, index, logits.shape[1]).amin(1).cpu())
        if statistics is not None:
            statistics.add(record, len(batch))
    return torch.cat(classes)


@torch.no_grad()
def ablate(
    network: nn.Module,
    images: np.ndarray | Tensor,
    labels: np.ndarray | Tensor,
    names: tuple[str, ...] = ABLATIONS,
    seed: int = 0,
    batch_size: int = 128,
) -> AblationReport:
    """Accuracy with the trained attention and with each replacement, and what the attention's neurons do.

    Parameters
    ----------
    network : Network or QatNetwork
        Left as it was, its training mode included. An integer network stays one in every ablation.
    images : uint8 [M, H, W, C], M >= 2
    names : of `ABLATIONS`
    seed : int
        Of the shuffles.

    Raises
    ------
    UserError
        Unknown ablation, or fewer than two images.
    """
    if unknown := [name for name in names if name not in ABLATIONS]:
        raise UserError(
            f"unknown ablation {unknown[0]!r}; expected one of {', '.join(ABLATIONS)}; choose one of these"
        )
    images, labels = as_images(images), torch.as_tensor(labels)
    if len(images) < 2:
        raise UserError(f"{len(images)} images to ablate on; expected at least 2; give more")
    config = network.config
    was_training = network.training
    network.eval()
    try:
        statistics, means = _Statistics(config), []
        if _weighs_values(network):
            probes = [_Probe(module) for module in attention_modules(network)]
            with replaced_attention(network, lambda b, _: probes[b]):
                whole = _classes(network, images, batch_size, statistics) == labels
            # A kernel's weights lie on the grid 1/256; A of counts would round to nothing.
            fine = _kernel(network) is not None
            means = [probe.mean.round() if fine else probe.mean for probe in probes]
        else:
            whole = _classes(network, images, batch_size, statistics) == labels
        report = AblationReport(len(images), int(whole.sum()))
        statistics.finish(report, _kernel(network))

        def make(name: str) -> Callable[[int, nn.Module], nn.Module]:
            constants = {"zero": lambda b: 0.0, "table_mean": lambda b: float(table_mean(config))}
            constants["data_mean"] = lambda b: means[b]
            if name in constants:
                return lambda b, trained: ConstantAttention(constants[name](b), trained.threshold).to(
                    next(network.parameters()).device
                )
            return lambda b, trained: _Rearranged(trained, name, seed + b)

        for name in (name for name in names if name in applicable(network)):
            with replaced_attention(network, make(name)):
                right = _classes(network, images, batch_size) == labels
            report.ablations[name] = Ablation(
                len(images), int(right.sum()), int((whole & ~right).sum()), int((~whole & right).sum())
            )
    finally:
        network.train(was_training)
    return report
