"""Small structures and cards that the tests of structures, readers and lake share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms

from gnn.structures.cards import Card
from gnn.structures.readers import Rejected, read_records
from gnn.structures.record import Record


def labelled(atoms: Atoms, seed: int = 0, **labels: Any) -> Atoms:
    random = np.random.default_rng(seed)
    results = {
        "energy": -3.0 * len(atoms) + seed,
        "free_energy": -3.01 * len(atoms) + seed,
        "forces": random.normal(size=(len(atoms), 3)),
    }
    if atoms.pbc.all():
        results["stress"] = random.normal(size=6) * 0.01
    atoms.calc = SinglePointCalculator(atoms, **(results | labels))
    return atoms


@pytest.fixture
def crystal() -> Atoms:
    """Rattled rock salt with energy, free energy, forces and stress, one atom fixed."""
    atoms = bulk("MgO", "rocksalt", a=4.2, cubic=True)
    atoms.rattle(0.05, seed=1)
    atoms.set_constraint(FixAtoms([2]))
    return labelled(atoms)


@pytest.fixture
def ethanol() -> Atoms:
    """A molecule in a meaningless box, with energy and forces."""
    atoms = molecule("CH3CH2OH", vacuum=10)
    return labelled(atoms)


@pytest.fixture
def frames() -> list[Atoms]:
    """Five different frames of silicon."""
    images = []
    for seed in range(5):
        atoms = bulk("Si", cubic=True)
        atoms.rattle(0.1, seed=seed)
        images.append(labelled(atoms, seed))
    return images


@pytest.fixture
def make_record() -> Callable[..., Record]:
    """A sound record, with whatever is given instead."""

    def make(**changes: Any) -> Record:
        atoms = bulk("NaCl", "rocksalt", a=5.6)
        values: dict[str, Any] = {
            "dataset": "test",
            "theory": "pbe/test",
            "numbers": atoms.numbers.astype(np.int64),
            "positions": atoms.positions,
            "cell": np.array(atoms.cell[:]),
            "pbc": np.array([True] * 3),
            "energy": -6.0,
            "forces": np.zeros((2, 3)),
        }
        return Record(**(values | changes))

    return make


@pytest.fixture
def card() -> Card:
    return Card(name="test", theory="pbe/test")


@pytest.fixture
def read_all() -> Callable[..., list[Record]]:
    """All records of a file, none rejected."""

    def read(path: Path, card: Card) -> list[Record]:
        records = list(read_records(path, card))
        rejected = [record for record in records if isinstance(record, Rejected)]
        assert not rejected, rejected[:3]
        return [record for record in records if isinstance(record, Record)]

    return read
