"""Speed of graphs on this machine: neighbour lists beside ASE's, building, writing, reading and batching shards.

`sluice bench graphs DATASET... [--cutoff Å] [--limit N] [--rounds N]` takes the first N structures of data sets of the
lake and prints a table. CPU seconds of one process with one thread; medians of rounds, in which every
kind of work is done in turn.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from statistics import median

import numpy as np
import pyarrow as pa
from ase.neighborlist import primitive_neighbor_list

from flows.bench.table import BenchTable, Cell, Column, Part, bench_table
from flows.settings import find_home
from gnn.graphs.collate import collate
from gnn.graphs.graph import Graph
from gnn.graphs.neighbours import neighbour_list
from gnn.graphs.rows import graphs_of_rows
from gnn.graphs.shards import read_shard, write_shard
from gnn.lake.table import Lake

ASE_STRUCTURES = 30
BATCH = 32


def rows_of(dataset: str, limit: int) -> pa.Table:
    """The first rows of a data set."""
    batches = islice(Lake(find_home().lake).record_batches(dataset, batch_rows=limit), limit)
    return pa.Table.from_batches(list(batches)).slice(0, limit)


def neighbours(graphs: list[Graph], cutoff: float) -> None:
    """Our neighbour lists."""
    for graph in graphs:
        neighbour_list(graph.positions, graph.cell, graph.pbc, cutoff)


def neighbours_of_ase(graphs: list[Graph], cutoff: float) -> None:
    """ASE's neighbour lists."""
    for graph in graphs:
        cell = graph.cell if graph.pbc.any() else np.eye(3)
        primitive_neighbor_list("ijS", graph.pbc, cell, graph.positions, cutoff)


def batches(graphs: list[Graph]) -> None:
    """Batches of tensors."""
    theories = sorted({graph.theory for graph in graphs})
    for start in range(0, len(graphs), BATCH):
        collate(graphs[start : start + BATCH], theories)


def measure(dataset: str, cutoff: float, limit: int, rounds: int) -> list[Cell]:
    """One row of the table: structures a CPU second for each kind of work."""
    rows = rows_of(dataset, limit)
    graphs = list(graphs_of_rows(rows, cutoff))
    n_atoms, n_edges = (sum(getattr(graph, name) for graph in graphs) for name in ("n_atoms", "n_edges"))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "shard.arrow"
        work: list[tuple[int, Callable[[], object]]] = [
            (min(len(graphs), ASE_STRUCTURES), lambda: neighbours_of_ase(graphs[:ASE_STRUCTURES], cutoff)),
            (len(graphs), lambda: neighbours(graphs, cutoff)),
            (len(graphs), lambda: list(graphs_of_rows(rows, cutoff))),
            (len(graphs), lambda: write_shard(path, graphs)),
            (len(graphs), lambda: list(read_shard(path))),
            (len(graphs), lambda: batches(graphs)),
        ]
        seconds = [[cpu_s(job) for _, job in work] for _ in range(rounds)]
        size = path.stat().st_size / n_edges
    rates = [n / median(column) for (n, _), column in zip(work, zip(*seconds, strict=True), strict=True)]
    shape: list[Cell] = [dataset, len(graphs), n_atoms / len(graphs), n_edges / n_atoms]
    return [*shape, *rates, rates[1] / rates[0], size]


def cpu_s(job: Callable[[], object]) -> float:
    """CPU seconds of one call."""
    started = time.process_time()
    job()
    return time.process_time() - started


COLUMNS = [
    Column(name="data set"),
    Column(name="structures"),
    Column(name="atoms", digits=0),
    Column(name="edges an atom", digits=0),
    Column(name="ASE lists/s", digits=0),
    Column(name="lists/s", digits=0),
    Column(name="rows to graphs/s", digits=0),
    Column(name="written/s", digits=0),
    Column(name="read/s", digits=0),
    Column(name="batched/s", digits=0),
    Column(name="lists: times ASE", digits=0),
    Column(name="bytes an edge", digits=1),
]


def run(datasets: Sequence[str], cutoff: float, limit: int, rounds: int) -> BenchTable:
    """Measure data sets of the lake.

    Raises:
        InputError: one is not in the lake.
    """
    rows = [measure(name, cutoff, limit, rounds) for name in datasets]
    part = Part(title=f"Graphs within {cutoff:g} Å, medians of {rounds} rounds", columns=COLUMNS, rows=rows)
    command = f"sluice bench graphs {' '.join(datasets)} --cutoff {cutoff:g} --limit {limit} --rounds {rounds}"
    return bench_table("graphs", "Speed of graphs", command, [part])
