"""Which candidates are the same crystal: shells of neighbours sort out most pairs, the StructureMatcher decides."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import vesin
from ase.data import chemical_symbols
from numpy.typing import NDArray

from gnn.screening.campaign import DedupeSpec
from gnn.structures.record import reduced_formula

if TYPE_CHECKING:
    from pymatgen.analysis.structure_matcher import StructureMatcher
    from pymatgen.core import Structure

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

REACH = 2.0
"""Radius of the shells that are compared, in units of the cube root of the volume per atom."""
GRID = np.linspace(0.4, REACH, 33)
WIDTH = 0.1
"""Smearing of a shell, in the same units."""
ALIKE = 0.85
"""Cosine of two shell profiles below which crystals are different without asking the matcher."""


@dataclass(frozen=True)
class Crystal:
    """What is compared: numbers (N,), positions (N, 3) Å, cell (3, 3) Å, and who it is."""

    name: str
    numbers: Ints
    positions: Floats
    cell: Floats
    energy_per_atom: float | None = None

    @cached_property
    def formula(self) -> str:
        """Reduced formula."""
        return reduced_formula(self.numbers)

    @property
    def volume_per_atom(self) -> float:
        """Å³."""
        return abs(float(np.linalg.det(self.cell))) / len(self.numbers)

    @cached_property
    def profile(self) -> Floats:
        """Shell profile of every pair of elements, one unit vector; see `shell_profile`."""
        return shell_profile(self.numbers, self.positions, self.cell)

    @cached_property
    def structure(self) -> Structure:
        """The primitive, Niggli-reduced pymatgen Structure."""
        from pymatgen.core import Lattice, Structure

        species = [chemical_symbols[number] for number in self.numbers]
        whole = Structure(Lattice(self.cell), species, self.positions, coords_are_cartesian=True)
        return whole.get_primitive_structure().get_reduced_structure(reduction_algo="niggli")


def shell_profile(numbers: Ints, positions: Floats, cell: Floats) -> Floats:
    """Smeared distribution of neighbours' distances for each pair of elements, per atom, as one unit vector.

    Distances are in units of the mean atomic spacing, so volume does not matter; nor do orientation and choice of cell.
    Shape (P * 33,) with P pairs of the elements present.
    """
    spacing = (abs(np.linalg.det(cell)) / len(numbers)) ** (1 / 3)
    found = vesin.NeighborList(cutoff=(REACH + 2 * WIDTH) * spacing, full_list=True).compute(
        points=positions, box=cell, periodic=True, quantities="ijd"
    )
    senders, receivers, distances = found
    kinds, of_atom = np.unique(numbers, return_inverse=True)
    pair = of_atom[senders] * len(kinds) + of_atom[receivers]
    smeared = np.exp(-0.5 * ((distances[:, None] / spacing - GRID) / WIDTH) ** 2) / distances[:, None] ** 2
    profile = np.zeros((len(kinds) ** 2, len(GRID)))
    np.add.at(profile, pair, smeared)
    flat = profile.ravel()
    return flat / max(float(np.linalg.norm(flat)), 1e-300)


class Matcher:
    """Says whether two crystals are the same up to volume, by `DedupeSpec`'s tolerances."""

    def __init__(self, spec: DedupeSpec) -> None:
        self.spec = spec

    @cached_property
    def _matcher(self) -> StructureMatcher:
        from pymatgen.analysis.structure_matcher import StructureMatcher

        return StructureMatcher(
            ltol=self.spec.ltol, stol=self.spec.stol, angle_tol=self.spec.angle_tol, primitive_cell=False, scale=True
        )

    def same(self, a: Crystal, b: Crystal) -> bool:
        """Whether `a` and `b` are one crystal."""
        if a.formula != b.formula or float(a.profile @ b.profile) < ALIKE:
            return False
        if len(a.structure) != len(b.structure):
            return False
        return bool(self._matcher.fit(a.structure, b.structure, skip_structure_reduction=True))


def duplicates(
    crystals: Iterable[Crystal],
    spec: DedupeSpec,
    energy_window: float | None = None,
    volume_window: float | None = None,
) -> dict[str, str]:
    """Name of each duplicate -> name of the first crystal that it repeats; order decides who is first.

    energy_window (eV/atom), volume_window (share of the larger volume per atom): crystals that differ by more are never
    the same.
    """
    matcher = Matcher(spec)

    def is_repeat(first: Crystal, other: Crystal) -> bool:
        near = _close_energies(first, other, energy_window) and _close_volumes(first, other, volume_window)
        return near and matcher.same(first, other)

    kept: dict[str, list[Crystal]] = {}
    repeated: dict[str, str] = {}
    for crystal in crystals:
        rivals = kept.setdefault(crystal.formula, [])
        first = next((rival for rival in rivals if is_repeat(rival, crystal)), None)
        if first is None:
            rivals.append(crystal)
        else:
            repeated[crystal.name] = first.name
    return repeated


def _close_energies(a: Crystal, b: Crystal, window: float | None) -> bool:
    if window is None or a.energy_per_atom is None or b.energy_per_atom is None:
        return True
    return abs(a.energy_per_atom - b.energy_per_atom) <= window


def _close_volumes(a: Crystal, b: Crystal, window: float | None) -> bool:
    if window is None:
        return True
    smaller, larger = sorted((a.volume_per_atom, b.volume_per_atom))
    return larger - smaller <= window * larger


def known_among(
    crystals: Iterable[Crystal], library: Sequence[Crystal], spec: DedupeSpec, volume_window: float | None = None
) -> dict[str, str]:
    """Name of each crystal that `library` holds -> the name there, the first of several.

    volume_window (share of the larger volume per atom): crystals that differ by more are never the same.
    """
    matcher = Matcher(spec)

    def is_known(entry: Crystal, crystal: Crystal) -> bool:
        return _close_volumes(entry, crystal, volume_window) and matcher.same(entry, crystal)

    by_formula: dict[str, list[Crystal]] = {}
    for entry in library:
        by_formula.setdefault(entry.formula, []).append(entry)
    found = {}
    for crystal in crystals:
        match = next((entry for entry in by_formula.get(crystal.formula, ()) if is_known(entry, crystal)), None)
        if match is not None:
            found[crystal.name] = match.name
    return found
