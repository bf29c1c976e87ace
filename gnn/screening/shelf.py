"""All candidates of a campaign on disk, found by id: thirty bytes of memory each, whatever their size."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gnn.screening.candidates import Candidate
from gnn.screening.names import CHUNK, ByName, Names
from gnn.screening.spool import Spool
from gnn.screening.tables import candidate_of_row, geometry_columns

Places = NDArray[np.uint32]


class Shelf:
    """Candidates by place. names: with those that could not be read; rows: place -> row of the spool, from 1."""

    def __init__(self, names: Names, spool: Spool, rows: Places) -> None:
        self.names = names
        self.spool = spool
        self.rows = rows

    @property
    def candidates(self) -> ByName[Candidate]:
        """The candidates that could be read, by id."""
        return ByName(self.names, self.at, known=self.rows)

    def at(self, place: int) -> Candidate:
        """The candidate at a place, read from disk."""
        return candidate_of_row(self.spool[int(self.rows[place]) - 1])

    def each(self, wanted: Callable[[int], bool]) -> Iterator[tuple[int, Candidate]]:
        """Place and candidate of all whose place is `wanted` when it is their turn, in order."""
        return ((int(place), self.at(int(place))) for place in np.flatnonzero(self.rows) if wanted(int(place)))


class ShelfBuilder:
    """Takes candidates one after the other, and forgets them but for their id."""

    def __init__(self, folder: Path | None = None) -> None:
        self.spool = Spool(folder)
        self._parts: list[Names] = []
        self._fresh: list[str] = []

    def add(self, candidate: Candidate) -> None:
        """Put a candidate on the shelf."""
        about = {"prototype": candidate.prototype, "source": candidate.source}
        self.spool.append(spooled({**about, **geometry_columns(candidate)}))
        self._fresh.append(candidate.candidate_id)
        if len(self._fresh) == CHUNK:
            self._pack()

    def _pack(self) -> None:
        self._parts.append(Names(self._fresh))
        self._fresh = []

    def shelf(self, unreadable: Sequence[str] = ()) -> Shelf:
        """What was added, in that order, after the ids of what was `unreadable`."""
        self._pack()
        names = Names.joined((Names(unreadable), *self._parts))
        rows = np.zeros(len(names), dtype=np.uint32)
        rows[len(unreadable) :] = np.arange(1, len(self.spool) + 1)
        return Shelf(names, self.spool, rows)


def formula_hash(formula: str) -> int:
    """A number for a formula: the same in one process; two formulas may share it."""
    return hash(formula)


def spooled(row: Mapping[str, Any]) -> dict[str, Any]:
    """What of a row of `INPUT_SCHEMA` makes the candidate."""
    return {key: row[key] for key in ("prototype", "source", "numbers", "positions", "cell")}


def shared(keys: NDArray[np.int64], places: Places) -> Iterator[Places]:
    """Places whose key others have too, by key, in their order inside a group."""
    ordered = places[np.argsort(keys[places], kind="stable")]
    changes = np.flatnonzero(np.diff(keys[ordered])) + 1
    start = 0
    for end in [*changes.tolist(), len(ordered)]:
        if end > start + 1:
            yield ordered[start:end]
        start = end
