"""ASE trajectories, ASE databases, and whatever else ASE reads."""

from __future__ import annotations

from collections.abc import Iterator
from math import isfinite
from pathlib import Path

import ase.io
from ase.db import connect
from ase.io.formats import UnknownFileTypeError
from ase.io.trajectory import Trajectory

from gnn.structures.cards import ReadingRules
from gnn.structures.readers.ase_atoms import is_disordered, raw_of_atoms
from gnn.structures.readers.opening import plain_file
from gnn.structures.readers.raw import DISORDERED, Bad, Raw, Row, UnreadableFile
from gnn.structures.readers.structures import CHARGE_ROUNDING

SQLITE = b"SQLite format 3\0"


def read_traj(path: Path, rules: ReadingRules) -> Iterator[Row]:
    """The frames of an ASE trajectory.

    Raises:
        UnreadableFile: no trajectory, or cut short.
    """
    del rules
    with plain_file(path) as plain:
        try:
            trajectory = Trajectory(str(plain))
            if len(trajectory) == 0:
                raise UnreadableFile(f"{path.name}: an empty trajectory")
            for index in range(len(trajectory)):
                yield raw_of_atoms(trajectory[index])
        except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
            raise UnreadableFile(f"{path.name}: truncated or damaged trajectory: {error}") from error


def read_db(path: Path, rules: ReadingRules) -> Iterator[Row]:
    """The rows of an ASE database, in the order of their ids; key-value pairs and data count as info."""
    del rules
    with plain_file(path) as plain:
        for row in connect(str(plain), type=_kind_of_database(plain), use_lock_file=False).select(sort="id"):
            atoms = row.toatoms()
            atoms.info = {**dict(row.data), **row.key_value_pairs, **atoms.info}
            raw = raw_of_atoms(atoms)
            yield _with_charge(raw, float(row.get("charge") or 0))


def _kind_of_database(path: Path) -> str:
    """What ASE calls it, by its content: names end as they like."""
    with path.open("rb") as stream:
        return "db" if stream.read(len(SQLITE)) == SQLITE else "json"


def _with_charge(raw: Raw, charge: float) -> Raw:
    """ASE's database gives the sum of the initial charges as the charge of a system: not one unless whole, or if 0."""
    whole = round(charge) if isfinite(charge) else 0
    if whole and abs(charge - whole) < CHARGE_ROUNDING and "total_charge" not in raw.values:
        raw.values["total_charge"] = whole
    return raw


def read_any_ase(path: Path, rules: ReadingRules) -> Iterator[Row]:
    """The structures of any file that ASE reads: CIF, POSCAR, Quantum ESPRESSO, CASTEP, …

    Raises:
        UnreadableFile: ASE does not know the format or cannot parse the file.
    """
    del rules
    with plain_file(path) as plain:
        try:
            for atoms in ase.io.iread(str(plain), index=":", do_not_split_by_at_sign=True):
                yield Bad(DISORDERED) if is_disordered(atoms) else raw_of_atoms(atoms)
        except UnknownFileTypeError:
            raise UnreadableFile(f"{path.name}: not a format that is known here") from None
        except Exception as error:
            raise UnreadableFile(f"{path.name}: {type(error).__name__}: {error}") from error
