"""Parquet files of records."""

from __future__ import annotations

import pyarrow.parquet as pq
import pytest
from records import assert_same

from gnn.structures.atoms import atoms_to_record
from gnn.structures.readers import UnreadableFile, read_records
from gnn.structures.record import records_to_table, table_to_records


def test_parquet_of_records(tmp_path, frames, crystal, card, read_all):
    records = [atoms_to_record(atoms, "other", "lda/own") for atoms in (*frames, crystal)]
    path = tmp_path / "sample.parquet"
    pq.write_table(records_to_table(records), path)
    back = read_all(path, card)
    assert [r.structure_id for r in back] == [r.structure_id for r in records]
    assert {r.theory for r in back} == {"lda/own"}, "what the file says comes before the card"
    assert {r.dataset for r in back} == {"test"}
    assert_same(back[5], crystal)
    assert back[0].source.file == f"{tmp_path.name}/sample.parquet"


def test_parquet_of_something_else(tmp_path, card):
    import pyarrow as pa

    path = tmp_path / "x.parquet"
    pq.write_table(pa.table({"a": [1]}), path)
    with pytest.raises(UnreadableFile, match="column theory is missing"):
        list(read_records(path, card))
    path.write_bytes(b"PAR1 nothing")
    with pytest.raises(UnreadableFile):
        list(read_records(path, card))


def test_a_parquet_row_of_wrong_length_is_rejected(tmp_path, frames, card):
    table = records_to_table([atoms_to_record(atoms, "o", "t") for atoms in frames])
    rows = table.to_pylist()
    rows[2]["forces"] = rows[2]["forces"][:-1]
    path = tmp_path / "x.parquet"
    pq.write_table(type(table).from_pylist(rows, schema=table.schema), path)
    records = list(read_records(path, card))
    assert [getattr(record, "code", "kept") for record in records] == ["kept"] * 2 + ["array-length"] + ["kept"] * 2
    assert len(table_to_records(table)) == 5
