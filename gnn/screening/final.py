"""The files a campaign ends with: the table of all candidates, relaxed structures, the shortlist, inputs for DFT."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from ase import Atoms
from ase.io import write

from gnn.dft.inputs import InputManifest, input_name, write_inputs
from gnn.files import write_atomically
from gnn.screening.final_rows import FinalRows
from gnn.screening.tables import CANDIDATE_SCHEMA, EachRow, arrays_of, write_rows

CANDIDATES, RELAXED = "candidates.parquet", "relaxed.extxyz"
SHORTLIST_TABLE, SHORTLIST_XYZ = "shortlist.parquet", "shortlist.extxyz"
INPUTS = "dft"
FRAMES_AT_ONCE = 1000

Row = dict[str, Any]
INFO = (
    "candidate_id", "formula", "prototype", "source", "energy_per_atom", "formation_energy_per_atom", "hull_distance",
    "uncertainty", "rank", "shortlisted", "converged", "stage_dropped",
)  # fmt: skip
"""Columns that go along as info of an extended XYZ frame; energies are the model's, in eV/atom."""


def write_tables(folder: Path, rows: FinalRows, shortlist: Sequence[str]) -> dict[str, str]:
    """Write all tables into `folder`; label -> file name.

    rows: every candidate once; shortlist: ids in the order of their rank.
    """
    chosen = [rows.by_id[name] for name in shortlist]
    table = write_rows(folder / CANDIDATES, rows, CANDIDATE_SCHEMA)
    write_rows(folder / SHORTLIST_TABLE, chosen, CANDIDATE_SCHEMA)
    write_frames(folder / RELAXED, (row for row in EachRow(table) if row["energy_per_atom"] is not None))
    write_frames(folder / SHORTLIST_XYZ, chosen)
    return {
        "candidates": CANDIDATES,
        "relaxed": RELAXED,
        "shortlist": SHORTLIST_TABLE,
        "shortlist_xyz": SHORTLIST_XYZ,
    }


def write_frames(path: Path, rows: Iterable[Row]) -> Path:
    """Rows as frames of an extended XYZ file, put in place at once."""
    return write_atomically(path, lambda temporary: _write_xyz(temporary, map(atoms_of_row, rows)))


def _write_xyz(path: Path, frames: Iterator[Atoms]) -> None:
    with path.open("w", encoding="utf-8") as stream:
        while some := list(islice(frames, FRAMES_AT_ONCE)):
            write(stream, some, format="extxyz")


def atoms_of_row(row: Row) -> Atoms:
    """A row's crystal, with `INFO` where it has values."""
    numbers, positions, cell = arrays_of(row)
    atoms = Atoms(numbers=numbers, positions=positions, cell=cell, pbc=True)
    atoms.info = {name: row[name] for name in INFO if row[name] is not None}
    return atoms


def write_dft_inputs(
    folder: Path, rows: FinalRows, shortlist: Sequence[str], formats: Sequence[str], theory: str
) -> InputManifest:
    """Input sets of the shortlist under `folder`/dft; see `gnn.dft.inputs.write_inputs`."""
    chosen = [rows.by_id[name] for name in shortlist]
    named = [(input_name(row["rank"], row["formula"]), atoms_of_row(row)) for row in chosen]
    return write_inputs(named, folder / INPUTS, formats, theory)
