"""Which kind of energy each level of theory is trained on: free energies or energies, never both.

The free energy is the one whose derivative the forces are. A theory takes the kind that more of its rows have, and the
free energy where that is the same number; rows without that kind keep their forces, stress and properties.
"""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from gnn.graphs.columns import Columns
from gnn.graphs.graph import EnergyKind
from gnn.structures.record import Bools, Floats, Ints


@dataclass(frozen=True)
class EnergyChoice:
    """The chosen kind a theory that has energies, rows a theory that lack it but have the other, and the energies.

    values (M,) eV, NaN where the chosen kind is missing.
    """

    kinds: dict[str, EnergyKind]
    masked: dict[str, int]
    values: Floats
    other: Floats

    @cached_property
    def known(self) -> Bools:
        """Rows with an energy to train on, (M,)."""
        return ~np.isnan(self.values)

    def of_isolated(self, row: int) -> float:
        """Energy of a free atom (eV): of the other kind where need be, since nothing is smeared there."""
        return float(self.other[row] if np.isnan(self.values[row]) else self.values[row])

    def without_labels(self, rows: Ints, columns: Columns) -> list[int]:
        """Those of `rows` that have no label left."""
        labelled = columns.has_labels_beside_energy() | self.known
        return [int(row) for row in rows if not labelled[row]]

    def among(self, theories: Container[str]) -> EnergyChoice:
        """The same, silent on other levels of theory than these."""
        kinds = {theory: kind for theory, kind in self.kinds.items() if theory in theories}
        return replace(self, kinds=kinds, masked={theory: n for theory, n in self.masked.items() if theory in theories})

    def notes(self) -> list[str]:
        """Remarks for people about what was masked."""
        return [
            f"{theory} is trained on {self.kinds[theory]}: {n} rows have only the other kind, which is not used"
            for theory, n in self.masked.items()
        ]


def choose_energies(columns: Columns, rows: Ints) -> EnergyChoice:
    """Choose by the rows that may be trained on."""
    theory = np.array(columns.theory, dtype=object)
    has = {"energy": ~np.isnan(columns.energy), "free_energy": ~np.isnan(columns.free_energy)}
    values, other = np.full(len(columns), np.nan), np.full(len(columns), np.nan)
    kinds: dict[str, EnergyKind] = {}
    masked: dict[str, int] = {}
    for name in sorted(set(columns.theory)):
        everyone = theory == name
        members = rows[everyone[rows]]
        n_energy, n_free = int(has["energy"][members].sum()), int(has["free_energy"][members].sum())
        kind: EnergyKind = "free_energy" if n_free >= n_energy and n_free > 0 else "energy"
        first, second = (columns.free_energy, columns.energy)[:: 1 if kind == "free_energy" else -1]
        values[everyone], other[everyone] = first[everyone], second[everyone]
        if n_energy or n_free:
            kinds[name] = kind
        if lacking := int((np.isnan(first) & ~np.isnan(second))[members].sum()):
            masked[name] = lacking
    return EnergyChoice(kinds, masked, values, other)
