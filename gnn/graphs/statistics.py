"""Statistics of the training split, reduced from columns that the shards carry."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from ase.data import atomic_numbers

from gnn.graphs.columns import Columns, PropertyColumn, spans
from gnn.graphs.energies import EnergyChoice
from gnn.graphs.graph_set import PropertyStatistics, Statistics, TheoryReferences
from gnn.structures.properties import PropertySpec
from gnn.structures.record import Floats, Ints


def statistics_of(
    columns: Columns,
    rows: Ints,
    energies: EnergyChoice,
    references: Mapping[str, TheoryReferences],
    declared: Mapping[str, PropertySpec],
) -> Statistics:
    """Statistics of `rows`; root mean squares are over components: sqrt(mean f²)."""
    n_atoms, n_edges = int(columns.n_atoms[rows].sum()), int(columns.n_edges[rows].sum())
    left = residuals(columns, rows, energies, references)
    return Statistics(
        n_structures=len(rows),
        n_atoms=n_atoms,
        n_edges=n_edges,
        mean_neighbours=n_edges / n_atoms if n_atoms else 0.0,
        energy_rms=float(np.sqrt(np.mean(left**2))) if len(left) else None,
        force_rms=_rms(columns.force_square_sum[rows], columns.force_count[rows]),
        stress_rms=_rms(columns.stress_square_sum[rows], columns.stress_count[rows]),
        properties={
            name: property_statistics(column, columns.n_atoms, rows, declared[name])
            for name, column in columns.properties.items()
        },
    )


def _rms(square_sums: Floats, counts: Ints) -> float | None:
    return float(np.sqrt(square_sums.sum() / counts.sum())) if counts.sum() else None


def residuals(
    columns: Columns, rows: Ints, energies: EnergyChoice, references: Mapping[str, TheoryReferences]
) -> Floats:
    """Energies per atom (eV) that references and bonding leave over, of those `rows` that have an energy."""
    known = rows[energies.known[rows]]
    left = energies.values[known].copy()
    theories = np.array([columns.theory[row] for row in known.tolist()], dtype=object)
    for theory, found in references.items():
        by_number = np.zeros(256)
        for element, energy in found.energies.items():
            by_number[atomic_numbers[element]] = energy + found.bonding.get(element, 0.0)
        mine = theories == theory
        left[mine] -= columns.sum_over_atoms(known[mine], by_number)
    return left / columns.n_atoms[known]


def property_statistics(column: PropertyColumn, n_atoms: Ints, rows: Ints, spec: PropertySpec) -> PropertyStatistics:
    """Mean and standard deviation of a property over `rows` that have it; per atom where it is extensive."""
    known = rows[column.counts[rows] > 0]
    starts = np.cumsum(column.counts) - column.counts
    values = column.values[spans(starts[known], column.counts[known])]
    if spec.extensive and spec.level == "structure":
        values = values / n_atoms[known]
    if len(values) == 0:
        return PropertyStatistics(n=0, mean=0.0, std=0.0)
    return PropertyStatistics(n=len(values), mean=float(values.mean()), std=float(values.std()))
