"""Structures from and to files, for the verbs that read a file and write another."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
from ase import Atoms
from ase.calculators.calculator import all_properties
from ase.constraints import FixAtoms
from numpy.typing import NDArray

from gnn.errors import InputError
from gnn.structures.readers.ase_atoms import fixed_mask, is_disordered
from gnn.structures.readers.extxyz import OTHER_NAMES, read_atoms
from gnn.structures.readers.lookup import can_be, labels_named
from gnn.structures.readers.raw import DISORDERED

SUFFIXES = (".extxyz", ".xyz")
VERDICTS = ("converged", "steps", "outcome", "fmax", "reason", "uncertainty")
"""What an earlier relaxation wrote about itself."""
LABELS = frozenset({*all_properties, *OTHER_NAMES, *OTHER_NAMES.values(), *VERDICTS})
OF_THE_GEOMETRY = frozenset({"energy", "free_energy", "forces", "stress", "virial", "magmoms", "charges"})
"""Labels that another geometry does not have, whatever people call them."""


def refuse_output(output: Path, file: Path) -> None:
    """Do nothing if `output` can be written as extended XYZ and does not take the place of `file`, which is read.

    Raises:
        InputError: its name says another format, it is the input or a folder, or its folder cannot be written.
    """
    if output.resolve() == file.resolve():
        raise InputError(f"{output} is the input; choose another name for the output")
    if output.suffix not in SUFFIXES:
        raise InputError(f"{output} would not be extended XYZ; choose a name that ends in {' or '.join(SUFFIXES)}")
    if output.is_dir():
        raise InputError(f"{output} is a folder; choose another name for the output")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=output.parent):
            pass
    except OSError as error:
        raise InputError(f"{output} cannot be written: {error.strerror}; choose another folder") from None


def read_structures(file: Path) -> list[Atoms]:
    """Every structure of a file that ASE or the readers of `sluice ingest` can read; ASE keeps more of its own formats.

    Labels and what an earlier relaxation said are left out: they are of another geometry soon.

    Raises:
        InputError: there is no such file, neither can read it, or it holds no structure.
    """
    from gnn.structures.readers import known_to_ase

    if not file.exists():
        raise InputError(f"there is no file {file}")
    structures = read_by_ase(file) if known_to_ase(file) else read_by_readers(file)
    if not structures:
        raise InputError(f"{file} holds no structure")
    return [unlabelled(atoms) for atoms in structures]


def read_by_ase(file: Path) -> list[Atoms]:
    """The structures of a file that ASE reads, with what ASE knows of them."""
    from gnn.structures.readers import guess_reader
    from gnn.structures.readers.opening import plain_file

    try:
        if guess_reader(file) == "extxyz":
            structures = list(read_atoms(file))
        else:
            with plain_file(file) as plain:
                structures = list(ase.io.read(plain, index=":", do_not_split_by_at_sign=True))
    except InputError:
        raise
    except Exception as error:  # noqa: BLE001 - ASE's readers raise whatever their format brings up
        raise InputError(f"ASE cannot read {file}: {type(error).__name__}: {error}") from None
    for number, atoms in enumerate(structures):
        if is_disordered(atoms):
            raise InputError(f"{file}, structure {number} is {DISORDERED}; give one ordering of it")
    return structures


def read_by_readers(file: Path) -> list[Atoms]:
    """The structures of a file in a format that ASE does not know; rows without one are an error."""
    from gnn.structures.atoms import record_to_atoms
    from gnn.structures.cards import structures_card
    from gnn.structures.readers import Rejected, read_records

    structures = []
    for row, record in enumerate(read_records(file, structures_card("structures"))):
        if isinstance(record, Rejected):
            raise InputError(f"{file}, structure {row} cannot be read: {record.reason}; leave it out")
        atoms = record_to_atoms(record)
        atoms.info = {"source_row": row}
        structures.append(atoms)
    return structures


def unlabelled(atoms: Atoms) -> Atoms:
    """The structure without labels, verdicts, and what extended XYZ cannot hold."""
    atoms.calc = None
    kept = {name: value for name, value in atoms.info.items() if isinstance(name, str)}
    atoms.info = {name: value for name, value in kept.items() if not is_of_the_geometry(name, value)}
    for name, values in list(atoms.arrays.items()):
        if is_of_the_geometry(name, values) or not fits_in_columns(values):
            del atoms.arrays[name]
    return atoms


def is_of_the_geometry(name: str, value: Any) -> bool:
    """Whether a value is a label, or a verdict of an earlier relaxation, under any of its usual names."""
    if name in LABELS:
        return True
    return any(label in OF_THE_GEOMETRY and can_be(label, value) for label in labels_named(name))


def fits_in_columns(values: NDArray[Any]) -> bool:
    """Whether an array of the atoms can be read again from columns: a text must be one word."""
    if values.ndim > 2:
        return False
    return values.dtype.kind not in "USO" or all(len(str(value).split()) == 1 for value in values.flat)


def writable(atoms: Atoms) -> Atoms:
    """The structure as a line of extended XYZ can hold it."""
    fixed = fixed_mask(atoms)
    atoms.set_constraint(FixAtoms(mask=fixed) if np.any(fixed) else None)
    atoms.info = {name: _in_one_line(value) for name, value in atoms.info.items()}
    return atoms


def _in_one_line(value: Any) -> Any:
    return " ".join(value.split()) if isinstance(value, str) else value
