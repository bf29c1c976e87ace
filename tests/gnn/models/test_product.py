"""Products of the density against brute force."""

from __future__ import annotations

from itertools import combinations_with_replacement

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from gnn.models.coupling import clebsch_gordan, slots
from gnn.models.harmonics import solid_harmonics
from gnn.models.product import ProductBasis
from gnn.models.product_plan import product_plan

L_MAX = 3
UNLIKE = ["H", "Og"]
"""So far apart in the periodic table that tables of weights are what is set."""


def wigner_all(turn: np.ndarray) -> torch.Tensor:
    """Block-diagonal D of degrees 0..L_MAX with Y(R r) = D Y(r)."""
    points = torch.tensor(np.random.default_rng(0).normal(size=(80, 3)))
    before, after = solid_harmonics(points, L_MAX), solid_harmonics(points @ torch.tensor(turn).T, L_MAX)
    return torch.linalg.lstsq(before, after).solution.T


def product(correlation: int, degree: int, channels: int = 3) -> ProductBasis:
    torch.manual_seed(1)
    return ProductBasis(L_MAX, degree, correlation, channels, elements=UNLIKE, rank=2).double()


def density(n_atoms: int = 4, channels: int = 3) -> torch.Tensor:
    return torch.tensor(np.random.default_rng(2).normal(size=((L_MAX + 1) ** 2, n_atoms, channels)))


@pytest.mark.parametrize("correlation", [1, 2, 3])
@pytest.mark.parametrize("degree", [0, 1, 2])
def test_equivariant(correlation: int, degree: int) -> None:
    turn = Rotation.random(random_state=4).as_matrix()
    d = wigner_all(turn)
    basis, a, z = product(correlation, degree), density(), torch.tensor([0, 1, 1, 0])
    before, after = basis(a, z), basis(torch.einsum("ab,bnc->anc", d, a), z)
    for out, (x, y) in enumerate(zip(before, after, strict=True)):
        block = d[slots(out).start : slots(out).stop, slots(out).start : slots(out).stop]
        torch.testing.assert_close(torch.einsum("ab,bnc->anc", block, x), y)


def test_number_of_independent_invariants() -> None:
    """A, the power spectrum, and the bispectrum: one for each (l1 <= l2 <= l3) with an even sum and a triangle."""
    triples = [t for t in combinations_with_replacement(range(L_MAX + 1), 3) if sum(t) % 2 == 0 and t[2] <= t[0] + t[1]]
    assert product_plan(L_MAX, 0, 3).ways == ((1,), (L_MAX + 1,), (len(triples),))


def _invariants(a: np.ndarray) -> list[float]:
    """Order 1, power spectrum and bispectrum of one density (16,), by dense couplings."""
    found = [a[0]]
    for degree in range(L_MAX + 1):
        part = a[slots(degree)]
        found.append(float(part @ clebsch_gordan(degree, degree, 0)[:, :, 0] @ part))
    for x, y, z in combinations_with_replacement(range(L_MAX + 1), 3):
        if (x + y + z) % 2 == 0 and z <= x + y:
            table = clebsch_gordan(x, y, z)
            found.append(float(np.einsum("abc,a,b,c->", table, a[slots(x)], a[slots(y)], a[slots(z)])))
    return found


def test_invariants_span_what_brute_force_gives() -> None:
    basis = product(3, 0, channels=1)
    a, z = density(n_atoms=40, channels=1), torch.zeros(40, dtype=torch.int64)
    ours = []
    for way in range(basis.plan.n_ways):
        basis.weights.element.data[:] = torch.tensor([1.0, 0.0])
        basis.weights.vector.data.zero_()
        basis.weights.vector.data[0, way] = 1.0
        ours.append(basis(a, z)[0].flatten().detach().numpy())
    brute = np.array([_invariants(a[:, n, 0].numpy()) for n in range(40)])
    mixed = np.array(ours).T
    rest = brute - mixed @ np.linalg.lstsq(mixed, brute, rcond=None)[0]
    np.testing.assert_allclose(rest, 0, atol=1e-8)
    assert np.linalg.matrix_rank(mixed) == mixed.shape[1] == brute.shape[1]


@pytest.mark.parametrize("degree", [1, 2])
def test_couplings_of_a_degree_are_independent(degree: int) -> None:
    basis = product(3, degree, channels=1)
    n_atoms = 90
    a, z = density(n_atoms=n_atoms, channels=1), torch.zeros(n_atoms, dtype=torch.int64)
    for out in range(degree + 1):
        columns = []
        for way in range(basis.plan.n_ways):
            basis.weights.element.data[:] = torch.tensor([1.0, 0.0])
            basis.weights.vector.data.zero_()
            basis.weights.vector.data[0, way] = 1.0
            columns.append(basis(a, z)[out].flatten().detach().numpy())
        used = [column for column in columns if np.abs(column).max() > 0]
        assert len(used) == sum(order[out] for order in basis.plan.ways)
        assert np.linalg.matrix_rank(np.array(used)) == len(used)


def test_pairs_and_triples_list_only_what_is_not_zero() -> None:
    for terms in (product_plan(L_MAX, 1, 3).pairs, product_plan(L_MAX, 1, 3).triples):
        assert terms is not None
        assert (np.abs(terms.matrix).max(axis=0) > 0).all()
        assert len({*zip(terms.left, terms.right, strict=True)}) == len(terms.left)


@pytest.mark.parametrize("correlation", [1, 2, 3])
def test_order_of_the_polynomial(correlation: int) -> None:
    """The highest order grows as the power of the density."""
    basis, a, z = product(correlation, 1), density(), torch.tensor([0, 1, 1, 0])
    for x, y in zip(basis(1e6 * a, z), basis(1e3 * a, z), strict=True):
        torch.testing.assert_close(x / y, torch.full_like(x, 1e3**correlation), rtol=0.2, atol=0)


def test_derivatives() -> None:
    basis, z = product(3, 1, channels=2), torch.tensor([0, 1])
    a = density(2, 2).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: tuple(basis(x, z)), (a,))
    assert torch.autograd.gradgradcheck(lambda x: tuple(basis(x, z)), (a,))
