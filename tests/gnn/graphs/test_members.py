"""What became of every structure of a graph set."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from gnn.graphs.members import SCHEMA, read_roles, write_members


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Three structures of one group, one of which was dropped, one of none, and one of another data set."""
    rows = [
        ("a", "mine", "melt", "train"),
        ("b", "mine", "melt", "dropped"),
        ("c", "mine", "melt", "train"),
        ("d", "mine", None, "valid"),
        ("e", "other", "melt", "test"),
    ]
    places = {"theory": "pbe/x", "shard": 0, "row": 0, "n_atoms": 1, "n_edges": 1}
    table = [dict(zip(("structure_id", "dataset", "group", "role"), row, strict=True)) | places for row in rows]
    return write_members(tmp_path / "splits.parquet", pa.Table.from_pylist(table, schema=SCHEMA))


def test_roles_are_those_of_one_data_set(path: Path) -> None:
    roles = read_roles(path, "mine", by_group=False)
    assert [roles.of(name, "melt") for name in "abcde"] == ["train", "dropped", "train", "valid", None]


def test_a_new_structure_has_the_role_of_its_group(path: Path) -> None:
    roles = read_roles(path, "mine", by_group=True)
    assert roles.of("new", "melt") == "train"
    assert roles.of("b", "melt") == "dropped"
    assert roles.of("new", "gas") is None
    assert roles.of("new", None) is None
