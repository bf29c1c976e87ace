"""Finding labels by path, by usual name, by template."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gnn.errors import InputError
from gnn.structures.readers.lookup import ARRAYS, MISSING, ORIGINS, SPELLINGS, filled, find, is_label, usual

VALUES = {"a": {"b": [10, {"c": 3}]}, "x.y": 1, "none": None}


@pytest.mark.parametrize(
    ("path", "value"),
    [("a.b.0", 10), ("a.b.1.c", 3), ("a.b.-1.c", 3), ("x.y", 1), ("none", None), ("a.q", MISSING), ("a.b.7", MISSING),
     ("a.b.0.c", MISSING), ("", MISSING)],
)  # fmt: skip
def test_paths(path, value):
    assert find(VALUES, path) == value if value is not MISSING else find(VALUES, path) is MISSING


@given(st.sampled_from(sorted(SPELLINGS)), st.data())
def test_each_usual_name_with_each_origin_in_any_case(label, data):
    name = data.draw(st.sampled_from(SPELLINGS[label]))
    origin = data.draw(st.sampled_from(ORIGINS))
    key = f"{origin}_{name}" if origin else name
    key = data.draw(st.sampled_from([key, key.upper(), key.title(), key.replace("_", "-")]))
    value = [1.5, 2.5] if label in ARRAYS else 1.5
    assert usual({key: value, "unrelated": 2.0}, label) == (key, value)


@pytest.mark.parametrize("key", ["mace_energy", "corrected_total_energy", "energy_above_hull", "formation_energy"])
def test_other_energies_are_not_the_energy(key):
    assert usual({key: 1.0}, "energy")[1] is MISSING


def test_null_is_no_label():
    assert usual({"energy": None, "REF_energy": 2.0}, "energy") == ("REF_energy", 2.0)
    assert usual({"energy": None}, "energy")[1] is MISSING


def test_two_that_agree_are_one():
    assert usual({"forces": np.ones((2, 3)), "REF_forces": np.ones((2, 3))}, "forces")[0] == "forces"
    assert usual({"energy": 1.0, "dft_energy": 1.0 + 1e-10}, "energy")[0] == "energy"


@pytest.mark.parametrize("other", [np.zeros((2, 3)), np.ones((3, 3))])
def test_two_that_differ_are_an_error(other):
    with pytest.raises(InputError, match=r"'forces' and 'REF_forces' both .* write \[columns\]"):
        usual({"forces": np.ones((2, 3)), "REF_forces": other}, "forces")


def test_lists_of_several_lengths_are_compared_too():
    ragged = [[0.0] * 3, [0.0]]
    assert usual({"forces": ragged, "REF_forces": [[0.0] * 3, [0.0]]}, "forces") == ("forces", ragged)


def test_per_atom_energies_beside_the_energy_are_left_alone():
    assert usual({"energies": np.array([-1.0, -2.0]), "energy": -3.0}, "energy") == ("energy", -3.0)


def test_the_energy_of_one_atom_is_that_of_the_atom():
    _, found = usual({"energies": np.array([-3.0]), "energy": -3.0}, "energy")
    assert float(np.squeeze(found)) == -3.0


def test_totals_and_largest_values_beside_arrays_are_left_alone():
    """ASE's Vasp writes the total `magmom` beside the `magmoms` of the atoms."""
    assert usual({"magmom": 1.2, "magmoms": np.ones(2)}, "magmoms")[0] == "magmoms"
    assert usual({"force": 0.02, "forces": [[0.0] * 3]}, "forces")[0] == "forces"
    assert usual({"magmom": 1.2}, "magmoms")[1] is MISSING


def test_charges_of_atoms_are_no_charge_of_the_whole():
    """Also of a single atom; and a number is no charges of atoms, however it is written."""
    for charges in (np.array([0.9, -0.9]), [0.9, -0.9], np.array([0.1])):
        assert usual({"dft_charge": charges}, "total_charge")[1] is MISSING
        assert usual({"dft_charge": charges}, "charges") == ("dft_charge", charges)
    for value in (1, "1", "", np.float64(1)):
        assert usual({"charge": value, "charges": [0.5, 0.5]}, "total_charge") == ("charge", value)
        assert usual({"charge": value, "charges": [0.5, 0.5]}, "charges")[0] == "charges"
    assert usual({"multiplicity": [1, 2]}, "multiplicity")[1] is MISSING


def test_words_in_the_comment_of_an_xyz_file_are_no_labels():
    assert usual({"energy": True}, "energy")[1] is MISSING
    assert usual({"energy": "calculation unavailable"}, "energy")[1] == "calculation unavailable", "it says why"


def test_names_of_labels():
    assert is_label("REF_energy") and is_label("charge") and not is_label("band_gap")


def test_templates():
    assert filled("{a.b.0} and {x.y}", VALUES) == "10 and 1"
    assert filled("{a.q}", VALUES) is None and filled("{none}", VALUES) is None
    assert filled("plain", VALUES) == "plain"
    assert filled("{__class__}", VALUES) is None, "paths look into values and nowhere else"
