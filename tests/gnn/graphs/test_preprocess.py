"""One shard of preprocessing: bad rows are set aside and counted, damaged rows stop it, and its cost is told."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gnn.errors import SluiceError
from gnn.graphs.assembly import SET_ASIDE
from gnn.graphs.loader import GraphData
from gnn.graphs.plan import plan_rows, shard_plans
from gnn.graphs.preprocess import ShardManifest, build_lake_shard, build_shard
from gnn.graphs.shards import read_shard
from gnn.graphs.verify import refuse_damaged
from gnn.structures.record import RECORD_SCHEMA, records_to_table


def dense(record, seed: int):
    """Many atoms in next to no volume."""
    n = 20
    positions = np.random.default_rng(seed).uniform(0, 0.001, (n, 3))
    return record(seed, n, positions=positions, cell=np.eye(3) * 0.001)


@pytest.fixture
def poisoned(record, workshop, monkeypatch):
    """Sixty good records, and two that no memory can hold; the lake's own checks are asked to let them in."""
    monkeypatch.setattr("gnn.lake.appending.examine", lambda *_: (None, ()))
    records = [record(seed) for seed in range(60)]
    bad = [dense(record, 100), dense(record, 101)]
    workshop.append("toy", [*records[:30], bad[0], *records[30:], bad[1]])
    return workshop, [item.structure_id for item in bad]


def test_bad_rows_are_set_aside_and_counted(poisoned):
    workshop, bad = poisoned
    graph_set, folder = workshop.preprocess("toy", cutoff=4.0)
    assert graph_set.rows_in == 62
    assert graph_set.dropped[SET_ASIDE] == 2
    assert graph_set.rows_in == sum(graph_set.split_counts.values()) + sum(graph_set.dropped.values())
    members = pq.read_table(folder / "splits.parquet").to_pylist()
    assert len(members) == len({row["structure_id"] for row in members}) == 62
    lost = {row["structure_id"]: row for row in members if row["structure_id"] in bad}
    assert all("would have" in row["reason"] and row["role"] == "dropped" for row in lost.values())
    data = GraphData(workshop.graphs_root, folder)
    assert sum(batch.n_structures for batch in data.batches("train", 100)) == graph_set.split_counts["train"]


def test_the_others_are_as_they_were_without_them(poisoned, record, tmp_path):
    workshop, bad = poisoned
    plan = shard_plans(workshop.lake, "toy", workshop.lake.version("toy"), 4.0)[0]
    manifest = build_shard(plan, plan_rows(workshop.lake, plan), 4.0, workshop.graphs_root)
    found = {graph.structure_id: graph for graph in read_shard(workshop.graphs_root / manifest.path)}
    assert set(manifest.set_aside) == set(bad)
    assert len(found) == manifest.n_graphs == 60
    assert manifest.peak_memory_mb > 0
    assert manifest.info().set_aside == manifest.set_aside
    calm = build_shard(plan, records_to_table([record(seed) for seed in range(60)]), 4.0, tmp_path / "calm")
    for graph in read_shard(tmp_path / "calm" / calm.path):
        assert np.array_equal(graph.senders, found[graph.structure_id].senders)


def test_a_shard_of_nothing_but_bad_rows(record, tmp_path, workshop, monkeypatch):
    monkeypatch.setattr("gnn.lake.appending.examine", lambda *_: (None, ()))
    workshop.append("toy", [record(seed) for seed in range(40)])
    workshop.append("worse", [dense(record, 100)])
    graph_set, _ = workshop.preprocess("toy", "worse", cutoff=4.0)
    assert graph_set.dropped[SET_ASIDE] == 1
    assert graph_set.shards[-1].n_graphs == 0


def changed(table: pa.Table, name: str, change) -> pa.Table:
    """The table with the last row's value of a column changed."""
    values = table.column(name).to_pylist()
    values[-1] = change(values[-1])
    field = RECORD_SCHEMA.field(name)
    return table.set_column(table.schema.get_field_index(name), field, pa.array(values, field.type))


def nudge(values: list[float]) -> list[float]:
    return [values[0] + 1e-3, *values[1:]]


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("positions", nudge, "its structure_id is"),
        ("cell", nudge, "its structure_id is"),
        ("numbers", lambda values: [values[0] + 1, *values[1:]], "its structure_id is"),
        ("energy", lambda value: value + 1e-6, "its label_hash is"),
        ("forces", nudge, "its label_hash is"),
        ("stress", nudge, "its label_hash is"),
        ("structure_id", lambda value: value[::-1], "its structure_id is"),
    ],
)
def test_a_changed_number_is_found(record, name, change, words):
    table = records_to_table([record(seed) for seed in range(5)])
    refuse_damaged(table, "toy@0")
    with pytest.raises(SluiceError, match=f"data set toy@0: structure .* is damaged: {words}.*ingest anew"):
        refuse_damaged(changed(table, name, change), "toy@0")


def test_rows_with_everything_or_next_to_nothing_are_believed(record, free_atom):
    full = record(1, 4, magmoms=np.arange(4.0), charges=np.ones(4), total_charge=1, multiplicity=2,
                  properties={"gap": 1.5, "spins": np.arange(4.0)}, free_energy=-3.0)  # fmt: skip
    bare = record(2, 3, energy=None, forces=None, stress=None)
    alone = record(4, 1, properties={"spins": [0.1], "gap": 1.5})
    refuse_damaged(records_to_table([full, bare, alone, free_atom(3, -1.0)]), "toy@0")


def test_a_damaged_lake_stops_the_shard(record, workshop, monkeypatch):
    workshop.append("toy", [record(seed) for seed in range(20)])
    plan = shard_plans(workshop.lake, "toy", 0, 4.0)[0]
    real = plan_rows(workshop.lake, plan)
    monkeypatch.setattr("gnn.graphs.preprocess.plan_rows", lambda *_: changed(real, "energy", lambda value: value + 1))
    with pytest.raises(SluiceError, match="damaged"):
        build_lake_shard(plan, 4.0, workshop.lake.root, workshop.graphs_root)
    assert not list(Path(workshop.graphs_root).glob("shards/*"))


def test_manifests_of_earlier_versions_are_read():
    old = {"path": "a", "sha256": "b", "n_graphs": 1, "n_atoms": 2, "n_edges": 3, "cpu_s": 0.5}
    assert ShardManifest.model_validate(old).set_aside == {}
