"""A peer that predicts a property of crystals: fitted and tested on the very rows of ours."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from flows.bench.peers.client import worker
from flows.bench.peers.workers.crystals import NEIGHBOURS, RADIUS, Crystals, save_crystals
from flows.bench.tasks import Task, bring, split_graphs
from flows.settings import Home
from gnn.graphs.neighbours import neighbour_list
from gnn.machine import processor

if TYPE_CHECKING:
    from gnn.graphs.graph import Graph

CUTOFF = 5.0
"""Å, of ours: the graph set is that of its training, made once."""


def fit_crystals(
    task: Task, package: str, target: str, minutes: float, seed: int, data: Path, home: Home, peers_home: Path
) -> dict[str, Any]:
    """Train a peer for so many CPU minutes, neighbour lists not counted; its errors as `TARGET_mae` and `TARGET_rmse`.

    It is fitted to the training and the validation part, as it chooses nothing by the latter.
    """
    bring(task, data, home)
    parts = split_graphs(task, CUTOFF, home)
    fitted = crystals_of([*parts.graphs("train"), *parts.graphs("valid")], target)
    tested = crystals_of(parts.graphs("test"), target)
    with tempfile.TemporaryDirectory(prefix="sluice-bench-") as scratch, worker(package, peers_home) as own:
        paths = {
            "fit": str(save_crystals(Path(scratch) / "fit.npz", fitted)),
            "test": str(save_crystals(Path(scratch) / "test.npz", tested)),
        }
        found = own.ask(do="fit", seed=seed, cpu_s=60 * minutes, **paths)
    named = {f"{target}_{name}": found.pop(name) for name in ("mae", "rmse")}
    return {**named, **found, "fitted": len(fitted), "tested": len(tested), "trained_on": [processor()]}


def crystals_of(graphs: Iterable[Graph], target: str) -> Crystals:
    """The graphs that have the property, each atom with its nearest neighbours."""
    found = [graph for graph in graphs if target in graph.properties]
    first = np.concatenate([[0], np.cumsum([graph.n_atoms for graph in found])]).astype(np.int64)
    lists = [nearest_neighbours(graph) for graph in found]
    return Crystals(
        numbers=np.concatenate([graph.numbers for graph in found]).astype(np.int64),
        nearest=np.concatenate([who + start for (who, _), start in zip(lists, first[:-1], strict=True)]),
        distance=np.concatenate([distance for _, distance in lists]),
        first=first,
        target=np.array([graph.properties[target] for graph in found], dtype=np.float64),
    )


def nearest_neighbours(graph: Graph) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Which atoms are the nearest (N, K), and how far (N, K) Å; where there are fewer, atom 0 beyond the radius."""
    edges = neighbour_list(graph.positions, graph.cell, graph.pbc, RADIUS)
    vectors = graph.positions[edges.senders] - graph.positions[edges.receivers] + edges.shifts @ graph.cell
    distance = np.linalg.norm(vectors, axis=1)
    order = np.lexsort((distance, edges.receivers))
    receivers = edges.receivers[order]
    rank = np.arange(len(order)) - np.searchsorted(receivers, receivers)
    kept = rank < NEIGHBOURS
    who = np.zeros((graph.n_atoms, NEIGHBOURS), dtype=np.int64)
    far = np.full((graph.n_atoms, NEIGHBOURS), RADIUS + 1.0, dtype=np.float32)
    who[receivers[kept], rank[kept]] = edges.senders[order][kept]
    far[receivers[kept], rank[kept]] = distance[order][kept]
    return who, far
