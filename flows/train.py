"""The flow `train`: from lake data sets to a checkpoint that is evaluated, tracked and registered."""

from __future__ import annotations

import json
import resource
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prefect import flow

from flows.cli.results import TrainPlanResult, TrainResult
from flows.members import Plan, make_plan, start_of, train_members
from flows.settings import Home
from flows.tracking import MlflowTracker, code_version, environment
from gnn.errors import InputError
from gnn.files import write_text
from gnn.graphs.graph_set import Split
from gnn.machine import threads_of_torch
from gnn.training.config import TrainConfig

if TYPE_CHECKING:
    import torch

    from gnn.graphs.loader import GraphData
    from gnn.lake.table import Lake
    from gnn.models.config import ModelConfig
    from gnn.training.checkpoint import CheckpointManifest
    from gnn.training.evaluation import Evaluation
    from gnn.training.outcome import TrainOutcome
    from gnn.training.resolve import Recipe
    from gnn.training.state import TrainState
    from gnn.training.uncertainty import Uncertainty

RUN_NAME = "tracking.json"
HELD_OUT: tuple[Split, ...] = ("valid", "test")


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
    manifest = finished_checkpoint(plan)
    if show:
        tell(plan, home, manifest is not None)
    if manifest is None:
        with start_tracker(plan, home).running() as tracker, threads_of_torch(config.threads):
            outcomes = train_members(plan, home, cluster, tracker, show)
            manifest = conclude(plan, outcomes, tracker, time.monotonic() - started)
        note_run(plan, tracker.run_id, concluded=True)
    run_id = known_run(plan)
    version = register_checkpoint(plan, home, run_id)
    return result_of(plan, home, manifest, run_id, version, time.monotonic() - started)


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
        cutoff=cutoff_of(config, initial_model(config.init, home)),
        split=data.split,
        split_by=data.split_by,
        seed=data.split_seed,
        outliers=data.outliers,
        cluster=cluster,
        show=show,
        suite_of=config.register_as,
        train_on_elements=data.train_on_elements,
        helpers=data.helpers,
        helper_share=data.helper_share,
    )
    return home.absolute(found.graph_set)


def initial_model(init: str | None, home: Home) -> ModelConfig | None:
    """The architecture of the model that a training starts from; None where it starts from nothing.

    Raises:
        InputError: there is no such model.
    """
    if init is None:
        return None
    from flows.registry import resolve as find_model
    from gnn.training.checkpoint import read_manifest

    return read_manifest(find_model(init, home)).model


def tell(plan: Plan, home: Home, finished: bool) -> None:
    """Say what was taken from the data, and whether there is anything left to do."""
    from flows.cli.output import say

    graph_set = plan.data.graph_set
    dropped = ", ".join(f"{n} {reason}" for reason, n in graph_set.dropped.items())
    left_out = [f"left out of {graph_set.rows_in} rows: {dropped}"] if dropped else []
    for remark in (*plan.members[0].recipe.remarks, *left_out, *graph_set.notes, *remarks_on_start(plan, home)):
        say(remark)
    if finished:
        say("this very training is finished: nothing to do")


def remarks_on_start(plan: Plan, home: Home) -> list[str]:
    """What the model that a training starts from has learnt of its test split."""
    from flows.learnt import in_splits, n_learnt

    if not plan.before:
        return []
    tested = in_splits(plan.graph_folder, ["test"])
    learnt = n_learnt(tested, plan.before, home)
    if learnt is None:
        return [f"what --init was trained on is not all in {home.graphs}: if it was on test structures, errors flatter"]
    if learnt == 0:
        return []
    return [f"--init was trained on {learnt} of the {len(tested)} test structures: errors on them flatter"]


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
    note_run(plan, tracker.run_id, concluded=False)
    recipe = plan.members[0].recipe
    tracker.params({**plan.config.model_dump(mode="json"), "resolved": resolved_params(recipe)})
    tracker.text(environment(), "environment.txt")
    tracker.text(plan.config.model_dump_json(indent=1), "config.json")
    return tracker


def resolved_params(recipe: Recipe) -> dict[str, Any]:
    """What presets and data decided, as parameters."""
    architecture = recipe.model.model_dump(mode="json", exclude={"references", "properties", "property_scales"})
    return {"model": architecture, **recipe.taken}


def run_file(plan: Plan) -> Path:
    """Where the MLflow run is remembered."""
    return plan.checkpoint.with_name(f"{plan.checkpoint.name}-{RUN_NAME}")


def note_run(plan: Plan, run_id: str, concluded: bool) -> None:
    """Remember the MLflow run, and whether it was told everything."""
    write_text(run_file(plan), json.dumps({"run_id": run_id, "concluded": concluded}))


def noted_run(plan: Plan) -> dict[str, Any]:
    """What is remembered of the MLflow run; nothing where the training did not begin yet."""
    path = run_file(plan)
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else {}


