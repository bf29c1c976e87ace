"""Parquet files of records."""

from __future__ import annotations

from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from records import assert_same

from gnn.errors import InputError
from gnn.structures.atoms import atoms_to_record
from gnn.structures.cards import Card, GroupRule, Units
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


@pytest.fixture
def nameless(tmp_path, frames):
    """A file of records without a theory."""
    table = records_to_table([replace(atoms_to_record(atoms, "o", "t"), group="own") for atoms in frames])
    path = tmp_path / "x.parquet"
    pq.write_table(table.set_column(table.schema.get_field_index("theory"), "theory", pa.nulls(5, pa.string())), path)
    return path


def test_records_without_a_theory_have_that_of_the_card_or_none(nameless, card, read_all):
    with pytest.raises(InputError, match="give --theory KEY"):
        list(read_records(nameless, Card(name="x")))
    assert {record.theory for record in read_all(nameless, card)} == {"pbe/test"}
    assert {record.theory for record in read_all(nameless, Card(name="x").with_theory("lda/x"))} == {"lda/x"}
    by_column = Card(name="x", theory_column="group", theory_map={"own": "hse/x"})
    assert {record.theory for record in read_all(nameless, by_column)} == {"hse/x"}
    lacking = list(read_records(nameless, Card(name="x", theory_column="functional")))
    assert [record.code for record in lacking] == ["no-theory"] * 5


def test_rules_of_a_card_hold_for_records(nameless, card, read_all):
    def read(**rules):
        return read_all(nameless, card.model_copy(update=rules))

    whole = read()
    assert [record.structure_id for record in read(rows=(1, 3))] == [record.structure_id for record in whole[1:3]]
    assert [record.source.row for record in read(rows=(1, 3))] == [1, 2]
    assert {(record.group, record.config_type) for record in whole} == {("own", None)}
    (kept,) = {(r.group, r.config_type) for r in read(group=GroupRule(by="formula"), config_type="bulk")}
    assert kept == ("Si", "bulk")
    layer = read(pbc=(True, True, False))[0]
    assert layer.pbc.tolist() == [True, True, False] and layer.stress is None and layer.forces is not None
    assert not read(pbc=(False, False, False))[0].cell.any()
    bare = read(labels=False)[0]
    assert bare.energy is bare.free_energy is bare.forces is bare.stress is None and bare.group == "own"


def test_units_of_a_borrowed_card_change_no_record(nameless, card, frames, read_all):
    borrowed = card.model_copy(update={"units": Units(energy="Ha", forces="Ha/Bohr"), "energy_is": "per_atom"})
    assert_same(read_all(nameless, borrowed)[0], frames[0])
