"""One shard of a campaign: relax its structures, journal each as it finishes, seal the shard as Parquet.

A shard needs no server and no other shard. Killed at any moment, it goes on where it stopped; nothing that is in the
journal is computed again.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from gnn.cost import Meter
from gnn.errors import SluiceError
from gnn.files import Journal, digest, file_sha256, locked, write_text
from gnn.potentials.potential import Potential
from gnn.screening.campaign import CampaignSpec, RelaxationSpec
from gnn.screening.candidates import Candidate, candidates_digest
from gnn.screening.compute import SET_ASIDE, CampaignCancelledError, OnResult, Row, compute, failed_row
from gnn.screening.manifest import ModelPin
from gnn.screening.names import ByName, Names
from gnn.screening.spool import Spool
from gnn.screening.strikes import ENDING, Strikes
from gnn.screening.tables import EachRow, read_rows, write_rows

__all__ = ["CampaignCancelledError", "OnResult", "Row"]

logger = logging.getLogger(__name__)

STAGE_VERSION = 2
"""Raised when the same candidates, model and settings would give other results."""

RESULT_SCHEMA = pa.schema(
    [
        pa.field("candidate_id", pa.string(), nullable=False),
        pa.field("energy_per_atom", pa.float64()),
        pa.field("uncertainty", pa.float64()),
        pa.field("converged", pa.bool_(), nullable=False),
        pa.field("outcome", pa.string(), nullable=False),
        pa.field("reason", pa.string()),
        pa.field("steps", pa.int32(), nullable=False),
        pa.field("fmax", pa.float64()),
        pa.field("cpu_s", pa.float64(), nullable=False),
        pa.field("positions", pa.list_(pa.float64()), nullable=False),
        pa.field("cell", pa.list_(pa.float64()), nullable=False),
    ]
)
"""What a shard knows of each structure; energies in eV/atom, lengths in Å."""


class ShardManifest(BaseModel):
    """What a shard did. structures = computed + reused; failed ones are among them, with their reason.

    cpu_s is of all its structures, whenever they were computed; wall_s, gpu_s and peak_memory_mb are of the process
    that sealed it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    index: int
    work_digest: str
    ids_digest: str
    structures: int
    computed: int
    reused: int
    failed: int
    set_aside: int = Field(default=0, description="structures that the potential or the process could not bear")
    cpu_s: float
    wall_s: float
    gpu_s: float = Field(default=0.0, description="seconds for which a GPU was held")
    peak_memory_mb: float = Field(default=0.0, description="largest resident memory of the process")
    path: str
    sha256: str


def work_digest(spec: CampaignSpec, model: ModelPin) -> str:
    """Digest of what decides a structure's result: settings of the relaxation, and the model."""
    return digest(
        {
            "stage_version": STAGE_VERSION,
            "relaxation": spec.relaxation.model_dump(mode="json"),
            "model_sha256": model.sha256,
            "theory": model.theory,
        }
    )


def shard_name(index: int) -> str:
    """The stem of a shard's files."""
    return f"shard-{index:04d}"


def run_shard(
    spec: CampaignSpec,
    rows: Sequence[Candidate],
    folder: Path,
    index: int,
    model: ModelPin,
    make_potential: Callable[[], Potential],
    on_result: OnResult = lambda _: None,
) -> ShardManifest:
    """Relax `rows` into `folder`/shard-INDEX.parquet, and say what was computed and what was there already.

    Args:
        spec: the campaign.
        rows: the shard's structures.
        folder: the campaign's folder of shards.
        index: the shard's number.
        model: the pinned model; its sha256 and the relaxation's settings enter the journal's header.
        make_potential: gives the potential; not called when nothing is left to compute.
        on_result: called with each result once it is journalled; may raise `CampaignCancelledError`.

    Raises:
        BusyError: another process works on this shard.
        SluiceError: the potential fails over everything.
        InputError: the journal belongs to other work, or the potential cannot do what the relaxation needs.
        CampaignCancelledError: `on_result` said so.
    """
    header: dict[str, Any] = {
        "journal": "screen",
        "version": 1,
        "shard": index,
        "ids": candidates_digest(rows),
        "work": work_digest(spec, model),
    }
    with locked(folder / f"{shard_name(index)}.lock", f"shard {index}"):
        if (sealed := read_manifest(folder, index)) is not None and _belongs(sealed, header):
            return sealed.model_copy(update={"computed": 0, "reused": sealed.structures})
        journal = Journal(folder / f"{shard_name(index)}.part.jsonl", header)
        with Meter() as meter:
            n_computed = _continue(journal, rows, spec.relaxation, make_potential, on_result, meter)
        results = _of_rows(journal.read(), rows)
        _refuse_gaps(results, rows, journal.path)
        return _seal(folder, index, header, [results[row.candidate_id] for row in rows], n_computed, meter)


