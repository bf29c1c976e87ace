"""Sluice's own records in Parquet."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from gnn.structures.cards import Card
from gnn.structures.readers.opening import plain_file
from gnn.structures.readers.raw import Rejected, UnreadableFile
from gnn.structures.record import RECORD_SCHEMA, Record, Source, row_to_record

BATCH_ROWS = 1000
DUE = ("theory", "numbers", "positions", "cell", "pbc", "n_atoms")


def read_parquet(path: Path, card: Card, file: str, sha256: str) -> Iterator[Record | Rejected]:
    """The records of a Parquet file with the columns of `RECORD_SCHEMA`; what it says itself comes before the card.

    Raises:
        UnreadableFile: no Parquet, cut short, or without the columns that make a structure.
    """
    with plain_file(path) as plain:
        try:
            table = pq.ParquetFile(plain)
            absent = [name for name in DUE if name not in table.schema_arrow.names]
            if absent:
                raise UnreadableFile(f"{path.name}: not a table of Sluice records: column {absent[0]} is missing")
            columns = [name for name in RECORD_SCHEMA.names if name in table.schema_arrow.names]
            row = 0
            for batch in table.iter_batches(BATCH_ROWS, columns=columns):
                for values in batch.to_pylist():
                    yield _record(values, card, Source(file, row, sha256))
                    row += 1
        except pa.ArrowException as error:
            raise UnreadableFile(f"{path.name}: {error}") from error


def _record(values: dict[str, Any], card: Card, source: Source) -> Record | Rejected:
    try:
        record = row_to_record({"dataset": card.name, **values})
    except (ValueError, TypeError, KeyError) as error:
        return Rejected(source.row, f"array-length: {error}", source)
    return replace(record, dataset=card.name, source=source, theory=record.theory or card.theory or "")
