"""Geometry of the checks, against ASE's neighbour lists."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.neighborlist import neighbor_list
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from gnn.structures.geometry import cell_heights, closest_pair, completed_cell, periodic_measure

PBC = st.tuples(st.booleans(), st.booleans(), st.booleans())


@st.composite
def structures(draw):
    cell = draw(arrays(float, (3, 3), elements=st.floats(-3, 3))) + np.diag([4.0, 5.0, 6.0])
    fractional = draw(arrays(float, (draw(st.integers(1, 8)), 3), elements=st.floats(-2, 2)))
    pbc = np.array(draw(PBC))
    return Atoms(f"H{len(fractional)}", positions=fractional @ cell, cell=cell, pbc=pbc)


@settings(deadline=None, max_examples=80)
@given(structures())
def test_closest_pair_is_that_of_ase(atoms):
    if abs(np.linalg.det(atoms.cell[:])) < 10:
        return
    distances = neighbor_list("d", atoms, 0.5)
    found = closest_pair(atoms.positions, np.array(atoms.cell[:]), atoms.pbc, 0.5)
    if len(distances) == 0:
        assert found is None
    else:
        assert found is not None
        assert found[2] == pytest.approx(distances.min(), abs=1e-9)


@settings(deadline=None, max_examples=40)
@given(structures(), st.tuples(*[st.integers(-3, 3)] * 3))
def test_closest_pair_sees_images(atoms, shift):
    """A copy of the first atom, moved by whole cells along periodic directions and a little."""
    if abs(np.linalg.det(atoms.cell[:])) < 10:
        return
    image = atoms.positions[0] + np.where(atoms.pbc, shift, 0) @ np.array(atoms.cell[:]) + [0.05, 0, 0]
    positions = np.vstack([atoms.positions, image])
    found = closest_pair(positions, np.array(atoms.cell[:]), atoms.pbc, 0.3)
    assert found is not None and found[2] <= 0.05 + 1e-9


def test_an_atom_on_its_own_image():
    cell = np.diag([0.2, 5.0, 5.0])
    found = closest_pair(np.zeros((1, 3)), cell, np.array([True] * 3), 0.3)
    assert found == (0, 0, pytest.approx(0.2))
    assert closest_pair(np.zeros((1, 3)), cell, np.array([False, True, True]), 0.3) is None


def test_skewed_cells_are_reduced():
    """Rows that differ by many whole vectors describe the same lattice."""
    cell = np.array([[4.0, 0, 0], [400.0, 4.0, 0], [0, -800.0, 4.0]])
    positions = np.array([[0.0, 0, 0], [2.0, 2.0, 2.0]])
    pbc = np.array([True] * 3)
    assert closest_pair(positions, cell, pbc, 0.5) is None
    assert closest_pair(positions, np.diag([4.0] * 3), pbc, 3.6)[2] == pytest.approx(np.sqrt(12), rel=1e-6)
    near = np.array([[0.0, 0, 0], [4.1, 8.0, 0]])
    assert closest_pair(near, cell, pbc, 0.5)[2] == pytest.approx(0.1)


def test_slabs_and_wires():
    cell = np.diag([3.0, 4.0, 0.0])
    assert periodic_measure(cell, np.array([True, True, False])) == pytest.approx(12)
    assert periodic_measure(cell, np.array([True, False, False])) == pytest.approx(3)
    assert periodic_measure(np.zeros((3, 3)), np.array([False] * 3)) == 1
    assert periodic_measure(cell, np.array([True] * 3)) == 0
    full = completed_cell(cell, np.array([True, True, False]))
    assert np.allclose(full[2], [0, 0, 1]) or np.allclose(full[2], [0, 0, -1])


def test_heights():
    assert np.allclose(cell_heights(np.diag([2.0, 3.0, 4.0])), [2, 3, 4])
    skewed = np.array([[2.0, 0, 0], [2.0, 2.0, 0], [0, 0, 5.0]])
    assert np.allclose(cell_heights(skewed), [np.sqrt(2), 2, 5])