def _continue(
    journal: Journal,
    rows: Sequence[Candidate],
    spec: RelaxationSpec,
    make_potential: Callable[[], Potential],
    on_result: OnResult,
    meter: Meter,
) -> int:
    """Compute what the journal lacks; how many structures that were."""
    if damaged := journal.mend():
        logger.warning("%s: %d damaged lines, computed again", journal.path, damaged)
    known = _of_rows(journal.read(), rows)
    todo = [row for row in rows if row.candidate_id not in known]
    if not todo:
        return 0
    strikes = Strikes.after(journal.path.with_name(journal.path.name.replace(".part.jsonl", ENDING)), known)
    probe = next((row for row in rows if known.get(row.candidate_id, {}).get("converged")), None)
    with journal.appending() as append, strikes.noted():
        record = _both(append, on_result)
        deadly = strikes.deadly()
        for row in todo:
            if row.candidate_id in deadly:
                record(failed_row(row, deadly[row.candidate_id]))
        potential = make_potential()
        meter.uses(potential.device.type)
        for group in strikes.groups([row for row in todo if row.candidate_id not in deadly]):
            compute(group, spec, potential, record, probe)
    return len(todo)


def _seal(
    folder: Path, index: int, header: dict[str, Any], results: Sequence[Row], n_computed: int, meter: Meter
) -> ShardManifest:
    """Write the shard's table and its manifest, the manifest last."""
    path = write_rows(folder / f"{shard_name(index)}.parquet", results, RESULT_SCHEMA)
    manifest = ShardManifest(
        index=index,
        work_digest=header["work"],
        ids_digest=header["ids"],
        structures=len(results),
        computed=n_computed,
        reused=len(results) - n_computed,
        failed=sum(result["outcome"] not in ("converged", "steps") for result in results),
        set_aside=sum(result["outcome"] == SET_ASIDE for result in results),
        cpu_s=sum(result["cpu_s"] for result in results),
        wall_s=meter.wall_s,
        gpu_s=meter.gpu_s,
        peak_memory_mb=meter.peak_memory_mb,
        path=path.name,
        sha256=file_sha256(path),
    )
    write_text(folder / f"{shard_name(index)}.json", manifest.model_dump_json(indent=1) + "\n")
    return manifest


def read_manifest(folder: Path, index: int) -> ShardManifest | None:
    """The manifest of a sealed shard; None where there is none or it is damaged, or its Parquet file is another."""
    path = folder / f"{shard_name(index)}.json"
    if not path.is_file():
        return None
    try:
        manifest = ShardManifest.model_validate_json(path.read_bytes())
    except ValidationError:
        return None
    table = folder / manifest.path
    return manifest if table.is_file() and file_sha256(table) == manifest.sha256 else None


def _belongs(manifest: ShardManifest, header: dict[str, Any]) -> bool:
    return manifest.work_digest == header["work"] and manifest.ids_digest == header["ids"]


def _both(first: OnResult, second: OnResult) -> OnResult:
    def call(row: Row) -> None:
        first(row)
        second(row)

    return call


def _of_rows(records: Sequence[Row], rows: Sequence[Candidate]) -> dict[str, Row]:
    """Journal records by id.

    Raises:
        SluiceError: a record is of no structure of this shard, or one structure was recorded twice.
    """
    wanted = {row.candidate_id for row in rows}
    found: dict[str, Row] = {}
    for record in records:
        name = record["candidate_id"]
        if name not in wanted or name in found:
            why = "twice" if name in found else "though it is not of this shard"
            raise SluiceError(f"the journal holds structure {name} {why}; delete the journal to compute the shard anew")
        found[name] = record
    return found


def _refuse_gaps(results: dict[str, Row], rows: Sequence[Candidate], where: Path) -> None:
    missing = [row.candidate_id for row in rows if row.candidate_id not in results]
    if missing:
        raise SluiceError(
            f"{where}: {len(missing)} structures have no result, the first is {missing[0]}; run the shard again"
        )


def read_results(folder: Path, index: int) -> list[Row]:
    """The sealed results of a shard.

    Raises:
        SluiceError: the shard is not sealed.
    """
    manifest = read_manifest(folder, index)
    if manifest is None:
        raise SluiceError(f"shard {index} in {folder} is not finished; run it again")
    return read_rows(folder / manifest.path)


def merged_results(folder: Path, plan: Mapping[int, Sequence[str]], expected_work: str) -> Mapping[str, Row]:
    """Results of all sealed shards of a plan (shard -> ids) by id; shards that are not sealed are left out.

    They are read from a file without a name in `folder` when they are asked for: thirty bytes of memory each.

    Raises:
        SluiceError: a shard holds an id twice, lacks one, holds one of another shard, or is of other work.
    """
    spool, parts = Spool(folder), list[Names]()
    for index, ids in plan.items():
        manifest = read_manifest(folder, index)
        if manifest is None:
            continue
        if manifest.work_digest != expected_work:
            raise SluiceError(f"shard {index} in {folder} was computed with another model or other settings; delete it")
        found = []
        for row in EachRow(folder / manifest.path):
            found.append(row["candidate_id"])
            spool.append(row)
        _refuse_mismatch(index, found, ids)
        parts.append(Names(found))
    merged = Names.joined(parts)
    if (twice := merged.repeated()) is not None:
        raise SluiceError(f"structure {twice} stands in two shards of {folder}; prepare the campaign anew with --fresh")
    return ByName(merged, spool.__getitem__)


def _refuse_mismatch(index: int, found: Sequence[str], planned: Sequence[str]) -> None:
    kinds = {
        "duplicate": sorted(name for name, count in Counter(found).items() if count > 1),
        "missing": sorted(set(planned) - set(found)),
        "foreign": sorted(set(found) - set(planned)),
    }
    for kind, names in kinds.items():
        if names:
            raise SluiceError(
                f"shard {index} cannot be merged: {len(names)} {kind} structures, the first is {names[0]}"
            )
