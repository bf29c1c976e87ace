"""A first guess of a crystal's volume: the elements' own atomic volumes, added."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
from ase.data import atomic_numbers, covalent_radii, reference_states

LATTICE_ATOMS: dict[str, int] = {"fcc": 4, "bcc": 2, "sc": 1, "diamond": 8}
CLOSE_PACKING = 0.5
"""Share of space that covalent spheres fill where no reference crystal is known."""


MOLECULAR_VOLUMES = {
    "H": 5.1, "N": 11.8, "O": 11.4, "F": 11.2, "P": 29.5, "S": 25.2, "Cl": 25.8, "Br": 32.7, "I": 46.2,
}  # fmt: skip
"""Å³ an atom takes in molecular crystals: Hofmann, Acta Cryst. B 58, 489 (2002), rounded. In the compounds of metals it
takes less."""


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


def guess_volume(symbols: Iterable[str], table: Mapping[str, float] | None = None) -> float:
    """Volume (Å³) of a cell that holds `symbols`; `table` gives atomic volumes (Å³) that go first."""
    known = table or {}
    return sum(known[symbol] if symbol in known else atomic_volume(symbol) for symbol in symbols)


def roomy_volume(symbols: Iterable[str]) -> float:
    """Volume (Å³) of a cell in which non-metals have the room that they take between molecules."""
    return sum(max(atomic_volume(symbol), MOLECULAR_VOLUMES.get(symbol, 0.0)) for symbol in symbols)


def fitted_volumes(crystals: Iterable[tuple[Mapping[str, float], float]], weight: float = 1.0) -> dict[str, float]:
    """Effective atomic volumes (Å³) that reproduce the volumes of `crystals` (composition, volume in Å³) best.

    Least squares per atom, with every element held to its `atomic_volume` by `weight` crystals' worth (ridge), so that
    an element seen once or never keeps a sensible value.
    """
    rows = [(dict(composition), volume) for composition, volume in crystals]
    elements = sorted({symbol for composition, _ in rows for symbol in composition})
    if not elements:
        return {}
    counts = np.array([[composition.get(symbol, 0.0) for symbol in elements] for composition, _ in rows])
    atoms = counts.sum(axis=1)
    prior = np.array([atomic_volume(symbol) for symbol in elements])
    design = np.vstack([counts / atoms[:, None], np.sqrt(weight) * np.eye(len(elements))])
    target = np.concatenate([np.array([volume for _, volume in rows]) / atoms, np.sqrt(weight) * prior])
    solution = np.linalg.lstsq(design, target, rcond=None)[0]
    # a fit to few crystals must not turn an atom inside out
    return dict(zip(elements, np.clip(solution, 0.5 * prior, 2.0 * prior).tolist(), strict=True))
