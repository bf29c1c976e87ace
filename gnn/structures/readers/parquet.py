"""Sluice's own records in Parquet."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from gnn.structures.readers.convert import Converter
from gnn.structures.readers.opening import plain_file
from gnn.structures.readers.raw import Raw, Rejected, UnreadableFile, UnreadableRow
from gnn.structures.record import LABELS, RECORD_SCHEMA, Record, Source, row_to_record

BATCH_ROWS = 1000
DUE = ("theory", "numbers", "positions", "cell", "pbc", "n_atoms")


def read_parquet(path: Path, converter: Converter, file: Source) -> Iterator[Record | Rejected]:
    """The records of a Parquet file with the columns of `RECORD_SCHEMA`.

    Units, columns and, where it has one, the theory are the record's; the card's other rules hold as for any file.

    Raises:
        UnreadableFile: no Parquet, cut short, or without the columns that make a structure.
        InputError: a record has no theory, and the card tells none.
    """
    first, past = converter.rules.rows or (0, None)
    for row, values in enumerate(islice(_rows(path), past)):
        if row >= first:
            yield _record(values, converter, replace(file, row=row))


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    with plain_file(path) as plain:
        try:
            table = pq.ParquetFile(plain)
            absent = [name for name in DUE if name not in table.schema_arrow.names]
            if absent:
                raise UnreadableFile(f"{path.name}: not a table of Sluice records: column {absent[0]} is missing")
            columns = [name for name in RECORD_SCHEMA.names if name in table.schema_arrow.names]
            for batch in table.iter_batches(BATCH_ROWS, columns=columns):
                yield from batch.to_pylist()
        except pa.ArrowException as error:
            raise UnreadableFile(f"{path.name}: {error}") from error


def _record(values: dict[str, Any], converter: Converter, source: Source) -> Record | Rejected:
    try:
        record = row_to_record({"dataset": converter.card.name, **values})
    except (ValueError, TypeError, KeyError) as error:
        return Rejected(source.row, f"array-length: {error}", source)
    try:
        return _by_card(record, values, converter, source)
    except UnreadableRow as error:
        return Rejected(source.row, str(error), source)


def _by_card(record: Record, values: dict[str, Any], converter: Converter, source: Source) -> Record:
    """A record under the rules of a card."""
    rules, stated = converter.rules, record.properties | values
    raw = Raw(record.numbers, record.positions, record.cell, record.pbc, stated, group=record.group)
    record = replace(
        record,
        dataset=converter.card.name,
        source=source,
        theory=record.theory or converter.theory(raw),
        group=converter.group(raw, source),
        config_type=rules.config_type or record.config_type,
    )
    if rules.pbc is not None:
        record = _periodic(record, rules.pbc)
    return record if rules.labels else _unlabelled(record)


def _periodic(record: Record, pbc: tuple[bool, bool, bool]) -> Record:
    cell = record.cell if any(pbc) else np.zeros((3, 3))
    return replace(record, pbc=np.array(pbc), cell=cell, stress=record.stress if all(pbc) else None)


def _unlabelled(record: Record) -> Record:
    none: dict[str, Any] = dict.fromkeys(LABELS)
    return replace(record, properties={}, **none)
