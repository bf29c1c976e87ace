"""What a reader gave against the structure it was written from."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms

from gnn.structures.record import Record


def assert_same(record: Record, atoms: Atoms, stress: bool = True) -> None:
    """Elements, positions, energy, forces and, unless told otherwise, stress are those of `atoms`."""
    assert record.numbers.tolist() == atoms.numbers.tolist()
    assert np.allclose(record.positions, atoms.positions, atol=1e-6)
    assert record.energy == pytest.approx(atoms.calc.results["energy"])
    assert np.allclose(record.forces, atoms.calc.results["forces"], atol=1e-6)
    if stress and "stress" in atoms.calc.results:
        assert np.allclose(record.stress, atoms.calc.results["stress"], atol=1e-7)