def known_run(plan: Plan) -> str | None:
    """The MLflow run that this training began with; None where it did not begin yet."""
    return noted_run(plan).get("run_id")


# ---- after


def finished_checkpoint(plan: Plan) -> CheckpointManifest | None:
    """The checkpoint of this very training, if all of it was done and told before; its files are verified."""
    from gnn.training.checkpoint import MANIFEST_NAME, read_checkpoint

    if not noted_run(plan).get("concluded") or not (plan.checkpoint / MANIFEST_NAME).is_file():
        return None
    if finished_states(plan) is None:
        return None
    return read_checkpoint(plan.checkpoint)[0]


def finished_states(plan: Plan) -> list[TrainState] | None:
    """The states of all members; None unless each is finished."""
    from gnn.training.state import read_state

    states = [state for member in plan.members if (state := read_state(member.folder)) is not None and state.finished]
    return states if len(states) == len(plan.members) else None


def conclude(plan: Plan, outcomes: list[TrainOutcome], tracker: MlflowTracker, wall_s: float) -> CheckpointManifest:
    """Evaluate, draw, write the checkpoint, and tell the tracker."""
    evaluations = evaluate_splits(plan, outcomes)
    manifest = write_plan(plan, outcomes, evaluations, calibrated(plan, outcomes, evaluations), wall_s)
    keep_parity(plan, manifest, evaluations)
    last = max(outcome.steps for outcome in outcomes)
    for split, evaluation in evaluations.items():
        tracker.metrics({f"{split}_final/{name}": value for name, value in evaluation.headline().items()}, last)
    tracker.metrics({f"cost/{name}": value for name, value in manifest.cost.items()}, last)
    draw(plan, evaluations, tracker)
    tracker.artifact(plan.checkpoint, "checkpoint")
    return manifest


def evaluate_splits(plan: Plan, outcomes: list[TrainOutcome]) -> dict[Split, Evaluation]:
    """Errors of the committee's mean on the validation and the test split."""
    from gnn.models.device import device_of
    from gnn.training.evaluation import evaluate

    device = device_of(plan.config.device)
    models = [outcome.model.to(device) for outcome in outcomes]
    max_atoms = plan.members[0].recipe.max_atoms * plan.config.batch.valid_factor
    counts = plan.data.graph_set.split_counts
    return {
        split: evaluate(models, plan.data.batches(split, max_atoms, shuffle=False), device)
        for split in HELD_OUT
        if counts.get(split, 0)
    }


def write_plan(
    plan: Plan,
    outcomes: list[TrainOutcome],
    evaluations: dict[Split, Evaluation],
    uncertainty: Uncertainty,
    wall_s: float,
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
        taken=plan.members[0].recipe.taken,
        cost=cost_of(outcomes, wall_s),
        calibration=uncertainty.calibration,
        whitening=uncertainty.whitening,
        code=code_version(),
        trained_on=sorted({name for outcome in outcomes for name in outcome.trained_on}),
        before=plan.before,
        labels=plan.members[0].recipe.labels,
    )


def keep_parity(plan: Plan, manifest: CheckpointManifest, evaluations: dict[Split, Evaluation]) -> None:
    """Parity arrays beside the weights, for the reports of campaigns."""
    from gnn.training.parity import write_parity

    units = {name: spec.unit for name, spec in manifest.model.properties.items()}
    write_parity(plan.checkpoint, {split: found.parity for split, found in evaluations.items()}, units)


def calibrated(plan: Plan, outcomes: list[TrainOutcome], evaluations: dict[Split, Evaluation]) -> Uncertainty:
    """How the spread of the members, or of the one network's last layer, scales to the error."""
    from gnn.training.uncertainty import of_committee, of_last_layer

    groups = {split: groups_of(plan.data, split) for split in HELD_OUT}
    if len(outcomes) > 1:
        return of_committee({split: found.parity for split, found in evaluations.items()}, groups)
    max_atoms = plan.members[0].recipe.max_atoms * plan.config.batch.valid_factor
    return of_last_layer(outcomes[0].model, plan.data, groups, max_atoms)


def groups_of(data: GraphData, split: Split) -> list[str]:
    """What each structure of a split that has an energy belongs to; itself where it belongs to nothing."""
    alone = data.graph_set.split_by == "structure"
    labelled = (graph for graph in data.graphs(split) if graph.energy is not None)
    return [graph.structure_id if alone or graph.group is None else graph.group for graph in labelled]


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


def draw(plan: Plan, evaluations: dict[Split, Evaluation], tracker: MlflowTracker) -> None:
    """Parity plots of every split, kept beside the run and given to the tracker."""
    from flows.plots import parity_plot

    folder = plan.members[0].folder / "plots"
    for split, evaluation in evaluations.items():
        for path in parity_plot(evaluation.parity, folder, split):
            tracker.artifact(path, "parity")


