"""Ablation: what is replaced, on which grid, and that a network that needs its attention loses it."""

import numpy as np
import pytest
import torch

from s2tdpt.golden.errors import UserError
from s2tdpt.golden.network import GoldenNetwork
from s2tdpt.sw.ablation import (
    ABLATIONS,
    Ablation,
    ConstantAttention,
    ablate,
    attention_modules,
    replaced_attention,
    table_mean,
)
from s2tdpt.sw.attention.controls import RandomAttention
from s2tdpt.sw.evaluate import evaluate
from s2tdpt.sw.export import export
from s2tdpt.sw.fold import fold
from s2tdpt.sw.quantize import QatNetwork
from tests.sw.helpers import images_for, lively, small

CONFIG = small()
IMAGES = images_for(CONFIG, 40, 7)


def right_answers(network, images=IMAGES):
    """Labels that the network itself gives, so that its accuracy is 1."""
    with torch.no_grad():
        return network(torch.as_tensor(images)).argmax(1)


def integer(seed=0, config=CONFIG, **options):
    return QatNetwork.from_folded(fold(lively(config, seed, **options))).eval()


def loops(config, network, name, images, means):
    """Logits of an integer network with A replaced, by the golden model's matrix form and plain loops."""
    golden = GoldenNetwork(export(network))
    lut = torch.as_tensor(config.attention.kernel(config).astype(np.int64))

    def attention(b):
        def y(q, k, v):
            out = torch.zeros_like(v)
            r_q, r_k = q.sum(-1).long(), k.sum(-1).long()  # [T, B, h, N]
            for i in range(config.tokens):
                for j in range(config.tokens):
                    if name == "zero":
                        a = torch.zeros_like(r_q[..., 0])
                    elif name == "table_mean":
                        a = torch.full_like(r_q[..., 0], table_mean(config))
                    elif name == "data_mean":
                        a = means[b].expand_as(r_q[..., 0])
                    else:  # other image
                        d = r_k[:, :, :, j].roll(1, 1) - r_q[:, :, :, i].roll(1, 1)
                        a = lut[d + config.head_dim]
                    out[..., i, :] += a.unsqueeze(-1) * v[..., j, :]
            return out

        return y

    class Loops(torch.nn.Module):
        def __init__(self, b):
            super().__init__()
            self.threshold, self.y = network.attention_threshold, attention(b)

        def forward(self, q, k, v):
            return self.y(q, k, v)

    assert torch.equal(network(images), torch.as_tensor(golden.forward(images.numpy())).double())
    with replaced_attention(network, lambda b, _: Loops(b)):
        return network(images)


@torch.no_grad()
@pytest.mark.parametrize("name", ["zero", "table_mean", "data_mean", "other_image"])
def test_integer_ablation_equals_loops(name):
    network, images = integer(), torch.as_tensor(IMAGES[:8])
    # The mean of A per head, by hand over every pair, on the grid.
    record = {}
    network(images, record)
    means, lut = [], CONFIG.attention.kernel(CONFIG).astype(np.int64)
    for b in range(CONFIG.depth):
        counts = [record[f"block.{b}.{p}"].long().unflatten(-1, (CONFIG.heads, -1)).sum(-1) for p in "qk"]
        sums = np.zeros(CONFIG.heads)
        for i in range(CONFIG.tokens):
            for j in range(CONFIG.tokens):
                sums += lut[(counts[1][:, :, j] - counts[0][:, :, i]).numpy() + CONFIG.head_dim].sum((0, 1))
        pairs = CONFIG.timesteps * len(images) * CONFIG.tokens**2
        means.append(torch.as_tensor(np.rint(sums / pairs).astype(np.int64)))
    expected = loops(CONFIG, network, name, images, means)
    assert torch.equal(expected, expected.round())
    classes = expected.argmax(1)
    labels = (classes + (torch.arange(8) < 3)) % CONFIG.num_classes  # three of eight are wrong
    assert ablate(network, images, labels, (name,)).ablations[name].correct == 5
    changed = (expected != network(images)).any(1)
    assert changed.any()  # the replacement reaches the logits


@torch.no_grad()
@pytest.mark.parametrize("make", [lively, lambda config: integer()])
def test_report_agrees_with_evaluate_and_leaves_the_network(make):
    network = make(CONFIG)
    network.train()
    before, state = attention_modules(network), {k: v.clone() for k, v in network.state_dict().items()}
    labels = torch.arange(40) % CONFIG.num_classes
    report = ablate(network, IMAGES, labels)
    assert network.training and all(a is b for a, b in zip(before, attention_modules(network), strict=True))
    assert all(torch.equal(v, state[k]) for k, v in network.state_dict().items())
    plain = evaluate(network, IMAGES, labels)
    assert (report.correct, report.images) == (plain.correct, 40)
    assert tuple(report.ablations) == ABLATIONS
    for name, rate in report.rates.items():
        assert rate == pytest.approx(plain.rates[name], abs=1e-9)
    assert len(report.rates) == 4 * CONFIG.depth
    for name, spread in report.spread.items():
        assert spread == pytest.approx(plain.count_spread[name], abs=1e-6)
    for a in report.ablations.values():
        assert a.correct == report.correct - a.lost + a.gained
    assert ablate(network, IMAGES, labels).to_json() == report.to_json()  # the shuffles are seeded


