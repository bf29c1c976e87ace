"""Candidates as the charts want them: numbers, composition and place, without geometry."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from ase import Atoms
from ase.data import chemical_symbols

from gnn.screening.report.markup import plain_formula

LIGHT_COLUMNS = (
    "candidate_id", "formula", "prototype", "n_atoms", "source", "energy_per_atom", "formation_energy_per_atom",
    "hull_distance", "uncertainty", "converged", "stage_dropped", "reason", "rank", "shortlisted", "numbers",
)  # fmt: skip


@dataclass(frozen=True)
class Candidate:
    """One candidate; energies in eV/atom, None where the campaign has none."""

    candidate_id: str
    formula: str
    prototype: str
    n_atoms: int
    composition: Mapping[str, float]
    formation_energy: float | None
    hull_distance: float | None
    uncertainty: float | None
    rank: int | None
    shortlisted: bool
    converged: bool | None = None
    source: str = ""

    @property
    def system(self) -> frozenset[str]:
        """The elements it consists of."""
        return frozenset(self.composition)

    def is_within(self, elements: Sequence[str]) -> bool:
        """Whether it consists of some of these elements and no others."""
        return bool(self.composition) and self.system <= set(elements)

    def fraction(self, symbol: str) -> float:
        """Share of atoms that are `symbol`."""
        return self.composition.get(symbol, 0.0) / sum(self.composition.values())

    @property
    def tip(self) -> str:
        """One line for the tooltip."""
        parts = [plain_formula(self.formula), self.prototype]
        if self.hull_distance is not None:
            parts.append(f"hull {1000 * self.hull_distance:+.0f} meV/atom")
        if self.uncertainty is not None:
            parts.append(f"± {1000 * self.uncertainty:.0f}")
        if self.rank is not None:
            parts.append(f"rank {self.rank}")
        return " · ".join(part for part in parts if part)


def candidates(table: pa.Table) -> list[Candidate]:
    """Every row of candidates.parquet, without geometry."""
    return [_candidate(row) for row in table.select(LIGHT_COLUMNS).to_pylist()]


def _candidate(row: dict[str, object]) -> Candidate:
    numbers = row["numbers"]
    symbols = [chemical_symbols[z] for z in numbers] if isinstance(numbers, list) else []
    return Candidate(
        candidate_id=str(row["candidate_id"]),
        formula=str(row["formula"] or "?"),
        prototype=str(row["prototype"] or ""),
        n_atoms=len(symbols),
        composition=dict(Counter(symbols)),
        formation_energy=_finite(row["formation_energy_per_atom"]),
        hull_distance=_finite(row["hull_distance"]),
        uncertainty=_finite(row["uncertainty"]),
        rank=None if (rank := _finite(row["rank"])) is None else int(rank),
        shortlisted=bool(row["shortlisted"]),
        converged=None if row["converged"] is None else bool(row["converged"]),
        source=str(row["source"] or ""),
    )


def _finite(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and np.isfinite(value) else None


def shortlisted_atoms(table: pa.Table) -> dict[str, Atoms]:
    """Relaxed geometry of each shortlisted candidate, by its id."""
    import pyarrow.compute as pc

    chosen = table.filter(pc.fill_null(table["shortlisted"], False))
    rows = chosen.select(["candidate_id", "numbers", "positions", "cell"]).to_pylist()
    return {row["candidate_id"]: _atoms(row) for row in rows if row["positions"] is not None}


def _atoms(row: dict[str, list[float]]) -> Atoms:
    return Atoms(
        numbers=row["numbers"],
        positions=np.reshape(row["positions"], (-1, 3)),
        cell=np.reshape(row["cell"], (3, 3)),
        pbc=True,
    )


def thinned(rows: list[Candidate], most: int) -> list[Candidate]:
    """At most `most` rows for a picture: half of them shortlisted and most stable, half an even sample of the rest."""
    if len(rows) <= most:
        return rows
    ordered = sorted(rows, key=lambda row: (not row.shortlisted, _distance(row)))
    first, rest = ordered[: most // 2], ordered[most // 2 :]
    picked = np.linspace(0, len(rest) - 1, most - len(first)).astype(int)
    return [*first, *(rest[index] for index in picked)]


def _distance(row: Candidate) -> float:
    return float("inf") if row.hull_distance is None else row.hull_distance
