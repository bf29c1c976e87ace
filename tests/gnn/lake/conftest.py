"""Records and lakes that the tests share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from gnn.lake import Lake
from gnn.structures.cards import Card
from gnn.structures.record import Record, Source


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(tmp_path / "lake")


@pytest.fixture
def card() -> Card:
    return Card(name="set", theory="pbe/x")


@pytest.fixture(scope="session")
def record_of() -> Callable[..., Record]:
    """The record of a number: same number, same structure; `energy` may be changed to make a conflict."""

    def make(number: int, energy: float | None = None, overlap: bool = False) -> Record:
        positions = np.array([[0, 0, 0], [0.0 if overlap else 2.0, 0, 0.001 * number]])
        return Record(
            dataset="elsewhere",
            theory="pbe/x",
            numbers=np.array([14, 14]),
            positions=positions,
            cell=np.eye(3) * 5,
            pbc=np.array([True] * 3),
            energy=-1.0 * number if energy is None else energy,
            forces=np.full((2, 3), 0.1 * number),
            source=Source("a/b.xyz", number, "f" * 64),
        )

    return make
