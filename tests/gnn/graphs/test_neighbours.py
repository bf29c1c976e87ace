"""Neighbour lists against ASE's, in every kind of cell."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, fcc111, molecule
from ase.neighborlist import primitive_neighbor_list
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from gnn.errors import InputError
from gnn.graphs.neighbours import Edges, _sorted, neighbour_list

PERIODICITIES = [(True, True, True), (True, True, False), (False, True, False), (True, False, True), (False,) * 3]


def as_set(senders, receivers, shifts) -> set[tuple[int, ...]]:
    return {(int(i), int(j), *map(int, s)) for i, j, s in zip(receivers, senders, shifts, strict=True)}


def of_ase(positions, cell, pbc, cutoff) -> set[tuple[int, ...]]:
    i, j, s = primitive_neighbor_list("ijS", pbc, cell, positions, cutoff, self_interaction=False)
    return as_set(j, i, s)


def vectors(edges: Edges, positions, cell):
    return positions[edges.senders] - positions[edges.receivers] + edges.shifts @ cell


@st.composite
def structures(draw):
    """Cells from a fraction of the cutoff to several of it, skewed, with atoms inside and outside of them."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    lengths = np.array([draw(st.floats(1.2, 9.0)) for _ in range(3)])
    skew = draw(st.floats(0.0, 0.9))
    cell = np.diag(lengths) + skew * np.tril(rng.uniform(-1, 1, (3, 3)), -1) * lengths
    cell = cell @ np.linalg.qr(rng.normal(size=(3, 3)))[0]
    n = draw(st.integers(1, 7))
    positions = rng.uniform(-1.5, 2.5, (n, 3)) @ cell
    pbc = np.array(draw(st.sampled_from(PERIODICITIES)))
    return positions, cell, pbc, draw(st.floats(1.0, 6.5))


@settings(max_examples=60, deadline=None)
@given(structures())
def test_edges_are_those_of_ase(structure):
    positions, cell, pbc, cutoff = structure
    ours = neighbour_list(positions, cell, pbc, cutoff)
    distances = np.linalg.norm(vectors(ours, positions, cell), axis=1)
    assume(not np.any(np.abs(distances - cutoff) < 1e-9))
    assert as_set(ours.senders, ours.receivers, ours.shifts) == of_ase(positions, cell, pbc, cutoff)
    assert len(ours) == len(as_set(ours.senders, ours.receivers, ours.shifts))
    assert np.all(distances < cutoff)
    assert not ours.shifts[:, ~pbc].any()


@settings(max_examples=30, deadline=None)
@given(structures())
def test_every_edge_has_its_reverse(structure):
    positions, cell, pbc, cutoff = structure
    edges = neighbour_list(positions, cell, pbc, cutoff)
    there = as_set(edges.senders, edges.receivers, edges.shifts)
    back = as_set(edges.receivers, edges.senders, -edges.shifts)
    assert there == back


@settings(max_examples=30, deadline=None)
@given(structures(), st.integers(0, 2**32 - 1))
def test_moving_atoms_by_lattice_vectors_changes_shifts_only(structure, seed):
    positions, cell, pbc, cutoff = structure
    hops = np.random.default_rng(seed).integers(-3, 4, positions.shape) * pbc
    before = neighbour_list(positions, cell, pbc, cutoff)
    after = neighbour_list(positions + hops @ cell, cell, pbc, cutoff)
    lengths = [np.sort(np.linalg.norm(vectors(before, positions, cell), axis=1))]
    lengths.append(np.sort(np.linalg.norm(vectors(after, positions + hops @ cell, cell), axis=1)))
    assume(not any(np.any(np.abs(length - cutoff) < 1e-9) for length in lengths))
    np.testing.assert_allclose(lengths[0], lengths[1], atol=1e-9)


def test_sorted_by_receiver_then_sender():
    rng = np.random.default_rng(0)
    edges = neighbour_list(rng.uniform(0, 6, (20, 3)), np.eye(3) * 6, np.ones(3, bool), 4.0)
    keys = np.column_stack([edges.receivers, edges.senders, edges.shifts])
    assert np.array_equal(keys, keys[np.lexsort(keys.T[::-1])])


def test_the_wide_key_and_the_fallback_sort_alike():
    rng = np.random.default_rng(1)
    senders, receivers = rng.integers(0, 9, 200), rng.integers(0, 9, 200)
    shifts = rng.integers(-3, 4, (200, 3))
    narrow = _sorted(senders, receivers, shifts)
    wide = _sorted(np.append(senders, 0), np.append(receivers, 9), np.vstack([shifts, [[2**30, 2**30, 2**30]]]))
    assert np.array_equal(narrow.senders, wide.senders[:-1])
    assert np.array_equal(narrow.shifts, wide.shifts[:-1])


