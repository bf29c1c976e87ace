"""Reference energies of the elements at each level of theory: isolated atoms, else a fit, else none."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gnn.graphs.graph_set import TheoryReferences
from gnn.structures.periodic_table import likeness

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
    the least-squares solution of the energies per atom of what remains; where compositions do not determine it (a set
    with one composition has a line of solutions), the one in which elements that are alike have like energies.
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
    return fit_alike([elements[column] for column in columns], _reduced_chunks(counts, energies, offsets, columns))


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


def fit_alike(elements: Sequence[str], chunks: Iterable[NDArray[np.float64]]) -> dict[str, float]:
    """Least squares of rows (fractions of the elements | energy per atom), chunk by chunk.

    Where the rows leave x open, it is the likeliest of a Gaussian process over the periodic table around one energy x̄
    for all: x = x̄ + L v with L Lᵀ = `likeness` and v of least norm (Rasmussen & Williams 2006, eq. 2.19).
    """
    if not elements:
        return {}
    n = len(elements)
    triangle = np.zeros((0, n + 1))
    for chunk in chunks:
        triangle = np.asarray(np.linalg.qr(np.vstack([triangle, chunk]), mode="r"), dtype=np.float64)
    fractions, energies = triangle[:, :n], triangle[:, n]
    filled = fractions.sum(axis=1)
    common = filled @ energies / (filled @ filled)
    root = np.linalg.cholesky(likeness(elements))
    parts = np.linalg.lstsq(fractions @ root, energies - common * filled, rcond=RANK_TOLERANCE)[0]
    return dict(zip(elements, (common + root @ parts).tolist(), strict=True))
