"""The flow `screen`: a campaign from its specification to a shortlist, its DFT inputs and its report."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prefect import flow

from flows.campaign_bar import watching
from flows.campaign_cost import Clock, earlier_cost, total_cost
from flows.campaign_hull import hull_of, hull_rows, novelty_remarks, reference_hull, remarks
from flows.campaign_log import Outcomes, shard_log, tell
from flows.campaigns import (
    CampaignFolder,
    pinned,
    potential_of,
    refuse_another_spec,
    result_of,
)
from flows.cli.results import CampaignResult
from flows.lineage import traced
from flows.settings import Home
from flows.tracking import code_version
from gnn.errors import InputError, SluiceError
from gnn.files import locked
from gnn.machine import threads_of_torch
from gnn.overlay import dotted
from gnn.screening.campaign import CampaignSpec, read_campaign
from gnn.screening.candidates import element_sets
from gnn.screening.conclude import conclude
from gnn.screening.gather import Inputs
from gnn.screening.library import lake_library
from gnn.screening.manifest import CampaignManifest, ModelPin, ShardTally, State
from gnn.screening.names import names_digest
from gnn.screening.preparation import Prepared, rows_of_shard
from gnn.screening.prepare import prepared
from gnn.screening.shard import (
    STAGE_VERSION,
    CampaignCancelledError,
    ShardManifest,
    merged_results,
    run_shard,
    shard_name,
    work_digest,
)
from gnn.screening.strikes import stopped_on_purpose

if TYPE_CHECKING:
    from flows.rerun import Choice
    from flows.shards import ShardOutcome

STAGE = "screen"


@dataclass(frozen=True)
class Campaign:
    """A campaign that is being run: its folder, its specification, and what was pinned when it began."""

    folder: CampaignFolder
    spec: CampaignSpec
    inputs: Inputs
    started_at: str
    clock: Clock = field(default_factory=Clock)

    @property
    def home(self) -> Home:
        """The home it lies in."""
        return self.folder.home

    @property
    def model(self) -> ModelPin:
        """The model it screens with."""
        return self.inputs.model


@flow(name="screen", persist_result=False, validate_parameters=False)
def screen(
    campaign: CampaignSpec | Path | str,
    home: Home,
    cluster: str = "local",
    workers: int | None = None,
    fresh: bool = False,
    show: bool = True,
    changes: dict[str, Any] | None = None,
    only: Choice | None = None,
) -> CampaignResult:
    """Run a campaign, or what is left of it; the same call continues what was interrupted and repeats nothing.

    `campaign` is a TOML file or its content, with `changes` laid over it. `fresh` discards what is there. `only` leaves
    the other shards that failed as they are.

    Raises:
        InputError: the specification cannot be used, or differs from the one the campaign was started with.
        SluiceError: another process runs this campaign, or shards failed; all that finished is written.
    """
    spec, text = specification(campaign, changes)
    folder = CampaignFolder(home, spec.name)
    if fresh and only is not None:
        raise InputError("a campaign that is started anew computes all its shards; leave out the choice, or fresh")
    with locked(folder.lock, f"campaign {spec.name}"), uncancelled(folder):
        if not fresh:
            refuse_another_spec(folder, spec)
        refuse_empty_choice(folder, only)
        running = begin(folder, spec, text, fresh)
        with traced(folder), marked_if_broken(running):
            outcomes = compute(running, cluster, workers, show, only)
        refuse_failures(folder, outcomes)
        return result_of(folder)


@contextmanager
def uncancelled(folder: CampaignFolder) -> Iterator[None]:
    """Take the mark of a cancellation away before and after: it is meant for one run."""
    folder.cancel_mark.unlink(missing_ok=True)
    try:
        yield
    finally:
        folder.cancel_mark.unlink(missing_ok=True)


def refuse_empty_choice(folder: CampaignFolder, only: Choice | None) -> None:
    """Do nothing if there is something to compute again.

    Raises:
        InputError: nothing that failed fits the choice.
    """
    if only is not None:
        from flows.rerun import chosen_shards

        chosen_shards(folder, only)


def specification(
    campaign: CampaignSpec | Path | str, changes: dict[str, Any] | None
) -> tuple[CampaignSpec, str | None]:
    """The campaign, and the text of its file, with the changes, where it came from one."""
    if isinstance(campaign, CampaignSpec):
        return campaign, None
    path = Path(campaign)
    return read_campaign(path, changes), path.read_text(encoding="utf-8") + told_changes(changes or {})


def told_changes(changes: Mapping[str, Any]) -> str:
    """What was laid over a campaign's file, as remarks at its end."""
    if not changes:
        return ""
    lines = (f"# {name} = {json.dumps(value, ensure_ascii=False)}\n" for name, value in dotted(changes).items())
    return "".join(("\n# in place of what stands above:\n", *lines))


