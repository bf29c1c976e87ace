"""What a finished campaign leaves behind: tables, DFT inputs, known compounds, the report and its context."""

from __future__ import annotations

import platform
from collections.abc import Collection
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from flows.campaigns import CampaignFolder
from gnn.errors import InputError
from gnn.lake.table import Lake
from gnn.screening.campaign import CampaignSpec
from gnn.screening.comparison import dft_comparisons
from gnn.screening.conclude import Conclusion
from gnn.screening.final import CANDIDATES, INPUTS, write_dft_inputs, write_tables
from gnn.screening.hull import HullEntry as LakeEntry
from gnn.screening.hull import ReferenceHull, composition_of
from gnn.screening.known import known_outcomes, read_known
from gnn.screening.manifest import CampaignManifest, KnownOutcome
from gnn.screening.preparation import Prepared
from gnn.screening.report.context import (
    CampaignFacts,
    CostRow,
    FunnelRow,
    HullEntry,
    KnownCompound,
    Parity,
    Provenance,
    ReportContext,
)
from gnn.screening.tables import EachRow, reading

if TYPE_CHECKING:
    from gnn.training.checkpoint import CheckpointManifest

MOST_DRAWN = 50_000
"""Candidates that a report draws; a page of more is of no use, and would not fit into memory."""
PACKAGES = ("torch", "ase", "pymatgen", "prefect", "mlflow")
STAGES_TIMED = ("prepare", "relax", "conclude")


def write_outputs(
    folder: CampaignFolder, spec: CampaignSpec, manifest: CampaignManifest, ready: Prepared, conclusion: Conclusion
) -> CampaignManifest:
    """Write tables and DFT inputs, and the manifest that names them and the report."""
    paths = write_tables(folder.root, conclusion.rows, conclusion.shortlist)
    paths |= _write_inputs(folder.root, spec, manifest, conclusion)
    complete = manifest.model_copy(
        update={"known": _known(spec, ready, conclusion), "paths": {**paths, "report": "report.html"}}
    )
    complete.write(folder.root)
    return complete


def _write_inputs(
    folder: Path, spec: CampaignSpec, manifest: CampaignManifest, conclusion: Conclusion
) -> dict[str, str]:
    formats = list(spec.handoff.formats)
    if not formats:
        return {}
    write_dft_inputs(folder, conclusion.rows, conclusion.shortlist, formats, manifest.model.theory)
    return {f"dft_{name}": f"{INPUTS}/{name}" for name in formats if (folder / INPUTS / name).is_dir()}


def _known(spec: CampaignSpec, ready: Prepared, conclusion: Conclusion) -> list[KnownOutcome]:
    if spec.known_compounds is None:
        return []
    compounds = read_known(spec.path(spec.known_compounds))
    return known_outcomes(compounds, ready.candidates.values(), conclusion.rows.by_id, spec.dedupe)


def report(folder: CampaignFolder) -> Path:
    """Write the campaign's page anew from what its folder and the lake hold now.

    Raises:
        InputError: the campaign has not got as far as a table, or a file of it is damaged.
    """
    from gnn.screening.report import write_report

    return write_report(folder.root, report_context(folder))


def report_context(folder: CampaignFolder) -> ReportContext:
    """Everything a report shows.

    Raises:
        InputError: the campaign has not got as far as a table, or a file of it is damaged.
    """
    manifest, spec = folder.manifest(), folder.spec()
    if manifest is None or not (folder.root / CANDIDATES).is_file():
        raise InputError(f"campaign {folder.name!r} has no table yet; run `sluice campaigns rerun {folder.name}`")
    checkpoint = _checkpoint(folder, manifest)
    trained_on = {} if checkpoint is None else {entry.dataset: entry.version for entry in checkpoint.data.inputs}
    every, lake = EachRow(folder.root / CANDIDATES), Lake(folder.home.lake)
    dft = dft_comparisons(
        every,
        lake,
        manifest.model.theory,
        trained_on,
        spec.dedupe,
        _dft_hull(spec, manifest),
        spec.relaxation.volume_window,
    )
    table, left_out = rows_to_draw(every.path, {point.candidate_id for point in dft})
    return ReportContext(
        facts=_facts(folder, spec, manifest, left_out),
        funnel=[FunnelRow(stage.stage, stage.n_in, stage.n_out, stage.rejected) for stage in manifest.funnel],
        candidates=table,
        provenance=_provenance(spec, manifest, checkpoint),
        hull_entries=[
            HullEntry(row.name, row.composition, row.formation_energy_per_atom, row.source)
            for row in manifest.hull_entries
            if row.formation_energy_per_atom is not None
        ],
        parity=_parity(folder, manifest),
        dft=dft,
        known=[_compound(outcome) for outcome in manifest.known],
        cost=_cost(manifest, every.path),
        files={name: path for name, path in manifest.paths.items() if name != "report"},
    )


def _dft_hull(spec: CampaignSpec, manifest: CampaignManifest) -> ReferenceHull | None:
    """The hull that the campaign measured against, where it is DFT's."""
    if spec.hull.reference != "dft" or not manifest.hull_entries:
        return None
    return ReferenceHull(
        [
            LakeEntry(composition_of(row.composition), row.energy_per_atom, row.name, row.source, manifest.model.theory)
            for row in manifest.hull_entries
        ]
    )


