"""Reference energies of the elements at each level of theory: isolated atoms, else a fit, else none."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gnn.graphs.graph_set import TheoryReferences

RANK_TOLERANCE = 1e-8
"""Relative size below which a direction of composition space counts as not determined by the data."""

CHUNK_ROWS = 20_000


def fit_references(
    elements: Sequence[str],
    counts: NDArray[np.integer[Any]],
    energies: NDArray[np.float64],
    isolated: Mapping[str, float] | None = None,
) -> TheoryReferences:
    """Reference energies e_z (eV) with E ≈ Σ_z n_z e_z.

    elements (Z,), counts (S, Z) atoms of each element in each structure, energies (S,) eV total. An element with an
    isolated atom takes its energy, and what such elements leave over in the mean is their `bonding`. The others take
    the least-squares solution of the energies per atom of what remains, the one of least norm where compositions do not
    determine it (a set with one composition has a line of solutions).
    An element that is in no structure with an energy and has no isolated atom is refused: it is not in the result.
    """
    given = dict(isolated or {})
    fitted = _fitted(elements, counts, energies, given, [element for element in elements if element not in given])
    known = dict(sorted((given | fitted).items()))
    return TheoryReferences(
        energies=known,
        source={element: "isolated" if element in given else "fitted" for element in known},
        bonding=_fitted(elements, counts, energies, known, [element for element in elements if element in given]),
    )


def _fitted(
    elements: Sequence[str],
    counts: NDArray[np.integer[Any]],
    energies: NDArray[np.float64],
    known: Mapping[str, float],
    wanted: Sequence[str],
) -> dict[str, float]:
    """What the `wanted` elements that occur have an atom (eV) beside what is known."""
    occurring: NDArray[np.bool_] = np.any(counts > 0, axis=0)
    columns = [k for k, element in enumerate(elements) if element in wanted and occurring[k]]
    offsets = np.array([known.get(element, 0.0) for element in elements])
    solution = _least_norm(_reduced_chunks(counts, energies, offsets, columns), len(columns))
    return {elements[column]: float(value) for column, value in zip(columns, solution, strict=True)}


def lowest(energies: Iterable[tuple[str, float]]) -> dict[str, float]:
    """The lowest energy of each element among its isolated atoms: the ground state of several spin states."""
    best: dict[str, float] = {}
    for element, energy in energies:
        best[element] = min(energy, best.get(element, energy))
    return best


def _reduced_chunks(
    counts: NDArray[np.integer[Any]], energies: NDArray[np.float64], offsets: NDArray[np.float64], columns: list[int]
) -> Iterable[NDArray[np.float64]]:
    """Rows (fractions | energy per atom that is left), chunk by chunk."""
    for start in range(0, len(counts), CHUNK_ROWS):
        chunk = np.asarray(counts[start : start + CHUNK_ROWS], dtype=np.float64)
        left = energies[start : start + CHUNK_ROWS] - chunk @ offsets
        used = chunk[:, columns].any(axis=1)
        n_atoms = chunk[used].sum(axis=1, keepdims=True)
        yield np.hstack([chunk[used][:, columns], left[used, None]]) / n_atoms


def _least_norm(chunks: Iterable[NDArray[np.float64]], n: int) -> NDArray[np.float64]:
    """Least squares of least norm from rows (A | b), by the triangular factor of what was seen so far."""
    if n == 0:
        return np.zeros(0)
    triangle = np.zeros((0, n + 1))
    for chunk in chunks:
        triangle = np.asarray(np.linalg.qr(np.vstack([triangle, chunk]), mode="r"), dtype=np.float64)
    solution = np.linalg.lstsq(triangle[:, :n], triangle[:, n], rcond=RANK_TOLERANCE)[0]
    return np.asarray(solution, dtype=np.float64)