def begin(folder: CampaignFolder, spec: CampaignSpec, text: str | None, fresh: bool = False) -> Campaign:
    """Pin model and lake at the first start; later starts keep what was pinned, unless they are `fresh`.

    What is there is discarded last, when nothing is left that could keep the campaign from beginning.
    """
    known = None if fresh else folder.begun()
    campaign = Campaign(folder, spec, pinned(folder, spec, known), now() if known is None else known.started_at)
    if known is None:
        refuse_hopeless(campaign)
        kept = folder.spec_text() if text is None else text
        if fresh:
            folder.clear()
        folder.keep_spec(spec, kept)
    write_state(campaign, "RUNNING", finished_at=None)
    return campaign


def now() -> str:
    """The present moment in UTC."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def refuse_hopeless(campaign: Campaign) -> None:
    """Do nothing if a hull can be drawn.

    Raises:
        InputError: the lake has no references at the model's theory.
    """
    if campaign.spec.hull.reference == "dft":
        wanted = {symbol for system in element_sets(campaign.spec.candidates) for symbol in system}
        reference_hull(campaign.inputs, wanted & set(campaign.model.elements) or campaign.model.elements)


def write_state(campaign: Campaign, state: State, **changes: Any) -> CampaignManifest:
    """Record the campaign's state; what an earlier run recorded stays until a new value comes."""
    known = campaign.folder.manifest()
    fields = {
        "name": campaign.spec.name,
        "state": state,
        "spec_digest": campaign.spec.spec_digest,
        "model": campaign.model,
        "code_version": code_version(),
        "lake_versions": campaign.inputs.versions,
        "candidate_datasets": campaign.inputs.datasets,
        "started_at": campaign.started_at,
        **changes,
    }
    manifest = CampaignManifest(**fields) if known is None else known.model_copy(update=fields)
    manifest.write(campaign.folder.root)
    return manifest


@contextmanager
def marked_if_broken(campaign: Campaign) -> Iterator[None]:
    """Record how a campaign ended that did not end by itself."""
    try:
        yield
    except Exception:
        write_state(campaign, "FAILED", finished_at=now())
        raise
    except BaseException:  # Ctrl-C, and Prefect's own way of saying that the process is to end
        write_state(campaign, "CANCELLED", finished_at=now())
        raise


def compute(
    campaign: Campaign, cluster: str, workers: int | None, show: bool, only: Choice | None = None
) -> list[ShardOutcome]:
    """Prepare, relax, conclude, write; how the shards ended."""
    from flows.cluster import dask_client, slots

    with stopped_on_purpose(campaign.folder.shards), dask_client(cluster, workers) as client:
        with campaign.clock.stage("prepare"):
            ready = prepared(campaign.spec, campaign.inputs, campaign.folder.shards, slots(client))
        announce_or_refuse(campaign, ready)
        with campaign.clock.stage("relax"):
            outcomes = relax_shards(campaign, ready, client, show, only)
    finish(campaign, ready, outcomes)
    return outcomes


def announce(campaign: Campaign, ready: Prepared) -> None:
    """Record what was prepared, and say what hull and lake lack, before anything is relaxed.

    Raises:
        InputError: no hull can be drawn for the candidates that were found.
    """
    notes = remarks(campaign, ready)
    facts = {"candidates_digest": ready.digest, "n_candidates": len(ready.ledger.ids), "warnings": notes}
    write_state(campaign, "RUNNING", **facts)
    tell(campaign.folder, notes)


def announce_or_refuse(campaign: Campaign, ready: Prepared) -> None:
    """Announce; a refusal says how to go on, since the campaign keeps the lake it was begun with.

    Raises:
        InputError: as `announce`.
    """
    try:
        announce(campaign, ready)
    except InputError as error:
        raise InputError(f"{error}; then start the campaign anew with --fresh") from None


