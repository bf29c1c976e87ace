"""Cells with labels of EMT."""

from __future__ import annotations

import numpy as np
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator


def labelled_cells(n: int, seed: int = 0, symbols: tuple[str, str] = ("Cu", "Al")) -> list[Atoms]:
    """Rattled fcc cells of four atoms, one of them of the second element, with energy, forces and stress."""
    rng = np.random.default_rng(seed)
    structures = []
    for index in range(n):
        atoms = bulk(symbols[0], "fcc", a=3.7, cubic=True)
        atoms.symbols[index % 4] = symbols[1]
        atoms.set_cell(atoms.cell * rng.uniform(0.97, 1.04), scale_atoms=True)
        atoms.rattle(0.08, rng=rng)
        atoms.calc = EMT()
        energy, forces, stress = atoms.get_potential_energy(), atoms.get_forces(), atoms.get_stress()
        atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=forces, stress=stress)
        structures.append(atoms)
    return structures
