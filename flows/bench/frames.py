"""Structures of real data sets as the frames that every worker reads."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from flows.bench.peers.workers.frames import Frame
from gnn.errors import InputError, named

if TYPE_CHECKING:
    from gnn.graphs.graph import Graph

SPEED_SETS: dict[str, tuple[str, str]] = {
    "3bpa": ("3bpa/train_300K.xyz.gz", "3bpa"),
    "si": ("mlearn/Si/training.json.gz", "mlearn"),
}
"""Sets of the table of speeds: the file under the data folder, and the card it is read with."""


def frames_of(graphs: Sequence[Graph], own_energies: dict[int, float] | None = None) -> list[Frame]:
    """Graphs as frames, energies relative to `own_energies` (eV by atomic number; fitted to these graphs where None).

    Raises:
        InputError: a graph has no energy or no forces.
    """
    energies = atom_energies(graphs) if own_energies is None else own_energies
    return [_frame(graph, energies) for graph in graphs]


def _frame(graph: Graph, own_energies: dict[int, float]) -> Frame:
    if graph.energy is None or graph.forces is None:
        raise InputError(f"structure {graph.structure_id} has no energy or no forces; benchmarks need both")
    return Frame(
        numbers=np.asarray(graph.numbers, dtype=np.int64),
        positions=np.asarray(graph.positions, dtype=np.float64),
        cell=np.asarray(graph.cell, dtype=np.float64),
        pbc=np.asarray(graph.pbc, dtype=bool),
        energy=graph.energy - sum(own_energies[int(z)] for z in graph.numbers),
        forces=np.asarray(graph.forces, dtype=np.float64),
        senders=np.asarray(graph.senders, dtype=np.int64),
        receivers=np.asarray(graph.receivers, dtype=np.int64),
        shifts=np.asarray(graph.shifts, dtype=np.int64),
    )


def atom_energies(graphs: Sequence[Graph]) -> dict[int, float]:
    """Energies of atoms (eV by atomic number) that fit the graphs' energies best, of least norm."""
    elements = sorted({int(z) for graph in graphs for z in graph.numbers})
    counts = np.array([[np.count_nonzero(graph.numbers == z) for z in elements] for graph in graphs], dtype=float)
    energies = np.array([graph.energy if graph.energy is not None else np.nan for graph in graphs])
    if not np.isfinite(energies).all():
        raise InputError("a structure has no energy; benchmarks need energies and forces")
    found = np.linalg.lstsq(counts, energies, rcond=None)[0]
    return dict(zip(elements, map(float, found), strict=True))


def set_file(data: Path, name: str) -> Path:
    """The file of one of `SPEED_SETS` under the folder `data`.

    Raises:
        InputError: there is no such set, or its file is not there.
    """
    path = data / named("set", name, SPEED_SETS)[0]
    if not path.is_file():
        raise InputError(f"{path} is missing; --data names the folder that holds {SPEED_SETS[name][0]}")
    return path


def read_graphs(data: Path, name: str, cutoff: float) -> list[Graph]:
    """The graphs of one of `SPEED_SETS` under the folder `data`.

    Raises:
        InputError: there is no such set, or its file is not there.
    """
    from flows.cards import card_for
    from flows.settings import find_home
    from gnn.graphs.graph import graph_of_record
    from gnn.structures.readers import read_records
    from gnn.structures.record import Record

    path, card = set_file(data, name), SPEED_SETS[name][1]
    records = read_records(path, card_for(name, find_home(), card, None))
    return labelled(graph_of_record(record, cutoff) for record in records if isinstance(record, Record))


def labelled(graphs: Iterable[Graph]) -> list[Graph]:
    """Those with energy and forces, isolated atoms left out."""
    return [g for g in graphs if g.energy is not None and g.forces is not None and not g.is_isolated_atom]


def spread_batches(n_frames: int, size: int, batches: int) -> list[list[int]]:
    """`batches` lists of `size` indices, spread evenly over the set, so that every batch is like the whole.

    Raises:
        InputError: there are no frames.
    """
    if n_frames == 0:
        raise InputError("there are no structures to measure on")
    wanted = size * batches
    chosen = [k * n_frames // wanted for k in range(wanted)]
    return [chosen[start::batches] for start in range(batches)]
