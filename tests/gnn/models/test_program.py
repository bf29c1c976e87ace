"""Batches as a compiled program takes them."""

from __future__ import annotations

import torch
from ase import Atoms
from ase.build import molecule

from gnn.graphs.batch import edge_vectors
from gnn.graphs.collate import batch_of_atoms
from gnn.models.program import filled


def test_a_batch_is_filled_with_edges_that_reach_nowhere() -> None:
    batch = batch_of_atoms([molecule("H2O"), Atoms("Cu")], 4.0)
    found = filled(batch, 4.0)
    assert found.vectors.shape == (4, 2, 3)
    torch.testing.assert_close(found.bonds, edge_vectors(batch, batch.positions, batch.cell))
    torch.testing.assert_close(found.vectors.reshape(-1, 3)[found.places], found.bonds)
    assert found.vectors[3].norm(dim=1).tolist() == [8.0, 8.0]
    assert found.senders.view(4, 2)[3].tolist() == [3, 3]
    assert found.is_symbolic
    assert not filled(batch_of_atoms([Atoms("Cu"), Atoms("Cu")], 4.0), 4.0).is_symbolic
