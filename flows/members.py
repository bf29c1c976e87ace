"""The members of a training: one network in this process, or a committee on Dask workers, each resumable by itself."""

from __future__ import annotations

import json
import math
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.progress import TrainingBars, progress_to_file, read_progress
from flows.settings import Home
from gnn.errors import SluiceError
from gnn.files import digest, file_sha256
from gnn.machine import threads_of_torch
from gnn.training.config import TrainConfig, make_config

if TYPE_CHECKING:
    from flows.shards import ShardJob
    from gnn.graphs.loader import GraphData
    from gnn.training.finetune import Start
    from gnn.training.outcome import TrainOutcome
    from gnn.training.resolve import Recipe
    from gnn.training.tracker import Tracker

STAGE, STAGE_VERSION = "train-member", 1
POLL_S = 0.5
JOB_FIELDS = ("config", "home", "graphs_root", "graph_folder", "run_folder")
CURVES_NAME, STATE_NAME = "curves.jsonl", "state.json"
one_at_a_time = threading.Lock()
"""Held by the member that this process trains: its CPU clock and torch's random numbers are not to be shared."""


@dataclass(frozen=True)
class Member:
    """One network of a committee: what it is trained with, and where its state lies."""

    index: int
    recipe: Recipe
    folder: Path


@dataclass(frozen=True)
class Plan:
    """A whole training, decided: data, members, the folder of the checkpoint, graph sets of what it starts from."""

    config: TrainConfig
    data: GraphData
    graph_folder: Path
    members: list[Member]
    checkpoint: Path
    before: tuple[str, ...] = ()


def make_plan(config: TrainConfig, home: Home, graph_folder: Path, cluster: str) -> Plan:
    """Decide everything that can be decided before the first step."""
    from gnn.graphs.loader import GraphData
    from gnn.training.resolve import resolve

    data = GraphData(home.graphs, graph_folder)
    start = start_of(config.init, home)
    members = []
    for k, each in enumerate(member_configs(config, cores(), cluster)):
        recipe = resolve(each, data.graph_set, start, data)
        members.append(Member(k, recipe, home.models / "runs" / recipe.header[:16]))
    key = digest([member.recipe.header for member in members])
    before = () if start is None else start.graph_sets
    return Plan(config, data, graph_folder, members, home.models / "checkpoints" / key[:16], before)


