"""The flow `label`: structures through an engine into the lake, each at most once."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prefect import flow, task
from prefect.cache_policies import NO_CACHE

from flows.cli.results import LabelResult
from flows.events import announce_growth
from flows.settings import Home
from gnn.dft.engine import Engine, JobKind, RelaxSettings
from gnn.dft.engines import make_engine
from gnn.dft.inputs import gpaw_settings
from gnn.dft.label import LabelJob, LabelSummary, forget_failures, journal_records, label_journal
from gnn.dft.label import label as label_jobs
from gnn.dft.sources import Ranks, chosen, read_wanted
from gnn.errors import InputError
from gnn.files import Journal
from gnn.lake.reference import check_name
from gnn.lake.table import Appended, Lake
from gnn.screening.manifest import MANIFEST_NAME, CampaignManifest
from gnn.structures.cards import generic_card

RELAX_SETTINGS = "relax"
OnResult = Callable[[dict[str, Any]], None]
"""Called with each journal record as it is written."""


@dataclass(frozen=True)
class LabelRequest:
    """What to label and how. `settings` are the engine's; those of a relaxation stand under `relax`."""

    source: str
    engine: str
    dataset: str | None = None
    kind: JobKind = "static"
    ranks: Sequence[Ranks] = ()
    limit: int | None = None
    workers: int = 1
    settings: dict[str, Any] = field(default_factory=dict)
    retry_failed: bool = False

    @property
    def lake_dataset(self) -> str:
        """The data set that takes the results."""
        return self.dataset or f"labels-{self.engine}"


@dataclass(frozen=True)
class Plan:
    """A labelling, decided: its jobs, the engine's maker, and where each result is kept."""

    jobs: list[LabelJob]
    engine: Callable[[], Engine]
    journal: Journal
    relax: RelaxSettings
    theory: str
    retry_failed: bool = False

    @property
    def to_do(self) -> int:
        """Structures that the journal does not hold, or holds as failures that are tried again."""
        records = self.journal.read_sound()
        known = {record["job_id"] for record in records if record["status"] == "done" or not self.retry_failed}
        return len({job.job_id for job in self.jobs} - known)


@flow(name="label", persist_result=False, validate_parameters=False)
def label(request: LabelRequest, home: Home, on_result: OnResult | None = None) -> LabelResult:
    """Label what is not labelled yet, then append every result of the journal to the lake.

    Raises:
        InputError: the structures, the engine or its settings cannot be used.
    """
    plan = make_plan(request, home)
    if request.retry_failed:
        forget_failures(plan.journal, [job.job_id for job in plan.jobs])
    summary = run_engine(plan, request.workers, on_result or _ignore)
    appended = append_labels(plan, request, home)
    return LabelResult(
        engine=request.engine,
        theory=plan.theory,
        jobs=summary.n_jobs,
        done=summary.done,
        failed=summary.failed,
        reused=summary.reused,
        frames=summary.frames,
        reasons=summary.reasons,
        cpu_s=summary.cpu_s,
        dataset=None if appended.version is None else request.lake_dataset,
        version=appended.version,
        kept=appended.kept,
        duplicates=appended.duplicates,
        quarantined=appended.quarantined,
        quarantine_reasons=appended.reasons,
    )


def _ignore(_: dict[str, Any]) -> None:
    """Nobody wants to hear."""


@task(name="run-engine", cache_policy=NO_CACHE)
def run_engine(plan: Plan, workers: int, on_result: OnResult) -> LabelSummary:
    """Run the jobs that the journal does not hold."""
    return label_jobs(plan.jobs, plan.engine, plan.journal.path, plan.relax, workers, on_result)


@task(name="append-labels", cache_policy=NO_CACHE)
def append_labels(plan: Plan, request: LabelRequest, home: Home) -> Appended:
    """Append what the journal holds; what the lake has already is counted as duplicate."""
    dataset = request.lake_dataset
    card = generic_card(dataset).model_copy(update={"description": f"labelled here with {request.engine}"})
    appended = Lake(home.lake).append(dataset, journal_records(plan.journal, dataset), card)
    if appended.kept:
        announce_growth(dataset, appended.version, appended.content_digest, appended.kept)
    return appended


def make_plan(request: LabelRequest, home: Home) -> Plan:
    """Read the structures and choose the level of theory; nothing is computed.

    Raises:
        InputError: the structures, the data set's name, the engine or its settings cannot be used.
    """
    check_name(request.lake_dataset)
    path = find_source(request.source, home)
    wanted = chosen(read_wanted(path), request.ranks, request.limit)
    settings = dict(request.settings)
    relax = relax_settings(settings.pop(RELAX_SETTINGS, {}))
    maker = make_engine(request.engine, with_campaign_theory(request.engine, settings, path))
    engine = maker()
    theory = engine.theory
    engine.close()
    journal = label_journal(journal_path(request, theory, relax, home), request.engine, theory)
    jobs = [structure.job(request.kind) for structure in wanted]
    return Plan(jobs, maker, journal, relax, theory, request.retry_failed)


def find_source(source: str, home: Home) -> Path:
    """A file or folder of that path, else the campaign of that name.

    Raises:
        InputError: there is neither.
    """
    path = Path(source).expanduser()
    if path.exists():
        return path
    campaign = home.campaigns / source
    if campaign.is_dir():
        return campaign
    folder = home.campaigns
    known = ", ".join(sorted(item.name for item in folder.iterdir() if item.is_dir())) if folder.is_dir() else ""
    raise InputError(f"there is no file and no campaign {source!r}; campaigns here: {known or 'none'}")


def with_campaign_theory(engine: str, settings: dict[str, Any], path: Path) -> dict[str, Any]:
    """GPAW's settings start from the theory of the campaign's model, so that labels compare with predictions."""
    if engine != "gpaw" or "theory" in settings or not (path / MANIFEST_NAME).is_file():
        return settings
    theory = CampaignManifest.read(path).model.theory
    return settings if gpaw_settings(theory) is None else {"theory": theory, **settings}


def relax_settings(values: Any) -> RelaxSettings:
    """Relaxation settings of `--set relax.NAME=VALUE`.

    Raises:
        InputError: an unknown name, or a value that is no positive number, of steps no whole one.
    """
    known = {"fmax": float, "max_steps": int}
    if not isinstance(values, dict) or not set(values) <= set(known):
        raise InputError(f"relax={values!r}: a relaxation takes {', '.join(f'relax.{name}' for name in known)}")
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
            raise InputError(f"relax.{name}={value!r} must be a positive number")
        if known[name](value) != value:
            raise InputError(f"relax.{name}={value!r} must be a whole number")
    return RelaxSettings(**{name: known[name](value) for name, value in values.items()})


def journal_path(request: LabelRequest, theory: str, relax: RelaxSettings, home: Home) -> Path:
    """The journal of a data set, level of theory and way of relaxing: results of other settings are never taken."""
    parts = [request.lake_dataset, theory.replace("/", "_")]
    if request.kind == "relax":
        parts.append(f"relax-f{relax.fmax:g}-n{relax.max_steps}")
    return home.labels / f"{'--'.join(parts)}.jsonl"
