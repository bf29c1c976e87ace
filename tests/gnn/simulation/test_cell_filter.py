"""Exponentials, their adjoint, and cell forces as ASE's Frechet filter has them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.filters import FrechetCellFilter
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import expm, expm_frechet, logm

from gnn.simulation.cell_filter import (
    cell_forces,
    exponential_adjoint,
    stress_matrix,
    symmetric_exponential,
)

seeds = st.integers(0, 10**6)


def symmetric(seed: int, scale: float = 0.3) -> torch.Tensor:
    matrices = np.random.default_rng(seed).normal(scale=scale, size=(4, 3, 3))
    return torch.tensor(matrices + matrices.transpose(0, 2, 1))


@given(seeds)
@settings(max_examples=25, deadline=None)
def test_exponential_and_logarithm(seed: int) -> None:
    logs = symmetric(seed)
    found = symmetric_exponential(logs)
    assert found.numpy() == pytest.approx(np.array([expm(one) for one in logs.numpy()]), abs=1e-12)
    assert logm(found[0].numpy()) == pytest.approx(logs[0].numpy(), abs=1e-10)


@given(seeds)
@settings(max_examples=25, deadline=None)
def test_adjoint_of_the_frechet_derivative(seed: int) -> None:
    logs = symmetric(seed)
    direction, gradient = (torch.tensor(np.random.default_rng(seed + k).normal(size=(4, 3, 3))) for k in (1, 2))
    adjoint = exponential_adjoint(logs, gradient)
    for k in range(4):
        change = expm_frechet(logs[k].numpy(), direction[k].numpy(), compute_expm=False)
        assert (adjoint[k] * direction[k]).sum().item() == pytest.approx((change * gradient[k].numpy()).sum(), abs=1e-9)


@pytest.mark.parametrize("gap", [0.0, 1e-9, 1e-5, 1e-4, 1.1e-4])
def test_adjoint_with_nearly_equal_eigenvalues(gap: float) -> None:
    logs = torch.diag(torch.tensor([0.1, 0.1 + gap, 0.1 - gap], dtype=torch.float64)).unsqueeze(0)
    gradient = torch.tensor(np.random.default_rng(0).normal(size=(1, 3, 3)))
    expected = np.zeros((3, 3))
    for i, j in np.ndindex(3, 3):
        unit = np.zeros((3, 3))
        unit[i, j] = 1.0
        change = expm_frechet(logs[0].numpy(), unit, compute_expm=False)
        expected[i, j] = (change * gradient[0].numpy()).sum()
    assert exponential_adjoint(logs, gradient)[0].numpy() == pytest.approx(expected, abs=1e-12)


@given(seeds)
@settings(max_examples=15, deadline=None)
def test_cell_forces_are_the_symmetric_part_of_ases(seed: int) -> None:
    rng = np.random.default_rng(seed)
    atoms = bulk("Cu", cubic=True)
    atoms.calc = EMT()
    reference = FrechetCellFilter(atoms)
    log_strain = rng.normal(scale=0.03, size=(3, 3))
    log_strain += log_strain.T
    atoms.set_cell(atoms.cell[:] @ expm(log_strain), scale_atoms=True)
    stress = torch.tensor(atoms.get_stress()).unsqueeze(0)
    logs = torch.tensor(log_strain).unsqueeze(0)
    found = cell_forces(
        logs, symmetric_exponential(logs), stress, torch.tensor([atoms.get_volume()]), torch.tensor([4.0])
    )
    expected = reference.get_forces()[-3:]
    assert found[0].numpy() == pytest.approx((expected + expected.T) / 2, abs=1e-8)


def test_stress_matrix_follows_the_voigt_order() -> None:
    matrix = stress_matrix(torch.tensor([[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]]))[0]
    assert matrix.tolist() == [[1.0, 6.0, 5.0], [6.0, 2.0, 4.0], [5.0, 4.0, 3.0]]
