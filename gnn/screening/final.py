"""The files a campaign ends with: the table of all candidates, relaxed structures, the shortlist, inputs for DFT."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from ase import Atoms
from ase.io import write

from gnn.dft.inputs import InputManifest, input_name, write_inputs
from gnn.files import write_atomically
from gnn.screening.tables import CANDIDATE_SCHEMA, arrays_of, write_rows

CANDIDATES, RELAXED = "candidates.parquet", "relaxed.extxyz"
SHORTLIST_TABLE, SHORTLIST_XYZ = "shortlist.parquet", "shortlist.extxyz"
INPUTS = "dft"

Row = dict[str, Any]
INFO = (
    "candidate_id", "formula", "prototype", "source", "energy_per_atom", "formation_energy_per_atom", "hull_distance",
    "uncertainty", "rank", "shortlisted", "converged", "stage_dropped",
)  # fmt: skip
"""Columns that go along as info of an extended XYZ frame; energies are the model's, in eV/atom."""


def write_tables(folder: Path, rows: Sequence[Row], shortlist: Sequence[str]) -> dict[str, str]:
    """Write all tables into `folder`; label -> file name.

    rows: rows of `CANDIDATE_SCHEMA`, every candidate once; shortlist: ids in the order of their rank.
    """
    by_id = {row["candidate_id"]: row for row in rows}
    chosen = [by_id[name] for name in shortlist]
    write_rows(folder / CANDIDATES, rows, CANDIDATE_SCHEMA)
    write_rows(folder / SHORTLIST_TABLE, chosen, CANDIDATE_SCHEMA)
    write_frames(folder / RELAXED, (row for row in rows if row["energy_per_atom"] is not None))
    write_frames(folder / SHORTLIST_XYZ, chosen)
    return {
        "candidates": CANDIDATES,
        "relaxed": RELAXED,
        "shortlist": SHORTLIST_TABLE,
        "shortlist_xyz": SHORTLIST_XYZ,
    }


def write_frames(path: Path, rows: Iterable[Row]) -> Path:
    """Rows as frames of an extended XYZ file, put in place at once."""
    frames = [atoms_of_row(row) for row in rows]
    return write_atomically(path, lambda temporary: _write_xyz(temporary, frames))


def _write_xyz(path: Path, frames: list[Atoms]) -> None:
    if frames:
        write(path, frames, format="extxyz")
    else:
        path.touch()


def atoms_of_row(row: Row) -> Atoms:
    """A row's crystal, with `INFO` where it has values."""
    numbers, positions, cell = arrays_of(row)
    atoms = Atoms(numbers=numbers, positions=positions, cell=cell, pbc=True)
    atoms.info = {name: row[name] for name in INFO if row[name] is not None}
    return atoms


def write_dft_inputs(
    folder: Path, rows: Sequence[Row], shortlist: Sequence[str], formats: Sequence[str], theory: str
) -> InputManifest:
    """Input sets of the shortlist under `folder`/dft; see `gnn.dft.inputs.write_inputs`."""
    by_id = {row["candidate_id"]: row for row in rows}
    named = [
        (input_name(place, by_id[name]["formula"]), atoms_of_row(by_id[name]))
        for place, name in enumerate(shortlist, 1)
    ]
    return write_inputs(named, folder / INPUTS, formats, theory)