@torch.no_grad()
def test_ltp_share_and_mean_of_the_matrix():
    network, record = lively(CONFIG), {}
    report = ablate(network, IMAGES, np.zeros(40, int), ())
    network(torch.as_tensor(IMAGES), record)
    lut = CONFIG.attention.kernel(CONFIG).astype(float) / 256
    for b in range(CONFIG.depth):
        r_q, r_k = (
            record[f"block.{b}.{p}"].unflatten(-1, (CONFIG.heads, -1)).sum(-1).long().numpy() for p in "qk"
        )
        d = r_k[:, :, None, :, :] - r_q[:, :, :, None, :]
        assert report.ltp_share[b] == pytest.approx((d < 0).mean())
        assert 0 < report.ltp_share[b] < 1
        a = lut[d + CONFIG.head_dim]
        assert report.a_mean[b] == pytest.approx(a.mean())
        assert report.a_deviation[b] == pytest.approx(a.std())


def test_constant_attention_is_a_sum_of_values():
    v = (torch.rand(2, 3, CONFIG.heads, 5, 4) < 0.4).float()
    y = ConstantAttention(torch.tensor([3.0, 7.0]), 256)(v, v, v)
    for head, weight in enumerate((3.0, 7.0)):
        for i in range(5):
            assert torch.equal(y[:, :, head, i], weight * v[:, :, head].sum(-2))
    assert not ConstantAttention(0.0, 256)(v, v, v).any()


@pytest.mark.parametrize("name", ["shuffled_queries", "shuffled_keys"])
def test_shuffles_move_counts_within_their_head_only(name):
    seen = {}

    class Spy(torch.nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner, self.threshold, self.weighs_values = inner, inner.threshold, inner.weighs_values

        def forward(self, q, k, v):
            seen.setdefault("calls", []).append((q, k, v))
            return self.inner(q, k, v)

    network = lively(small(depth=1))
    with replaced_attention(network, lambda b, trained: Spy(trained)):
        ablate(network, IMAGES, np.zeros(40, int), (name,))
    (q0, k0, v0), (q1, k1, v1) = seen["calls"][1], seen["calls"][-1]  # call 0 is the probe's, for A's mean
    moved, still = ((q0, q1), (k0, k1)) if name == "shuffled_queries" else ((k0, k1), (q0, q1))
    assert torch.equal(*still) and torch.equal(v0, v1)
    assert not torch.equal(*moved)
    before, after = (x.sum(-1).sort(-1).values for x in moved)
    assert torch.equal(before, after)


@torch.no_grad()
def test_a_network_that_lives_on_its_attention_loses_it_and_a_dead_one_does_not():
    network = lively(small(depth=1), 1)
    network.blocks[0].proj.norm.weight.fill_(20.0)  # Y outshouts everything else
    lost = ablate(network, IMAGES, right_answers(network)).ablations
    assert lost["zero"].drop == 1.0
    assert lost["shuffled_keys"].lost > 0
    network.blocks[0].proj.norm.weight.zero_()  # planted: nothing of Y gets through
    report = ablate(network, IMAGES, right_answers(network))
    assert report.accuracy == 1.0
    assert all((a.lost, a.gained) == (0, 0) for a in report.ablations.values())


@torch.no_grad()
def test_controls_can_be_ablated():
    ssa = lively(small(attention={"kind": "ssa"}))
    report = ablate(ssa, IMAGES, right_answers(ssa))
    assert tuple(report.ablations) == tuple(name for name in ABLATIONS if name != "table_mean")
    assert report.a_mean == []
    network = lively(CONFIG)
    for block in network.blocks:
        block.attention = RandomAttention(CONFIG)
    report = ablate(network, IMAGES, right_answers(network))
    for name in ("shuffled_queries", "shuffled_keys", "other_image"):
        assert (report.ablations[name].lost, report.ablations[name].gained) == (0, 0)
    assert report.a_mean == [] and "table_mean" not in report.ablations
    graded = lively(small(attention={"kind": "a2os2a"}))  # counts of what fires, whatever it emits
    report = ablate(graded, IMAGES, right_answers(graded))
    assert tuple(report.ablations) == tuple(name for name in ABLATIONS if name != "table_mean")
    assert 0 < report.rates["block.0.k"] < 1 and 0 < report.rates["block.0.v"] < 1
    for kind in ("uniform", "none"):  # nothing steers them: only to be without them can be tried
        network = lively(small(attention={"kind": kind}))
        report = ablate(network, IMAGES, right_answers(network))
        assert tuple(report.ablations) == ("zero",) and report.ltp_share == []
        assert set(report.rates) == {f"block.{b}.{part}" for b in (0, 1) for part in ("v", "attn")}


def test_drop_and_its_error():
    a = Ablation(images=1000, correct=850, lost=80, gained=30)
    assert (a.accuracy, a.drop) == (0.85, 0.05)
    changes = np.array([1.0] * 80 + [-1.0] * 30 + [0.0] * 890)
    assert a.error == pytest.approx(changes.std() / np.sqrt(1000))


def test_refusals():
    network = lively(CONFIG)
    with pytest.raises(UserError, match="unknown ablation 'nothing'; expected one of zero"):
        ablate(network, IMAGES, np.zeros(40, int), ("nothing",))
    with pytest.raises(UserError, match="1 images to ablate on; expected at least 2"):
        ablate(network, IMAGES[:1], np.zeros(1, int))


def test_an_error_inside_the_context_restores_the_attention():
    network = lively(CONFIG)
    before = attention_modules(network)
    with (
        pytest.raises(RuntimeError, match="halt"),
        replaced_attention(network, lambda b, _: ConstantAttention(0.0, 1)),
    ):
        assert all(isinstance(m, ConstantAttention) for m in attention_modules(network))
        raise RuntimeError("halt")
    assert all(a is b for a, b in zip(before, attention_modules(network), strict=True))
