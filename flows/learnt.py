"""What the weights of a model have learnt from: errors on that flatter it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from flows.settings import Home
from gnn.graphs.graph_set import MANIFEST_NAME, GraphSet

COLUMNS = ("structure_id", "dataset", "group")
FITTED = ("train", "valid")
"""Splits that weights are fitted to, or chosen by."""


def n_learnt(rows: Sequence[Mapping[str, Any]], graph_sets: Sequence[str], home: Home) -> int | None:
    """How many of `rows` (of `COLUMNS`) weights have learnt from that were trained on the `graph_sets`, by their ids.

    Members of a group that was split as one count as the group. None where it is not known here: a graph set is gone,
    or never was here.
    """
    folders = [home.graphs / graph_set_id[:16] for graph_set_id in graph_sets]
    if not all((folder / MANIFEST_NAME).is_file() for folder in folders):
        return None
    learnt = set().union(*(_fitted(folder) for folder in folders))
    return sum(row["structure_id"] in learnt or (row["dataset"], row["group"]) in learnt for row in rows)


def in_splits(graph_folder: Path, splits: Sequence[str]) -> list[dict[str, Any]]:
    """Rows of `COLUMNS` of the structures in some splits of a graph set."""
    import pyarrow.parquet as pq

    path = graph_folder / GraphSet.read(graph_folder).splits_path
    found: list[dict[str, Any]] = pq.read_table(
        path, columns=list(COLUMNS), filters=[("role", "in", list(splits))]
    ).to_pylist()
    return found


def _fitted(graph_folder: Path) -> set[Any]:
    """Ids of the structures that are fitted to, and (data set, group) of those whose group stays together."""
    rows = in_splits(graph_folder, FITTED)
    by_group = GraphSet.read(graph_folder).split_by == "group"
    groups = {(row["dataset"], row["group"]) for row in rows if by_group and row["group"] is not None}
    return {row["structure_id"] for row in rows} | groups