def _distinct(manifest: CampaignManifest) -> int:
    """Candidates left when duplicates were removed: what would have gone to DFT without a screening."""
    return next((stage.n_out for stage in manifest.funnel if stage.stage == "distinct"), manifest.n_candidates)


def _checkpoint(folder: CampaignFolder, manifest: CampaignManifest) -> CheckpointManifest | None:
    """The model card of the pinned checkpoint; None for foreign models and for one that is gone."""
    if manifest.model.path is None:
        return None
    from gnn.training.checkpoint import read_manifest

    path = folder.home.absolute(manifest.model.path)
    return read_manifest(path) if path.is_dir() else None


def _parity(folder: CampaignFolder, manifest: CampaignManifest) -> list[Parity]:
    """Test parity kept beside the pinned checkpoint, else that of its validation split."""
    if manifest.model.path is None:
        return []
    from gnn.training.parity import read_parity

    kept = read_parity(folder.home.absolute(manifest.model.path))
    wanted = [found for found in kept if found.split == "test"] or kept
    return [Parity(found.quantity, found.unit, found.split, found.reference, found.predicted) for found in wanted]


def rows_to_draw(path: Path, compared: Collection[str]) -> tuple[pa.Table, int]:
    """What the page shows of the final table: all of it, or the best `MOST_DRAWN`, the shortlist and those `compared`.

    With how many rows were left out.

    Raises:
        InputError: the table is damaged.
    """
    chosen = (pc.field("rank") <= MOST_DRAWN) | pc.field("shortlisted")
    chosen |= pc.field("candidate_id").isin(pa.array(list(compared), pa.string()))
    with reading(path):
        total = pq.read_metadata(path).num_rows
        table = pq.read_table(path, filters=chosen if total > MOST_DRAWN else None)
    return table, total - table.num_rows


def _facts(folder: CampaignFolder, spec: CampaignSpec, manifest: CampaignManifest, left_out: int) -> CampaignFacts:
    text = folder.root / "campaign.toml"
    threshold = spec.filters.max_hull_distance
    return CampaignFacts(
        name=manifest.name,
        state=manifest.state,
        finished_at=manifest.finished_at or "",
        spec_toml=text.read_text(encoding="utf-8") if text.is_file() else "",
        hull_reference=spec.hull.reference,
        n_candidates=_distinct(manifest),
        **({} if threshold is None else {"stability_threshold": threshold}),
        elements=spec.candidates.elements,
        shards_total=manifest.shards.total,
        shards_failed=manifest.shards.failed,
        notes=[
            *manifest.warnings,
            *([f"the pictures leave out {left_out} candidates beyond the best {MOST_DRAWN}"] if left_out else []),
            *(f"shard {index}: {why}" for index, why in manifest.shard_errors.items()),
        ],
    )


def _provenance(spec: CampaignSpec, manifest: CampaignManifest, checkpoint: CheckpointManifest | None) -> Provenance:
    model = manifest.model
    return Provenance(
        code_version=manifest.code_version,
        model=model.uri,
        model_version=model.version,
        model_sha256=model.sha256,
        theory=model.theory,
        lake_versions=manifest.lake_versions,
        candidate_datasets=manifest.candidate_datasets,
        graph_set_id=None if checkpoint is None else checkpoint.graph_set_id,
        candidates_digest=manifest.candidates_digest,
        spec_digest=spec.spec_digest,
        machine=f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        packages={name: metadata.version(name) for name in PACKAGES},
        model_metrics={} if checkpoint is None else _test_metrics(checkpoint),
        licences={} if checkpoint is None else {e.dataset: e.licence for e in checkpoint.data.inputs if e.licence},
    )


def _test_metrics(checkpoint: CheckpointManifest) -> dict[str, float]:
    """Numbers of the test split, else of the validation split."""
    errors: dict[str, Any] = checkpoint.metrics.get("test") or checkpoint.metrics.get("valid") or {}
    return {name: float(value) for name, value in errors.items() if isinstance(value, int | float)}


def _compound(outcome: KnownOutcome) -> KnownCompound:
    return KnownCompound(
        formula=outcome.formula,
        name=outcome.name,
        found=outcome.rank is not None and outcome.prototype is not None,
        rank=outcome.rank,
        shortlisted=outcome.found,
        candidate_id=outcome.candidate_id,
        hull_distance=outcome.hull_distance,
        comment=outcome.comment,
    )


def _cost(manifest: CampaignManifest, path: Path) -> list[CostRow]:
    cpu_s = pq.read_table(path, columns=["cpu_s"])["cpu_s"]
    counts = {"prepare": len(cpu_s), "relax": len(cpu_s) - cpu_s.null_count, "conclude": len(cpu_s)}
    spent = {"relax": manifest.cost.get("cpu_s", 0.0)}
    return [
        CostRow(stage, counts[stage], spent.get(stage, 0.0), manifest.cost.get(f"wall_s_{stage}", 0.0))
        for stage in STAGES_TIMED
    ]
