"""Real Clebsch–Gordan coefficients couple as tensors do."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from gnn.models.coupling import clebsch_gordan, geometry_matrix, message_paths, slots
from gnn.models.harmonics import solid_harmonics

TRIANGLES = [(a, b, c) for a, b, c in product(range(4), repeat=3) if abs(a - b) <= c <= a + b]


def wigner(degree: int, turn: np.ndarray) -> np.ndarray:
    """D with Y(R r) = D Y(r), by a fit on random points."""
    points = torch.tensor(np.random.default_rng(0).normal(size=(80, 3)))
    before, after = (
        solid_harmonics(p, degree)[:, degree**2 :].numpy() for p in (points, points @ torch.tensor(turn).T)
    )
    return np.linalg.lstsq(before, after, rcond=None)[0].T


@pytest.mark.parametrize("degrees", TRIANGLES, ids=str)
def test_equivariant_under_random_rotations(degrees: tuple[int, int, int]) -> None:
    table = clebsch_gordan(*degrees)
    rng = np.random.default_rng(1)
    x, y = (rng.normal(size=2 * degree + 1) for degree in degrees[:2])
    for seed in range(3):
        turn = Rotation.random(random_state=seed).as_matrix()
        d1, d2, d3 = (wigner(degree, turn) for degree in degrees)
        late = d3 @ np.einsum("abc,a,b->c", table, x, y)
        np.testing.assert_allclose(np.einsum("abc,a,b->c", table, d1 @ x, d2 @ y), late, atol=1e-9)


@pytest.mark.parametrize("degrees", TRIANGLES, ids=str)
def test_orthonormal_columns(degrees: tuple[int, int, int]) -> None:
    table = clebsch_gordan(*degrees).reshape(-1, 2 * degrees[2] + 1)
    np.testing.assert_allclose(table.T @ table, np.eye(2 * degrees[2] + 1), atol=1e-12)


@pytest.mark.parametrize("degrees", TRIANGLES, ids=str)
def test_swapping_the_factors_changes_at_most_the_sign(degrees: tuple[int, int, int]) -> None:
    a, b, c = degrees
    swapped = clebsch_gordan(b, a, c).transpose(1, 0, 2)
    sign = (-1) ** (a + b + c)
    np.testing.assert_allclose(clebsch_gordan(a, b, c), sign * swapped, atol=1e-12)


def test_even_couplings_are_integrals_of_three_harmonics() -> None:
    """For l1 + l2 + l3 even the coupling is proportional to the Gaunt integral."""
    z, w = np.polynomial.legendre.leggauss(8)
    phi = 2 * np.pi * np.arange(16) / 16
    rho = np.sqrt(1 - z**2)
    points = np.stack([np.outer(rho, np.cos(phi)), np.outer(rho, np.sin(phi)), np.outer(z, np.ones(16))], -1)
    values = solid_harmonics(torch.tensor(points.reshape(-1, 3)), 3).numpy()
    weights = np.repeat(w / 32, 16)
    for a, b, c in (t for t in TRIANGLES if sum(t) % 2 == 0):
        y1, y2, y3 = (values[:, d**2 : (d + 1) ** 2] for d in (a, b, c))
        gaunt = np.einsum("p,pa,pb,pc->abc", weights, y1, y2, y3)
        table = clebsch_gordan(a, b, c)
        factor = (gaunt * table).sum() / (table**2).sum()
        np.testing.assert_allclose(gaunt, factor * table, atol=1e-12)
        assert abs(factor) > 0.1


def test_scalars_couple_to_the_dot_product() -> None:
    np.testing.assert_allclose(abs(clebsch_gordan(1, 1, 0)[:, :, 0]), np.eye(3) / 3**0.5, atol=1e-12)


def test_triangle_rule() -> None:
    with pytest.raises(ValueError, match="1, 1, 3"):
        clebsch_gordan(1, 1, 3)


def test_slots_are_contiguous() -> None:
    assert [list(slots(degree)) for degree in range(3)] == [[0], [1, 2, 3], [4, 5, 6, 7, 8]]


def test_scalar_senders_need_no_coupling() -> None:
    assert [(p.edge, p.out) for p in message_paths(3, 0)] == [(0, 0), (1, 1), (2, 2), (3, 3)]
    np.testing.assert_allclose(geometry_matrix(3, 0), np.eye(16), atol=1e-12)


@pytest.mark.parametrize("sender", [1, 2])
def test_geometry_matrix_is_the_coupling_of_each_path(sender: int) -> None:
    y = np.random.default_rng(3).normal(size=16)
    geometry = (y @ geometry_matrix(3, sender)).reshape(2 * sender + 1, -1)
    paths, column = message_paths(3, sender), 0
    for out in range(4):
        ways = [p for p in paths if p.out == out]
        block = geometry[:, column : column + (2 * out + 1) * len(ways)].reshape(2 * sender + 1, 2 * out + 1, -1)
        for index, path in enumerate(ways):
            expected = np.einsum("abc,a->bc", clebsch_gordan(path.edge, sender, out), y[slots(path.edge)])
            np.testing.assert_allclose(block[:, :, index], expected, atol=1e-12)
        column += (2 * out + 1) * len(ways)
    assert column == geometry.shape[1]
