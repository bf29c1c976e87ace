"""Conversions into the house's units: eV, Å, eV/Å, eV/Å³; stress as ASE has it (positive = tension)."""

from __future__ import annotations

import numpy as np
from ase import units
from numpy.typing import NDArray

Floats = NDArray[np.float64]

KBAR = 1e-1 * units.GPa
"""One kilobar in eV/Å³."""

ENERGY_UNITS: dict[str, float] = {
    "eV": 1.0,
    "meV": 1e-3,
    "Ha": units.Hartree,
    "Ry": units.Rydberg,
    "kcal/mol": units.kcal / units.mol,
    "kJ/mol": units.kJ / units.mol,
}
LENGTH_UNITS: dict[str, float] = {"Å": 1.0, "A": 1.0, "nm": 10.0, "Bohr": units.Bohr}
STRESS_UNITS: dict[str, float] = {
    "eV/Å^3": 1.0,
    "eV/A^3": 1.0,
    "GPa": units.GPa,
    "kBar": KBAR,
    "Ha/Bohr^3": units.Hartree / units.Bohr**3,
}
VOIGT_ORDERS: dict[str, tuple[str, ...]] = {
    "ase": ("xx", "yy", "zz", "yz", "xz", "xy"),
    "vasp": ("xx", "yy", "zz", "xy", "yz", "xz"),
}


def voigt_order(text: str) -> tuple[str, ...]:
    """The six components that `text` names: `ase`, `vasp`, or themselves, as `xx yy zz xy xz yz`.

    Raises:
        ValueError: it names no order.
    """
    named = VOIGT_ORDERS.get(text, tuple(text.split()))
    if sorted(named) != sorted(VOIGT_ORDERS["ase"]):
        raise ValueError(f"unknown order {text!r}; write ase, vasp, or the six components, as 'xx yy zz xy xz yz'")
    return named


def reorder_voigt(stress: Floats, order: tuple[str, ...]) -> Floats:
    """Six components given in `order`, as xx yy zz yz xz xy. Shapes: (6,) -> (6,)."""
    return np.array([stress[order.index(name)] for name in VOIGT_ORDERS["ase"]])


def voigt_from_matrix(stress: Floats) -> Floats:
    """The symmetric part of a (3, 3) stress as xx yy zz yz xz xy."""
    symmetric = 0.5 * (stress + stress.T)
    return symmetric[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]]


def matrix_from_voigt(stress: Floats) -> Floats:
    """The (3, 3) stress of xx yy zz yz xz xy."""
    xx, yy, zz, yz, xz, xy = stress
    return np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]])


def stress_from_virial(virial: Floats, volume: float) -> Floats:
    """Voigt stress (eV/Å³, positive = tension) of a virial W = -dE/dstrain in eV, shape (3, 3): stress = -W / V.

    Source: DeePMD-kit documentation, "virial": W = sum_i r_i ⊗ f_i, i.e. -dE/dε.
    """
    return voigt_from_matrix(-virial / volume)
