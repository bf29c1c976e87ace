"""Matrices of true tensors, and their products."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation
from torch import Tensor

from gnn.models.config import ModelConfig
from gnn.models.degrees import DegreeLinear
from gnn.models.harmonics import solid_harmonics
from gnn.models.invariants import Invariants
from gnn.models.matrices import PART_DEGREES, MatrixBasis, anticommutator, matrix_basis
from gnn.models.matrix_products import MatrixProducts


def tensors(vectors: Tensor) -> Tensor:
    """Components (9, N, 1) that are the harmonics of vectors (N, 3)."""
    return solid_harmonics(vectors, 2).t().unsqueeze(2)


def turn(matrices: Tensor, rotation: Tensor) -> Tensor:
    """R X R' of proper rotations, element by element."""
    return torch.einsum("ij,jknc,lk->ilnc", rotation, matrices, rotation)


@pytest.fixture
def vectors() -> Tensor:
    return torch.randn(6, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def rotation() -> Tensor:
    return torch.tensor(Rotation.random(random_state=3).as_matrix())


def test_basis_is_orthonormal() -> None:
    np.testing.assert_allclose(matrix_basis() @ matrix_basis().T, np.eye(9), atol=1e-15)


def test_components_come_back(vectors: Tensor) -> None:
    basis, parts = MatrixBasis(), tensors(vectors)
    torch.testing.assert_close(basis.parts(basis.matrices(parts)), parts)


def test_vectors_become_cross_products(vectors: Tensor) -> None:
    parts = tensors(vectors)
    parts[0], parts[4:] = 0, 0
    matrices = MatrixBasis().matrices(parts)[..., 0]
    other = torch.tensor([0.3, -1.0, 2.0], dtype=torch.float64)
    expected = torch.linalg.cross(vectors, other.expand_as(vectors)) * (3 / 2) ** 0.5
    torch.testing.assert_close(torch.einsum("ijn,j->ni", matrices, other), expected)


def test_matrices_of_turned_vectors_are_turned_matrices(vectors: Tensor, rotation: Tensor) -> None:
    basis = MatrixBasis()
    torch.testing.assert_close(
        basis.matrices(tensors(vectors @ rotation.T)), turn(basis.matrices(tensors(vectors)), rotation)
    )


def test_anticommutator_is_xy_plus_yx() -> None:
    x, y, base = torch.randn(3, 3, 3, 4, 2, dtype=torch.float64)
    expected = torch.einsum("ijnc,jknc->iknc", x, y) + torch.einsum("ijnc,jknc->iknc", y, x)
    torch.testing.assert_close(anticommutator(x, y), expected)
    torch.testing.assert_close(anticommutator(x, y, base), base + expected)


def test_products_of_true_tensors_are_true_under_reflection(vectors: Tensor) -> None:
    basis = MatrixBasis()
    sign = torch.tensor([-1.0 if degree == 1 else 1.0 for degree in PART_DEGREES], dtype=torch.float64).view(9, 1, 1)
    here, there = (
        basis.parts(anticommutator(basis.matrices(tensors(v)), basis.matrices(tensors(v.roll(1, 0)))))
        for v in (vectors, -vectors)
    )
    torch.testing.assert_close(there, sign * here)


def test_derivatives_of_products() -> None:
    x, y, base = torch.randn(3, 3, 3, 2, 1, dtype=torch.float64).requires_grad_(True)
    assert torch.autograd.gradcheck(anticommutator, (x, y, base))
    assert torch.autograd.gradgradcheck(anticommutator, (x, y, base))
    assert torch.autograd.gradgradcheck(lambda m: anticommutator(m, m), (x,))


@pytest.mark.parametrize("order", [1, 2, 3])
def test_products_are_the_weighted_sum(order: int) -> None:
    config = ModelConfig(elements=["H", "O"], family="tensor", channels=3, correlation=order)
    products = MatrixProducts(config).double()
    a, b = torch.randn(2, 9, 4, 3, dtype=torch.float64)
    elements = torch.tensor([0, 1, 1, 0])
    weights = (products.weights() * products.scale).index_select(0, elements).chunk(order, dim=1)
    first, second = products.basis.matrices(a), products.basis.matrices(b)
    terms = [second, anticommutator(first, second), anticommutator(anticommutator(first, second), second)]
    expected = sum(term * weight for term, weight in zip(terms, weights, strict=False))
    torch.testing.assert_close(products(a, b, elements), products.basis.parts(expected))


def test_products_keep_the_variance() -> None:
    torch.manual_seed(0)
    a, b = torch.randn(2, 9, 500, 16)
    config = ModelConfig(elements=["H"], family="tensor", channels=16)
    out = MatrixProducts(config)(a, b, torch.zeros(500, dtype=torch.int64)).detach()
    assert 0.3 < float(out.var()) < 3


def test_degrees_have_their_own_weights() -> None:
    linear, x = DegreeLinear((0, 1, 1, 1), 3, 2).double(), torch.randn(4, 5, 3, dtype=torch.float64)
    expected = torch.stack([x[k] @ linear.weight[degree] for k, degree in enumerate((0, 1, 1, 1))]) / 3**0.5
    torch.testing.assert_close(linear(x), expected)


def test_invariants_do_not_turn(vectors: Tensor, rotation: Tensor) -> None:
    invariants = Invariants(1).double()
    for matrix in (rotation, -rotation):
        torch.testing.assert_close(invariants(tensors(vectors @ matrix.T)), invariants(tensors(vectors)))
