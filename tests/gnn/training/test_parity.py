"""Parity arrays kept beside a checkpoint."""

from __future__ import annotations

import numpy as np

from gnn.training.evaluation import Parity
from gnn.training.parity import MOST_VALUES, read_parity, write_parity


def parity(n_energy: int, n_force: int) -> Parity:
    energy, force = np.linspace(-4, -1, n_energy), np.linspace(-1, 1, n_force)
    gap = {"gap": (np.array([1.0, 2.0]), np.array([1.1, 2.1]))}
    return Parity(energy, energy + 0.01, np.zeros(n_energy), force, force + 0.1, gap)


def test_what_is_written_comes_back(tmp_path):
    write_parity(tmp_path, {"valid": parity(3, 6), "test": parity(5, 9)}, {"gap": "eV"})
    found = {(arrays.split, arrays.quantity): arrays for arrays in read_parity(tmp_path)}
    assert sorted(found) == [(split, name) for split in ("test", "valid") for name in ("energy", "forces", "gap")]
    energy = found["test", "energy"]
    np.testing.assert_allclose(energy.reference, np.linspace(-4, -1, 5), rtol=1e-6)
    np.testing.assert_allclose(energy.predicted - energy.reference, 0.01, atol=1e-6)
    assert [found["test", name].unit for name in ("energy", "forces", "gap")] == ["eV/atom", "eV/Å", "eV"]


def test_many_values_are_thinned_in_pairs(tmp_path):
    write_parity(tmp_path, {"test": parity(4, 10 * MOST_VALUES + 7)}, {})
    forces = next(arrays for arrays in read_parity(tmp_path) if arrays.quantity == "forces")
    assert MOST_VALUES / 2 < len(forces.reference) <= MOST_VALUES
    np.testing.assert_allclose(forces.predicted - forces.reference, 0.1, atol=1e-6)
    assert (tmp_path / "parity.parquet").stat().st_size < 200_000


def test_what_was_not_labelled_is_not_there(tmp_path):
    write_parity(tmp_path, {"test": parity(2, 0)}, {})
    assert {arrays.quantity for arrays in read_parity(tmp_path)} == {"energy", "gap"}


def test_a_checkpoint_without_parity(tmp_path):
    assert read_parity(tmp_path) == []
