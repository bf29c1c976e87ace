"""Structures and jobs that EMT can label at once."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from ase import Atoms
from ase.build import bulk

from gnn.dft.label import LabelJob


@pytest.fixture
def aluminium() -> Atoms:
    """A strained primitive cell of fcc Al, off its minimum."""
    atoms = bulk("Al", "fcc", a=4.2)
    atoms.set_cell(atoms.cell[:] * [[1.0, 1.03, 0.98]], scale_atoms=True)
    return atoms


@pytest.fixture
def make_jobs() -> Callable[..., list[LabelJob]]:
    """Static jobs of fcc Cu at distinct lattice constants, the last with an element that EMT does not know."""

    def make(good: int, bad: int = 0, kind: str = "static") -> list[LabelJob]:
        cells = [bulk("Cu", "fcc", a=3.5 + 0.01 * i) for i in range(good)]
        cells += [bulk("Si", "diamond", a=5.4 + 0.01 * i) for i in range(bad)]
        return [LabelJob.of(atoms, kind, f"g{i}", "test") for i, atoms in enumerate(cells)]

    return make
