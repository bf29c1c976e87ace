"""The table of relaxations, from invented passes."""

from __future__ import annotations

import numpy as np
from ase.build import bulk

from flows.bench.relaxation_speed import Pass, cells, rows


def test_rows_compare_with_the_first_way() -> None:
    structures = [bulk("Cu"), bulk("Al")]
    slow = [Pass(4.0, 20, np.array([1.0, 2.0])), Pass(8.0, 20, np.array([1.0, 2.0]))]
    fast = [Pass(1.0, 10, np.array([1.0, np.nan])), Pass(2.0, 10, np.array([1.0, np.nan]))]
    first, second = rows({"ASE": slow, "ours": fast}, structures)
    assert first == ["ASE", "2 of 2", 10.0, 20.0, 1.0, 2]
    assert second == ["ours", "1 of 2", 5.0, 80.0, 4.0, 1]


def test_cells_are_the_same_every_time_and_small() -> None:
    found, again = cells(["Al", "Cu"], 6), cells(["Al", "Cu"], 6)
    assert [a.get_chemical_formula() for a in found] == [a.get_chemical_formula() for a in again]
    assert all(len(atoms) <= 8 for atoms in found)
