"""Before anything is relaxed: gather candidates, drop what cannot or need not be computed, cut the rest into shards."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gnn.errors import InputError
from gnn.files import digest, file_sha256, write_text
from gnn.screening.campaign import CampaignSpec
from gnn.screening.candidates import (
    ID_LENGTH,
    Candidate,
    candidates_digest,
    constraint_reason,
)
from gnn.screening.dedupe import Crystal, duplicates, known_among
from gnn.screening.filters import geometry_reason
from gnn.screening.gather import Inputs, gather
from gnn.screening.ledger import Drop, Ledger
from gnn.screening.manifest import ModelPin, Stage
from gnn.screening.plan import number_of_shards, plan_shards
from gnn.screening.references import lake_crystals, lake_entries, reference_candidates
from gnn.screening.tables import INPUT_SCHEMA, candidate_of_row, geometry_columns, read_rows, write_rows

PREPARATION_VERSION = 1
TABLE_NAME = "inputs.parquet"
PLAN_NAME = "plan.json"


@dataclass(frozen=True)
class Prepared:
    """A campaign ready to be computed.

    candidates: all of them, by id; references: structures that only the model's hull needs; plan: shard -> its ids;
    duplicate_of and in_lake: id -> id it repeats, and lake structure it equals; unreadable: id -> source.
    """

    candidates: dict[str, Candidate]
    references: dict[str, Candidate]
    ledger: Ledger
    plan: dict[int, list[str]]
    duplicate_of: dict[str, str]
    in_lake: dict[str, str]
    unreadable: dict[str, str]

    @property
    def digest(self) -> str:
        """sha256 of the sorted ids of all readable candidates."""
        return candidates_digest(self.candidates.values())

    def rows(self, shard: int) -> list[Candidate]:
        """The structures of one shard."""
        return [self.candidates.get(name) or self.references[name] for name in self.plan[shard]]


def preparation_key(spec: CampaignSpec, inputs: Inputs) -> str:
    """Digest of everything that decides the preparation."""
    return digest(
        {
            "version": PREPARATION_VERSION,
            "spec": spec.spec_digest,
            "lake": dict(sorted(inputs.versions.items())),
            "elements": sorted(inputs.model.elements),
            "theory": inputs.model.theory,
            "files": {
                name: file_sha256(spec.path(name)) for name in spec.candidates.files if spec.path(name).is_file()
            },
        }
    )


def prepared(spec: CampaignSpec, inputs: Inputs, folder: Path, workers: int, n_shards: int | None = None) -> Prepared:
    """The preparation in `folder`, made now unless it is there already.

    Raises:
        InputError: a file is missing, or no candidate is left to compute.
    """
    refuse_missing_files(spec)
    key = preparation_key(spec, inputs)
    if (found := read_prepared(folder, key)) is not None:
        return found
    if (folder / PLAN_NAME).is_file() and _key(folder) != key:
        raise InputError(
            f"campaign {spec.name} was prepared from other files, lake versions or code ({folder / PLAN_NAME});"
            " start it anew with --fresh, or under another name"
        )
    return keep_prepared(prepare(spec, inputs, workers, n_shards), folder, key)


def refuse_missing_files(spec: CampaignSpec) -> None:
    """Do nothing if every file of candidates is there.

    Raises:
        InputError: naming the first that is not, or one that is listed twice.
    """
    seen = set()
    for name in spec.candidates.files:
        path = spec.path(name)
        if not path.exists():
            raise InputError(f"candidates.files: there is no {path}; paths are relative to the campaign file")
        if path.resolve() in seen:
            raise InputError(f"candidates.files: {name} is listed twice")
        seen.add(path.resolve())


def prepare(spec: CampaignSpec, inputs: Inputs, workers: int, n_shards: int | None = None) -> Prepared:
    """Gather, check and cut, into `n_shards` where given, else for `workers`; see the module."""
    gathered = gather(spec, inputs)
    unreadable = {_source_id(source): (source, reason) for source, reason in gathered.unreadable.items()}
    by_id = {candidate.candidate_id: candidate for candidate in gathered.candidates}
    ledger = Ledger((*unreadable, *(candidate.candidate_id for candidate in gathered.candidates)))
    ledger.close("read", {name: _coded(reason) for name, (_, reason) in unreadable.items()})
    _close_constraints(ledger, by_id, spec, inputs.model)
    ledger.close("sane", _insane(ledger, by_id, spec))
    repeated = duplicates((_crystal(by_id[name]) for name in ledger.alive), spec.dedupe)
    ledger.close("distinct", {name: ("duplicate", f"of {first}") for name, first in repeated.items()})
    in_lake = _in_lake([by_id[name] for name in ledger.alive], spec, inputs)
    known = in_lake if spec.filters.novel_only else {}
    ledger.close("novel", {name: ("already in the lake", where) for name, where in known.items()})
    if not ledger.alive:
        raise InputError(f"campaign {spec.name}: no candidate is left to compute; {_last_losses(ledger)}")
    references = _references(spec, inputs, by_id)
    plan = _plan([*(by_id[name] for name in ledger.alive), *references.values()], spec, workers, n_shards)
    sources = {name: source for name, (source, _) in unreadable.items()}
    return Prepared(by_id, references, ledger, plan, repeated, in_lake, sources)


def _source_id(source: str) -> str:
    return hashlib.sha256(source.encode()).hexdigest()[:ID_LENGTH]


def _coded(reason: str) -> tuple[str, str]:
    code, _, detail = reason.partition(": ")
    return code, detail


def _close_constraints(ledger: Ledger, by_id: Mapping[str, Candidate], spec: CampaignSpec, model: ModelPin) -> None:
    known = frozenset(model.elements)
    reasons = {name: constraint_reason(by_id[name], spec.candidates, known) for name in ledger.alive}
    ledger.close("constraints", {name: reason for name, reason in reasons.items() if reason is not None})


def _insane(ledger: Ledger, by_id: Mapping[str, Candidate], spec: CampaignSpec) -> dict[str, tuple[str, str]]:
    reasons = {name: _geometry_reason(by_id[name], spec) for name in ledger.alive}
    return {name: reason for name, reason in reasons.items() if reason is not None}


def _geometry_reason(candidate: Candidate, spec: CampaignSpec) -> tuple[str, str] | None:
    return geometry_reason(candidate.numbers, candidate.positions, candidate.cell, spec.filters)


def _crystal(candidate: Candidate) -> Crystal:
    return Crystal(candidate.candidate_id, candidate.numbers, candidate.positions, candidate.cell)


def _in_lake(candidates: Sequence[Candidate], spec: CampaignSpec, inputs: Inputs) -> dict[str, str]:
    library = lake_crystals(inputs.lake, inputs.versions, {candidate.formula for candidate in candidates})
    return known_among((_crystal(candidate) for candidate in candidates), library, spec.dedupe) if library else {}


def _references(spec: CampaignSpec, inputs: Inputs, by_id: Mapping[str, Candidate]) -> dict[str, Candidate]:
    if spec.hull.reference == "dft":
        return {}
    elements = {symbol for candidate in by_id.values() for symbol in candidate.elements} & set(inputs.model.elements)
    rows = lake_entries(inputs.lake, inputs.versions, inputs.model.theory, elements).rows
    return {candidate.candidate_id: candidate for candidate in reference_candidates(rows, elements)}


def _plan(rows: Sequence[Candidate], spec: CampaignSpec, workers: int, n_shards: int | None) -> dict[int, list[str]]:
    shards = plan_shards(rows, n_shards or number_of_shards(rows, workers, spec.shards.atoms))
    return {index: [candidate.candidate_id for candidate in shard] for index, shard in enumerate(shards)}


def _last_losses(ledger: Ledger) -> str:
    lost = {reason: n for stage in ledger.stages for reason, n in stage.rejected.items()}
    if not lost:
        return "no source gave any"
    return "dropped: " + ", ".join(f"{n} {reason}" for reason, n in lost.items())


def keep_prepared(result: Prepared, folder: Path, key: str) -> Prepared:
    """Put the table and the plan in place, the plan last."""
    table = write_rows(folder / TABLE_NAME, _input_rows(result), INPUT_SCHEMA)
    plan = {
        "key": key,
        "sha256": file_sha256(table),
        "stages": [stage.model_dump() for stage in result.ledger.stages],
        "n_shards": len(result.plan),
    }
    write_text(folder / PLAN_NAME, json.dumps(plan, indent=1) + "\n")
    return result


def _input_rows(result: Prepared) -> list[dict[str, Any]]:
    shard_of = {name: shard for shard, names in result.plan.items() for name in names}
    empty: dict[str, Any] = dict.fromkeys(INPUT_SCHEMA.names)
    rows = []
    for name in (*result.ledger.ids, *result.references):
        row = {**empty, "candidate_id": name, "role": "reference" if name in result.references else "candidate"}
        candidate = result.candidates.get(name) or result.references.get(name)
        if candidate is None:
            row["source"] = result.unreadable[name]
        else:
            row |= {"source": candidate.source, "prototype": candidate.prototype, **geometry_columns(candidate)}
        if (drop := result.ledger.drops.get(name)) is not None:
            row |= {"stage_dropped": drop.stage, "reason": drop.text}
        row |= {"shard": shard_of.get(name), "in_lake": result.in_lake.get(name)}
        row["duplicate_of"] = result.duplicate_of.get(name)
        rows.append(row)
    return rows


def _key(folder: Path) -> str:
    return str(json.loads((folder / PLAN_NAME).read_text(encoding="utf-8"))["key"])


def rows_of_shard(folder: Path, index: int) -> list[Candidate]:
    """The structures of one shard of the preparation in `folder`, without reading the others.

    Raises:
        InputError: nothing is prepared there, or there is no such shard.
    """
    if not (folder / PLAN_NAME).is_file():
        raise InputError(f"nothing is prepared in {folder}; run `sluice screen` with the campaign's file first")
    rows = read_rows(folder / TABLE_NAME, filters=[("shard", "==", index)])
    if not rows:
        raise InputError(f"there is no shard {index}; the campaign has 0 to {number_planned(folder) - 1}")
    return [candidate_of_row(row) for row in rows]


def number_planned(folder: Path) -> int:
    """How many shards the preparation in `folder` has; 0 where nothing is prepared."""
    path = folder / PLAN_NAME
    return int(json.loads(path.read_text(encoding="utf-8"))["n_shards"]) if path.is_file() else 0


def read_prepared(folder: Path, key: str | None = None) -> Prepared | None:
    """The preparation in `folder`; None where there is none, it is damaged, or (with `key`) of another campaign."""
    plan_path, table = folder / PLAN_NAME, folder / TABLE_NAME
    if not (plan_path.is_file() and table.is_file()):
        return None
    plan = json.loads(plan_path.read_text(encoding="utf-8"))
    if (key is not None and plan["key"] != key) or file_sha256(table) != plan["sha256"]:
        return None
    return _read(read_rows(table), [Stage.model_validate(stage) for stage in plan["stages"]])


def _read(rows: Sequence[dict[str, Any]], stages: list[Stage]) -> Prepared:
    own = [row for row in rows if row["role"] == "candidate"]
    drops = {row["candidate_id"]: Drop(row["stage_dropped"], row["reason"]) for row in own if row["stage_dropped"]}
    plan: dict[int, list[str]] = {}
    for row in rows:
        if row["shard"] is not None:
            plan.setdefault(row["shard"], []).append(row["candidate_id"])
    return Prepared(
        candidates={row["candidate_id"]: candidate_of_row(row) for row in own if row["numbers"] is not None},
        references={row["candidate_id"]: candidate_of_row(row) for row in rows if row["role"] == "reference"},
        ledger=Ledger(tuple(row["candidate_id"] for row in own), drops, stages),
        plan=dict(sorted(plan.items())),
        duplicate_of={row["candidate_id"]: row["duplicate_of"] for row in own if row["duplicate_of"]},
        in_lake={row["candidate_id"]: row["in_lake"] for row in own if row["in_lake"]},
        unreadable={row["candidate_id"]: row["source"] for row in own if row["numbers"] is None},
    )
