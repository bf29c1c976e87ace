"""Tables of a campaign: candidates on their way in, and the final table in which every candidate stands once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from gnn.errors import InputError, one_line
from gnn.files import write_atomically
from gnn.screening.candidates import Candidate

INPUT_SCHEMA = pa.schema(
    [
        pa.field("candidate_id", pa.string(), nullable=False),
        pa.field("role", pa.string(), nullable=False),
        pa.field("shard", pa.int32()),
        pa.field("prototype", pa.string()),
        pa.field("source", pa.string(), nullable=False),
        pa.field("n_atoms", pa.int32()),
        pa.field("numbers", pa.list_(pa.int32())),
        pa.field("positions", pa.list_(pa.float64())),
        pa.field("cell", pa.list_(pa.float64())),
        pa.field("stage_dropped", pa.string()),
        pa.field("reason", pa.string()),
        pa.field("duplicate_of", pa.string()),
        pa.field("in_lake", pa.string()),
        pa.field("place", pa.int64()),
    ]
)
"""Candidates before relaxation, ordered by shard. role: candidate or reference; shard is null for those dropped before;
place counts in the order of the sources, references last (tables of old lie in that order and have no such column).
"""
ROWS_AT_ONCE = 10_000
"""Rows that are in memory while a table is written or read; a row group each."""

CANDIDATE_SCHEMA = pa.schema(
    [
        pa.field("candidate_id", pa.string(), nullable=False),
        pa.field("formula", pa.string()),
        pa.field("prototype", pa.string()),
        pa.field("chemical_system", pa.string()),
        pa.field("n_atoms", pa.int32()),
        pa.field("source", pa.string(), nullable=False),
        pa.field("energy_per_atom", pa.float64()),
        pa.field("formation_energy_per_atom", pa.float64()),
        pa.field("hull_distance", pa.float64()),
        pa.field("uncertainty", pa.float64()),
        pa.field("score", pa.float64()),
        pa.field("volume_per_atom", pa.float64()),
        pa.field("converged", pa.bool_()),
        pa.field("fmax", pa.float64()),
        pa.field("steps", pa.int32()),
        pa.field("cpu_s", pa.float64()),
        pa.field("stage_dropped", pa.string()),
        pa.field("reason", pa.string()),
        pa.field("duplicate_of", pa.string()),
        pa.field("in_lake", pa.string()),
        pa.field("rank", pa.int32()),
        pa.field("shortlisted", pa.bool_(), nullable=False),
        pa.field("chosen_by", pa.string()),
        pa.field("numbers", pa.list_(pa.int32())),
        pa.field("positions", pa.list_(pa.float64())),
        pa.field("cell", pa.list_(pa.float64())),
        pa.field("theory", pa.string()),
        pa.field("structure_id", pa.string()),
        pa.field("shard", pa.int32()),
    ]
)
"""The final table. Energies in eV/atom, cpu_s in seconds, positions and cell in Å, relaxed where there is an energy.

stage_dropped and reason are null for the shortlist; rank counts from 1 over all whose hull distance could be trusted;
in_lake names a structure of the lake that is the same as it relaxed (near the hull) or as it came; chosen_by is rank or
exploration.
"""


def arrays_of(row: dict[str, Any]) -> tuple[Any, Any, Any]:
    """Arrays of a table's row: numbers (N,), positions (N, 3) and cell (3, 3)."""
    numbers = np.asarray(row["numbers"], dtype=np.int64)
    positions = np.asarray(row["positions"], dtype=float).reshape(len(numbers), 3)
    return numbers, positions, np.asarray(row["cell"], dtype=float).reshape(3, 3)


def candidate_of_row(row: dict[str, Any]) -> Candidate:
    """The candidate of a row of `INPUT_SCHEMA`."""
    numbers, positions, cell = arrays_of(row)
    return Candidate(numbers, positions, cell, row["prototype"], row["source"])


def geometry_columns(candidate: Candidate) -> dict[str, Any]:
    """Numbers, positions and cell as flat lists, with n_atoms."""
    return {
        "n_atoms": candidate.n_atoms,
        "numbers": candidate.numbers.tolist(),
        "positions": np.ravel(candidate.positions).tolist(),
        "cell": np.ravel(candidate.cell).tolist(),
    }


def write_rows(path: Path, rows: Iterable[dict[str, Any]], schema: pa.Schema) -> Path:
    """Rows as a Parquet file of `schema`, put in place at once."""
    return write_atomically(path, lambda temporary: _write_groups(temporary, iter(rows), schema))


def _write_groups(path: Path, rows: Iterator[dict[str, Any]], schema: pa.Schema) -> None:
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        while group := list(islice(rows, ROWS_AT_ONCE)):
            writer.write_table(pa.Table.from_pylist(group, schema=schema))


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Name the Parquet file that is read.

    Raises:
        InputError: it is damaged.
    """
    try:
        yield
    except (pa.ArrowInvalid, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # the file system's own, which may pass
        why = f"{path} cannot be read ({one_line(error)}); run the campaign again, which writes it anew"
        raise InputError(why) from None


def read_rows(path: Path, filters: Any = None, columns: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """Rows of a Parquet file, those that pass `filters` (as pyarrow has them).

    Raises:
        InputError: the file is damaged.
    """
    with reading(path):
        rows: list[dict[str, Any]] = pq.read_table(path, filters=filters, columns=columns).to_pylist()
    return rows


@dataclass(frozen=True)
class EachRow(Iterable[dict[str, Any]]):
    """Rows of a Parquet file one after the other, as often as they are asked for; an InputError where it is damaged."""

    path: Path
    columns: Sequence[str] | None = None

    def __iter__(self) -> Iterator[dict[str, Any]]:
        with reading(self.path), pq.ParquetFile(self.path) as table:
            for batch in table.iter_batches(ROWS_AT_ONCE, columns=self.columns):
                yield from batch.to_pylist()
