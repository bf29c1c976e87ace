"""One shard of a campaign: relax its structures, journal each as it finishes, seal the shard as Parquet.

A shard needs no server and no other shard. Killed at any moment, it goes on where it stopped; nothing that is in the
journal is computed again.
"""

from __future__ import annotations

import json
import math
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from ase import Atoms
from pydantic import BaseModel, ConfigDict

from gnn.errors import InputError, SluiceError
from gnn.files import Journal, digest, file_sha256, locked, write_text
from gnn.potentials.potential import Potential
from gnn.screening.campaign import CampaignSpec, RelaxationSpec
from gnn.screening.candidates import Candidate, candidates_digest
from gnn.screening.manifest import ModelPin
from gnn.screening.tables import read_rows, write_rows
from gnn.simulation.relax import Relaxed, RelaxSettings, relax_many

STAGE_VERSION = 1
"""Raised when the same candidates, model and settings would give other results."""
CHUNK = 64
"""Structures evaluated at a time where nothing is relaxed."""

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

Row = dict[str, Any]
OnResult = Callable[[Row], None]


class CampaignCancelledError(SluiceError):
    """Someone asked the campaign to stop; what is journalled stays."""


class ShardManifest(BaseModel):
    """What a shard did. structures = computed + reused; failed ones are among them, with their reason."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    index: int
    work_digest: str
    ids_digest: str
    structures: int
    computed: int
    reused: int
    failed: int
    cpu_s: float
    wall_s: float
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
        SluiceError: another process works on this shard.
        InputError: the journal belongs to other work, or the potential cannot do what the relaxation needs.
        CampaignCancelledError: `on_result` said so.
    """
    path = folder / f"{shard_name(index)}.parquet"
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
        started = time.perf_counter()
        journal = Journal(folder / f"{shard_name(index)}.part.jsonl", header)
        known = _of_rows(journal.read(), rows)
        todo = [row for row in rows if row.candidate_id not in known]
        with journal.appending() as append:
            _compute(todo, spec.relaxation, make_potential, _both(append, on_result))
        results = _of_rows(journal.read(), rows)
        _refuse_gaps(results, rows, journal.path)
        write_rows(path, (results[row.candidate_id] for row in rows), RESULT_SCHEMA)
        manifest = ShardManifest(
            index=index,
            work_digest=header["work"],
            ids_digest=header["ids"],
            structures=len(rows),
            computed=len(todo),
            reused=len(rows) - len(todo),
            failed=sum(result["outcome"] not in ("converged", "steps") for result in results.values()),
            cpu_s=sum(result["cpu_s"] for result in results.values()),
            wall_s=time.perf_counter() - started,
            path=path.name,
            sha256=file_sha256(path),
        )
        write_text(folder / f"{shard_name(index)}.json", manifest.model_dump_json(indent=1) + "\n")
        return manifest


def read_manifest(folder: Path, index: int) -> ShardManifest | None:
    """The manifest of a sealed shard; None where there is none or its Parquet file is not what the manifest says."""
    path = folder / f"{shard_name(index)}.json"
    if not path.is_file():
        return None
    manifest = ShardManifest.model_validate(json.loads(path.read_text(encoding="utf-8")))
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


def _compute(
    todo: Sequence[Candidate], spec: RelaxationSpec, make_potential: Callable[[], Potential], append: OnResult
) -> None:
    if not todo:
        return
    potential = make_potential()
    if spec.mode == "none":
        _evaluate(todo, spec, potential, append)
        return
    finished: set[str] = set()

    def record(row: Row) -> None:
        append(row)
        finished.add(row["candidate_id"])

    try:
        _relax(todo, spec, potential, record)
    except (InputError, CampaignCancelledError):
        raise
    except Exception:  # noqa: BLE001 (one structure broke the batch: each of the rest goes alone, and its reason is kept)
        for row in (row for row in todo if row.candidate_id not in finished):
            _relax_alone(row, spec, potential, record)


def _relax(todo: Sequence[Candidate], spec: RelaxationSpec, potential: Potential, record: OnResult) -> None:
    settings = RelaxSettings(fmax=spec.fmax, max_steps=spec.max_steps, cell=spec.mode == "cell")

    def on_result(k: int, relaxed: Relaxed) -> None:
        record(_relaxed_row(todo[k], relaxed))

    structures = [row.atoms() for row in todo]
    relax_many(structures, lead_of(potential), settings, spec.max_atoms, on_result, final=scorer_of(potential))


def _relax_alone(row: Candidate, spec: RelaxationSpec, potential: Potential, record: OnResult) -> None:
    try:
        _relax([row], spec, potential, record)
    except CampaignCancelledError:
        raise
    except Exception as error:  # noqa: BLE001 (the reason is recorded with the structure)
        record(_failed_row(row, f"{type(error).__name__}: {' '.join(str(error).split())}"))


def lead_of(potential: Potential) -> Potential:
    """The member that a committee relaxes with; the potential itself where it is no committee."""
    lead: Callable[[], Potential] | None = getattr(potential, "lead", None)
    return potential if lead is None else lead()


def scorer_of(potential: Potential) -> Potential | None:
    """What scores relaxed structures in batches: a whole committee, without forces if it can; None for one member."""
    if "uncertainty" not in potential.provides:
        return None
    energies_only: Callable[[], Potential] | None = getattr(potential, "energies_only", None)
    return potential if energies_only is None else energies_only()


