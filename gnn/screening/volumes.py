"""A first guess of a crystal's volume: the elements' own atomic volumes, added."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from ase.data import atomic_numbers, covalent_radii, reference_states

LATTICE_ATOMS: dict[str, int] = {"fcc": 4, "bcc": 2, "sc": 1, "diamond": 8}
CLOSE_PACKING = 0.5
"""Share of space that covalent spheres fill where no reference crystal is known."""


def atomic_volume(symbol: str) -> float:
    """Volume per atom (Å³) of the elemental crystal at ambient pressure, or of the covalent sphere where none is known.

    Source: `ase.data.reference_states` (experimental lattice constants).
    """
    number = atomic_numbers[symbol]
    reference = reference_states[number] or {}
    lattice = reference.get("symmetry")
    if lattice in LATTICE_ATOMS:
        return float(reference["a"] ** 3 / LATTICE_ATOMS[lattice])
    if lattice == "hcp":
        return float(reference["a"] ** 3 * reference["c/a"] * np.sqrt(3) / 4)
    return float(4 / 3 * np.pi * covalent_radii[number] ** 3 / CLOSE_PACKING)


def guess_volume(symbols: Iterable[str]) -> float:
    """Volume (Å³) of a cell that holds `symbols`."""
    return sum(atomic_volume(symbol) for symbol in symbols)
