"""Which atoms see which: neighbour lists of finite, layered and periodic structures in any cell."""

from __future__ import annotations

from dataclasses import dataclass
from threading import local

import numpy as np
from ase.geometry import complete_cell
from numpy.typing import NDArray
from vesin import NeighborList

from gnn.errors import InputError
from gnn.structures.geometry import periodic_measure
from gnn.structures.record import Bools, Floats, Ints

FLATTEST = 1e-5
"""What periodic vectors span, beside what they would at right angles; flatter cells have more images within a cutoff
than memory holds."""


@dataclass(frozen=True)
class Edges:
    """Directed edges, both directions of each pair: senders (E,), receivers (E,), integer image shifts (E, 3).

    The vector of an edge is positions[sender] - positions[receiver] + shift @ cell. Sorted by receiver, then sender,
    then shift, so that equal structures have equal edge lists.
    """

    senders: Ints
    receivers: Ints
    shifts: Ints

    def __len__(self) -> int:
        return len(self.senders)


def neighbour_list(positions: Floats, cell: Floats, pbc: Bools, cutoff: float) -> Edges:
    """All pairs closer than `cutoff` (Å), an atom's own images included, the atom itself not.

    positions (N, 3) and cell (3, 3) in Å; atoms may lie outside the cell. Any cell: smaller than the cutoff, skewed,
    with zero vectors where not periodic. The edges are those of `ase.neighborlist.primitive_neighbor_list`.

    Raises:
        InputError: the cutoff is not positive, an array is not finite, a periodic direction has no length, or periodic
            directions span (nearly) no area or volume.
    """
    positions = np.ascontiguousarray(positions, dtype=np.float64).reshape(-1, 3)
    cell = np.asarray(cell, dtype=np.float64).reshape(3, 3)
    pbc = np.asarray(pbc, dtype=np.bool_).reshape(3)
    _check(positions, cell, pbc, cutoff)
    if len(positions) == 0 or (len(positions) == 1 and not pbc.any()):
        return _no_edges()
    box = np.ascontiguousarray(complete_cell(cell), dtype=np.float64)
    receivers, senders, shifts, distances = _finder(float(cutoff)).compute(
        points=positions, box=box, periodic=pbc, quantities="ijSd"
    )
    inside = distances < cutoff
    return _sorted(
        senders[inside].astype(np.int64), receivers[inside].astype(np.int64), shifts[inside].astype(np.int64)
    )


_finders = local()
NOT_FINITE = "positions or cell are not finite, so they have no neighbour list"


def _finder(cutoff: float) -> NeighborList:
    """The finder of this thread: it owns the memory of its last answer, so threads cannot share one."""
    if getattr(_finders, "cutoff", None) != cutoff:
        _finders.cutoff = cutoff
        _finders.finder = NeighborList(cutoff=cutoff, full_list=True, n_threads=1)
    return _finders.finder


def _check(positions: Floats, cell: Floats, pbc: Bools, cutoff: float) -> None:
    if not cutoff > 0:
        raise InputError(f"a cutoff of {cutoff} Å finds no neighbours; give a positive one")
    if not (np.isfinite(positions).all() and np.isfinite(cell).all()):
        raise InputError(NOT_FINITE)
    check_cell(cell, pbc)


def check_cell(cell: Floats, pbc: Bools) -> None:
    """Do nothing if the periodic directions (3,) of a cell (3, 3), Å, span as much as there are of them.

    Raises:
        InputError: one has no length, or they lie (nearly) in one plane or line.
    """
    flat = pbc & (np.abs(cell).sum(axis=1) == 0)
    if flat.any():
        raise InputError(f"the cell has no length along periodic direction {'abc'[int(np.argmax(flat))]}")
    if periodic_measure(cell, pbc) < FLATTEST * float(np.prod(np.linalg.norm(cell[pbc], axis=1))):
        raise InputError(f"the periodic directions of the cell {cell.tolist()} lie in one plane or line")


def _no_edges() -> Edges:
    return Edges(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros((0, 3), np.int64))


def _sorted(senders: Ints, receivers: Ints, shifts: Ints) -> Edges:
    """Edges in canonical order, by one key where it fits into 64 bits."""
    if len(senders) == 0:
        return _no_edges()
    low = shifts.min(axis=0)
    spans = shifts.max(axis=0) - low + 1
    n = int(max(senders.max(), receivers.max())) + 1
    if float(n) * n * float(np.prod(spans.astype(float))) < 2.0**62:
        order = np.argsort(_keys(senders, receivers, shifts - low, spans, n))
    else:
        order = np.lexsort((shifts[:, 2], shifts[:, 1], shifts[:, 0], senders, receivers))
    return Edges(senders[order], receivers[order], shifts[order])


def _keys(senders: Ints, receivers: Ints, offsets: Ints, spans: NDArray[np.int64], n: int) -> Ints:
    image = (offsets[:, 0] * spans[1] + offsets[:, 1]) * spans[2] + offsets[:, 2]
    keys: Ints = (receivers * n + senders) * int(np.prod(spans)) + image
    return keys