def _relaxed_row(row: Candidate, relaxed: Relaxed) -> Row:
    """The journal's record of a relaxation; energy and uncertainty by the whole committee."""
    final = relaxed.final
    energy = relaxed.energy if final is None else final.energy
    uncertainty = None if final is None else final.uncertainty
    return {
        "candidate_id": row.candidate_id,
        "energy_per_atom": _finite(None if energy is None else energy / row.n_atoms),
        "uncertainty": _finite(uncertainty),
        "converged": relaxed.converged,
        "outcome": relaxed.outcome,
        "reason": relaxed.reason,
        "steps": relaxed.steps,
        "fmax": _finite(relaxed.fmax),
        "cpu_s": relaxed.cpu_s,
        **_geometry(relaxed.atoms, row),
    }


def _geometry(atoms: Atoms, row: Candidate) -> Row:
    """Positions and cell as flat lists; those the structure came with where the result is not finite."""
    finite = np.isfinite(atoms.positions).all() and np.isfinite(atoms.cell[:]).all()
    positions, cell = (atoms.positions, atoms.cell[:]) if finite else (row.positions, row.cell)
    return {"positions": np.ravel(positions).tolist(), "cell": np.ravel(cell).tolist()}


def _finite(value: float | None) -> float | None:
    return float(value) if value is not None and math.isfinite(value) else None


def _failed_row(row: Candidate, reason: str) -> Row:
    return {
        "candidate_id": row.candidate_id,
        "energy_per_atom": None,
        "uncertainty": None,
        "converged": False,
        "outcome": "error",
        "reason": reason,
        "steps": 0,
        "fmax": None,
        "cpu_s": 0.0,
        "positions": np.ravel(row.positions).tolist(),
        "cell": np.ravel(row.cell).tolist(),
    }


def _evaluate(todo: Sequence[Candidate], spec: RelaxationSpec, potential: Potential, append: OnResult) -> None:
    """Energies of structures as they are."""
    for start in range(0, len(todo), CHUNK):
        chunk = todo[start : start + CHUNK]
        try:
            rows = _evaluated(chunk, spec, potential)
        except InputError:
            raise
        except Exception:  # noqa: BLE001 (one structure broke the batch: each goes alone, and its reason is kept)
            rows = [_evaluated_alone(row, spec, potential) for row in chunk]
        for row in rows:
            append(row)


def _evaluated_alone(row: Candidate, spec: RelaxationSpec, potential: Potential) -> Row:
    try:
        return _evaluated([row], spec, potential)[0]
    except Exception as error:  # noqa: BLE001 (the reason is recorded with the structure)
        return _failed_row(row, f"{type(error).__name__}: {' '.join(str(error).split())}")


def _evaluated(chunk: Sequence[Candidate], spec: RelaxationSpec, potential: Potential) -> list[Row]:
    started = time.process_time()
    predictions = potential.predict_atoms([row.atoms() for row in chunk], spec.max_atoms)
    each = (time.process_time() - started) / len(chunk)
    rows = []
    for row, prediction in zip(chunk, predictions, strict=True):
        energy = _finite(prediction.energy / row.n_atoms)
        given = {
            "energy_per_atom": energy,
            "uncertainty": _finite(prediction.uncertainty),
            "converged": energy is not None,
            "outcome": "converged" if energy is not None else "non_finite",
            "cpu_s": each,
        }
        rows.append({**_failed_row(row, ""), "reason": None if energy is not None else "energy is not finite", **given})
    return rows


def read_results(folder: Path, index: int) -> list[Row]:
    """The sealed results of a shard.

    Raises:
        SluiceError: the shard is not sealed.
    """
    manifest = read_manifest(folder, index)
    if manifest is None:
        raise SluiceError(f"shard {index} in {folder} is not finished; run it again")
    return read_rows(folder / manifest.path)


def merged_results(folder: Path, plan: Mapping[int, Sequence[str]], expected_work: str) -> dict[str, Row]:
    """Results of all sealed shards of a plan (shard -> ids) by id; shards that are not sealed are left out.

    Raises:
        SluiceError: a shard holds an id twice, lacks one, holds one of another shard, or is of other work.
    """
    merged: dict[str, Row] = {}
    for index, ids in plan.items():
        manifest = read_manifest(folder, index)
        if manifest is None:
            continue
        if manifest.work_digest != expected_work:
            raise SluiceError(f"shard {index} in {folder} was computed with another model or other settings; delete it")
        rows = read_rows(folder / manifest.path)
        _refuse_mismatch(index, [row["candidate_id"] for row in rows], ids, merged)
        merged |= {row["candidate_id"]: row for row in rows}
    return merged


def _refuse_mismatch(index: int, found: Sequence[str], planned: Sequence[str], merged: dict[str, Row]) -> None:
    kinds = {
        "duplicate": sorted(name for name, count in Counter(found).items() if count > 1 or name in merged),
        "missing": sorted(set(planned) - set(found)),
        "foreign": sorted(set(found) - set(planned)),
    }
    for kind, names in kinds.items():
        if names:
            raise SluiceError(
                f"shard {index} cannot be merged: {len(names)} {kind} structures, the first is {names[0]}"
            )
