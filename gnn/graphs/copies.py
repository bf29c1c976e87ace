"""Copies: rows that show the very atoms of other rows, whatever their level of theory."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from gnn.graphs.columns import Columns
from gnn.graphs.graph import Graph
from gnn.graphs.shards import BATCH_ROWS, ShardReader
from gnn.structures.record import ID_DECIMALS


def copies(columns: Columns, of: Sequence[int], among: Sequence[int], paths: Sequence[Path]) -> set[int]:
    """The rows `among` that have the atoms of a row `of`; `paths` are those of the columns' shards."""
    wanted = {_keys(columns, row) for row in of}
    alike = [row for row in among if _keys(columns, row) in wanted]
    if not alike:
        return set()
    shown = {atoms_key(graph) for _, graph in _graphs(columns, of, paths)}
    return {row for row, graph in _graphs(columns, alike, paths) if atoms_key(graph) in shown}


def atoms_key(graph: Graph) -> bytes:
    """Digest of numbers, positions and cell to 1e-6 Å, and periodicity."""
    sha = hashlib.sha256(np.asarray(graph.numbers, dtype="<i4").tobytes())
    for values in (graph.positions, graph.cell):
        sha.update((np.round(np.asarray(values, dtype="<f8"), ID_DECIMALS) + 0.0).tobytes())
    sha.update(np.asarray(graph.pbc, dtype="u1").tobytes())
    return sha.digest()


def _keys(columns: Columns, row: int) -> tuple[int, int]:
    """What copies share and can be told without opening a graph: their atoms and edges are as many."""
    return int(columns.n_atoms[row]), int(columns.n_edges[row])


def _graphs(columns: Columns, rows: Iterable[int], paths: Sequence[Path]) -> Iterator[tuple[int, Graph]]:
    """Rows with their graphs, each block decoded once."""
    by_block: dict[tuple[int, int], list[int]] = {}
    for row in rows:
        by_block.setdefault((int(columns.shard[row]), int(columns.row[row]) // BATCH_ROWS), []).append(row)
    for (shard, number), members in by_block.items():
        block = ShardReader(paths[shard]).batch(number)
        yield from ((row, block.graph(int(columns.row[row]) % BATCH_ROWS)) for row in members)
