"""The table of relaxations, from invented passes."""

from __future__ import annotations

import numpy as np
import pytest
from ase.build import bulk

from flows.bench.relaxation_speed import Pass, Plan, cells, known_elements, rows, run
from flows.settings import Home
from gnn.errors import InputError
from gnn.potentials.foreign import foreign


def test_rows_compare_with_the_first_way() -> None:
    structures = [bulk("Cu"), bulk("Al")]
    moves, few = np.array([12, 28]), np.array([10, 10])
    slow = [Pass(4.0, moves, np.array([1.0, 2.0])), Pass(8.0, moves, np.array([1.0, 2.0]))]
    fast = [
        Pass(1.0, few, np.array([1.0, np.nan])),
        Pass(2.0, few, np.array([1.0, np.nan])),
    ]
    first, second = rows({"ASE": slow, "ours": fast}, structures)
    assert first == ["ASE", "2 of 2", 20.0, pytest.approx(26.4), 20.0, 1.0, 2]
    assert second == ["ours", "1 of 2", 10.0, 10.0, 80.0, 4.0, 1]


def test_cells_are_the_same_every_time_and_small() -> None:
    found, again = cells(["Al", "Cu"], 6), cells(["Al", "Cu"], 6)
    assert [a.get_chemical_formula() for a in found] == [a.get_chemical_formula() for a in again]
    assert all(len(atoms) <= 8 for atoms in found)
    shaken = cells(["Al", "Cu"], 6, rattle=0.1)
    assert [a.get_chemical_formula() for a in shaken] == [a.get_chemical_formula() for a in found]
    assert all(np.abs(a.cell[:] - b.cell[:]).max() > 1e-3 for a, b in zip(found, shaken, strict=True))


def test_elements_are_the_models() -> None:
    potential = foreign("emt")
    assert known_elements((), potential) == ("Ag", "Al", "Au", "C")
    assert known_elements(("Cu", "Al"), potential) == ("Cu", "Al")
    with pytest.raises(InputError, match="--element Fe: the model knows Ag"):
        known_elements(("Fe",), potential)


def test_every_way_relaxes(home: Home) -> None:
    table = run("foreign:emt", Plan(("Al", "Cu"), count=2, rounds=1))
    assert [row[1] for row in table.parts[0].rows] == ["2 of 2"] * 5
    assert "--element Al --element Cu --cells 2 --fmax 0.05" in table.command
