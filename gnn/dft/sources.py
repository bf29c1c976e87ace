"""What is to be labelled: a campaign's shortlist, or the structures of any file that the readers read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from ase import Atoms
from ase.constraints import FixAtoms

from gnn.dft.engine import ELECTRONS, JobKind
from gnn.dft.label import LabelJob
from gnn.errors import InputError, one_line
from gnn.structures.atoms import record_to_atoms
from gnn.structures.cards import structures_card
from gnn.structures.readers import Rejected, read_records
from gnn.structures.record import reduced_formula

SHORTLISTS = ("shortlist.parquet", "shortlist.extxyz")
TABLE_COLUMNS = ("numbers", "positions", "cell")
OPTIONAL_COLUMNS = ("pbc", *ELECTRONS, "fixed", "rank", "prototype", "shortlisted")
MOST_NAMED = 20
"""Ranks that an error lists."""

Ranks = tuple[int, int]
"""The first and the last rank; of those between, a shortlist may lack some."""


@dataclass(frozen=True)
class Wanted:
    """A structure to label: `rank` counts from 1 (its place in the file where none is given)."""

    atoms: Atoms
    rank: int
    config_type: str

    def job(self, kind: JobKind) -> LabelJob:
        """The job that labels it; structures of one formula are one group."""
        return LabelJob.of(self.atoms, kind, reduced_formula(self.atoms.numbers), self.config_type)


def read_wanted(path: Path) -> list[Wanted]:
    """Structures of a campaign's folder, a table of candidates, or any other structure file, ordered by rank.

    Raises:
        InputError: there is no such file, a campaign without a shortlist, or no usable structure in it.
    """
    wanted = sorted(_read(shortlist_file(path)), key=lambda structure: structure.rank)
    if not wanted:
        raise InputError(f"{path} holds no structure to label")
    return wanted


def shortlist_file(path: Path) -> Path:
    """The file to read: `path` itself, or the shortlist in a campaign's folder.

    Raises:
        InputError: there is none.
    """
    if not path.exists():
        raise InputError(f"there is no file or campaign {path}")
    if path.is_file() or (path / "type.raw").is_file():
        return path
    for name in SHORTLISTS:
        if (path / name).is_file():
            return path / name
    raise InputError(f"{path} holds neither {' nor '.join(SHORTLISTS)}; has the campaign reached its shortlist?")


def _read(path: Path) -> list[Wanted]:
    try:
        is_table = path.suffix == ".parquet" and set(TABLE_COLUMNS) <= set(pq.read_schema(path).names)
        return _of_table(path) if is_table else _of_file(path)
    except pa.ArrowInvalid as error:
        raise InputError(f"{path} is damaged, or no Parquet table ({one_line(error)})") from None


def _of_table(path: Path) -> list[Wanted]:
    names = set(pq.read_schema(path).names)
    columns = [name for name in (*TABLE_COLUMNS, *OPTIONAL_COLUMNS) if name in names]
    rows = pq.read_table(path, columns=columns).to_pylist()
    if any(row.get("shortlisted") for row in rows):
        rows = [row for row in rows if row["shortlisted"]]
    return [_of_row(row, place) for place, row in enumerate(rows, start=1) if row["positions"] is not None]


def _of_row(row: dict[str, Any], place: int) -> Wanted:
    atoms = Atoms(
        numbers=row["numbers"],
        positions=np.reshape(row["positions"], (-1, 3)),
        cell=np.reshape(row["cell"], (3, 3)),
        pbc=True if row.get("pbc") is None else row["pbc"],
        constraint=FixAtoms(mask=row["fixed"]) if any(row.get("fixed") or ()) else None,
        info={name: row[name] for name in ELECTRONS if row.get(name) is not None},
    )
    prototype = row.get("prototype")
    return Wanted(atoms, place if row.get("rank") is None else row["rank"], f"screened-{prototype or 'candidate'}")


def _of_file(path: Path) -> list[Wanted]:
    card = structures_card("structures")
    wanted = []
    for place, record in enumerate(read_records(path, card), start=1):
        if isinstance(record, Rejected):
            raise InputError(f"{path}, structure {place}: {record.reason}")
        wanted.append(Wanted(record_to_atoms(record), place, record.config_type or "labelled"))
    return wanted


def chosen(wanted: Sequence[Wanted], ranks: Sequence[Ranks] | None, limit: int | None) -> list[Wanted]:
    """Those whose rank lies in one of `ranks` (all if there are none), at most `limit`.

    Raises:
        InputError: ranks of which there is none.
    """
    spans = [range(first, last + 1) for first, last in ranks or ()]
    _check_held(spans, [structure.rank for structure in wanted])
    if spans:
        wanted = [structure for structure in wanted if any(structure.rank in span for span in spans)]
    return list(wanted if limit is None else wanted[:limit])


def _check_held(spans: Sequence[range], held: Sequence[int]) -> None:
    for span in spans:
        if not any(rank in span for rank in held):
            named = f"{span[0]}" if len(span) == 1 else f"{span[0]} to {span[-1]}"
            more = ", …" if len(held) > MOST_NAMED else ""
            raise InputError(f"no structure of rank {named}; there are {', '.join(map(str, held[:MOST_NAMED]))}{more}")
