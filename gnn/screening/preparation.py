"""A prepared campaign: who is computed in which shard and why the others are not; kept in a table and found again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from ase.data import chemical_symbols
from pydantic import BaseModel, ConfigDict, ValidationError

from gnn.errors import InputError
from gnn.files import file_sha256, write_text
from gnn.screening.candidates import Candidate
from gnn.screening.ledger import Drop, Ledger
from gnn.screening.manifest import Stage
from gnn.screening.names import Names, links, names_digest
from gnn.screening.plan import NO_SHARD, Plan
from gnn.screening.shelf import Shelf, spooled
from gnn.screening.spool import Spool
from gnn.screening.tables import INPUT_SCHEMA, EachRow, candidate_of_row, geometry_columns, read_rows, write_rows

TABLE_NAME = "inputs.parquet"
PLAN_NAME = "plan.json"


class _KeptPlan(BaseModel):
    """What stands beside the table: the digest of what it was made from, its sha256, the funnel so far, the cut."""

    model_config = ConfigDict(frozen=True)

    key: str
    sha256: str
    stages: list[Stage]
    n_shards: int


@dataclass(frozen=True)
class Prepared:
    """A campaign ready to be computed; structures lie on disk and are read when they are asked for.

    candidates: all that could be read, by id; references: structures that only the model's hull needs; plan: shard ->
    its ids; duplicate_of and in_lake: id -> id it repeats, and lake structure it equals; unreadable: id -> source;
    elements: chemical symbols of all candidates.
    """

    candidates: Mapping[str, Candidate]
    references: dict[str, Candidate]
    ledger: Ledger
    plan: Plan
    duplicate_of: Mapping[str, str]
    in_lake: dict[str, str]
    unreadable: dict[str, str]
    elements: frozenset[str]

    @property
    def digest(self) -> str:
        """sha256 of the sorted ids of all readable candidates."""
        return names_digest(self.candidates)

    def rows(self, shard: int) -> list[Candidate]:
        """The structures of one shard."""
        return [self.candidates.get(name) or self.references[name] for name in self.plan[shard]]


def keep_prepared(result: Prepared, folder: Path, key: str) -> Prepared:
    """Put the table and the plan in place, the plan last."""
    table = write_rows(folder / TABLE_NAME, _input_rows(result), INPUT_SCHEMA)
    kept = _KeptPlan(key=key, sha256=file_sha256(table), stages=result.ledger.stages, n_shards=len(result.plan))
    write_text(folder / PLAN_NAME, kept.model_dump_json(indent=1) + "\n")
    return result


def _input_rows(result: Prepared) -> Iterator[dict[str, Any]]:
    """Rows of the table, those of a shard together, so that a shard is read without the others."""
    n_candidates = len(result.ledger.ids)
    for place in map(int, result.plan.order):
        name = result.plan.name(place)
        row: dict[str, Any] = {**dict.fromkeys(INPUT_SCHEMA.names), "candidate_id": name, "place": place}
        row["role"] = "candidate" if place < n_candidates else "reference"
        candidate = result.candidates.get(name) or result.references.get(name)
        if candidate is None:
            row["source"] = result.unreadable[name]
        else:
            row |= {"source": candidate.source, "prototype": candidate.prototype, **geometry_columns(candidate)}
        if (drop := result.ledger.drops.get(name)) is not None:
            row |= {"stage_dropped": drop.stage, "reason": drop.text}
        shard = int(result.plan.shard_of[place])
        row |= {"shard": None if shard == NO_SHARD else shard, "in_lake": result.in_lake.get(name)}
        row["duplicate_of"] = result.duplicate_of.get(name)
        yield row


def _read_plan(folder: Path) -> _KeptPlan | None:
    """What is kept of the preparation in `folder`; None where nothing is prepared, or that is damaged."""
    path = folder / PLAN_NAME
    try:
        return _KeptPlan.model_validate_json(path.read_bytes()) if path.is_file() else None
    except ValidationError:
        return None


def kept_key(folder: Path) -> str | None:
    """The digest of what the preparation in `folder` was made from; None where nothing is prepared."""
    return None if (kept := _read_plan(folder)) is None else kept.key


def rows_of_shard(folder: Path, index: int) -> list[Candidate]:
    """The structures of one shard of the preparation in `folder`, without reading the others.

    Raises:
        InputError: nothing is prepared there, or there is no such shard.
    """
    if _read_plan(folder) is None:
        raise InputError(f"nothing is prepared in {folder}; run `sluice screen` with the campaign's file first")
    rows = read_rows(folder / TABLE_NAME, filters=[("shard", "==", index)])
    if not rows:
        raise InputError(f"there is no shard {index}; the campaign has 0 to {number_planned(folder) - 1}")
    return [candidate_of_row(row) for row in rows]


def number_planned(folder: Path) -> int:
    """How many shards the preparation in `folder` has; 0 where nothing is prepared."""
    return 0 if (kept := _read_plan(folder)) is None else kept.n_shards


def read_prepared(folder: Path, key: str | None = None) -> Prepared | None:
    """The preparation in `folder`; None where there is none, it is damaged, or (with `key`) of another campaign."""
    kept, table = _read_plan(folder), folder / TABLE_NAME
    if kept is None or key not in (None, kept.key) or not table.is_file() or file_sha256(table) != kept.sha256:
        return None
    return _read(table, kept.stages, folder)


def _read(table: Path, stages: list[Stage], scratch: Path) -> Prepared:
    """The preparation of a table: first who there is, then what is known of each."""
    names, more = _names_of(table)
    found = _Found(names, more, Ledger(names, stages, scratch), Spool(scratch))
    for place, row in _placed(table):
        found.take(place, row)
    return found.prepared()


class _Found:
    """What the rows of a table say, taken one after the other."""

    def __init__(self, names: Names, more: list[str], ledger: Ledger, spool: Spool) -> None:
        self.names, self.more, self.ledger, self.spool = names, more, ledger, spool
        self.rows, self.first_of = np.zeros(len(names), dtype=np.uint32), np.zeros(len(names), dtype=np.uint32)
        self.shard_of = np.full(len(names) + len(more), NO_SHARD, dtype=np.int32)
        self.references: dict[str, Candidate] = {}
        self.in_lake: dict[str, str] = {}
        self.unreadable: dict[str, str] = {}
        self.numbers: set[int] = set()

    def take(self, place: int, row: dict[str, Any]) -> None:
        if row["shard"] is not None:
            self.shard_of[place] = row["shard"]
        if place >= len(self.names):
            self.references[row["candidate_id"]] = candidate_of_row(row)
        elif row["numbers"] is None:
            self.unreadable[row["candidate_id"]] = row["source"]
        else:
            self.rows[place] = self.spool.append(spooled(row)) + 1
            self.numbers.update(row["numbers"])
        self._fate(place, row)

    def _fate(self, place: int, row: dict[str, Any]) -> None:
        if row["stage_dropped"]:
            reason, _, detail = row["reason"].partition(": ")
            self.ledger.note(place, Drop(row["stage_dropped"], reason, detail))
        if row["duplicate_of"]:
            self.first_of[place] = (self.names.place(row["duplicate_of"]) or 0) + 1
        if row["in_lake"]:
            self.in_lake[row["candidate_id"]] = row["in_lake"]

    def prepared(self) -> Prepared:
        return Prepared(
            candidates=Shelf(self.names, self.spool, self.rows).candidates,
            references={name: self.references[name] for name in self.more},
            ledger=self.ledger,
            plan=Plan(self.names, self.more, self.shard_of),
            duplicate_of=links(self.names, self.first_of),
            in_lake=self.in_lake,
            unreadable=self.unreadable,
            elements=frozenset(chemical_symbols[number] for number in self.numbers),
        )


def _names_of(table: Path) -> tuple[Names, list[str]]:
    """Ids of the candidates by place, and of the references after them."""
    in_file = Names(row["candidate_id"] for row in EachRow(table, ["candidate_id"]))
    n_references = sum(row["role"] == "reference" for row in EachRow(table, ["role"]))
    places = np.arange(len(in_file))
    if "place" in pq.read_schema(table).names:
        places = pq.read_table(table, columns=["place"])["place"].to_numpy()
    by_place = np.empty_like(in_file.array)
    by_place[places] = in_file.array
    n_own = len(by_place) - n_references
    return Names.of_array(by_place[:n_own]), list(Names.of_array(by_place[n_own:]))


def _placed(table: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Rows with their places; tables of old lie in the order of places."""
    for place, row in enumerate(EachRow(table)):
        yield row.get("place", place), row
