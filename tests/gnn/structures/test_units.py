"""Units: conversions that undo each other, and stresses that agree with ASE."""

from __future__ import annotations

import numpy as np
import pytest
from ase import units
from ase.build import bulk
from ase.calculators.emt import EMT
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from gnn.structures.cards import force_unit
from gnn.structures.units import (
    ENERGY_UNITS,
    KBAR,
    STRESS_UNITS,
    VOIGT_ORDERS,
    matrix_from_voigt,
    reorder_voigt,
    stress_from_virial,
    voigt_from_matrix,
    voigt_order,
)

six = arrays(float, 6, elements=st.floats(-10, 10))


@given(six)
def test_voigt_and_matrix_undo_each_other(stress):
    assert np.allclose(voigt_from_matrix(matrix_from_voigt(stress)), stress)


@given(six)
def test_vasp_order(stress):
    xx, yy, zz, xy, yz, xz = stress
    assert reorder_voigt(stress, VOIGT_ORDERS["vasp"]).tolist() == [xx, yy, zz, yz, xz, xy]
    assert reorder_voigt(stress, VOIGT_ORDERS["ase"]).tolist() == stress.tolist()


def test_an_order_is_a_name_or_the_six_components():
    assert voigt_order("vasp") == VOIGT_ORDERS["vasp"]
    assert voigt_order("xx yy zz xy xz yz") == ("xx", "yy", "zz", "xy", "xz", "yz")
    for wrong in ("espresso", "xx yy zz xy xz", "xx yy zz xy xz xz"):
        with pytest.raises(ValueError, match="unknown order"):
            voigt_order(wrong)


def test_kilobar_and_gigapascal():
    assert pytest.approx(1 / 1602.1766, rel=1e-6) == KBAR
    assert STRESS_UNITS["GPa"] == pytest.approx(units.GPa)
    assert ENERGY_UNITS["kcal/mol"] == pytest.approx(0.0433641, rel=1e-5)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("eV/Å", 1),
        ("eV/A", 1),
        ("Ha/Bohr", 51.42206),
        ("kcal/mol/Å", 0.0433641),
        ("kcal/mol/A", 0.0433641),
        ("eV/nm", 0.1),
    ],
)
def test_force_units(name, value):
    assert force_unit(name) == pytest.approx(value, rel=1e-5)


@pytest.mark.parametrize("name", ["eV", "Å", "eV/furlong", "N"])
def test_unknown_force_units_are_refused(name):
    with pytest.raises(ValueError, match="write ENERGY/LENGTH"):
        force_unit(name)


def test_stress_of_a_virial_is_that_of_ase():
    """W = -dE/dstrain by finite differences of EMT gives ASE's own stress."""
    atoms = bulk("Cu", a=3.7, cubic=True)
    atoms.rattle(0.05, seed=3)
    atoms.calc = EMT()
    virial, step = np.zeros((3, 3)), 1e-5
    for i in range(3):
        for j in range(3):
            energies = []
            for sign in (1, -1):
                strain = np.eye(3)
                strain[i, j] += sign * step / 2
                strain[j, i] += sign * step / 2
                strained = atoms.copy()
                strained.set_cell(atoms.cell[:] @ strain, scale_atoms=True)
                strained.calc = EMT()
                energies.append(strained.get_potential_energy())
            virial[i, j] = -(energies[0] - energies[1]) / (2 * step)
    assert np.allclose(stress_from_virial(virial, atoms.get_volume()), atoms.get_stress(), atol=1e-7)
