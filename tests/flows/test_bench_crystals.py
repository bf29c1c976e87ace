"""What CGCNN is given of a crystal, and the loop that trains it, with a model of one number an element."""

from __future__ import annotations

from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule

from flows.bench.crystal_peers import crystals_of, nearest_neighbours
from flows.bench.peers.workers import cgcnn
from flows.bench.peers.workers.cgcnn import errors, train
from flows.bench.peers.workers.crystals import (
    NEIGHBOURS,
    RADIUS,
    Crystals,
    chosen_crystals,
    load_crystals,
    save_crystals,
)
from gnn.graphs.graph import Graph

TARGET = "formation_energy_per_atom"


def graph(atoms: Atoms, **properties: float) -> Graph:
    nothing = np.zeros(0, dtype=np.int64)
    return Graph(
        structure_id="s",
        dataset="d",
        theory="t",
        group=None,
        numbers=atoms.numbers,
        positions=atoms.positions,
        cell=np.asarray(atoms.cell),
        pbc=atoms.pbc,
        senders=nothing,
        receivers=nothing,
        shifts=np.zeros((0, 3), dtype=np.int64),
        properties=dict(properties),
    )


def salts(n: int) -> Crystals:
    """Rock salts of two kinds whose property is the mean of their elements' numbers over ten."""
    kinds = [bulk("NaCl", "rocksalt", a=5.6), bulk("KBr", "rocksalt", a=6.6)]
    return crystals_of([graph(a, **{TARGET: a.numbers.mean() / 10}) for k in range(n) for a in [kinds[k % 2]]], TARGET)


def test_the_twelve_nearest_of_a_close_packing() -> None:
    who, far = nearest_neighbours(graph(bulk("Cu", "fcc", a=3.6)))
    assert who.tolist() == [[0] * NEIGHBOURS]
    assert far == pytest.approx(np.full((1, NEIGHBOURS), 3.6 / np.sqrt(2)))


def test_the_nearest_come_first() -> None:
    who, far = nearest_neighbours(graph(bulk("NaCl", "rocksalt", a=5.6)))
    assert far == pytest.approx(np.tile([2.8] * 6 + [5.6 / np.sqrt(2)] * 6, (2, 1)))
    assert who[:, :6].tolist() == [[1] * 6, [0] * 6]
    assert who[:, 6:].tolist() == [[0] * 6, [1] * 6]


def test_where_neighbours_are_missing_they_are_beyond_the_radius() -> None:
    who, far = nearest_neighbours(graph(molecule("H2")))
    assert who[:, 0].tolist() == [1, 0]
    assert (far[:, 1:] > RADIUS).all()
    assert far[:, 0] == pytest.approx(molecule("H2").get_distance(0, 1))


def test_only_what_has_the_property_and_atoms_counted_over_all(tmp_path: Path) -> None:
    found = crystals_of(
        [graph(bulk("Cu")), graph(bulk("Al"), **{TARGET: 1.0}), graph(molecule("H2"), **{TARGET: 2.0})], TARGET
    )
    assert found.numbers.tolist() == [13, 1, 1]
    assert found.first.tolist() == [0, 1, 3]
    assert found.nearest[:, 0].tolist() == [0, 2, 1]
    again = load_crystals(save_crystals(tmp_path / "some.npz", found))
    assert all(np.array_equal(getattr(again, name), getattr(found, name)) for name in Crystals.__dataclass_fields__)


def test_chosen_crystals_are_a_set_of_their_own() -> None:
    all_ = salts(4)
    some = chosen_crystals(all_, [3, 0])
    assert some.numbers.tolist() == [19, 35, 11, 17]
    assert some.nearest.min() == 0
    assert some.nearest[2:].min() == 2
    assert some.nearest.max() == 3
    assert some.target.tolist() == [all_.target[3], all_.target[0]]


class Toy:
    """A number an element, a crystal the mean of its atoms'."""

    def __init__(self) -> None:
        self.module = torch.nn.Embedding(120, 1)
        self.mean, self.std = 1.0, 0.5

    def predict(self, crystals: Crystals) -> Any:
        atoms = self.module(torch.from_numpy(crystals.numbers)).squeeze(1)
        return torch.stack([part.mean() for part in atoms.split(np.diff(crystals.first).tolist())])

    def normalised(self, crystals: Crystals) -> Any:
        return torch.from_numpy((crystals.target - self.mean) / self.std).float()


def test_the_loop_learns_within_its_budget_and_errors_are_in_the_unit(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    model, data = Toy(), salts(6)
    before = errors(model, data)  # type: ignore[arg-type]
    exact = np.abs(model.predict(data).detach().numpy() * 0.5 + 1.0 - data.target)
    assert before["mae"] == pytest.approx(exact.mean(), rel=1e-5)
    seconds = count()
    monkeypatch.setattr(cgcnn, "time", SimpleNamespace(process_time=lambda: next(seconds)))
    assert train(model, data, 1000.0, 0, 0.0) == 1000  # type: ignore[arg-type]
    assert errors(model, data)["mae"] < 0.1 * before["mae"]  # type: ignore[arg-type]
