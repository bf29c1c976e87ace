"""Columns of many shards: spans, counts, sums, statistics, the choice of energies."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gnn.graphs import columns as module
from gnn.graphs.columns import PropertyColumn, read_columns, spans
from gnn.graphs.energies import choose_energies
from gnn.graphs.graph import graph_of_record
from gnn.graphs.graph_set import TheoryReferences
from gnn.graphs.shards import write_shard
from gnn.graphs.statistics import property_statistics, residuals, statistics_of
from gnn.structures.properties import PropertySpec

GAP = {"gap": PropertySpec(unit="eV")}


@pytest.fixture
def columns_of(tmp_path):
    def make(*shards, declared=GAP):
        paths = []
        for number, records in enumerate(shards):
            paths.append(tmp_path / f"{number}.arrow")
            write_shard(paths[-1], [graph_of_record(record, 3.0) for record in records])
        return read_columns(paths, declared)

    return make


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 6)), max_size=20))
def test_spans_are_the_ranges_one_after_the_other(pairs):
    starts, lengths = (np.array([pair[i] for pair in pairs], dtype=np.int64) for i in (0, 1))
    assert spans(starts, lengths).tolist() == [i for start, length in pairs for i in range(start, start + length)]


def test_rows_of_several_shards_stand_side_by_side(columns_of, record):
    records = [record(seed) for seed in range(7)]
    columns = columns_of(records[:3], records[3:])
    assert columns.structure_id == [item.structure_id for item in records]
    assert columns.shard.tolist() == [0, 0, 0, 1, 1, 1, 1]
    assert columns.row.tolist() == [0, 1, 2, 0, 1, 2, 3]
    assert sorted(columns.symbols(4)) == records[4].elements


def test_counts_and_sums_over_atoms(columns_of, record, monkeypatch):
    records = [record(seed) for seed in range(9)]
    columns = columns_of(records)
    rows, numbers = np.array([8, 0, 3]), np.array([3, 14])
    expected = [[int((records[row].numbers == z).sum()) for z in numbers] for row in rows]
    assert columns.counts(rows, numbers).tolist() == expected
    monkeypatch.setattr(module, "CHUNK_ROWS", 2)
    assert columns.counts(rows, numbers).tolist() == expected
    masses = np.arange(256.0)
    assert columns.sum_over_atoms(rows, masses).tolist() == [float(records[row].numbers.sum()) for row in rows]


def test_more_atoms_than_two_bytes_count(columns_of, record):
    large = {"n_atoms": np.array([70_000]), "numbers": np.full(70_000, 29, dtype=np.uint8)}
    columns = replace(columns_of([record(0)]), **large)
    assert columns.counts(np.array([0]), np.array([29])).tolist() == [[70_000]]


def test_nothing_is_counted_of_no_rows(columns_of, record):
    columns = columns_of([record(0)])
    none = np.zeros(0, dtype=np.int64)
    assert columns.counts(none, np.array([3])).shape == (0, 1)
    assert columns.sum_over_atoms(none, np.zeros(256)).shape == (0,)


def test_labels_are_known_by_kind(columns_of, record):
    bare = {"energy": None, "forces": None, "stress": None}
    all_fixed = {"fixed": np.ones(2, dtype=bool), "n_atoms": 2, "energy": None, "stress": None}
    columns = columns_of(
        [record(0), record(1, **bare), record(2, **bare, properties={"gap": 1.0}), record(3, **all_fixed)]
    )
    assert columns.has_labels().tolist() == [True, False, True, False]
    assert columns.has_labels_beside_energy().tolist() == [True, False, True, False]
    assert columns.has_property().tolist() == [False, False, True, False]


def test_a_property_of_one_shard_is_missing_in_the_other(columns_of, record):
    columns = columns_of([record(0)], [record(1, properties={"gap": 2.0})])
    assert columns.properties["gap"].counts.tolist() == [0, 1]
    assert columns.properties["gap"].values.tolist() == [2.0]


@pytest.mark.parametrize(
    ("n_energy", "n_free", "kind", "masked"),
    [(5, 0, "energy", 0), (0, 5, "free_energy", 0), (5, 5, "free_energy", 0), (6, 3, "energy", 0), (6, 0, "energy", 0)],
)
def test_the_kind_of_energy(columns_of, record, n_energy, n_free, kind, masked):
    total = max(n_energy, n_free)
    records = [
        record(i, energy=-1.0 if i < n_energy else None, free_energy=-2.0 if i < n_free else None) for i in range(total)
    ]
    choice = choose_energies(columns_of(records), np.arange(total))
    assert choice.kinds == {"pbe/toy": kind}
    assert choice.masked == ({"pbe/toy": masked} if masked else {})
    assert set(choice.values) == {-1.0 if kind == "energy" else -2.0}


def test_no_energies_choose_nothing(columns_of, record):
    choice = choose_energies(columns_of([record(0, energy=None)]), np.arange(1))
    assert choice.kinds == {}
    assert not choice.known.any()


def test_residuals_are_per_atom_beyond_the_references(columns_of, record):
    columns = columns_of([record(seed) for seed in range(5)])
    choice = choose_energies(columns, np.arange(5))
    known = {"Li": -2.0, "Mg": -1.5, "Si": -5.5, "Ag": -2.5}
    shifted = {element: energy - 0.5 for element, energy in known.items()}
    references = {"pbe/toy": TheoryReferences(energies=shifted, source=dict.fromkeys(shifted, "fitted"))}
    np.testing.assert_allclose(residuals(columns, np.arange(5), choice, references), 0.5)
    found = statistics_of(columns, np.arange(5), choice, references, GAP)
    assert found.energy_rms == pytest.approx(0.5)


def test_bonding_is_no_spread_of_energies(columns_of, record):
    columns = columns_of([record(seed) for seed in range(5)])
    choice = choose_energies(columns, np.arange(5))
    bonding = {"Li": -2.0, "Mg": -1.5, "Si": -5.5, "Ag": -2.5}
    free = TheoryReferences(energies=dict.fromkeys(bonding, 0.0), source={}, bonding=bonding)
    found = statistics_of(columns, np.arange(5), choice, {"pbe/toy": free}, GAP)
    assert found.energy_rms == pytest.approx(0.0, abs=1e-9)


def test_statistics_of_a_property():
    column = PropertyColumn(np.array([1, 0, 1, 1]), np.array([4.0, 8.0, 100.0]))
    rows, n_atoms = np.array([0, 1, 2]), np.array([2, 2, 4, 1])
    intensive = property_statistics(column, n_atoms, rows, PropertySpec(unit="eV"))
    assert (intensive.n, intensive.mean, intensive.std) == (2, 6.0, 2.0)
    extensive = property_statistics(column, n_atoms, rows, PropertySpec(unit="eV", extensive=True))
    assert (extensive.mean, extensive.std) == (2.0, 0.0)
    nothing = property_statistics(column, n_atoms, np.array([1]), PropertySpec(unit="eV"))
    assert nothing.n == 0
