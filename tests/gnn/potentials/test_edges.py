"""Edges kept with a skin are those of a fresh search, always."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, fcc111, molecule
from hypothesis import given, settings
from hypothesis import strategies as st

from gnn.errors import InputError
from gnn.graphs.batch import Batch
from gnn.graphs.neighbours import neighbour_list
from gnn.potentials.edges import EdgeKeeper, Frame, deformation_between

CUTOFF = 4.0


def frame(structures: dict[int, Atoms]) -> Frame:
    several = list(structures.values())
    return Frame(
        keys=tuple(structures),
        numbers=torch.tensor(np.concatenate([a.numbers for a in several])),
        n_atoms=torch.tensor([len(a) for a in several]),
        pbc=torch.tensor(np.array([a.pbc for a in several])),
        positions=torch.tensor(np.concatenate([a.positions for a in several])),
        cell=torch.tensor(np.array([a.cell[:] for a in several])),
    )


def rows(senders: np.ndarray, receivers: np.ndarray, shifts: np.ndarray) -> list[tuple[int, ...]]:
    return sorted(map(tuple, np.column_stack([senders, receivers, shifts]).astype(int).tolist()))


def expected(structures: dict[int, Atoms]) -> list[tuple[int, ...]]:
    found, first = [], 0
    for atoms in structures.values():
        edges = neighbour_list(atoms.positions, atoms.cell[:], atoms.pbc, CUTOFF)
        found += rows(edges.senders + first, edges.receivers + first, edges.shifts)
        first += len(atoms)
    return sorted(found)


def of(batch: Batch) -> list[tuple[int, ...]]:
    return rows(batch.senders.numpy(), batch.receivers.numpy(), batch.shifts.numpy())


def start() -> dict[int, Atoms]:
    return {3: bulk("Al"), 7: bulk("Cu", cubic=True), 1: fcc111("Al", (1, 1, 3), vacuum=6.0), 5: molecule("C6H6")}


@given(seed=st.integers(0, 10**6), skin=st.floats(0.05, 1.5), size=st.floats(0.001, 0.4), strain=st.floats(0.0, 0.15))
@settings(max_examples=40, deadline=None)
def test_edges_equal_a_fresh_search_on_a_random_walk(seed: int, skin: float, size: float, strain: float) -> None:
    rng = np.random.default_rng(seed)
    keeper = EdgeKeeper(CUTOFF, skin)
    structures = start()
    for step in range(6):
        batch, shortest = keeper.batch(frame(structures))
        assert of(batch) == expected(structures)
        assert bool((batch.receivers.diff() >= 0).all())
        assert bool((shortest > 0).all())
        for atoms in structures.values():
            atoms.rattle(size, rng=rng)
            if atoms.cell.rank == 3:
                atoms.set_cell(atoms.cell[:] @ (np.eye(3) + strain * rng.normal(size=(3, 3)) / 3), scale_atoms=True)
        if step == 2:
            keeper.forget(7)
            del structures[7]
        if step == 4:
            structures[9] = bulk("Al", "hcp", a=2.9, c=4.7)


def test_small_moves_need_no_search_and_large_ones_do() -> None:
    keeper = EdgeKeeper(CUTOFF, 0.6)
    atoms = bulk("Cu", cubic=True)
    keeper.batch(frame({0: atoms}))
    atoms.positions[0] += [0.29, 0, 0]
    keeper.batch(frame({0: atoms}))
    assert keeper.searches == 1
    atoms.positions[0] += [0.02, 0, 0]
    keeper.batch(frame({0: atoms}))
    assert keeper.searches == 2


def test_a_strained_cell_within_the_bound_needs_no_search() -> None:
    keeper = EdgeKeeper(CUTOFF, 0.6)
    atoms = bulk("Cu", cubic=True)
    keeper.batch(frame({0: atoms}))
    atoms.set_cell(atoms.cell * 0.9, scale_atoms=True)
    keeper.batch(frame({0: atoms}))
    assert keeper.searches == 1
    atoms.set_cell(atoms.cell * 0.95, scale_atoms=True)
    batch, _ = keeper.batch(frame({0: atoms}))
    assert keeper.searches == 2
    assert of(batch) == expected({0: atoms})


def test_a_layer_without_a_third_vector_is_searched_anew_when_its_cell_changes() -> None:
    layer = Atoms("C2", positions=[[0, 0, 0], [0, 1.42, 0]], pbc=(True, True, False))
    layer.cell = [[2.46, 0, 0], [-1.23, 2.13, 0], [0, 0, 0]]
    keeper = EdgeKeeper(CUTOFF, 0.5)
    for factor in (1.0, 1.0, 0.87, 0.8):
        layer.set_cell(layer.cell[:] * factor, scale_atoms=True)
        batch, _ = keeper.batch(frame({0: layer}))
        assert of(batch) == expected({0: layer})
    assert keeper.searches == 3


def test_a_potential_without_cutoff_needs_no_edges() -> None:
    batch, shortest = EdgeKeeper(0.0).batch(frame(start()))
    assert len(batch.senders) == 0
    assert bool(shortest.isinf().all())


def test_the_shortest_edge_is_the_shortest_distance() -> None:
    _, shortest = EdgeKeeper(CUTOFF).batch(frame({0: bulk("Cu", a=3.6), 1: molecule("H2")}))
    assert shortest.tolist() == pytest.approx([3.6 / 2**0.5, molecule("H2").get_distance(0, 1)])


def test_no_cell_has_no_deformation() -> None:
    zero = torch.zeros(1, 3, 3, dtype=torch.float64)
    assert torch.equal(deformation_between(zero, zero)[0], torch.eye(3, dtype=torch.float64))


@pytest.mark.parametrize("what", ["positions", "cell"])
def test_what_is_not_finite_has_no_edges_at_any_moment(what: str) -> None:
    """Not at the first search only: an atom that is nowhere would lose its edges in silence."""
    keeper = EdgeKeeper(CUTOFF)
    atoms = bulk("Cu", a=3.6)
    now = frame({0: atoms})
    keeper.batch(now)
    with pytest.raises(InputError, match="not finite"):
        keeper.batch(replace(now, **{what: getattr(now, what) * torch.nan}))