def register_checkpoint(plan: Plan, home: Home, run_id: str | None) -> str | None:
    """Register the checkpoint where a name was given, and let it challenge the champion; the version."""
    if plan.config.register_as is None:
        return None
    from flows.cli.output import say
    from flows.gate import challenge
    from flows.registry import register

    model = register(plan.checkpoint, plan.config.register_as, home, run_id, plan.config.experiment)
    verdict = challenge(model, plan.checkpoint, plan.graph_folder, home, plan.config.device)
    say(f"version {model.version} is {'champion' if verdict.champion else 'challenger'}: {verdict.reason}")
    return model.version


def result_of(
    plan: Plan,
    home: Home,
    manifest: CheckpointManifest,
    run_id: str | None,
    version: str | None,
    wall_s: float,
) -> TrainResult:
    """What `sluice train` prints."""
    states = finished_states(plan) or []
    return TrainResult(
        model=plan.config.register_as,
        model_version=version,
        checkpoint=home.relative(plan.checkpoint),
        sha256=manifest.sha256,
        run_id=run_id,
        graph_set_id=manifest.graph_set_id,
        epochs=max((state.epoch for state in states), default=0),
        steps=sum(state.step for state in states),
        metrics=manifest.metrics,
        unlearnt=unlearnt_by_all(plan, states),
        cpu_s=manifest.cost["cpu_s"],
        wall_s=round(wall_s, 2),
    )


def unlearnt_by_all(plan: Plan, states: list[TrainState]) -> list[str]:
    """Names of validation errors that no member has lower than one has who has learnt nothing."""
    from gnn.training.selection import least_errors, unlearnt, untrained_errors

    recipe = plan.members[0].recipe
    left_out, least = untrained_errors(recipe.config.losses), least_errors(recipe.scales.properties)
    found = [unlearnt(state.best_metrics, state.untaught_metrics or {}, left_out, least) for state in states]
    return [name for name in (found[0] if found else []) if all(name in others for others in found)]


def refuse_early(config: TrainConfig, home: Home) -> None:
    """Find the mistakes that can be found before a flow begins, so that they are told in one line.

    Raises:
        InputError: an unknown data set, version, model, device, register name or field of the architecture, or data
            that cannot be split as asked.
    """
    from flows.preprocess import check, make_spec
    from flows.registry import check_name
    from gnn.lake.table import Lake
    from gnn.models.device import device_of
    from gnn.training.resolve import check_overrides, cutoff_of

    lake, data = Lake(home.lake), config.data
    for reference in data.sources:
        lake.content_digest(*known_dataset(reference, lake))
    if data.datasets:
        cutoff = cutoff_of(config, initial_model(config.init, home))
        spec = make_spec(
            data.datasets, cutoff, data.split, helpers=data.helpers, helper_share=data.helper_share
        )  # fmt: skip
        check(spec, home)
    if config.register_as is not None:
        check_name(config.register_as)
    check_overrides(config)
    check_devices(device_of(config.device), config.devices)
    start_of(config.init, home)


def check_devices(device: torch.device, wanted: int) -> None:
    """Refuse more processes than there are GPUs to train on.

    Raises:
        InputError: there are fewer.
    """
    import torch

    if device.type == "cuda" and wanted > torch.cuda.device_count():
        raise InputError(f"devices = {wanted}, but this machine has {torch.cuda.device_count()} GPUs")


def known_dataset(reference: str, lake: Lake) -> tuple[str, int]:
    """Name and version of a data set that the lake has.

    Raises:
        InputError: it has none of that name.
    """
    from gnn.lake.reference import parse_reference

    name, version = parse_reference(reference)
    if not lake.has(name):
        known = ", ".join(lake.datasets()) or "nothing yet; see `sluice ingest`"
        raise InputError(f"no data set {name!r} in the lake, which holds: {known}")
    return name, lake.version(name) if version is None else version


def describe_plan(config: TrainConfig, home: Home) -> TrainPlanResult:
    """What a training would do, as far as it can be said without preprocessing: for `--dry-run`."""
    from gnn.lake.table import Lake
    from gnn.training.resolve import cutoff_of, preset_of

    lake = Lake(home.lake)
    remarks = ["would use " + "@".join(map(str, known_dataset(name, lake))) for name in config.data.datasets]
    remarks += ["with the help of " + "@".join(map(str, known_dataset(name, lake))) for name in config.data.helpers]
    budget = f"{config.minutes:g} minutes" if config.minutes else f"{config.epochs} epochs"
    size = f"preset {preset_of(config)}" if config.init is None else f"as {config.init}"
    remarks.append(f"would train {config.committee} network(s), {size}, for {budget}")
    cutoff = cutoff_of(config, initial_model(config.init, home))
    remarks.append(f"graphs with a cutoff of {cutoff:g} Å; registered as {config.register_as or 'nothing'}")
    return TrainPlanResult(config=config.model_dump(mode="json"), cutoff=cutoff, remarks=remarks)
