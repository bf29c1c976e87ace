"""Geometry that the checks need: volumes, and atoms that lie on top of each other."""

from __future__ import annotations

import numpy as np
from ase.geometry import minkowski_reduce
from numpy.typing import NDArray
from scipy.spatial import cKDTree

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

THIN_CELL = 2.0
"""Cells with a height below this (Å) are Minkowski-reduced before distances are looked at."""


def completed_cell(cell: Floats, pbc: Bools) -> Floats:
    """`cell` (3, 3) with unit vectors, normal to the periodic ones, in place of the vectors that are not periodic."""
    full = np.where(pbc[:, None], cell, 0.0)
    missing = np.flatnonzero(~pbc)
    if len(missing) == 3:
        return np.eye(3)
    if len(missing):
        _, _, directions = np.linalg.svd(full[pbc])
        full[missing] = directions[-len(missing) :]
    return np.asarray(full)


def periodic_measure(cell: Floats, pbc: Bools) -> float:
    """Volume (Å³), area (Å²) or length (Å) that the periodic vectors span; 1 where none is periodic."""
    return float(abs(np.linalg.det(completed_cell(cell, pbc))))


def cell_heights(cell: Floats) -> Floats:
    """Distances (3,) between opposite faces of a full-rank cell, Å."""
    return np.asarray(1.0 / np.linalg.norm(np.linalg.inv(cell), axis=0))


def closest_pair(positions: Floats, cell: Floats, pbc: Bools, within: float) -> tuple[int, int, float] | None:
    """The two atoms nearest to each other (images included) and their distance, if that is below `within` (Å).

    An atom and its own image count as a pair. Distances along each normalised reciprocal axis never exceed the true
    one, so a k-d tree in those coordinates gives a superset of the pairs, which is then measured exactly. `within`
    must be small beside the reduced cell's heights, or only the smallest image of each pair is seen.
    """
    full = completed_cell(cell, pbc)
    if pbc.any() and cell_heights(full)[pbc].min() < THIN_CELL:
        full = np.asarray(minkowski_reduce(full, pbc)[0])
    own = _shortest_vector(full, pbc)
    best: tuple[int, int, float] | None = (0, 0, own) if own < within else None
    pairs = _near_pairs(positions, full, pbc, within)
    if len(pairs) == 0:
        return best
    distances = _minimum_image_distances(positions[pairs[:, 0]] - positions[pairs[:, 1]], full, pbc)
    nearest = int(distances.argmin())
    if distances[nearest] >= (within if best is None else best[2]):
        return best
    return int(pairs[nearest, 0]), int(pairs[nearest, 1]), float(distances[nearest])


def _shortest_vector(full: Floats, pbc: Bools) -> float:
    return float(np.linalg.norm(full[pbc], axis=1).min()) if pbc.any() else np.inf


def _near_pairs(positions: Floats, full: Floats, pbc: Bools, within: float) -> NDArray[np.int64]:
    heights = cell_heights(full)
    fractional = positions @ np.linalg.inv(full)
    fractional[:, pbc] %= 1.0
    fractional[:, pbc] %= 1.0  # a tiny negative number becomes 1.0 the first time
    tree = cKDTree(fractional * heights, boxsize=np.where(pbc, heights, 0.0))
    return np.asarray(tree.query_pairs(within, p=np.inf, output_type="ndarray"), dtype=np.int64)


def _minimum_image_distances(vectors: Floats, full: Floats, pbc: Bools) -> Floats:
    fractional = vectors @ np.linalg.inv(full)
    fractional[:, pbc] -= np.round(fractional[:, pbc])
    return np.asarray(np.linalg.norm(fractional @ full, axis=1))
