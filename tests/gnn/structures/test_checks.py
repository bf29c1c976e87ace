"""Checks: the impossible is refused with a reason, the odd is kept with a flag, the sound has neither."""

from __future__ import annotations

import numpy as np
import pytest

from gnn.structures.cards import CardProperty
from gnn.structures.checks import FLAGS, flags_of, reject_reason

NOT_PERIODIC = np.array([False] * 3)


def test_a_sound_record_has_neither(make_record):
    record = make_record(stress=np.zeros(6), magmoms=np.zeros(2), properties={"gap": 1.0})
    assert reject_reason(record) is None
    assert flags_of(record) == ()


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"positions": np.array([[0, 0, np.nan], [1, 1, 1.0]])}, "non-finite: positions"),
        ({"cell": np.full((3, 3), np.inf)}, "non-finite: cell"),
        ({"energy": np.nan}, "non-finite: energy"),
        ({"free_energy": -np.inf}, "non-finite: free_energy"),
        ({"forces": np.full((2, 3), np.nan)}, "non-finite: forces"),
        ({"stress": np.array([0, 0, 0, 0, 0, np.inf])}, "non-finite: stress"),
        ({"properties": {"gap": np.nan}}, "non-finite: gap"),
        ({"numbers": np.array([11, 0])}, "unknown-element: atomic number 0"),
        ({"numbers": np.array([11, 119])}, "unknown-element: atomic number 119"),
        ({"forces": np.zeros((3, 3))}, "array-length: forces"),
        ({"stress": np.zeros(5)}, "array-length: stress"),
        ({"fixed": np.array([True])}, "array-length: fixed"),
        ({"properties": {"q": [1.0]}}, "array-length: property q"),
        ({"cell": np.zeros((3, 3))}, "no-volume"),
        ({"cell": np.diag([5.0, 5.0, 0.0])}, "no-volume"),
        ({"cell": np.diag([5.0, 5.0, 1e-4])}, "no-volume"),
        ({"positions": np.zeros((2, 3))}, "overlapping-atoms: atoms 0 and 1 are 0.000"),
        ({"positions": np.array([[0, 0, 0], [0.1, 0, 0.0]])}, "overlapping-atoms: atoms 0 and 1 are 0.100"),
    ],
)
def test_the_impossible_is_refused(make_record, changes, reason):
    assert reject_reason(make_record(**changes)).startswith(reason)


def test_no_atoms(make_record):
    empty = make_record(numbers=np.zeros(0, int), positions=np.zeros((0, 3)), forces=np.zeros((0, 3)))
    assert reject_reason(empty) == "no-atoms"


def test_atoms_that_meet_across_the_boundary(make_record):
    record = make_record(cell=np.eye(3) * 6, positions=np.array([[0.01, 3, 3], [5.99, 3, 3]]))
    assert reject_reason(record).startswith("overlapping-atoms")
    molecule = make_record(cell=np.zeros((3, 3)), pbc=NOT_PERIODIC, positions=np.array([[0.01, 3, 3], [5.99, 3, 3]]))
    assert reject_reason(molecule) is None


def test_a_bond_of_hydrogen_is_no_overlap(make_record):
    record = make_record(numbers=np.array([1, 1]), positions=np.array([[0, 0, 0], [0.74, 0, 0]]), cell=np.eye(3) * 8)
    assert reject_reason(record) is None and flags_of(record) == ()


def test_isolated_atoms_are_kept(make_record):
    atom = make_record(
        numbers=np.array([6]), positions=np.zeros((1, 3)), cell=np.zeros((3, 3)), pbc=NOT_PERIODIC, forces=None
    )
    assert reject_reason(atom) is None and flags_of(atom) == ()


def test_slabs_are_checked_by_area(make_record):
    slab = make_record(pbc=np.array([True, True, False]), cell=np.diag([5.0, 5.0, 0.0]))
    assert reject_reason(slab) is None
    assert reject_reason(make_record(pbc=np.array([True, True, False]), cell=np.diag([5.0, 0.0, 5.0]))).startswith(
        "no-vol"
    )


@pytest.mark.parametrize(
    ("changes", "flag"),
    [
        ({"forces": np.array([[60.0, 0, 0], [0, 0, 0]])}, "large-force"),
        ({"stress": np.array([4.0, 0, 0, 0, 0, 0])}, "large-stress"),
        ({"energy": 50.0}, "high-energy"),
        ({"positions": np.array([[0, 0, 0], [0.4, 0, 0]])}, "close-contact"),
        ({"energy": None, "forces": None}, "unlabelled"),
    ],
)
def test_the_odd_is_kept_with_a_flag(make_record, changes, flag):
    record = make_record(**changes)
    assert reject_reason(record) is None
    assert flags_of(record) == (flag,)
    assert flag in FLAGS


def test_a_force_is_measured_as_a_vector(make_record):
    record = make_record(forces=np.array([[30.0, 30, 30], [0, 0, 0]]))
    assert flags_of(record) == ("large-force",)


def test_plausible_ranges_come_from_the_card(make_record):
    declared = {"ef": CardProperty(unit="eV/atom", plausible=(-6, 3))}
    assert flags_of(make_record(properties={"ef": 5.1}), declared) == ("implausible:ef",)
    assert flags_of(make_record(properties={"ef": -1.0}), declared) == ()
    assert flags_of(make_record(properties={"ef": 5.1})) == ()


def test_flags_that_a_reader_gave_stay(make_record):
    assert flags_of(make_record(flags=("scf-unconverged",), energy=50.0)) == ("high-energy", "scf-unconverged")
