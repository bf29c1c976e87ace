"""What each verb prints with `--json`: typed models, changed only with their schema version."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from gnn.graphs.graph_set import Split
from gnn.training.metrics import Metrics


class Result(BaseModel):
    """The base of all results."""

    model_config = ConfigDict(extra="forbid")

    schema_version: int = 1


class IngestResult(Result):
    """`sluice ingest`. rows_in = kept + duplicates + quarantined; unreadable files are counted beside."""

    dataset: str
    version: int | None = Field(description="Delta version of the table after this run; null if nothing was ever kept")
    content_digest: str | None
    theories: list[str]
    files: int
    files_failed: int
    file_errors: dict[str, str] = Field(description="file -> why it could not be read")
    rows_in: int
    kept: int
    duplicates: int
    quarantined: int
    reasons: dict[str, int]
    warnings: list[str] = Field(default_factory=list, description="differences from what the card expects")


class VersionRow(Result):
    """One version of a data set."""

    version: int
    created: str
    operation: str
    rows: int
    content_digest: str | None = Field(description="null where its files are deleted and no commit tells it")


class VersionsResult(Result):
    """`sluice lake versions`."""

    dataset: str
    versions: list[VersionRow]


class QuarantineRow(Result):
    """One row that was refused."""

    reason: str
    detail: str | None
    source_file: str | None
    source_row: int | None


class QuarantineResult(Result):
    """`sluice lake quarantine`. `rows` shows the first of them."""

    dataset: str
    quarantined: int
    reasons: dict[str, int]
    rows: list[QuarantineRow]


class GcResult(Result):
    """`sluice lake gc`."""

    dry_run: bool
    deleted: dict[str, int]
    kept_versions: dict[str, list[int]]


class DatasetRow(Result):
    """One data set of the lake."""

    dataset: str
    version: int
    rows: int
    quarantined: int
    theories: list[str]
    elements: list[str]
    content_digest: str


class LakeResult(Result):
    """`sluice lake ls` and `show`."""

    datasets: list[DatasetRow]


class PreprocessResult(Result):
    """`sluice preprocess`. rows_in = structures + reference_rows + dropped."""

    graph_set: str
    graph_set_id: str
    cutoff: float
    rows_in: int
    structures: int
    reference_rows: int
    dropped: dict[str, int]
    splits: dict[str, int]
    shards: int
    shards_built: int
    shards_reused: int
    edges: int
    notes: list[str] = Field(default_factory=list, description="what differs from what was asked for")
    wall_s: float


class PreprocessPlanResult(Result):
    """`sluice preprocess --dry-run`: what would be built."""

    lake_versions: dict[str, int]
    rows: int
    shards: int
    shards_to_build: int
    atoms: int = Field(description="in the shards to build")


class TrainResult(Result):
    """`sluice train`."""

    model: str | None = Field(description="registered name")
    model_version: str | None
    checkpoint: str
    sha256: str
    run_id: str | None
    graph_set_id: str
    epochs: int
    steps: int
    metrics: dict[str, Any]
    unlearnt: list[str] = Field(
        default_factory=list,
        description="validation errors that are no lower than those of reference energies, zero forces and means",
    )
    cpu_s: float
    wall_s: float


class TrainPlanResult(Result):
    """`sluice train --dry-run`."""

    config: dict[str, Any]
    cutoff: float
    remarks: list[str]


class EvaluateResult(Metrics, Result):
    """`sluice evaluate`: all errors; `energy_rmse_mev` is per structure."""

    model: str
    data: str
    skipped: dict[str, int] = Field(default_factory=dict, description="reason -> structures that were not evaluated")


class ModelRow(Result):
    """One version of a registered model."""

    name: str
    version: str
    aliases: list[str]
    sha256: str | None
    judged_on: Split | None = Field(description="the split of metrics")
    metrics: dict[str, float]
    created: str


class ModelsResult(Result):
    """`sluice models ls` and `show`."""

    models: list[ModelRow]


class RelaxResult(Result):
    """`sluice relax`."""

    model: str
    n_structures: int
    converged: int
    failed: int
    reasons: dict[str, int] = Field(default_factory=dict, description="why structures did not converge or failed")
    output: str
    wall_s: float


class LostPathRow(Result):
    """One structure that dynamics gave up; `path` is its place in the file, from 0."""

    path: int
    failure: str
    reason: str


class DynamicsResult(Result):
    """`sluice md`."""

    model: str
    n_structures: int
    n_frames: int
    failed: int = Field(description="structures that were given up; their frames until then are written")
    reasons: dict[str, int] = Field(default_factory=dict, description="why structures were given up")
    lost: list[LostPathRow] = Field(default_factory=list, description="each of them, with its reason")
    output: str
    wall_s: float


class FunnelStage(Result):
    """One stage of a campaign: n_in = n_out + the sum of rejected."""

    stage: str
    n_in: int
    n_out: int
    rejected: dict[str, int]


class ShardCounts(Result):
    """How many shards there are, and how they stand."""

    total: int
    done: int
    failed: int


class KnownCompoundRow(Result):
    """What a campaign made of a known compound."""

    formula: str
    prototype: str | None
    found: bool = Field(description="on the shortlist")
    rank: int | None
    hull_distance: float | None = Field(description="eV/atom")
    comment: str


class CampaignResult(Result):
    """`sluice screen`, `campaigns show`, `rerun`."""

    campaign: str
    state: str
    n_candidates: int
    funnel: list[FunnelStage]
    n_shortlist: int
    model: str
    model_version: str | None
    model_sha256: str
    lake_versions: dict[str, int]
    candidate_datasets: list[str] = Field(default_factory=list, description="NAME@VERSION")
    shards: ShardCounts
    cost: dict[str, float]
    paths: dict[str, str]
    computed: int = Field(default=0, description="structures that the last run relaxed")
    reused: int = Field(default=0, description="structures that earlier runs had relaxed")
    known: list[KnownCompoundRow] = []
    warnings: list[str] = []


class CampaignPlanResult(Result):
    """`sluice screen --dry-run`: what would be computed."""

    campaign: str
    model: str
    model_version: str | None
    model_sha256: str
    theory: str
    lake_versions: dict[str, int]
    candidate_datasets: list[str] = Field(default_factory=list, description="NAME@VERSION")
    n_candidates: int
    funnel: list[FunnelStage]
    structures: int = Field(description="to relax, references of a model's hull included")
    atoms: int
    shards: int
    hull_missing: list[str] = Field(description="elements without a reference energy")


class CampaignsResult(Result):
    """`sluice campaigns ls`."""

    campaigns: list[CampaignResult]


class ShardResult(Result):
    """`sluice shard`."""

    campaign: str
    shard: int
    structures: int
    computed: int
    reused: int
    failed: int
    path: str


class LabelResult(Result):
    """`sluice label`. jobs = done + failed; of all frames in the journal the lake took `kept`."""

    engine: str
    theory: str
    jobs: int
    done: int
    failed: int
    reused: int
    frames: int
    reasons: dict[str, int]
    cpu_s: float
    dataset: str | None
    version: int | None
    kept: int
    duplicates: int = Field(description="frames that the lake had already")
    quarantined: int
    quarantine_reasons: dict[str, int]


class LabelPlanResult(Result):
    """`sluice label --dry-run`: what would be computed."""

    engine: str
    theory: str
    structures: int
    to_do: int
    journal: str


class BenchPlanResult(Result):
    """`sluice bench ... --dry-run`: the runs that are left."""

    runs: list[str]


class DemoResult(Result):
    """`sluice demo`."""

    seconds: dict[str, float]
    ingest: IngestResult
    train: TrainResult
    evaluate: EvaluateResult
    campaign: CampaignResult
    truth: dict[str, dict[str, Any]] = Field(
        description="scores against DFT: `relaxed` by the model from where DFT started, and `at_dft_geometry`"
    )
    report: str


class DeploymentRow(Result):
    """One deployment."""

    name: str = Field(description="FLOW/NAME, as Prefect writes it")
    id: str | None
    entrypoint: str
    tags: list[str]
    cron: str | None
    timezone: str
    scheduled: bool = Field(description="whether its schedule is switched on")
    lacking: list[str] = Field(description="parameters without which it cannot run by itself")
    parameters: dict[str, Any]


class DeployResult(Result):
    """`sluice deploy`. `server` is null where nothing was created."""

    server: str | None
    work_pool: str
    deployments: list[DeploymentRow]
    automations: list[str]


class ServiceRow(Result):
    """One standing service."""

    name: str
    health: str = Field(description="healthy, unhealthy (runs, but does not answer) or ended")
    url: str
    version: str | None
    pid: int | None
    processes: int = Field(description="itself and its descendants")
    memory_mb: float = Field(description="resident, shared pages counted in each process")
    started_at: str
    log: str
    detail: str | None = Field(description="what is not well")


class UpResult(Result):
    """`sluice up`."""

    home: str
    services: list[ServiceRow]
    started: list[str] = Field(description="by this call")
    seconds: float


class DownResult(Result):
    """`sluice down`."""

    stopped: list[str]
    processes: int


class QueueRow(Result):
    """One queue of a Prefect work pool."""

    pool: str
    queue: str
    paused: bool
    limit: int | None
    scheduled: int
    late: int
    running: int


class DaskRow(Result):
    """The Dask cluster."""

    workers: int
    threads: int
    processing: int
    waiting: int
    clients: int


class FlowRunRow(Result):
    """One flow run."""

    id: str
    flow: str
    name: str
    state: str
    created: str = Field(description="when it began, UTC")
    seconds: float
    deployment_id: str | None


class StatusResult(Result):
    """`sluice status`. Without services, all lists are empty."""

    home: str
    services: list[ServiceRow]
    queues: list[QueueRow] = []
    dask: DaskRow | None = None
    runs: list[FlowRunRow] = []
    notes: list[str] = Field(default=[], description="what could not be asked")
