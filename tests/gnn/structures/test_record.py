"""The record: ids that are stable, label hashes that are not fooled, rows that come back as they went."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from gnn.structures.record import (
    RECORD_SCHEMA,
    Record,
    Source,
    label_hash,
    now,
    record_to_row,
    records_to_table,
    reduced_formula,
    symbol_number,
    table_to_records,
)

relaxed = settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
coordinates = st.floats(-50, 50, allow_nan=False)


@st.composite
def any_record(draw):
    n = draw(st.integers(1, 6))
    periodic = draw(st.booleans())
    maybe = lambda shape: draw(st.none() | arrays(float, shape, elements=coordinates))  # noqa: E731
    return Record(
        dataset="test",
        theory=draw(st.sampled_from(["pbe/a", "lda/b"])),
        numbers=np.array(draw(st.lists(st.integers(1, 94), min_size=n, max_size=n))),
        positions=draw(arrays(float, (n, 3), elements=coordinates)),
        cell=draw(arrays(float, (3, 3), elements=coordinates)) if periodic else np.zeros((3, 3)),
        pbc=np.array([periodic] * 3),
        total_charge=draw(st.none() | st.integers(-3, 3)),
        multiplicity=draw(st.none() | st.integers(1, 5)),
        energy=draw(st.none() | coordinates),
        free_energy=draw(st.none() | coordinates),
        forces=maybe((n, 3)),
        stress=maybe((6,)) if periodic else None,
        magmoms=maybe((n,)),
        charges=maybe((n,)),
        fixed=draw(st.none() | arrays(bool, (n,))),
        tags=draw(st.none() | arrays(np.int64, (n,), elements=st.integers(0, 3))),
        properties=draw(st.dictionaries(st.sampled_from(["gap", "heat"]), coordinates)),
        config_type=draw(st.none() | st.just("rattled")),
        group=draw(st.none() | st.just("Si")),
        flags=draw(st.sampled_from([(), ("large-force",)])),
        source=draw(st.none() | st.just(Source("a/b.xyz", 3, "0" * 64))),
    )


@relaxed
@given(any_record())
def test_a_row_comes_back_as_the_record_it_was(record):
    table = records_to_table([record])
    assert table.schema.equals(RECORD_SCHEMA)
    back = table_to_records(table)[0]
    assert back.structure_id == record.structure_id
    assert label_hash(back) == label_hash(record)
    for name in ("numbers", "positions", "cell", "pbc", "forces", "stress", "magmoms", "charges", "fixed", "tags"):
        mine, theirs = getattr(record, name), getattr(back, name)
        assert (mine is None) == (theirs is None)
        if mine is not None:
            assert np.array_equal(mine, theirs) and np.shape(mine) == np.shape(theirs)
    for name in ("energy", "free_energy", "properties", "total_charge", "multiplicity", "group", "flags", "source"):
        assert getattr(back, name) == getattr(record, name)


@relaxed
@given(any_record(), st.floats(-4e-7, 4e-7))
def test_id_ignores_noise_below_its_rounding_and_labels(record, noise):
    on_grid = replace(record, positions=np.round(record.positions, 5), cell=np.round(record.cell, 5))
    shaken = replace(on_grid, positions=on_grid.positions + noise, energy=1.0, forces=None, group=None)
    assert shaken.structure_id == on_grid.structure_id


@relaxed
@given(any_record())
def test_id_knows_what_the_structure_is(record):
    ids = {record.structure_id}
    changes = [
        {"positions": record.positions + 1e-3},
        {"cell": record.cell + 1e-3},
        {"pbc": ~record.pbc},
        {"theory": "hse06/c"},
        {"total_charge": 7},
        {"multiplicity": 9},
        {"numbers": record.numbers + 1},
    ]
    for change in changes:
        ids.add(replace(record, **change).structure_id)
    assert len(ids) == len(changes) + 1


def test_order_of_atoms_matters(make_record):
    record = make_record()
    swapped = replace(record, numbers=record.numbers[::-1], positions=record.positions[::-1])
    assert swapped.structure_id != record.structure_id


def test_negative_zero_is_zero(make_record):
    positions = np.zeros((2, 3))
    assert make_record(positions=-positions).structure_id == make_record(positions=positions).structure_id


def test_charge_zero_is_not_an_unstated_charge(make_record):
    assert make_record(total_charge=0).structure_id != make_record().structure_id


def test_id_is_the_same_in_another_process(make_record):
    code = (
        "import numpy as np; from gnn.structures.record import Record;"
        "print(Record('d','t',np.array([14]),np.array([[0.1,0.2,0.3]]),np.eye(3)*4,np.array([True]*3)).structure_id)"
    )
    answers = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert answers == {"87ce1d1825c15dcc4667ebd6a869145827167689e2b6dc696673575fa325ea15\n"}


def test_label_hash_sees_each_label_and_no_other_column(make_record):
    record = make_record()
    assert label_hash(replace(record, group="other", flags=("x",), ingested_at=now())) == label_hash(record)
    hashes = {label_hash(record)}
    for change in (
        {"energy": -6.1},
        {"energy": None},
        {"forces": None},
        {"properties": {"gap": 1.0}},
        {"stress": np.ones(6)},
    ):
        hashes.add(label_hash(replace(record, **change)))
    assert len(hashes) == 6


def test_label_hash_forgives_the_last_bits(make_record):
    record = make_record()
    assert label_hash(replace(record, energy=record.energy + 1e-13)) == label_hash(record)


def test_missing_labels_are_null(make_record):
    row = record_to_row(make_record(energy=None, forces=None))
    assert row["energy"] is None and row["forces"] is None and row["stress"] is None
    table = records_to_table([make_record(energy=None)])
    assert table["energy"].null_count == 1


def test_wrong_length_is_named(make_record):
    row = records_to_table([make_record()]).to_pylist()[0]
    row["forces"] = row["forces"][:-1]
    with pytest.raises(ValueError, match="forces has 5 numbers where 6 are due"):
        table_to_records(pa.Table.from_pylist([row], schema=RECORD_SCHEMA))


@pytest.mark.parametrize(
    ("numbers", "formula"), [([3, 3, 12, 14], "Li2MgSi"), ([1, 1, 8], "H2O"), ([8, 12, 8, 12], "MgO"), ([14] * 8, "Si")]
)
def test_reduced_formula(numbers, formula):
    assert reduced_formula(numbers) == formula


def test_unknown_symbol_is_named():
    assert symbol_number("Og") == 118
    for symbol in ("X", "Xx", "si"):
        with pytest.raises(ValueError, match=symbol):
            symbol_number(symbol)


def test_isolated_atoms_and_bulk_are_told_apart(make_record):
    atom = make_record(
        numbers=np.array([8]), positions=np.zeros((1, 3)), forces=None, cell=np.zeros((3, 3)), pbc=np.array([False] * 3)
    )
    assert atom.is_isolated_atom and not atom.is_bulk
    assert make_record().is_bulk and not make_record().is_isolated_atom
    assert make_record(free_energy=-7.0).training_energy == -7.0
    assert make_record().training_energy == -6.0


def test_properties_per_atom_stay_lists(make_record):
    record = make_record(properties={"charge": [0.5, -0.5], "gap": 1.5})
    back = table_to_records(records_to_table([record]))[0]
    assert back.properties == {"charge": [0.5, -0.5], "gap": 1.5}
    assert json.loads(json.dumps(record_to_row(record), default=str))["n_atoms"] == 2


def test_a_property_of_a_single_atom_is_a_number_on_both_sides_of_a_table(make_record):
    atom = {"numbers": np.array([26]), "positions": np.zeros((1, 3)), "forces": np.zeros((1, 3))}
    record = make_record(**atom, properties={"bader": [0.1]})
    (back,) = table_to_records(records_to_table([record]))
    assert back.properties == {"bader": 0.1}
    assert label_hash(back) == label_hash(record) == label_hash(make_record(**atom, properties={"bader": 0.1}))
