"""Batches: offsets, masks, dtypes, and vectors that are those of the single structures."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from ase.build import bulk, molecule

from gnn.errors import InputError
from gnn.graphs.batch import edge_vectors
from gnn.graphs.collate import batch_of_atoms, collate
from gnn.graphs.graph import graph_of_atoms, graph_of_record
from gnn.graphs.shards import graphs_to_table
from gnn.structures.properties import PropertySpec

PROPERTIES = {
    "gap": PropertySpec(unit="eV"),
    "spin": PropertySpec(unit="µB", level="atom"),
}


@pytest.fixture
def graphs(record):
    records = [
        record(0, n_atoms=3, properties={"gap": 1.5}),
        record(1, n_atoms=2, forces=None, stress=None, properties={"spin": [0.5, -0.5]}),
        record(2, n_atoms=4, energy=None, fixed=np.array([True, False, True, False]), theory="other"),
    ]
    return [graph_of_record(item, 4.0) for item in records]


def collated(graphs, **options):
    return collate(graphs, ["other", "pbe/toy"], PROPERTIES, **options)


def test_shapes_and_dtypes(graphs):
    batch = collated(graphs)
    assert batch.n_structures == 3
    assert batch.n_atoms.tolist() == [3, 2, 4]
    assert batch.structure.tolist() == [0, 0, 0, 1, 1, 2, 2, 2, 2]
    assert batch.theory.tolist() == [1, 1, 0]
    assert batch.numbers.dtype == batch.senders.dtype == batch.receivers.dtype == torch.int64
    assert batch.positions.dtype == batch.shifts.dtype == batch.cell.dtype == torch.float64
    assert batch.labels.energy.dtype == batch.labels.forces.dtype == batch.labels.stress.dtype == torch.float64
    assert batch.pbc.dtype == torch.bool


def test_edges_stay_inside_their_structure_and_sorted(graphs):
    batch = collated(graphs)
    assert torch.equal(batch.structure[batch.senders], batch.structure[batch.receivers])
    assert bool((batch.receivers.diff() >= 0).all())


def test_vectors_are_those_of_each_structure(graphs):
    batch = collated(graphs)
    ours = edge_vectors(batch)
    single = [
        graph.positions[graph.senders] - graph.positions[graph.receivers] + graph.shifts @ graph.cell
        for graph in graphs
    ]
    np.testing.assert_allclose(ours.numpy(), np.concatenate(single), atol=1e-12)
    assert bool((ours.norm(dim=1) < 4.0).all())


def test_missing_labels_are_zero_and_masked(graphs):
    labels = collated(graphs).labels
    assert labels.energy_mask.tolist() == [True, True, False]
    assert labels.stress_mask.tolist() == [True, False, True]
    assert labels.force_mask.tolist() == [True] * 3 + [False] * 2 + [False, True, False, True]
    for values in (labels.energy, labels.forces, labels.stress, *labels.properties.values()):
        assert bool(torch.isfinite(values).all())
    assert labels.energy[2] == 0
    assert bool((labels.forces[3:5] == 0).all())


def test_only_crystals_have_a_stress(record):
    crystal = graph_of_record(record(0), 4.0)
    layer = replace(crystal, pbc=np.array([True, True, False]))
    labels = collate([crystal, layer], ["pbe/toy"]).labels
    assert labels.stress_mask.tolist() == [True, False]
    assert graphs_to_table([crystal, layer])["stress_count"].to_pylist() == [6, 0]


def test_properties_by_level(graphs):
    labels = collated(graphs).labels
    assert labels.properties["gap"].tolist() == [1.5, 0.0, 0.0]
    assert labels.property_masks["gap"].tolist() == [True, False, False]
    assert labels.properties["spin"].shape == (9,)
    assert labels.property_masks["spin"].tolist() == [False] * 3 + [True] * 2 + [False] * 4


def test_large_energies_keep_their_digits(record):
    graph = graph_of_record(record(0, energy=-123456.789012), 3.0)
    assert collated([graph]).labels.energy.item() == -123456.789012


def test_an_unknown_theory_is_named(graphs):
    with pytest.raises(InputError, match="pbe/toy"):
        collate(graphs, ["other"])


def test_nothing_is_refused():
    with pytest.raises(InputError, match="at least one"):
        collate([], ["a"])


def test_a_batch_moves_to_another_device_with_its_labels(graphs):
    batch = collated(graphs).to("meta")
    moved = (batch.positions, batch.labels.energy, batch.labels.energy_mask, *batch.labels.properties.values())
    assert all(tensor.is_meta for tensor in moved)


def test_atoms_without_labels():
    atoms_list = [bulk("Si"), molecule("H2O"), molecule("H2")]
    batch = batch_of_atoms(atoms_list, 5.0, theory=2)
    assert batch.labels is None
    assert batch.theory.tolist() == [2, 2, 2]
    assert batch.n_atoms.tolist() == [2, 3, 2]
    assert not batch.cell[1].any()
    edges = sum(graph_of_atoms(atoms, 5.0).n_edges for atoms in atoms_list)
    assert len(batch.senders) == edges


def test_structures_without_edges_make_a_batch():
    batch = batch_of_atoms([molecule("H"), molecule("H")], 5.0)
    assert batch.shifts.shape == (0, 3)
    assert edge_vectors(batch).shape == (0, 3)
