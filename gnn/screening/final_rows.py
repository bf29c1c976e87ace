"""Rows of the final table, put together one by one from what lies on disk and the little that is in memory."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from gnn.screening.candidates import Candidate
from gnn.screening.ledger import Ledger
from gnn.screening.names import ByName, Names
from gnn.screening.plan import NO_SHARD
from gnn.screening.preparation import Prepared
from gnn.screening.select import Selection
from gnn.screening.tables import CANDIDATE_SCHEMA, geometry_columns
from gnn.structures.record import Record

Row = dict[str, Any]
COMPUTED = ("energy_per_atom", "uncertainty", "converged", "fmax", "steps", "cpu_s", "positions", "cell")


@dataclass(frozen=True)
class Measured:
    """A relaxed candidate against the hull: energies in eV/atom; None where elements have no reference."""

    formation_energy: float | None
    hull_distance: float | None


class Measurements:
    """Formation energies and hull distances, (n,) by place, eV/atom; NaN where there is none."""

    def __init__(self, names: Names) -> None:
        self.names = names
        self.formation_energies = np.full(len(names), np.nan)
        self.hull_distances = np.full(len(names), np.nan)

    def note(self, name: str, formation_energy: float, hull_distance: float) -> None:
        """Write down what was measured."""
        place = self.names.place(name)
        self.formation_energies[place], self.hull_distances[place] = formation_energy, hull_distance

    def __getitem__(self, name: str) -> Measured:
        place = self.names.place(name)
        return Measured(_or_none(self.formation_energies[place]), _or_none(self.hull_distances[place]))


def _or_none(value: Any) -> float | None:
    return None if math.isnan(value) else float(value)


@dataclass(frozen=True)
class FinalRows(Sequence[Row]):
    """The rows in the order of the candidates, each made when it is asked for.

    ranks: (n,) by place, 0 for none; known: candidate that relaxed into a crystal of the lake -> its name there.
    """

    prepared: Prepared
    results: Mapping[str, Row]
    measured: Measurements
    ranks: NDArray[np.uint32]
    selection: Selection
    repeated: Mapping[str, str]
    known: Mapping[str, str]
    theory: str
    kappa: float
    ledger: Ledger

    def __len__(self) -> int:
        return len(self.ledger.ids)

    @overload
    def __getitem__(self, place: int) -> Row: ...
    @overload
    def __getitem__(self, place: slice) -> list[Row]: ...
    def __getitem__(self, place: int | slice) -> Row | list[Row]:
        if isinstance(place, slice):
            return [self._row(each) for each in range(*place.indices(len(self)))]
        return self._row(range(len(self))[place])

    def __iter__(self) -> Iterator[Row]:
        return (self._row(place) for place in range(len(self)))

    @property
    def by_id(self) -> ByName[Row]:
        """The rows by candidate."""
        return ByName(self.ledger.ids, self._row)

    def rank(self, name: str) -> int:
        """Rank of a candidate, from 1; 0 where it has none."""
        return int(self.ranks[self.ledger.ids.place(name)])

    def _row(self, place: int) -> Row:
        name = self.ledger.ids[place]
        row: Row = {**dict.fromkeys(CANDIDATE_SCHEMA.names), "candidate_id": name}
        candidate = self.prepared.candidates.get(name)
        row["source"] = self.prepared.unreadable[name] if candidate is None else candidate.source
        if candidate is not None:
            row |= _about(candidate)
            if (result := self.results.get(name)) is not None:
                row |= self._result(place, candidate, result)
        drop, shard = self.ledger.drops.get(name), int(self.prepared.plan.shard_of[place])
        row |= {
            "stage_dropped": None if drop is None else drop.stage,
            "reason": None if drop is None else drop.text,
            "duplicate_of": self.repeated.get(name) or self.prepared.duplicate_of.get(name),
            "in_lake": self.known.get(name) or self.prepared.in_lake.get(name),
            "shard": None if shard == NO_SHARD else shard,
            "shortlisted": name in self.selection.chosen,
            "chosen_by": self.selection.chosen.get(name),
        }
        return row

    def _result(self, place: int, candidate: Candidate, result: Row) -> Row:
        positions, cell = relaxed_geometry(result, candidate.n_atoms)
        measured, rank = self.measured[result["candidate_id"]], int(self.ranks[place])
        score = (measured.hull_distance or 0.0) - self.kappa * (result["uncertainty"] or 0.0)
        return {
            **{column: result[column] for column in COMPUTED},
            "formation_energy_per_atom": measured.formation_energy,
            "hull_distance": measured.hull_distance,
            "rank": rank or None,
            "score": score if rank else None,
            "volume_per_atom": abs(float(np.linalg.det(cell))) / candidate.n_atoms,
            "theory": self.theory,
            "structure_id": _structure_id(candidate, positions, cell, self.theory),
        }


def relaxed_geometry(result: Row, n_atoms: int) -> tuple[Any, Any]:
    """Positions (N, 3) and cell (3, 3) of a result, Å."""
    return np.reshape(result["positions"], (n_atoms, 3)), np.reshape(result["cell"], (3, 3))


def _about(candidate: Candidate) -> Row:
    return {
        "formula": candidate.formula,
        "prototype": candidate.prototype,
        "chemical_system": candidate.system,
        **geometry_columns(candidate),
    }


def _structure_id(candidate: Candidate, positions: Any, cell: Any, theory: str) -> str:
    periodic = np.ones(3, dtype=bool)
    return Record("screening", theory, candidate.numbers, positions, cell, periodic).structure_id
