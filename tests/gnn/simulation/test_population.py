"""Structures in flight: padding, leaving, joining."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule
from ase.constraints import FixAtoms

from gnn.simulation.population import CELL_ROWS, bounds, geometry, join, population_of, select

CPU = torch.device("cpu")
PADDED = frozenset({"velocity"})


def several() -> list[Atoms]:
    fixed = bulk("Cu", cubic=True)
    fixed.set_constraint(FixAtoms([0, 2]))
    return [bulk("Al"), fixed, molecule("H2O"), bulk("Ni") * (2, 1, 1)]


def test_geometry_gives_back_what_went_in() -> None:
    structures = several()
    where = geometry(population_of(structures, range(4), True, CPU))
    assert where.positions.numpy() == pytest.approx(np.concatenate([a.positions for a in structures]))
    assert where.cell.numpy() == pytest.approx(np.array([a.cell[:] for a in structures]))
    assert where.volume.tolist() == pytest.approx([a.cell.volume for a in structures])


def test_a_strain_moves_cell_and_atoms_alike() -> None:
    atoms = bulk("Cu", cubic=True)
    population = population_of([atoms], [0], True, CPU)
    population.coordinates[0, :CELL_ROWS] = 4 * torch.diag(torch.tensor([0.1, -0.05, 0.0], dtype=torch.float64))
    where = geometry(population)
    expected = atoms.copy()
    expected.set_cell(atoms.cell[:] * np.exp([0.1, -0.05, 0.0]), scale_atoms=True)
    assert where.positions.numpy() == pytest.approx(expected.positions)
    assert where.cell[0].numpy() == pytest.approx(expected.cell[:])


def test_what_may_move() -> None:
    free = population_of(several(), range(4), True, CPU).free[:, :, 0].numpy()
    assert free[:, 0].tolist() == [1, 1, 0, 1]
    assert free[1].tolist() == [1, 1, 1, 0, 1, 0, 1]
    assert free[0].tolist() == [1, 1, 1, 1, 0, 0, 0]
    assert not population_of(several(), range(4), False, CPU).free[:, :CELL_ROWS].any()


def test_select_and_join_lose_nothing() -> None:
    structures = several()
    everyone = population_of(structures, range(4), True, CPU)
    everyone.state["velocity"] = torch.rand(4, 7, 3)
    everyone.state["dt"] = torch.rand(4, 1, 1)
    small = select(everyone, torch.tensor([True, False, False, True]), PADDED)
    large = select(everyone, torch.tensor([False, True, True, False]), PADDED)
    assert small.numbers.shape == (2, 5)
    assert small.state["velocity"].shape == (2, 5, 3)
    again = join(small, large, PADDED)
    order = torch.tensor([0, 3, 1, 2])
    assert again.source.tolist() == order.tolist()
    assert torch.equal(again.coordinates, everyone.coordinates[order])
    assert torch.equal(again.numbers, everyone.numbers[order])
    assert torch.equal(again.state["dt"], everyone.state["dt"][order])
    assert torch.equal(again.state["velocity"][0, :5], everyone.state["velocity"][0, :5])


def test_bounds_hold_still_what_may_not_move_and_scale_with_size() -> None:
    found = bounds(population_of([bulk("Al"), bulk("Al") * (2, 2, 2), molecule("H2O")], range(3), True, CPU))
    assert found.longest[0, 0, 0] * 8 == pytest.approx(found.longest[1, 0, 0].item())
    assert found.softness[0, 0, 0] * 8 == pytest.approx(found.softness[1, 0, 0].item())
    assert not found.softness[2, :CELL_ROWS].any()
    assert found.softness.isfinite().all()
