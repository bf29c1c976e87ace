"""Batches as a compiled program takes them."""

from __future__ import annotations

import torch
from ase import Atoms
from ase.build import molecule

from gnn.graphs.batch import edge_vectors
from gnn.graphs.collate import batch_of_atoms
from gnn.models.config import ModelConfig
from gnn.models.model import build_model
from gnn.models.program import Filled, filled

CUTOFF = 4.0


def filled_for(family: str, atoms: list[Atoms]) -> Filled | None:
    config = ModelConfig.model_validate({"family": family, "elements": ["H", "O", "Cu"], "cutoff": CUTOFF})
    return filled(batch_of_atoms(atoms, CUTOFF), build_model(config))


def test_a_batch_is_filled_with_edges_that_reach_nowhere() -> None:
    batch = batch_of_atoms([molecule("H2O"), Atoms("Cu")], CUTOFF)
    found = filled_for("ace", [molecule("H2O"), Atoms("Cu")])
    assert found is not None and found.grid is None
    assert found.vectors.shape == (4, 2, 3)
    torch.testing.assert_close(found.bonds, edge_vectors(batch).float())
    torch.testing.assert_close(found.vectors.reshape(-1, 3)[found.places], found.bonds)
    assert found.vectors[3].norm(dim=1).tolist() == [8.0, 8.0]
    assert found.senders.view(4, 2)[3].tolist() == [3, 3]


def test_a_family_that_sums_over_pairs_has_a_grid_that_no_size_of_is_one() -> None:
    alone = filled_for("tensor", [molecule("H2O")])
    assert alone is not None and alone.grid is not None
    assert alone.grid.atom.shape == (2, 3)
    assert alone.grid.atom.flatten()[alone.grid.place].tolist() == [0, 1, 2]


def test_what_is_too_small_or_too_sparse_is_not_filled() -> None:
    assert filled_for("ace", [Atoms("Cu"), Atoms("Cu")]) is None
    row = Atoms("H100", [[0, 0, 1.5 * k] for k in range(100)])
    assert filled_for("ace", [row]) is not None
    assert filled_for("tensor", [row]) is None
