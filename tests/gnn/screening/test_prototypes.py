from collections import Counter

import numpy as np
import pytest
import spglib
from ase.neighborlist import neighbor_list
from hypothesis import given, settings
from hypothesis import strategies as st

from gnn.screening.fingerprint import fingerprint
from gnn.screening.prototypes import PROTOTYPES, Prototype, decorations

SPACE_GROUPS = {
    "fcc": 225,
    "bcc": 229,
    "hcp": 194,
    "diamond": 227,
    "rocksalt": 225,
    "CsCl": 221,
    "zincblende": 216,
    "wurtzite": 186,
    "NiAs": 194,
    "NaTl": 227,
    "L1_0": 123,
    "L1_1": 166,
    "fluorite": 225,
    "antifluorite": 225,
    "AlB2": 191,
    "CdI2": 164,
    "MoSi2": 139,
    "Ni2In": 194,
    "Laves-C15": 227,
    "Laves-C14": 194,
    "L1_2": 221,
    "D0_3": 225,
    "D0_22": 139,
    "D0_19": 194,
    "A15": 223,
    "D1_a": 87,
    "half-Heusler": 216,
    "full-Heusler": 225,
    "inverse-Heusler": 216,
    "perovskite": 221,
    "ThCr2Si2": 139,
    "CaAl2Si2": 164,
    "ZrBeSi": 194,
    "LiMgPdSn": 216,
}
"""Space groups of the structure types, International Tables."""
ELEMENTS = ("Li", "Mg", "Al", "Si")
ALL = sorted(PROTOTYPES)


def crystal(prototype: Prototype) -> tuple:
    atoms = prototype.decorate(ELEMENTS[: len(prototype.labels)], 20.0 * len(prototype.sites))
    return atoms, (atoms.cell[:], atoms.get_scaled_positions(), atoms.numbers)


@pytest.mark.parametrize("name", sorted(SPACE_GROUPS))
def test_space_groups(name: str) -> None:
    _, cell = crystal(PROTOTYPES[name])
    symprec = 0.2 if name == "Laves-C14" else 1e-3
    assert spglib.get_symmetry_dataset(cell, symprec=symprec).number == SPACE_GROUPS[name]


@pytest.mark.parametrize("name", ALL)
def test_cells_are_primitive_right_handed_and_of_the_volume_asked(name: str) -> None:
    atoms, cell = crystal(PROTOTYPES[name])
    assert atoms.get_volume() == pytest.approx(20.0 * len(atoms))
    assert np.linalg.det(atoms.cell[:]) > 0
    assert len(spglib.find_primitive(cell)[2]) == len(atoms)


@pytest.mark.parametrize("name", ALL)
def test_no_atoms_touch(name: str) -> None:
    atoms, _ = crystal(PROTOTYPES[name])
    assert neighbor_list("d", atoms, 6.0).min() > 0.75 * 20 ** (1 / 3)


@pytest.mark.parametrize(
    ("name", "centre", "neighbours"),
    [
        ("zincblende", "Li", {"Mg": 4}),
        ("rocksalt", "Li", {"Mg": 6}),
        ("CsCl", "Li", {"Mg": 8}),
        ("fluorite", "Li", {"Mg": 8}),
        ("antifluorite", "Li", {"Mg": 4}),
        ("half-Heusler", "Al", {"Li": 4, "Mg": 4}),
        ("full-Heusler", "Al", {"Li": 4, "Mg": 4}),
        ("NaTl", "Li", {"Li": 4, "Mg": 4}),
        ("perovskite", "Mg", {"Al": 6}),
        ("L1_2", "Li", {"Mg": 12}),
    ],
)
def test_nearest_neighbours(name: str, centre: str, neighbours: dict[str, int]) -> None:
    atoms, _ = crystal(PROTOTYPES[name])
    index = atoms.get_chemical_symbols().index(centre)
    i, j, d = neighbor_list("ijd", atoms, 8.0)
    nearest = d[i == index].min() * 1.001
    assert Counter(atoms.symbols[j[(i == index) & (d <= nearest)]]) == neighbours


def test_decorations_are_permutations() -> None:
    assert decorations(PROTOTYPES["CsCl"], ("Li", "Al")) == [("Li", "Al"), ("Al", "Li")]
    assert len(decorations(PROTOTYPES["LiMgPdSn"], ELEMENTS)) == 24


@given(st.sampled_from(ALL), st.floats(8, 40), st.integers(0, 100))
@settings(max_examples=30, deadline=None)
def test_fingerprints_do_not_see_volume_or_supercell(name: str, volume: float, seed: int) -> None:
    atoms, _ = crystal(PROTOTYPES[name])
    other = atoms.repeat((1, 2, 1))
    other.set_cell(other.cell[:] * (volume / 20) ** (1 / 3), scale_atoms=True)
    other = other[np.random.default_rng(seed).permutation(len(other))]
    assert fingerprint(other) == fingerprint(atoms)


def test_fingerprints_tell_prototypes_apart() -> None:
    binaries = [name for name in ALL if len(PROTOTYPES[name].labels) == 2]
    prints = Counter(
        fingerprint(PROTOTYPES[n].decorate(e, 100.0)) for n in binaries for e in (("Li", "Al"), ("Al", "Li"))
    )
    # fluorite and antifluorite are one type with the labels exchanged
    assert max(prints.values()) == 2
