"""Batches of a graph set, streamed from its shards: packed by size, shuffled, the same for the same seed and epoch."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gnn.errors import InputError
from gnn.graphs.batch import Batch
from gnn.graphs.collate import collate
from gnn.graphs.graph import Graph
from gnn.graphs.graph_set import GraphSet, Split
from gnn.graphs.members import Members, read_members
from gnn.graphs.shards import BATCH_ROWS, GraphBlock, ShardReader

CACHE_BYTES = 512 << 20
WINDOW_EDGES = 8_000_000
"""Structures are shuffled within windows of blocks with about this many edges (some 80 MB); smaller sets wholly."""

Indices = NDArray[np.int64]


class GraphData:
    """A graph set on disk, opened for reading.

    Memory is bounded by `cache_bytes` of decoded blocks, whatever the size of the set; a set that fits is read once.
    """

    def __init__(self, graphs_root: Path, folder: Path, cache_bytes: int = CACHE_BYTES) -> None:
        """Open the graph set in `folder`; its shard paths are relative to `graphs_root`.

        Raises:
            InputError: there is no graph set, or one of its shards is missing.
        """
        self.graphs_root = graphs_root
        self.folder = folder
        self.graph_set = GraphSet.read(folder)
        self.members: Members = read_members(folder / self.graph_set.splits_path, self.graph_set.helpers)
        for shard in self.graph_set.shards:
            if not (graphs_root / shard.path).is_file():
                raise InputError(f"shard {graphs_root / shard.path} is missing; run `sluice preprocess` again")
        self._blocks = _Blocks(self, cache_bytes)

    def count(self, split: Split) -> int:
        """Number of structures in a split."""
        return len(self.members.of(split))

    def graphs(self, split: Split) -> Iterator[Graph]:
        """Graphs of a split in their stored order."""
        return (self._graph(index) for index in self.members.of(split))

    def plan(
        self, split: Split, max_atoms: int, max_edges: int | None = None, *, seed: int = 0, epoch: int = 0,
        shuffle: bool = True, helpers: bool = True,
    ) -> list[Indices]:  # fmt: skip
        """Members of each batch of one epoch; known without opening a graph."""
        members, chosen = self.members, self._shown(split, helpers) if shuffle else self.members.of(split)
        batches: list[Indices] = []
        rest = np.zeros(0, dtype=np.int64)
        for window in _windows(members, chosen, np.random.default_rng([seed, epoch]), shuffle):
            waiting = np.concatenate([rest, window])
            packed = pack(members.n_atoms[waiting], members.n_edges[waiting], max_atoms, max_edges)
            batches += [waiting[start:stop] for start, stop in packed[:-1]]
            rest = waiting[packed[-1][0] :]
        return [*batches, rest] if len(rest) else batches

    def batches(
        self, split: Split, max_atoms: int, max_edges: int | None = None, seed: int = 0, epoch: int = 0,
        shuffle: bool = True, start: int = 0, stride: int = 1,
        helpers: bool = True,
    ) -> Iterator[Batch]:  # fmt: skip
        """Batches of a split with at most `max_atoms` atoms and `max_edges` edges; a larger structure comes alone.

        Equal in every bit for equal arguments. A shuffled pass over the training split shows each structure that is no
        helper's as often as the graph set says, those of `helpers` once or not at all. `start` skips batches that were
        already seen, without reading them; of the others every `stride`-th comes, so that several processes share an
        epoch.
        """
        chosen = self.plan(split, max_atoms, max_edges, seed=seed, epoch=epoch, shuffle=shuffle, helpers=helpers)
        for indices in chosen[start::stride]:
            graphs = [self._graph(index) for index in indices]
            yield collate(graphs, self.graph_set.theories, self.graph_set.properties)

    def _shown(self, split: Split, helpers: bool) -> Indices:
        """Members of a split as often as a pass of training shows them."""
        members = self.members.of(split)
        if split != "train" or not self.graph_set.helpers:
            return members
        helps = self.members.helps[members]
        if helpers:
            return np.repeat(members, np.where(helps, 1, self.graph_set.repeats))
        return np.repeat(members[~helps], self.graph_set.repeats_alone)

    def _graph(self, index: int) -> Graph:
        shard, row = int(self.members.shard[index]), int(self.members.row[index])
        graph = self._blocks.get(shard, row // BATCH_ROWS).graph(row % BATCH_ROWS)
        kind = self.graph_set.energy_kinds.get(graph.theory)
        return graph if kind is None or graph.energy == graph.kinds.get(kind) else graph.with_energy(kind)


class _Blocks:
    """Decoded record batches, the least recently used dropped beyond a number of bytes."""

    def __init__(self, data: GraphData, limit_bytes: int) -> None:
        self._paths = [data.graphs_root / shard.path for shard in data.graph_set.shards]
        self._limit = limit_bytes
        self._held = 0
        self._blocks: OrderedDict[tuple[int, int], GraphBlock] = OrderedDict()
        self._readers: dict[int, ShardReader] = {}

    def get(self, shard: int, number: int) -> GraphBlock:
        """One block, from memory or disk."""
        key = (shard, number)
        if key in self._blocks:
            self._blocks.move_to_end(key)
            return self._blocks[key]
        if shard not in self._readers:
            self._readers[shard] = ShardReader(self._paths[shard])
        block = self._readers[shard].batch(number)
        self._blocks[key] = block
        self._held += block.nbytes
        while self._held > self._limit and len(self._blocks) > 1:
            self._held -= self._blocks.popitem(last=False)[1].nbytes
        return block


def pack(
    n_atoms: NDArray[np.int32], n_edges: NDArray[np.int32], max_atoms: int, max_edges: int | None = None
) -> list[tuple[int, int]]:
    """Cut a sequence of structures into runs [start, stop) within the limits, at least one structure each.

    Raises:
        InputError: a limit is not positive.
    """
    if max_atoms < 1 or (max_edges is not None and max_edges < 1):
        raise InputError(
            f"a batch of at most {max_atoms} atoms and {max_edges} edges holds nothing; give positive limits"
        )
    limit_edges = np.inf if max_edges is None else max_edges
    runs, start, atoms, edges = [], 0, 0, 0
    for index, (a, e) in enumerate(zip(n_atoms.tolist(), n_edges.tolist(), strict=True)):
        if index > start and (atoms + a > max_atoms or edges + e > limit_edges):
            runs.append((start, index))
            start, atoms, edges = index, 0, 0
        atoms, edges = atoms + a, edges + e
    return [*runs, (start, len(n_atoms))] if len(n_atoms) else []


def _windows(members: Members, chosen: Indices, rng: np.random.Generator, shuffle: bool) -> Iterator[Indices]:
    """Members in reading order, window by window: whole blocks in random order, their rows mixed within a window."""
    if len(chosen) == 0:
        return
    if not shuffle:
        yield chosen
        return
    blocks = _by_block(members, chosen)
    cost = _block_edges(members)
    window: list[Indices] = []
    edges = 0
    for position in rng.permutation(len(blocks)):
        window.append(blocks[position])
        first = blocks[position][0]
        edges += cost[(int(members.shard[first]), int(members.row[first]) // BATCH_ROWS)]
        if edges >= WINDOW_EDGES:
            yield rng.permutation(np.concatenate(window))
            window, edges = [], 0
    if window:
        yield rng.permutation(np.concatenate(window))


def _by_block(members: Members, chosen: Indices) -> list[Indices]:
    """`chosen` in runs of one block each; members are stored in the order of shard and row."""
    keys = np.column_stack([members.shard[chosen], members.row[chosen] // BATCH_ROWS])
    cuts = np.flatnonzero((keys[1:] != keys[:-1]).any(axis=1)) + 1
    return np.split(chosen, cuts)


def _block_edges(members: Members) -> dict[tuple[int, int], int]:
    """Edges of every block, since a block is decoded wholly even for one of its rows."""
    runs = _by_block(members, np.arange(len(members.shard)))
    return {
        (int(members.shard[run[0]]), int(members.row[run[0]]) // BATCH_ROWS): int(members.n_edges[run].sum())
        for run in runs
    }
