"""Stresses of sheared cells against an elastic crystal."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest

from gnn.structures.record import Record
from gnn.structures.shear import ShearedCells, shear_strain

SHEARS = [(1, 2), (0, 2), (0, 1)]


def sheared(order: tuple[int, ...] = (0, 1, 2), sign: float = 1.0, noise: float = 0.0) -> ShearedCells:
    """Cells of a cubic crystal, sheared in each plane both ways; the stress of shear k stands at place order[k]."""
    rng, cells = np.random.default_rng(0), ShearedCells()
    for plane, (i, j) in enumerate(SHEARS):
        for size in (-0.04, -0.02, 0.02, 0.04):
            strain = np.zeros((3, 3))
            strain[i, j] = strain[j, i] = size
            stress = np.zeros(6)
            stress[3 + order[plane]] = sign * 0.6 * size
            cells.note(record(4.0 * (np.eye(3) + strain), stress + noise * rng.normal(size=6)))
    return cells


def record(cell: np.ndarray, stress: np.ndarray | None) -> Record:
    return Record("set", "pbe/test", np.array([13]), np.zeros((1, 3)), cell, np.array([True] * 3), stress=stress)


def test_an_elastic_crystal_is_right() -> None:
    assert sheared(noise=1e-4).remark() is None


@pytest.mark.parametrize("order", [order for order in permutations(range(3)) if order != (0, 1, 2)])
def test_exchanged_components_are_told(order: tuple[int, ...]) -> None:
    remark = sheared(order, noise=1e-4).remark()
    assert remark is not None and "12 sheared cells" in remark
    assert "another component" in remark and "sign" not in remark.split(";")[0]


def test_the_wrong_sign_is_told() -> None:
    remark = sheared(sign=-1.0).remark()
    assert remark is not None and "sign is the other one" in remark


def test_noise_and_few_cells_say_nothing() -> None:
    assert sheared(noise=0.1).remark() is None
    assert ShearedCells().remark() is None
    single = ShearedCells()
    single.note(record(4.0 * (np.eye(3) + 0.03 * np.eye(3)[[1, 0, 2]] * (1 - np.eye(3))), np.arange(6.0)))
    assert single.remark() is None


def test_three_rattled_cells_are_too_few() -> None:
    rng, cells = np.random.default_rng(3), ShearedCells()
    strains = 0.03 * rng.normal(size=(3, 3))
    for strain in strains:
        cell = np.eye(3)
        for value, (i, j) in zip(strain, SHEARS, strict=True):
            cell[i, j] = cell[j, i] = value
        cells.note(record(4.0 * cell, np.concatenate([np.zeros(3), strain[[2, 0, 1]]])))
    assert cells.remark() is None


def test_only_nearly_cubic_sheared_cells_count() -> None:
    assert shear_strain(4.0 * np.eye(3)) is None
    assert shear_strain(np.array([[0, 2, 2], [2, 0, 2], [2, 2, 0]], dtype=float)) is None
    assert shear_strain(np.zeros((3, 3))) is None
    assert shear_strain(4.0 * np.array([[1, 0.04, 0], [0, 1, 0], [0, 0, 1]])) == pytest.approx([0, 0, 0.02], abs=1e-4)
