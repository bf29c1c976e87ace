"""Records to and from ASE Atoms and pymatgen Structures."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms

from gnn.structures.record import Record

if TYPE_CHECKING:
    from pymatgen.core import Structure

CALCULATOR_LABELS = ("energy", "free_energy", "forces", "stress", "magmoms", "charges")


def record_to_atoms(record: Record) -> Atoms:
    """ASE Atoms with the labels as a single-point calculator, and provenance in `info`."""
    atoms = Atoms(numbers=record.numbers, positions=record.positions, cell=record.cell, pbc=record.pbc)
    if record.tags is not None:
        atoms.set_tags(record.tags)
    if record.fixed is not None and record.fixed.any():
        atoms.set_constraint(FixAtoms(mask=record.fixed))
    labels = {name: getattr(record, name) for name in CALCULATOR_LABELS if getattr(record, name) is not None}
    atoms.calc = SinglePointCalculator(atoms, **labels)
    atoms.info = {"structure_id": record.structure_id, "dataset": record.dataset, "theory": record.theory}
    for name in ("config_type", "group", "total_charge", "multiplicity"):
        if (value := getattr(record, name)) is not None:
            atoms.info[name] = value
    return atoms


def atoms_to_record(atoms: Atoms, dataset: str, theory: str) -> Record:
    """A record of `atoms` with the labels its calculator already holds; nothing is computed.

    Forces are raw: constraints are not applied.
    """
    results = dict(atoms.calc.results) if atoms.calc is not None else {}
    fixed = np.zeros(len(atoms), dtype=bool)
    for constraint in atoms.constraints:
        if isinstance(constraint, FixAtoms):
            fixed[constraint.index] = True
    return Record(
        dataset=dataset,
        theory=theory,
        numbers=atoms.numbers.astype(np.int64),
        positions=atoms.positions.astype(float),
        cell=np.array(atoms.cell[:], dtype=float),
        pbc=np.asarray(atoms.pbc, dtype=bool),
        energy=_number(results.get("energy")),
        free_energy=_number(results.get("free_energy")),
        forces=_array(results.get("forces")),
        stress=_array(results.get("stress")),
        magmoms=_array(results.get("magmoms")),
        charges=_array(results.get("charges")),
        fixed=fixed if fixed.any() else None,
        tags=atoms.get_tags().astype(np.int64) if atoms.has("tags") and atoms.get_tags().any() else None,
        config_type=_text(atoms.info.get("config_type")),
        group=_text(atoms.info.get("group")),
    )


def record_to_structure(record: Record) -> Structure:
    """A pymatgen Structure of a periodic record."""
    from pymatgen.core import Lattice, Structure

    return Structure(Lattice(record.cell), record.numbers.tolist(), record.positions, coords_are_cartesian=True)


def _number(value: object) -> float | None:
    return None if value is None else float(value)  # type: ignore[arg-type]


def _array(value: object) -> np.ndarray | None:
    return None if value is None else np.asarray(value, dtype=float)


def _text(value: object) -> str | None:
    return None if value is None else str(value)
