"""Muon: orthogonal steps of the stated size on normed matrices, AdamW's arithmetic on the rest."""

import math

import pytest
import torch

from s2tdpt.sw.fold import fold
from s2tdpt.sw.network import Network
from s2tdpt.sw.optimise import Muon, make_optimizer, normed_matrices, orthogonalised
from s2tdpt.sw.quantize import QatNetwork
from tests.sw.helpers import small


@pytest.mark.parametrize("shape", [(8, 8), (6, 20), (20, 6)])
def test_orthogonalised_keeps_directions_and_levels_their_sizes(shape):
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    left, _, right = torch.linalg.svd(matrix, full_matrices=False)
    sizes = torch.linalg.svdvals(orthogonalised(matrix))
    assert 0.6 < sizes.min() and sizes.max() < 1.3
    assert torch.linalg.norm(orthogonalised(matrix) - left @ right) < 0.35 * math.sqrt(min(shape))


def test_a_step_changes_a_matrix_by_its_rate_and_keeps_it_on_the_sphere():
    draw = torch.Generator().manual_seed(2)
    weight = torch.nn.Parameter(torch.randn(12, 3, 3, 3, generator=draw))
    optimizer = Muon([weight], [], lr=1.0, matrix_lr=0.05)
    assert optimizer.param_groups[0]["factor"] == pytest.approx(0.05)
    weight.grad = torch.randn(weight.shape, generator=draw)
    on_sphere = weight.detach() * math.sqrt(12) / weight.detach().norm()
    optimizer.param_groups[0]["lr"] = 0.05
    optimizer.step()
    change = (weight.detach() - on_sphere).norm() / on_sphere.norm()
    assert 0.03 < change < 0.06
    assert float((weight.detach() - on_sphere).flatten() @ weight.grad.flatten()) < 0


def test_the_rest_follows_adam():
    start, gradients = torch.tensor([1.0, -2.0, 3.0]), torch.randn(4, 3)
    mine, theirs = torch.nn.Parameter(start.clone()), torch.nn.Parameter(start.clone())
    optimizer = Muon([], [mine], lr=0.01, matrix_lr=0.05)
    reference = torch.optim.AdamW([theirs], lr=0.01, betas=(0.9, 0.99), weight_decay=0.0)
    for gradient in gradients:
        mine.grad, theirs.grad = gradient.clone(), gradient.clone()
        optimizer.step()
        reference.step()
    torch.testing.assert_close(mine, theirs)


def test_matrices_are_those_before_a_norm():
    network = Network(small())
    names = {name for name, p in network.named_parameters() if any(p is q for q in normed_matrices(network))}
    assert names == {name for name, p in network.named_parameters() if name.endswith("map.weight")}
    assert isinstance(make_optimizer(network, 1e-3, 0.1, "muon", 0.02), Muon)
    integer = QatNetwork.from_folded(fold(network.eval()))
    assert isinstance(make_optimizer(integer, 1e-3, 0.0, "muon", 0.02), torch.optim.AdamW)
