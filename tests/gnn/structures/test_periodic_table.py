"""Places in the periodic table and what they say of likeness."""

from __future__ import annotations

import numpy as np
import pytest
from ase.data import atomic_numbers, chemical_symbols
from hypothesis import given
from hypothesis import strategies as st
from pymatgen.core import Element

from gnn.structures.periodic_table import likeness, place

SYMBOLS = chemical_symbols[1:119]


@pytest.mark.parametrize("symbol", SYMBOLS)
def test_places_are_those_of_pymatgen(symbol):
    element = Element(symbol)
    period = 6 if element.is_lanthanoid else 7 if element.is_actinoid else element.row
    assert place(atomic_numbers[symbol]) == (period, element.group)


@given(st.lists(st.sampled_from(SYMBOLS), unique=True, max_size=30))
def test_likeness_is_a_correlation(symbols):
    found = likeness(symbols)
    assert found.shape == (len(symbols), len(symbols))
    np.testing.assert_array_equal(found, found.T)
    np.testing.assert_allclose(np.diag(found), 1.0)
    if symbols:
        assert np.linalg.eigvalsh(found).min() > 0.2


def test_neighbours_are_more_alike_than_strangers():
    ti, zr, na, cl = range(4)
    found = likeness(["Ti", "Zr", "Na", "Cl"])
    assert found[ti, zr] > 0.4 > found[ti, na] > found[ti, cl]
    assert found[na, cl] < 1e-6
