"""Shards give back what was written, in the same bytes."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from gnn.errors import SluiceError
from gnn.files import file_sha256
from gnn.graphs.graph import graph_of_record
from gnn.graphs.rows import graphs_of_rows
from gnn.graphs.shards import BATCH_ROWS, ShardReader, read_index, read_shard, write_shard
from gnn.structures.record import records_to_table


def assert_equal(one, other):
    for field in dataclasses.fields(one):
        a, b = getattr(one, field.name), getattr(other, field.name)
        if isinstance(a, np.ndarray):
            np.testing.assert_array_equal(a, b, err_msg=field.name)
        elif field.name == "properties":
            assert a.keys() == b.keys()
            for name in a:
                np.testing.assert_array_equal(a[name], b[name])
        else:
            assert a == b, field.name


@pytest.fixture
def graphs(record, free_atom):
    records = [
        record(0),
        record(1, free_energy=-3.0),
        record(2, energy=None, forces=None, stress=None, properties={"gap": 1.5}),
        record(3, n_atoms=4, fixed=np.array([True, False, False, True]), properties={"spin": [1.0, 2.0, 3.0, 4.0]}),
        record(4, group=None, energy=None, free_energy=-7.0),
        record(5, cell=np.eye(3) * 90, n_atoms=1),
        free_atom(14, -0.5),
    ]
    return [graph_of_record(item, 4.5) for item in records]


def test_a_round_trip_keeps_everything(graphs, tmp_path):
    info = write_shard(tmp_path / "a.arrow", graphs)
    for one, other in zip(graphs, read_shard(tmp_path / "a.arrow"), strict=True):
        assert_equal(one, other)
    assert info.n_graphs == len(graphs)
    assert info.n_edges == sum(graph.n_edges for graph in graphs)
    assert info.sha256 == file_sha256(tmp_path / "a.arrow")


def test_the_same_graphs_give_the_same_bytes(graphs, tmp_path):
    one = write_shard(tmp_path / "a.arrow", graphs)
    other = write_shard(tmp_path / "deep" / "b.arrow", graphs, relative_to=tmp_path)
    assert one.sha256 == other.sha256
    assert other.path == "deep/b.arrow"


def test_rows_of_a_table_give_the_graphs_of_their_records(record, free_atom):
    records = [record(i, properties={"gap": 0.5} if i % 2 else {}) for i in range(6)] + [free_atom(3, -0.2)]
    for one, other in zip(
        graphs_of_rows(records_to_table(records), 4.0), (graph_of_record(item, 4.0) for item in records), strict=True
    ):
        assert_equal(one, other)


def test_a_slice_of_a_table_gives_its_own_rows(record):
    table = records_to_table([record(i) for i in range(6)])
    ids = [graph.structure_id for graph in graphs_of_rows(table.slice(2, 3), 4.0)]
    assert ids == table.column("structure_id").to_pylist()[2:5]


def test_blocks_are_read_alone(record, tmp_path):
    graphs = [graph_of_record(record(seed, n_atoms=2), 3.5) for seed in range(BATCH_ROWS + 5)]
    write_shard(tmp_path / "a.arrow", graphs)
    reader = ShardReader(tmp_path / "a.arrow")
    assert reader.n_batches == 2
    assert len(reader.batch(1)) == 5
    assert_equal(reader.batch(1).graph(3), graphs[BATCH_ROWS + 3])


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="counts open files by /proc")
def test_readers_keep_no_file_open(record, tmp_path):
    write_shard(tmp_path / "a.arrow", [graph_of_record(record(0), 3.5)])
    before = len(list(Path("/proc/self/fd").iterdir()))
    readers = [ShardReader(tmp_path / "a.arrow") for _ in range(20)]
    blocks = [reader.batch(0) for reader in readers]
    assert len(list(Path("/proc/self/fd").iterdir())) <= before
    assert all(len(block) == 1 for block in blocks)


def test_the_index_is_read_without_the_arrays(graphs, tmp_path):
    write_shard(tmp_path / "a.arrow", graphs)
    index = read_index(tmp_path / "a.arrow")
    assert "positions" not in index.schema.names
    assert index.column("n_edges").to_pylist() == [graph.n_edges for graph in graphs]
    assert index.column("isolated").to_pylist() == [False] * 6 + [True]
    fixed = graphs[3]
    assert index.column("force_count").to_pylist()[3] == 6
    free = fixed.forces[[1, 2]]
    assert index.column("force_square_sum").to_pylist()[3] == pytest.approx((free**2).sum())
    assert index.column("max_force").to_pylist()[3] == pytest.approx(np.linalg.norm(fixed.forces, axis=1).max())
    assert index.column("max_force").to_pylist()[2] is None


def test_far_images_take_wider_integers(record, tmp_path):
    cell = np.array([[3.0, 0, 0], [600.0, 3.0, 0], [0, 0, 3.0]])
    graph = graph_of_record(record(0, n_atoms=1, cell=cell), 3.5)
    assert np.abs(graph.shifts).max() == 200
    write_shard(tmp_path / "a.arrow", [graph])
    assert_equal(next(iter(read_shard(tmp_path / "a.arrow"))), graph)


@pytest.mark.parametrize("cells", [127, 128, 129, 32768])
def test_shifts_to_both_sides_fit_their_integers(record, tmp_path, cells):
    """An atom that went through so many cells; every edge is there in both directions."""
    positions = np.array([[0.0, 0.0, 0.0], [3.0 * cells + 1.0, 0.0, 0.0]])
    graph = graph_of_record(record(0, n_atoms=2, cell=3.0 * np.eye(3), positions=positions), 1.5)
    assert graph.shifts.max() == -graph.shifts.min() == cells
    write_shard(tmp_path / "a.arrow", [graph])
    assert_equal(next(iter(read_shard(tmp_path / "a.arrow"))), graph)


def test_an_empty_shard_is_a_shard(tmp_path):
    assert write_shard(tmp_path / "a.arrow", []).n_graphs == 0
    assert list(read_shard(tmp_path / "a.arrow")) == []


def test_energies_are_chosen_by_kind(record):
    graph = graph_of_record(record(0, energy=-1.0, free_energy=-2.0), 3.0)
    assert graph.energy == -2.0
    assert graph.with_energy("energy").energy == -1.0
    assert graph_of_record(record(0, energy=-1.0), 3.0).with_energy("free_energy").energy is None


@pytest.mark.parametrize("content", [b"", b"nonsense", b"ARROW1\0\0torn"])
def test_what_is_no_shard_is_said(content, tmp_path):
    (tmp_path / "a.arrow").write_bytes(content)
    with pytest.raises(SluiceError, match="not a readable shard"):
        list(read_shard(tmp_path / "a.arrow"))
    with pytest.raises(SluiceError, match="not a readable shard"):
        list(read_shard(tmp_path / "missing.arrow"))


def test_another_format_is_refused(tmp_path):
    table = pa.table({"a": [1]}, metadata={"format_version": "99"})
    with pa.OSFile(str(tmp_path / "a.arrow"), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    with pytest.raises(SluiceError, match="99"):
        ShardReader(tmp_path / "a.arrow")


def test_a_row_without_a_graph_is_named(record):
    broken = record(0, positions=np.full((2, 3), np.nan), n_atoms=2)
    table = records_to_table([broken])
    with pytest.raises(SluiceError, match=f"{broken.structure_id[:16]} of toy"):
        list(graphs_of_rows(table, 3.0))
