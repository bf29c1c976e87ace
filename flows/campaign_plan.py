"""What a campaign would do: prepared in memory, nothing written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from flows.campaign_hull import reference_hull
from flows.campaigns import CampaignFolder, pin_model, pinned, refuse_another_spec
from flows.cli.results import CampaignPlanResult, FunnelStage
from flows.settings import Home
from gnn.errors import SluiceError
from gnn.screening.campaign import read_campaign
from gnn.screening.prepare import prepare, refuse_unusable_files


def check_campaign(path: Path, home: Home, changes: dict[str, Any], fresh: bool) -> None:
    """Do nothing if the campaign can begin; quicker to say so than a flow that fails.

    Raises:
        InputError: the specification, its files, its model or its hull cannot be used.
        SluiceError: another process runs it.
    """
    spec = read_campaign(path, changes)
    folder = CampaignFolder(home, spec.name)
    if folder.is_running():
        raise SluiceError(
            f"campaign {spec.name} is in use by another process (lock {folder.lock}); wait for it or cancel it"
        )
    if not fresh:
        refuse_another_spec(folder, spec)
    refuse_unusable_files(spec)
    if fresh or not folder.exists():
        pin_model(spec, home)


def describe_campaign(
    path: Path, home: Home, changes: dict[str, Any], workers: int | None, fresh: bool = False
) -> CampaignPlanResult:
    """The funnel before relaxation, and the size of the work, with model and lake as the run would have them.

    Raises:
        InputError: the campaign cannot be run.
    """
    from dask.system import CPU_COUNT

    spec = read_campaign(path, changes)
    folder = CampaignFolder(home, spec.name)
    if not fresh:
        refuse_another_spec(folder, spec)
    refuse_unusable_files(spec)
    inputs = pinned(folder, spec, None if fresh else folder.begun())
    model = inputs.model
    ready = prepare(spec, inputs, workers or CPU_COUNT)
    elements = ready.elements & set(model.elements)
    missing: list[str] = []
    if spec.hull.reference == "dft":
        missing = reference_hull(inputs, elements)[0].missing(elements)
    sizes = [row.n_atoms for shard in ready.plan for row in ready.rows(shard)]
    return CampaignPlanResult(
        campaign=spec.name,
        model=model.uri,
        model_version=model.version,
        model_sha256=model.sha256,
        theory=model.theory,
        lake_versions=dict(inputs.versions),
        candidate_datasets=list(inputs.datasets),
        n_candidates=len(ready.ledger.ids),
        funnel=[FunnelStage(**stage.model_dump()) for stage in ready.ledger.stages],
        structures=len(sizes),
        atoms=sum(sizes),
        shards=len(ready.plan),
        hull_missing=missing,
    )
