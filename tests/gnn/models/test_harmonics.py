"""Real spherical harmonics: orthonormal, complete under rotation, with right derivatives."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ase.build import molecule
from scipy.spatial.transform import Rotation

from gnn.models.harmonics import SphericalHarmonics, gradient_matrix, solid_harmonics

L_MAX = 4


def unit_vectors(n: int, seed: int = 0) -> torch.Tensor:
    vectors = np.random.default_rng(seed).normal(size=(n, 3))
    return torch.tensor(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))


def quadrature() -> tuple[torch.Tensor, torch.Tensor]:
    """Points and weights (sum 1) that integrate polynomials of degree 15 on the sphere exactly."""
    z, w = np.polynomial.legendre.leggauss(8)
    phi = 2 * np.pi * np.arange(16) / 16
    rho = np.sqrt(1 - z**2)
    points = np.stack([np.outer(rho, np.cos(phi)), np.outer(rho, np.sin(phi)), np.outer(z, np.ones(16))], -1)
    return torch.tensor(points.reshape(-1, 3)), torch.tensor(np.repeat(w / 2 / 16, 16))


def test_component_normalised_and_orthogonal() -> None:
    points, weights = quadrature()
    values = SphericalHarmonics(L_MAX)(points)
    gram = values.T @ (weights[:, None] * values)
    torch.testing.assert_close(gram, torch.eye((L_MAX + 1) ** 2, dtype=torch.float64), atol=1e-12, rtol=0)


def test_each_degree_has_constant_norm() -> None:
    values = SphericalHarmonics(L_MAX)(unit_vectors(20))
    for degree in range(L_MAX + 1):
        norm = values[:, degree**2 : (degree + 1) ** 2].square().sum(1)
        torch.testing.assert_close(norm, torch.full_like(norm, 2 * degree + 1))


@pytest.mark.parametrize("seed", range(3))
def test_rotation_mixes_within_a_degree_by_an_orthogonal_matrix(seed: int) -> None:
    turn = torch.tensor(Rotation.random(random_state=seed).as_matrix())
    points, harmonics = unit_vectors(60, seed), SphericalHarmonics(L_MAX)
    before, after = harmonics(points), harmonics(points @ turn.T)
    for degree in range(L_MAX + 1):
        part = slice(degree**2, (degree + 1) ** 2)
        wigner = torch.linalg.lstsq(before[:, part], after[:, part]).solution
        torch.testing.assert_close(before[:, part] @ wigner, after[:, part], atol=1e-10, rtol=0)
        torch.testing.assert_close(wigner @ wigner.T, torch.eye(2 * degree + 1, dtype=torch.float64))


def test_inversion_gives_the_parity_of_the_degree() -> None:
    points, harmonics = unit_vectors(5), SphericalHarmonics(L_MAX)
    signs = torch.cat([torch.full((2 * degree + 1,), (-1.0) ** degree) for degree in range(L_MAX + 1)])
    torch.testing.assert_close(harmonics(-points), harmonics(points) * signs)


def test_order_and_sign_of_the_first_degree_is_y_z_x() -> None:
    vector = torch.tensor([[0.6, 0.0, 0.8]], dtype=torch.float64)
    torch.testing.assert_close(solid_harmonics(vector, 1)[0, 1:], 3**0.5 * torch.tensor([0.0, 0.8, 0.6]).double())


def test_first_and_second_derivatives() -> None:
    points = torch.tensor(molecule("CH3CH2OH").positions[:4]).requires_grad_()
    harmonics = SphericalHarmonics(L_MAX)
    assert torch.autograd.gradcheck(harmonics, (points,))
    assert torch.autograd.gradgradcheck(harmonics, (points,))


def test_gradients_lower_the_degree_by_one() -> None:
    table = gradient_matrix(3)
    for degree in range(1, 4):
        rows = np.abs(table[:, degree**2 : (degree + 1) ** 2]).sum(axis=(1, 2)) > 0
        assert np.flatnonzero(rows).tolist() == list(range((degree - 1) ** 2, degree**2))


def test_no_edges() -> None:
    empty = torch.zeros(0, 3, requires_grad=True)
    values = SphericalHarmonics(2)(empty)
    assert values.shape == (0, 9)
    values.sum().backward()


def test_degree_out_of_range() -> None:
    with pytest.raises(ValueError, match="l_max is 5"):
        SphericalHarmonics(5)
