"""The flow `train`: from lake data sets to a checkpoint that is evaluated, tracked and registered."""

from __future__ import annotations

import json
import math
import os
import resource
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prefect import flow

from flows.cli.results import TrainPlanResult, TrainResult
from flows.progress import TrainingBars, progress_to_file, read_progress
from flows.settings import Home
from flows.tracking import MlflowTracker, code_version, environment
from gnn.errors import InputError, SluiceError
from gnn.files import digest, file_sha256, write_text
from gnn.training.config import TrainConfig, make_config

if TYPE_CHECKING:
    from gnn.graphs.loader import GraphData
    from gnn.training.checkpoint import CheckpointManifest
    from gnn.training.evaluation import Evaluation
    from gnn.training.loop import TrainOutcome
    from gnn.training.resolve import Recipe, Start

STAGE_VERSION = 1
POLL_S = 0.5
RUN_NAME = "tracking.json"


@dataclass(frozen=True)
class Member:
    """One network of a committee: what it is trained with, and where its state lies."""

    index: int
    recipe: Recipe
    folder: Path


@dataclass(frozen=True)
class Plan:
    """A whole training, decided: data, members, the folder of the checkpoint."""

    config: TrainConfig
    data: GraphData
    graph_folder: Path
    members: list[Member]
    checkpoint: Path
    start: Start | None


@flow(name="train", persist_result=False, validate_parameters=False)
def train(config: TrainConfig, home: Home, cluster: str = "local", show: bool = True) -> TrainResult:
    """Preprocess what is missing, train every member, evaluate, write the checkpoint, track it, register it.

    The same call continues what was interrupted, and repeats nothing that is finished.

    Raises:
        InputError: the configuration or the data cannot be used.
        SluiceError: a training failed.
    """
    started = time.monotonic()
    plan = make_plan(config, home, preprocessed(config, home, cluster, show), cluster)
    tell(plan, show)
    finished = finished_checkpoint(plan)
    tracker = None if finished else start_tracker(plan, home)
    if tracker is None:
        outcomes = [restored(member, plan) for member in plan.members]
        manifest = finished or write_plan(plan, outcomes, {}, 0.0)
    else:
        with tracker.running():
            outcomes = train_members(plan, home, cluster, tracker, show)
            manifest = conclude(plan, outcomes, tracker, time.monotonic() - started)
    run_id = tracker.run_id if tracker else known_run(plan)
    version = register_checkpoint(plan, home, run_id)
    return result_of(plan, home, manifest, outcomes, run_id, version, time.monotonic() - started)


# ---- before


def preprocessed(config: TrainConfig, home: Home, cluster: str, show: bool) -> Path:
    """The folder of the graph set that the configuration asks for; built where it is missing.

    Raises:
        InputError: no data set is named.
    """
    from flows.preprocess import preprocess
    from gnn.training.resolve import cutoff_of

    data = config.data
    if not data.datasets:
        raise InputError("no data: give --dataset NAME or `datasets = [...]` under [data] in the configuration")
    found = preprocess(
        data.datasets,
        home,
        cutoff=cutoff_of(config),
        split=data.split,
        split_by=data.split_by,
        seed=data.split_seed,
        outliers=data.outliers,
        cluster=cluster,
        show=show,
    )
    return home.absolute(found.graph_set)


def make_plan(config: TrainConfig, home: Home, graph_folder: Path, cluster: str) -> Plan:
    """Decide everything that can be decided before the first step."""
    from gnn.graphs.loader import GraphData
    from gnn.training.resolve import resolve

    data = GraphData(home.graphs, graph_folder)
    start = start_of(config.init, home)
    members = []
    for k, each in enumerate(member_configs(config, cores(), cluster)):
        recipe = resolve(each, data.graph_set, start)
        members.append(Member(k, recipe, home.models / "runs" / recipe.header[:16]))
    key = digest([member.recipe.header for member in members])
    return Plan(config, data, graph_folder, members, home.models / "checkpoints" / key[:16], start)


