"""Rows of the lake against their own digests: a disk that changed a number is found before a model learns it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from gnn.errors import SluiceError
from gnn.structures.record import as_read, label_hash, structure_id

PLAIN = ("theory", "total_charge", "multiplicity", "energy", "free_energy")
LISTS = ("numbers", "positions", "cell", "pbc", "forces", "stress", "magmoms", "charges")
MATRICES = ("positions", "cell", "forces")


def refuse_damaged(rows: pa.Table, where: str) -> None:
    """Do nothing if every row of a table of `RECORD_SCHEMA` has the ids and label hashes that it names.

    Raises:
        SluiceError: naming the first that has not.
    """
    for batch in rows.to_batches():
        named = {name: batch.column(name).to_pylist() for name in ("structure_id", "label_hash")}
        for row, record in enumerate(_records(batch)):
            for name, found in (("structure_id", _id_of(record)), ("label_hash", label_hash(record))):
                if found != named[name][row]:
                    raise SluiceError(
                        f"data set {where}: structure {str(named['structure_id'][row])[:16]} is damaged: its {name} is"
                        f" {str(found)[:12]}, not {str(named[name][row])[:12]}; restore the lake's file or ingest anew"
                    )


def _id_of(record: Any) -> str | None:
    """The structure's id; None where its values cannot even be hashed."""
    try:
        return structure_id(record)
    except (ValueError, OverflowError):
        return None


def _records(batch: pa.RecordBatch) -> list[Any]:
    """What the digests are made of, row by row."""
    plain = {name: batch.column(name).to_pylist() for name in PLAIN}
    lists = {name: _rows_of(batch.column(name), name in MATRICES) for name in LISTS}
    properties = batch.column("properties").to_pylist()
    return [
        SimpleNamespace(
            **{name: column[row] for name, column in (plain | lists).items()},
            properties={key: as_read(values) for key, values in properties[row] or []},
        )
        for row in range(batch.num_rows)
    ]


def _rows_of(column: pa.ListArray, as_vectors: bool) -> list[NDArray[Any] | None]:
    values = column.values.to_numpy(zero_copy_only=False)
    offsets = column.offsets.to_numpy()
    known = column.is_valid().to_numpy(zero_copy_only=False)
    rows = [values[offsets[i] : offsets[i + 1]] if known[i] else None for i in range(len(column))]
    return [None if row is None else _shaped(row, as_vectors) for row in rows]


def _shaped(row: NDArray[Any], as_vectors: bool) -> NDArray[Any]:
    """(N, 3) where that is the shape that was hashed."""
    return row.reshape(-1, 3) if as_vectors and len(row) % 3 == 0 else np.asarray(row)