def member_configs(config: TrainConfig, n_cores: int, cluster: str) -> list[TrainConfig]:
    """One configuration a member: its seed, its part of the wall time where not all train at once, its threads."""
    together = {"local": min(config.committee, n_devices(config, n_cores)), "threads": 1}.get(cluster, config.committee)
    rounds = math.ceil(config.committee / together)
    changes: dict[str, Any] = {"committee": 1}
    if config.minutes is not None and config.clock == "wall":
        changes["minutes"] = config.minutes / rounds
    if config.threads is None and config.committee > 1:
        changes["threads"] = max(1, n_cores // together)
    return [config.model_copy(update=changes | {"seed": config.seed + k}) for k in range(config.committee)]


def n_devices(config: TrainConfig, n_cores: int) -> int:
    """How many members a local cluster has a place for: one a GPU where there are any to train on, else one a core."""
    from flows.gpus import local_gpus

    return (0 if config.device == "cpu" else len(local_gpus())) or n_cores


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def start_of(init: str | None, home: Home) -> Start | None:
    """Weights to start from, of a folder or a registered model; of a committee its first member."""
    if init is None:
        return None
    from flows.registry import resolve as find_model
    from gnn.training.checkpoint import read_checkpoint
    from gnn.training.finetune import Start

    manifest, models = read_checkpoint(find_model(init, home))
    weights = {name: value.detach() for name, value in models[0].named_parameters()}
    sources, graph_sets = manifest.data.reference_sources, tuple(manifest.data.graph_sets)
    return Start(manifest.model, manifest.sha256, weights, sources, graph_sets)


def train_members(plan: Plan, home: Home, cluster: str, tracker: Tracker, show: bool) -> list[TrainOutcome]:
    """Train one network here, or a committee on the Dask workers, each member in its own process."""
    with TrainingBars(len(plan.members), show) as bars:
        if plan.config.devices > 1:
            return [train_together(plan, home, tracker, bars)]
        if len(plan.members) == 1:
            return [train_here(plan.members[0], plan.data, tracker, bars)]
        return train_on_workers(plan, home, cluster, tracker, bars)


def train_here(member: Member, data: GraphData, tracker: Tracker, bars: TrainingBars) -> TrainOutcome:
    """Train in this process, so that Ctrl-C is answered at once and the curves are logged as they come."""
    from gnn.potentials.allocator import keep_freed_memory
    from gnn.training.loop import train as train_one

    keep_freed_memory()
    return train_one(member.recipe, data, member.folder, tracker, lambda progress: bars.update(0, progress))


def train_together(plan: Plan, home: Home, tracker: Tracker, bars: TrainingBars) -> TrainOutcome:
    """Train the one network in several processes, each with a device of its own."""
    from flows.processes import run_processes
    from gnn.training.tracker import CurveFile

    member = plan.members[0]
    job = dict(zip(JOB_FIELDS, member_arguments(plan, member, home), strict=True))
    with watched(plan.members, bars):
        run_processes(job, member.folder, plan.config.devices)
    CurveFile(member.folder / CURVES_NAME).replay(tracker, "")
    return restored(member, plan)


def train_on_workers(plan: Plan, home: Home, cluster: str, tracker: Tracker, bars: TrainingBars) -> list[TrainOutcome]:
    """Train the members as parallel tasks; a member that fails does not stop the others."""
    from flows.cluster import dask_client
    from flows.gpus import gpu_slots
    from flows.shards import raise_if_failed, run_shards
    from gnn.training.tracker import CurveFile

    workers = min(len(plan.members), cores()) if cluster == "local" else None
    with dask_client(cluster, workers) as client, watched(plan.members, bars):
        on_gpu = plan.config.device != "cpu" and gpu_slots(client) > 0
        jobs = [member_job(plan, member, home, on_gpu) for member in plan.members]
        raise_if_failed("train", run_shards(STAGE, STAGE_VERSION, jobs, client, home))
    for member in plan.members:
        CurveFile(member.folder / CURVES_NAME).replay(tracker, f"member_{member.index}/")
    return [restored(member, plan) for member in plan.members]


def member_job(plan: Plan, member: Member, home: Home, on_gpu: bool) -> ShardJob:
    """The task of a member; with `on_gpu`, for a worker that has a GPU."""
    from flows.batch_cluster import GPU
    from flows.shards import ShardJob

    return ShardJob(
        index=member.index,
        inputs={"header": member.recipe.header},
        function=train_member,
        args=member_arguments(plan, member, home),
        output=member.folder / STATE_NAME,
        resources={GPU: 1} if on_gpu else {},
    )


def member_arguments(plan: Plan, member: Member, home: Home) -> tuple[str, ...]:
    """What a worker needs to train a member: texts and paths."""
    folders = (home.root, home.graphs, plan.graph_folder, member.folder)
    return (member.recipe.config.model_dump_json(), *(str(folder.resolve()) for folder in folders))


def train_member(config: str, home: str, graphs_root: str, graph_folder: str, run_folder: str) -> dict[str, Any]:
    """The body of a member's task, in a worker: train, and name the state it left by its sha256."""
    outcome = train_in_folder(config, home, graphs_root, graph_folder, run_folder)
    sha256 = file_sha256(Path(run_folder) / STATE_NAME)
    return {"sha256": sha256, "steps": outcome.steps, "epochs": outcome.epochs}


def train_in_folder(config: str, home: str, graphs_root: str, graph_folder: str, run_folder: str) -> TrainOutcome:
    """Train, given texts and paths, once this process trains nothing else; curves and progress go to files."""
    from gnn.graphs.loader import GraphData
    from gnn.potentials.allocator import keep_freed_memory
    from gnn.training.loop import train as train_one
    from gnn.training.resolve import resolve
    from gnn.training.tracker import CurveFile

    checked = make_config(json.loads(config))
    keep_freed_memory()
    data = GraphData(Path(graphs_root), Path(graph_folder))
    folder = Path(run_folder)
    folder.mkdir(parents=True, exist_ok=True)
    with one_at_a_time, threads_of_torch(checked.threads):
        recipe = resolve(checked, data.graph_set, start_of(checked.init, Home(Path(home))), data)
        return train_one(recipe, data, folder, CurveFile(folder / CURVES_NAME), progress_to_file(folder))


@contextmanager
def watched(members: Sequence[Member], bars: TrainingBars) -> Iterator[None]:
    """While it is open, a thread shows the progress that the members leave in their folders."""
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(POLL_S):
            for member in members:
                if (progress := read_progress(member.folder)) is not None:
                    bars.update(member.index, progress)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def restored(member: Member, plan: Plan) -> TrainOutcome:
    """The outcome of a finished member, from its state."""
    from gnn.training.loop import train as train_one

    outcome = train_one(member.recipe, plan.data, member.folder)
    if not outcome.reused:
        raise SluiceError(f"member {member.index} in {member.folder} was not finished")
    return outcome