@pytest.mark.parametrize("name", ["H2O", "C6H6", "CH4"])
def test_molecules_have_a_zero_cell(name):
    atoms = molecule(name)
    edges = neighbour_list(atoms.positions, np.zeros((3, 3)), np.zeros(3, bool), 3.0)
    assert as_set(edges.senders, edges.receivers, edges.shifts) == of_ase(
        atoms.positions, np.eye(3) * 50, atoms.pbc, 3.0
    )


def test_a_slab_may_have_no_third_cell_vector():
    slab = fcc111("Al", (1, 1, 3), vacuum=None)
    assert not slab.cell[2].any()
    edges = neighbour_list(slab.positions, slab.cell[:], np.array([True, True, False]), 5.0)
    tall = slab.copy()
    tall.center(vacuum=20, axis=2)
    expected = of_ase(tall.positions, tall.cell[:], tall.pbc, 5.0)
    assert as_set(edges.senders, edges.receivers, edges.shifts) == expected


def test_one_atom_sees_its_images():
    silver = bulk("Ag", "fcc", a=4.0)
    edges = neighbour_list(silver.positions, silver.cell[:], silver.pbc, 3.0)
    assert len(edges) == 12
    assert not edges.senders.any()
    assert not edges.receivers.any()


@pytest.mark.parametrize(
    "atoms",
    [Atoms("H"), Atoms("H2", [[0, 0, 0], [9, 0, 0]]), bulk("Ar", "fcc", a=12.0), Atoms("He", cell=[9, 9, 9], pbc=True)],
)
def test_no_neighbours_give_empty_arrays(atoms):
    edges = neighbour_list(atoms.positions, atoms.cell[:], atoms.pbc, 2.0)
    assert len(edges) == 0
    assert edges.shifts.shape == (0, 3)
    assert edges.senders.dtype == np.int64


def test_a_supercell_has_as_many_neighbours_per_atom():
    primitive = bulk("Si", "diamond", a=5.43)
    rattled = primitive.copy()
    rattled.rattle(0.1, seed=3)
    for atoms in (primitive, rattled):
        large = atoms.repeat((2, 1, 3))
        small_edges = neighbour_list(atoms.positions, atoms.cell[:], atoms.pbc, 5.1)
        large_edges = neighbour_list(large.positions, large.cell[:], large.pbc, 5.1)
        assert len(large_edges) == 6 * len(small_edges)


def test_an_unreduced_cell_needs_far_images():
    cell = np.array([[2.0, 0, 0], [400.0, 2.0, 0], [0, 0, 2.0]])
    edges = neighbour_list(np.zeros((1, 3)), cell, np.ones(3, bool), 2.1)
    assert as_set(edges.senders, edges.receivers, edges.shifts) == of_ase(np.zeros((1, 3)), cell, [True] * 3, 2.1)
    assert np.abs(edges.shifts).max() > 127


@pytest.mark.parametrize(
    ("positions", "cell", "pbc", "cutoff", "words"),
    [
        (np.zeros((1, 3)), np.eye(3), [True] * 3, 0.0, "cutoff"),
        (np.zeros((1, 3)), np.eye(3), [True] * 3, float("nan"), "cutoff"),
        (np.full((1, 3), np.nan), np.eye(3), [True] * 3, 2.0, "not finite"),
        (np.zeros((1, 3)), np.diag([1.0, 0.0, 1.0]), [True] * 3, 2.0, "direction b"),
        (np.zeros((1, 3)), np.array([[3.0, 0, 0], [3.0, 0, 0], [0, 0, 3.0]]), [True] * 3, 2.0, "one plane or line"),
        (np.zeros((1, 3)), np.array([[3.0, 0, 0], [3.0, 1e-7, 0], [0, 0, 3.0]]), [True] * 3, 2.0, "one plane or line"),
        (np.zeros((1, 3)), np.array([[3.0, 0, 0], [-3.0, 0, 0], [0, 0, 0]]), [1, 1, 0], 2.0, "one plane or line"),
    ],
)
def test_impossible_input_is_named(positions, cell, pbc, cutoff, words):
    with pytest.raises(InputError, match=words):
        neighbour_list(positions, cell, np.array(pbc, dtype=bool), cutoff)


def test_threads_do_not_disturb_each_other():
    rng = np.random.default_rng(5)
    tasks = [(rng.uniform(0, 5, (n, 3)), np.eye(3) * 5, np.ones(3, bool), 3.0 + n % 2) for n in range(2, 40)]
    alone = [neighbour_list(*task) for task in tasks]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda task: neighbour_list(*task), tasks * 3))
    for one, other in zip(alone * 3, together, strict=True):
        assert np.array_equal(one.senders, other.senders)
        assert np.array_equal(one.shifts, other.shifts)
