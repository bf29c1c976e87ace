"""Are stresses given in the order and with the sign that their card says? Sheared cells tell.

A cell that is cubic but for a small shear answers with a stress of the same component and, in tension-positive
convention, of the same sign: σ_yz = 2 C44 ε_yz > 0 for every stable crystal (Born & Huang, 1954). Data sets with
exchanged components or the wrong sign exist, and no number of theirs looks odd by itself.
"""

from __future__ import annotations

from itertools import permutations, product

import numpy as np
from numpy.typing import NDArray

from gnn.structures.record import Record
from gnn.structures.units import VOIGT_ORDERS, voigt_from_matrix

Floats = NDArray[np.float64]

SHEARED, NEARLY_CUBIC = 0.005, 0.2
"""A shear strain beyond the first says something; beyond the second the cell is no cube any more."""
SURE = 0.9
"""Least correlation of every component with its own strain."""
FEWEST, MOST = 4, 2000
"""Cells sheared in each plane that it takes, as three rattled ones fit an order by chance; cells that are looked at."""
SHEARS = VOIGT_ORDERS["ase"][3:]


class ShearedCells:
    """The sheared cells of one file, and what their stresses say."""

    def __init__(self) -> None:
        self._strains: list[Floats] = []
        self._stresses: list[Floats] = []

    def note(self, record: Record) -> None:
        """Keep the record's shear strain and stress, if it is a sheared cube with a stress."""
        if record.stress is None or not record.pbc.all() or len(self._strains) >= MOST:
            return
        strain = shear_strain(record.cell)
        if strain is not None:
            self._strains.append(strain)
            self._stresses.append(np.asarray(record.stress[3:]))

    def remark(self) -> str | None:
        """What is wrong, for people; None where all is well or too little is known."""
        strains, stresses = np.array(self._strains).reshape(-1, 3), np.array(self._stresses).reshape(-1, 3)
        if (np.count_nonzero(np.abs(strains) > SHEARED, axis=0) < FEWEST).any() or (stresses.std(axis=0) == 0).any():
            return None
        correlation = np.corrcoef(strains.T, stresses.T)[:3, 3:]
        found = [
            (order, sign)
            for order, sign in product(permutations(range(3)), (1, -1))
            if (sign * correlation[range(3), order] > SURE).all()
        ]
        return None if not found or found[0] == ((0, 1, 2), 1) else _told(*found[0], len(strains))


def shear_strain(cell: Floats) -> Floats | None:
    """Strains yz, xz, xy of a cell that is nearly a cube and sheared; None for any other cell."""
    volume = abs(float(np.linalg.det(cell)))
    if volume == 0:
        return None
    strain = voigt_from_matrix(cell / np.cbrt(volume) - np.eye(3))
    sheared = float(np.abs(strain[3:]).max()) > SHEARED
    return strain[3:] if sheared and float(np.abs(strain).max()) < NEARLY_CUBIC else None


def _told(order: tuple[int, ...], sign: int, n: int) -> str:
    faults = ["their sign is the other one"] if sign < 0 else []
    if order != (0, 1, 2):
        answers = ", ".join(f"{SHEARS[k]} in {SHEARS[order[k]]}" for k in range(3) if order[k] != k)
        faults.insert(0, f"a shear is answered in another component ({answers})")
    return f"stresses of {n} sheared cells look wrong: {' and '.join(faults)}; see [stress] order and sign of the card"
