"""Raw rows of ASE Atoms, for every format that ASE reads."""

from __future__ import annotations

from typing import Any

import numpy as np
from ase import Atoms
from ase.constraints import FixAtoms, FixCartesian, FixScaled
from numpy.typing import NDArray

from gnn.structures.readers.raw import Raw

FULL = 1 - 1e-3
"""A site that is occupied by at least so much is full."""
NOT_LABELS = ("numbers", "positions", "tags", "initial_magmoms", "initial_charges", "momenta", "masses")


def raw_of_atoms(atoms: Atoms) -> Raw:
    """A raw row: arrays and info of `atoms`, and over them what its calculator holds; nothing is computed.

    Forces are raw: constraints are not applied.
    """
    values: dict[str, Any] = {key: value for key, value in atoms.arrays.items() if key not in NOT_LABELS}
    values |= atoms.info
    if atoms.calc is not None:
        values |= {key: value for key, value in atoms.calc.results.items() if value is not None}
    fixed = fixed_mask(atoms)
    tags = atoms.get_tags().astype(np.int64)
    group = atoms.info.get("group")
    return Raw(
        numbers=atoms.numbers.astype(np.int64),
        positions=atoms.positions,
        cell=np.array(atoms.cell[:]),
        pbc=np.asarray(atoms.pbc, dtype=bool),
        values=values,
        fixed=fixed if fixed.any() else None,
        tags=tags if tags.any() else None,
        theory=_text(atoms.info.get("theory")),
        group=_text(group),
    )


def fixed_mask(atoms: Atoms) -> NDArray[np.bool_]:
    """Atoms (N,) that constraints hold in all three directions."""
    fixed = np.zeros(len(atoms), dtype=bool)
    for constraint in atoms.constraints:
        if holds_atoms(constraint):
            fixed[constraint.index] = True
    return fixed


def is_disordered(atoms: Atoms) -> bool:
    """Whether a site is shared by several elements or partly empty: ASE takes the first element and says so aside."""
    occupancies = atoms.info.get("occupancy")
    sites = occupancies.values() if isinstance(occupancies, dict) else ()
    return any(len(site) > 1 or not all(map(_is_full, site.values())) for site in sites)


def _is_full(occupancy: Any) -> bool:
    """Whether a site is wholly occupied: one of which nothing is stated (`?` or `.` in a CIF) is."""
    return isinstance(occupancy, str) or occupancy >= FULL


def holds_atoms(constraint: Any) -> bool:
    """Whether a constraint holds its atoms in all three directions."""
    if isinstance(constraint, FixCartesian | FixScaled):
        return bool(np.asarray(constraint.mask).all())
    return isinstance(constraint, FixAtoms)


def holds_nothing(constraint: Any) -> bool:
    """Whether a constraint leaves all directions free, as ASE reads it of the free atoms of a mask by directions."""
    return isinstance(constraint, FixCartesian | FixScaled) and not np.asarray(constraint.mask).any()


def _text(value: Any) -> str | None:
    return None if value is None else str(value)
