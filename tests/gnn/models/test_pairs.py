"""Sums over pairs: a grid and a list say the same."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule
from torch import Tensor

from gnn.graphs.batch import Batch
from gnn.graphs.collate import batch_of_atoms
from gnn.graphs.grid import atom_grid
from gnn.models.pairs import PairGrid, PairList, pair_grid, pair_sums
from gnn.models.rows import Scatter

GROUPS = 2


def plain(batch: Batch, radial: Tensor, x: Tensor) -> Tensor:
    """The sum edge by edge."""
    message = x[:, batch.senders] * radial.repeat_interleave(x.shape[2] // GROUPS, dim=1)
    return torch.zeros_like(x).index_add(1, batch.receivers, message)


def both(batch: Batch) -> list[PairGrid | PairList]:
    grids = [atom_grid(batch.structure, batch.n_atoms, least) for least in (1, 7)]
    return [*(pair_grid(batch, grid) for grid in grids), PairList(batch.senders, batch.receivers, len(batch.numbers))]


BATCHES = {
    "equal": [molecule("CH4"), molecule("CH4")],
    "ragged": [molecule("CH4"), molecule("H2O"), Atoms("H")],
    "images": [bulk("Cu"), bulk("NaCl", "rocksalt", a=5.0)],
}


@pytest.fixture(params=BATCHES)
def batch(request: pytest.FixtureRequest) -> Batch:
    return batch_of_atoms(BATCHES[request.param], 3.6)


@pytest.fixture
def numbers(batch: Batch) -> tuple[Tensor, Tensor]:
    made = torch.Generator().manual_seed(0)
    radial = torch.randn(len(batch.senders), GROUPS, dtype=torch.float64, generator=made)
    return radial, torch.randn(3, len(batch.numbers), 4, dtype=torch.float64, generator=made)


def test_sums_are_those_of_the_edges(batch: Batch, numbers: tuple[Tensor, Tensor]) -> None:
    for pairs in both(batch):
        torch.testing.assert_close(pairs.sum(pairs.weights(numbers[0]), numbers[1]), plain(batch, *numbers))


def test_derivatives_are_those_of_the_edges(batch: Batch, numbers: tuple[Tensor, Tensor]) -> None:
    """First derivatives, and derivatives of their squares, as a force loss needs them."""

    def slopes(function: Callable[[Tensor, Tensor], Tensor]) -> list[Tensor]:
        inputs = [value.clone().requires_grad_(True) for value in numbers]
        first = torch.autograd.grad(function(*inputs).pow(3).sum(), inputs, create_graph=True)
        second = torch.autograd.grad(sum(value.square().sum() for value in first), inputs)
        return [*first, *second]

    expected = slopes(lambda radial, x: plain(batch, radial, x))
    for pairs in both(batch):
        found = slopes(lambda radial, x, pairs=pairs: pairs.sum(pairs.weights(radial), x))
        for a, b in zip(found, expected, strict=True):
            torch.testing.assert_close(a, b)


def test_images_of_one_sender_share_a_place() -> None:
    batch = batch_of_atoms([bulk("Cu")], 3.6)
    grid = pair_sums(batch)
    assert isinstance(grid, PairGrid)
    assert len(batch.senders) == 12
    assert grid.weights(torch.ones(12, 1)).tolist() == [[[12.0]]]


def test_large_structures_are_summed_edge_by_edge() -> None:
    row = Atoms("H100", [[0, 0, 1.5 * k] for k in range(100)])
    assert isinstance(pair_sums(batch_of_atoms([row], 2.0)), PairList)
    assert isinstance(pair_sums(batch_of_atoms([Atoms("H")], 2.0)), PairList)


def test_chunks_of_edges_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    batch = batch_of_atoms([molecule("CH4")], 3.6)
    radial, x = torch.randn(len(batch.senders), GROUPS).double(), torch.randn(3, 5, 4).double()
    pairs = both(batch)[-1]
    whole = pairs.sum(radial, x)
    monkeypatch.setattr("gnn.models.pairs.CHUNK_EDGES", 3)
    torch.testing.assert_close(pairs.sum(radial, x), whole)


def test_empty_places_take_nothing() -> None:
    batch = batch_of_atoms(BATCHES["ragged"], 3.6)
    grid = pair_grid(batch, atom_grid(batch.structure, batch.n_atoms))
    radial = torch.ones(len(batch.senders), 1, dtype=torch.float64)
    filled = Scatter.apply(radial, grid.place, 75).sum()
    assert float(grid.weights(radial).sum()) == float(filled) == len(batch.senders)
