"""Copies: rows that show the very atoms of other rows, whatever their level of theory."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from gnn.graphs.columns import Columns
from gnn.graphs.shards import BATCH_ROWS, ShardReader
from gnn.structures.record import atoms_bytes


def copies(columns: Columns, of: Sequence[int], among: Sequence[int], paths: Sequence[Path]) -> set[int]:
    """The rows `among` that have the atoms of a row `of`; `paths` are those of the columns' shards."""
    shared = {_size(columns, row) for row in of} & {_size(columns, row) for row in among}
    shown = {key for _, key in _keys(columns, (row for row in of if _size(columns, row) in shared), paths)}
    alike = (row for row in among if _size(columns, row) in shared)
    return {row for row, key in _keys(columns, alike, paths) if key in shown}


def twins(columns: Columns, rows: Sequence[int], paths: Sequence[Path]) -> list[bytes | None] | None:
    """A mark of each row's atoms where a row of another level of theory has them too, else None; None if no row has."""
    if len({columns.theory[row] for row in rows}) < 2:
        return None
    theories: dict[tuple[int, int], set[str]] = {}
    for row in rows:
        theories.setdefault(_size(columns, row), set()).add(columns.theory[row])
    several = (row for row in rows if len(theories[_size(columns, row)]) > 1)
    marks = dict(_keys(columns, several, paths))
    often = Counter(marks.values())
    return [marks[row] if row in marks and often[marks[row]] > 1 else None for row in rows]


def _size(columns: Columns, row: int) -> tuple[int, int]:
    """What copies share and can be told without opening a graph: their atoms and edges are as many."""
    return int(columns.n_atoms[row]), int(columns.n_edges[row])


def _keys(columns: Columns, rows: Iterable[int], paths: Sequence[Path]) -> Iterator[tuple[int, bytes]]:
    """Rows with digests of their atoms, each block decoded once."""
    by_block: dict[tuple[int, int], list[int]] = {}
    for row in rows:
        by_block.setdefault((int(columns.shard[row]), int(columns.row[row]) // BATCH_ROWS), []).append(row)
    for (shard, number), members in by_block.items():
        block = ShardReader(paths[shard]).batch(number)
        for row in members:
            graph = block.graph(int(columns.row[row]) % BATCH_ROWS)
            shown = atoms_bytes(graph.numbers, graph.positions, graph.cell, graph.pbc)
            yield row, hashlib.sha256(shown).digest()