def member_configs(config: TrainConfig, n_cores: int, cluster: str) -> list[TrainConfig]:
    """One configuration a member: its seed, its part of the time where cores are fewer than members, its threads."""
    together = min(config.committee, n_cores) if cluster == "local" else config.committee
    rounds = math.ceil(config.committee / together)
    changes: dict[str, Any] = {"committee": 1}
    if config.minutes is not None:
        changes["minutes"] = config.minutes / rounds
    if config.threads is None and config.committee > 1:
        changes["threads"] = max(1, n_cores // together)
    return [config.model_copy(update=changes | {"seed": config.seed + k}) for k in range(config.committee)]


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def start_of(init: str | None, home: Home) -> Start | None:
    """Weights to start from, of a folder or a registered model; of a committee its first member."""
    if init is None:
        return None
    from flows.registry import resolve as find_model
    from gnn.training.checkpoint import read_checkpoint
    from gnn.training.resolve import Start

    manifest, models = read_checkpoint(find_model(init, home))
    weights = {name: value.detach() for name, value in models[0].named_parameters()}
    return Start(manifest.model, manifest.sha256, lambda _: weights)


def tell(plan: Plan, show: bool) -> None:
    """Say what was taken from the data, and what is there already."""
    from flows.cli.output import say

    if not show:
        return
    for remark in plan.members[0].recipe.remarks:
        say(remark)


# ---- during


def start_tracker(plan: Plan, home: Home) -> MlflowTracker:
    """The MLflow run of this training: the one it began with where it is resumed."""
    name = plan.config.register_as or "-".join(d.split("@")[0] for d in plan.config.data.datasets)
    tags = {
        "code": code_version(),
        "graph_set_id": plan.data.graph_set.graph_set_id,
        "data": ", ".join(f"{i.dataset}@{i.version}" for i in plan.data.graph_set.inputs),
    }
    tracker = MlflowTracker.start(home, plan.config.experiment, name, tags, known_run(plan))
    write_text(run_file(plan), json.dumps({"run_id": tracker.run_id}))
    recipe = plan.members[0].recipe
    tracker.params({**plan.config.model_dump(mode="json"), "resolved": resolved_params(recipe)})
    tracker.text(environment(), "environment.txt")
    tracker.text(plan.config.model_dump_json(indent=1), "config.json")
    return tracker


def resolved_params(recipe: Recipe) -> dict[str, Any]:
    """What the data decided, as parameters."""
    architecture = recipe.model.model_dump(mode="json", exclude={"references", "properties", "property_scales"})
    return {"model": architecture, "lr": recipe.lr, "max_atoms": recipe.max_atoms}


def run_file(plan: Plan) -> Path:
    """Where the id of the MLflow run is remembered."""
    return plan.members[0].folder / RUN_NAME


def known_run(plan: Plan) -> str | None:
    """The MLflow run that this training began with; None where it did not begin yet."""
    path = run_file(plan)
    return str(json.loads(path.read_text(encoding="utf-8"))["run_id"]) if path.is_file() else None


def train_members(plan: Plan, home: Home, cluster: str, tracker: MlflowTracker, show: bool) -> list[TrainOutcome]:
    """Train one network here, or a committee on the Dask workers, each member in its own process."""
    with TrainingBars(len(plan.members), show) as bars:
        if len(plan.members) == 1:
            return [train_here(plan.members[0], plan.data, tracker, bars)]
        return train_on_workers(plan, home, cluster, tracker, bars)


def train_here(member: Member, data: GraphData, tracker: MlflowTracker, bars: TrainingBars) -> TrainOutcome:
    """Train in this process, so that Ctrl-C is answered at once and the curves are logged as they come."""
    from gnn.training.loop import train as train_one

    set_threads(member.recipe.config.threads)
    return train_one(member.recipe, data, member.folder, tracker, lambda progress: bars.update(0, progress))


def set_threads(threads: int | None) -> None:
    """Let torch use so many threads (None leaves its own choice), and glibc keep what it frees."""
    import torch

    from gnn.potentials.allocator import keep_freed_memory

    keep_freed_memory()
    if threads is not None:
        torch.set_num_threads(threads)


def train_on_workers(
    plan: Plan, home: Home, cluster: str, tracker: MlflowTracker, bars: TrainingBars
) -> list[TrainOutcome]:
    """Train the members as parallel tasks; a member that fails does not stop the others."""
    from flows.cluster import dask_client
    from flows.shards import ShardJob, raise_if_failed, run_shards
    from gnn.training.tracker import CurveFile

    jobs = [
        ShardJob(
            index=member.index,
            inputs={"header": member.recipe.header},
            function=train_member,
            args=member_arguments(plan, member, home),
            output=member.folder / "state.json",
        )
        for member in plan.members
    ]
    workers = min(len(jobs), cores()) if cluster == "local" else None
    with dask_client(cluster, workers) as client, watched(plan.members, bars):
        raise_if_failed("train", run_shards("train-member", STAGE_VERSION, jobs, client, home))
    for member in plan.members:
        CurveFile(member.folder / "curves.jsonl").replay(tracker, f"member_{member.index}/")
    return [restored(member, plan) for member in plan.members]


def member_arguments(plan: Plan, member: Member, home: Home) -> tuple[str, ...]:
    """What a worker needs to train a member: texts and paths."""
    folders = (home.root, home.graphs, plan.graph_folder, member.folder)
    return (member.recipe.config.model_dump_json(), *(str(folder.resolve()) for folder in folders))


def train_member(config: str, home: str, graphs_root: str, graph_folder: str, run_folder: str) -> dict[str, Any]:
    """The body of a member's task, in a worker: train, and name the state it left by its sha256."""
    from gnn.graphs.loader import GraphData
    from gnn.training.loop import train as train_one
    from gnn.training.resolve import resolve
    from gnn.training.tracker import CurveFile

    checked = make_config(json.loads(config))
    set_threads(checked.threads)
    data = GraphData(Path(graphs_root), Path(graph_folder))
    recipe = resolve(checked, data.graph_set, start_of(checked.init, Home(Path(home))))
    folder = Path(run_folder)
    folder.mkdir(parents=True, exist_ok=True)
    outcome = train_one(recipe, data, folder, CurveFile(folder / "curves.jsonl"), progress_to_file(folder))
    return {"sha256": file_sha256(folder / "state.json"), "steps": outcome.steps, "epochs": outcome.epochs}


class watched:  # noqa: N801
    """While it is open, the members' progress files are shown."""

    def __init__(self, members: Sequence[Member], bars: TrainingBars) -> None:
        self.members, self.bars = members, bars
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> None:
        self.thread.start()

    def __exit__(self, *_: object) -> None:
        self.ended.set()
        self.thread.join()

    def _watch(self) -> None:
        while not self.ended.wait(POLL_S):
            for member in self.members:
                if (progress := read_progress(member.folder)) is not None:
                    self.bars.update(member.index, progress)


# ---- after


def restored(member: Member, plan: Plan) -> TrainOutcome:
    """The outcome of a finished member, from its state."""
    from gnn.training.loop import train as train_one

    outcome = train_one(member.recipe, plan.data, member.folder)
    if not outcome.reused:
        raise SluiceError(f"member {member.index} in {member.folder} was not finished")
    return outcome


def finished_checkpoint(plan: Plan) -> CheckpointManifest | None:
    """The checkpoint of this very training, if it was written before."""
    from gnn.training.checkpoint import MANIFEST_NAME, read_checkpoint
    from gnn.training.state import read_state

    if not (plan.checkpoint / MANIFEST_NAME).is_file():
        return None
    states = [read_state(member.folder) for member in plan.members]
    if not all(state is not None and state.finished for state in states):
        return None
    return read_checkpoint(plan.checkpoint)[0]


def conclude(plan: Plan, outcomes: list[TrainOutcome], tracker: MlflowTracker, wall_s: float) -> CheckpointManifest:
    """Evaluate, draw, write the checkpoint, and tell the tracker."""
    evaluations = evaluate_splits(plan, outcomes)
    manifest = write_plan(plan, outcomes, evaluations, wall_s)
    last = max(outcome.steps for outcome in outcomes)
    for split, evaluation in evaluations.items():
        tracker.metrics({f"{split}_final/{name}": value for name, value in evaluation.headline().items()}, last)
    tracker.metrics({f"cost/{name}": value for name, value in manifest.cost.items()}, last)
    draw(plan, evaluations, tracker)
    tracker.artifact(plan.checkpoint, "checkpoint")
    return manifest


def evaluate_splits(plan: Plan, outcomes: list[TrainOutcome]) -> dict[str, Evaluation]:
    """Errors of the committee's mean on the validation and the test split."""
    from gnn.training.evaluation import evaluate
    from gnn.training.optimiser import choose_device

    device = choose_device(plan.config.device)
    models = [outcome.model.to(device) for outcome in outcomes]
    max_atoms = plan.members[0].recipe.max_atoms * plan.config.batch.valid_factor
    counts = plan.data.graph_set.split_counts
    return {
        split: evaluate(models, plan.data.batches(split, max_atoms, shuffle=False), device)
        for split in ("valid", "test")
        if counts.get(split, 0)
    }


def write_plan(
    plan: Plan, outcomes: list[TrainOutcome], evaluations: dict[str, Evaluation], wall_s: float
) -> CheckpointManifest:
    """The checkpoint of all members."""
    from gnn.training.checkpoint import write_checkpoint

    return write_checkpoint(
        plan.checkpoint,
        [outcome.model.cpu() for outcome in outcomes],
        name=plan.config.register_as or plan.data.graph_set.inputs[0].dataset,
        graph_set=plan.data.graph_set,
        metrics={split: e.metrics.model_dump(exclude_none=True) for split, e in evaluations.items()},
        training=plan.config.model_dump(mode="json", exclude={"device", "threads"}),
        cost=cost_of(outcomes, wall_s),
        calibration=calibrated(evaluations.get("valid"), len(outcomes)),
        code=code_version(),
    )


def calibrated(valid: Evaluation | None, members: int) -> Any:
    """How the spread of a committee scales to its error; None for one network or without validation energies."""
    from gnn.training.calibration import calibrate

    return calibrate(valid.parity) if valid is not None and members > 1 else None


def cost_of(outcomes: list[TrainOutcome], wall_s: float) -> dict[str, float]:
    """CPU and wall seconds, peak memory of this process, and how much was done."""
    return {
        "cpu_s": round(sum(outcome.cpu_s for outcome in outcomes), 2),
        "wall_s": round(max(wall_s, max(outcome.elapsed_s for outcome in outcomes)), 2),
        "training_wall_s": round(max(outcome.elapsed_s for outcome in outcomes), 2),
        "peak_memory_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
        "steps": float(sum(outcome.steps for outcome in outcomes)),
        "structures_seen": float(sum(outcome.structures for outcome in outcomes)),
    }


def draw(plan: Plan, evaluations: dict[str, Evaluation], tracker: MlflowTracker) -> None:
    """Parity plots of every split, kept beside the run and given to the tracker."""
    from flows.plots import parity_plot

    folder = plan.members[0].folder / "plots"
    for split, evaluation in evaluations.items():
        for path in parity_plot(evaluation.parity, folder, split):
            tracker.artifact(path, "parity")


def register_checkpoint(plan: Plan, home: Home, run_id: str | None) -> str | None:
    """Register the checkpoint where a name was given; the version."""
    if plan.config.register_as is None:
        return None
    from flows.registry import register

    return register(plan.checkpoint, plan.config.register_as, home, run_id, plan.config.experiment).version


def result_of(
    plan: Plan,
    home: Home,
    manifest: CheckpointManifest,
    outcomes: list[TrainOutcome],
    run_id: str | None,
    version: str | None,
    wall_s: float,
) -> TrainResult:
    """What `sluice train` prints."""
    return TrainResult(
        model=plan.config.register_as,
        model_version=version,
        checkpoint=home.relative(plan.checkpoint),
        sha256=manifest.sha256,
        run_id=run_id,
        graph_set_id=manifest.graph_set_id,
        epochs=max(outcome.epochs for outcome in outcomes),
        steps=sum(outcome.steps for outcome in outcomes),
        metrics=manifest.metrics,
        cpu_s=manifest.cost["cpu_s"],
        wall_s=round(wall_s, 2),
    )


def describe_plan(config: TrainConfig, home: Home) -> TrainPlanResult:
    """What a training would do, as far as it can be said without preprocessing: for `--dry-run`."""
    from gnn.lake.reference import parse_reference
    from gnn.lake.table import Lake
    from gnn.training.resolve import cutoff_of

    lake = Lake(home.lake)
    known = lake.datasets()
    remarks = []
    for reference in config.data.datasets:
        name, version = parse_reference(reference)
        if name not in known:
            raise InputError(f"no data set {name!r} in the lake, which holds: {', '.join(known) or 'nothing yet'}")
        remarks.append(f"would use {name}@{lake.version(name) if version is None else version}")
    budget = f"{config.minutes:g} minutes" if config.minutes else f"{config.epochs} epochs"
    remarks.append(f"would train {config.committee} network(s), preset {config.preset}, for {budget}")
    remarks.append(f"graphs with a cutoff of {cutoff_of(config):g} Å; registered as {config.register_as or 'nothing'}")
    return TrainPlanResult(config=config.model_dump(mode="json"), cutoff=cutoff_of(config), remarks=remarks)