def relax_shards(
    campaign: Campaign, ready: Prepared, client: Any, show: bool, only: Choice | None = None
) -> list[ShardOutcome]:
    """Every shard as one Prefect task on Dask; of those that failed, `only` the chosen ones."""
    from flows.batch_cluster import GPU
    from flows.cluster import slots
    from flows.gpus import gpu_slots
    from flows.rerun import left_alone, open_chosen
    from flows.run_artifacts import Progress
    from flows.shards import ShardJob, run_shards

    indices = list(ready.plan)
    chosen = indices if only is None else open_chosen(campaign.folder, only)
    work = work_digest(campaign.spec, campaign.model)
    on_gpu = campaign.model.foreign is None and gpu_slots(client) > 0
    threads = max(1, cores() // slots(client)) if client.cluster is not None else 1
    jobs = [
        ShardJob(
            index=index,
            inputs={"campaign": campaign.spec.name, "work": work, "ids": names_digest(ready.plan[index])},
            function=screen_shard,
            args=(str(campaign.home.root), campaign.spec.name, index, threads),
            output=campaign.folder.shards / f"{shard_name(index)}.parquet",
            resources={GPU: 1} if on_gpu else {},
        )
        for index in chosen
    ]
    total = ready.plan.n_planned
    told = Progress(STAGE, campaign.spec.name, len(jobs))
    log = Outcomes(campaign.folder, told.advance)
    with watching(campaign.folder.shards, total, show):
        outcomes = run_shards(STAGE, STAGE_VERSION, jobs, client, campaign.home, on_outcome=log)
    outcomes += left_alone(campaign.folder, indices, chosen)
    return sorted(outcomes, key=lambda outcome: outcome.index)


def cores() -> int:
    """Cores this process may use."""
    from dask.system import CPU_COUNT

    return int(CPU_COUNT)


def screen_shard(home_root: str, name: str, index: int, threads: int = 1) -> dict[str, Any]:
    """Run one shard of a started campaign; what a worker executes. Gives the shard's manifest.

    Raises:
        InputError: the campaign was not started, or has no such shard.
    """
    with threads_of_torch(threads):
        return run_one(CampaignFolder(Home(Path(home_root)), name), index).model_dump(mode="json")


def run_one(folder: CampaignFolder, index: int) -> ShardManifest:
    """Run one shard without any server.

    Raises:
        InputError: the campaign was not started, or has no such shard.
        SluiceError: another process works on this shard, or the campaign is cancelled.
    """
    manifest = CampaignManifest.read(folder.root)
    rows = rows_of_shard(folder.shards, index)

    def stop_if_cancelled(_: dict[str, Any]) -> None:
        if folder.cancel_mark.exists() and folder.is_running():  # a flow that was killed leaves its mark behind
            raise CampaignCancelledError(f"campaign {folder.name} was cancelled")

    make = partial(potential_of, manifest.model, folder.home)
    with shard_log(folder, index, len(rows)) as done:
        return done(run_shard(folder.spec(), rows, folder.shards, index, manifest.model, make, stop_if_cancelled))


def finish(campaign: Campaign, ready: Prepared, outcomes: Sequence[ShardOutcome]) -> None:
    """Merge, filter, select and write everything; the manifest last."""
    from flows.campaign_outputs import report
    from flows.run_artifacts import show_link, show_table

    before = earlier_cost(campaign)
    with campaign.clock.stage("conclude"):
        complete = conclude_and_write(campaign, ready, outcomes)
    complete = complete.model_copy(update={"cost": total_cost(campaign, ready, before)})
    complete.write(campaign.folder.root)
    page = report(campaign.folder)
    show_table(f"funnel-{campaign.spec.name}", [stage.model_dump() for stage in complete.funnel], "Funnel")
    errors = [{"shard": index, "error": error} for index, error in complete.shard_errors.items()]
    show_table(f"failed-shards-{campaign.spec.name}", errors, "Failed shards")
    show_link(f"report-{campaign.spec.name}", page, f"report of {campaign.spec.name}")


def conclude_and_write(campaign: Campaign, ready: Prepared, outcomes: Sequence[ShardOutcome]) -> CampaignManifest:
    """Close the funnel and write tables and inputs; the manifest so far."""
    from flows.campaign_outputs import write_outputs

    results = merged_results(campaign.folder.shards, ready.plan, work_digest(campaign.spec, campaign.model))
    hull, warnings = hull_of(campaign, ready, results)
    library = lake_library(campaign.inputs.lake, campaign.inputs.versions)
    conclusion = conclude(campaign.spec, ready, results, hull, campaign.model.theory, library)
    failed = {outcome.index: outcome.error for outcome in outcomes if outcome.error is not None}
    manifest = write_state(
        campaign,
        _final_state(campaign, failed),
        finished_at=now(),
        n_candidates=len(ready.ledger.ids),
        n_shortlist=len(conclusion.shortlist),
        funnel=conclusion.ledger.stages,
        shards=ShardTally(total=len(outcomes), done=len(outcomes) - len(failed), failed=len(failed)),
        shard_errors={str(index): error for index, error in failed.items()},
        hull_entries=hull_rows(hull),
        warnings=[*novelty_remarks(campaign), *warnings],
        **_counts(outcomes),
    )
    return write_outputs(campaign.folder, campaign.spec, manifest, ready, conclusion)


def _final_state(campaign: Campaign, failed: dict[int, str]) -> State:
    if campaign.folder.cancel_mark.exists():
        return "CANCELLED"
    return "FAILED" if failed else "COMPLETED"


def _counts(outcomes: Sequence[ShardOutcome]) -> dict[str, int]:
    """Structures that this run computed, and those that it found done."""
    manifests = [(outcome.manifest, outcome.cached) for outcome in outcomes if outcome.manifest is not None]
    computed = sum(0 if cached else manifest["computed"] for manifest, cached in manifests)
    return {"computed": computed, "reused": sum(manifest["structures"] for manifest, _ in manifests) - computed}


def refuse_failures(folder: CampaignFolder, outcomes: Sequence[ShardOutcome]) -> None:
    """End the flow as failed if shards failed, after all that finished is written.

    Raises:
        SluiceError: some failed, or the campaign was cancelled.
    """
    from flows.shards import raise_if_failed

    if folder.cancel_mark.exists():
        raise SluiceError(f"campaign {folder.name} was cancelled; the same command goes on from here")
    raise_if_failed(f"campaign {folder.name}", outcomes)
