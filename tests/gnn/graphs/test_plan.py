"""Shards by content: more data leave old shards alone, and a worker reads its own rows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gnn.graphs import plan
from gnn.graphs.plan import cuts, plan_rows, plans_of_table, shard_plans
from gnn.structures.record import records_to_table


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    monkeypatch.setattr(plan, "TARGET_ATOMS", 100)
    monkeypatch.setattr(plan, "LEAST_ATOMS", 25)
    monkeypatch.setattr(plan, "MOST_ATOMS", 300)


def keys(records, cutoff=5.0):
    return [p.key for p in plans_of_table(records_to_table(records), "toy", 0, cutoff)]


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 90), max_size=150), st.integers(0, 10**6))
def test_cuts_cover_every_row_once(sizes, seed):
    ids = [f"{seed}-{i}" for i in range(len(sizes))]
    runs = list(cuts(ids, sizes))
    assert [i for start, stop in runs for i in range(start, stop)] == list(range(len(sizes)))
    for start, stop in runs:
        assert sum(sizes[start:stop]) <= 300 or stop - start == 1


def test_appended_rows_leave_all_but_the_last_shard(record):
    records = [record(seed) for seed in range(400)]
    before, after = keys(records), keys(records + [record(seed) for seed in range(400, 404)])
    assert len(before) > 10
    assert before[:-1] == after[: len(before) - 1]


def test_an_insertion_changes_the_shard_it_falls_into(record):
    records = [record(seed) for seed in range(400)]
    before = set(keys(records))
    without = set(keys(records[:150] + records[151:]))
    assert len(before - without) <= 3


def test_the_order_of_the_table_does_not_matter(record):
    records = [record(seed) for seed in range(100)]
    assert keys(records) == keys(records[::-1])


@pytest.mark.parametrize(
    "change",
    [{"energy": -1.0}, {"fixed": np.array([True, False])}, {"group": "other"}, {"positions": np.ones((2, 3))}],
)
def test_whatever_a_graph_depends_on_changes_its_key(record, change):
    original = record(0, n_atoms=2)
    assert keys([original]) != keys([replace(original, **change)])


def test_cutoff_and_data_set_change_the_key(record):
    assert keys([record(0)], 5.0) != keys([record(0)], 6.0)
    table = records_to_table([record(0)])
    assert plans_of_table(table, "a", 0, 5.0)[0].key != plans_of_table(table, "b", 0, 5.0)[0].key


def test_where_it_was_read_from_does_not_change_the_key(record):
    moved = replace(record(0), source=replace(record(0).source, file="/elsewhere/toy.xyz"))
    assert keys([record(0)]) == keys([moved])


def test_the_rows_of_a_plan_come_from_the_lake_in_its_order(workshop, record):
    records = [record(seed) for seed in range(120)]
    workshop.append("toy", records[:70])
    version = workshop.append("toy", records[70:])
    plans = shard_plans(workshop.lake, "toy", version, 4.0)
    assert len(plans) > 3
    found = [row for p in plans for row in plan_rows(workshop.lake, p).column("structure_id").to_pylist()]
    assert found == [structure_id for p in plans for structure_id in p.ids]
    assert len(set(found)) == workshop.lake.rows("toy")


def test_rows_without_source_are_found_too(workshop, record):
    version = workshop.append("toy", [record(seed, source=None) for seed in range(50)])
    for p in shard_plans(workshop.lake, "toy", version, 4.0):
        assert "source_row" not in p.ranges
        assert plan_rows(workshop.lake, p).num_rows == len(p.ids)
