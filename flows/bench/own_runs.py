"""One training of ours as a run: the product's own flow, then its own evaluation on what the task tests."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.bench.tasks import Task, bring, tested
from flows.settings import Home
from gnn.overlay import merged

if TYPE_CHECKING:
    from flows.cli.results import TrainResult

EXPERIMENT = "benchmarks"
BUDGETS = frozenset({"epochs", "minutes"})


def train_and_test(task: Task, data: Path, home: Home, changes: dict[str, Any]) -> dict[str, Any]:
    """Train as `sluice train` does with `changes` (tables of a training configuration), and test.

    Test errors come flat; `cpu_s` is the training's, validation included; `total_cpu_s` is that of the whole call.
    """
    from gnn.training.checkpoint import read_manifest

    bring(task, data, home)
    started = time.process_time()
    found = trained(task.data(), home, changes)
    spent = time.process_time() - started
    checkpoint = home.absolute(found.checkpoint)
    errors = found.metrics["test"] if task.test is None else tested(task, checkpoint, home).model_dump()
    return {
        **flat_errors(errors),
        "cpu_s": found.cpu_s,
        "total_cpu_s": round(spent, 2),
        "epochs": found.epochs,
        "steps": found.steps,
        "parameters": n_weights(checkpoint),
        "trained_on": read_manifest(checkpoint).producer.trained_on,
        "sha256": found.sha256,
        "checkpoint": found.checkpoint,
        "graph_set_id": found.graph_set_id,
    }


def trained(data: dict[str, Any], home: Home, changes: dict[str, Any]) -> TrainResult:
    """Train on one thread by the product's own flow: the table `data`, and `changes` over it."""
    from flows.train import train
    from gnn.training.config import make_config

    base = {"data": data, "threads": 1, "device": "cpu", "experiment": EXPERIMENT}
    return train(make_config(merged(base, changes)), home, cluster="threads", show=False)


def flat_errors(errors: dict[str, Any]) -> dict[str, float]:
    """The headline errors of an evaluation as flat numbers; a property's as `NAME_mae` and `NAME_rmse`."""
    flat = {name: value for name, value in errors.items() if "mae" in name or "rmse" in name}
    for name, found in (errors.get("properties") or {}).items():
        flat |= {f"{name}_mae": found["mae"], f"{name}_rmse": found["rmse"]}
    return {name: float(value) for name, value in flat.items() if value is not None}


def n_weights(checkpoint: Path) -> int:
    """Numbers in the weights of a checkpoint's first member."""
    from gnn.training.checkpoint import MANIFEST_NAME, CheckpointManifest

    text = (checkpoint / MANIFEST_NAME).read_text(encoding="utf-8")
    tensors = CheckpointManifest.model_validate_json(text).tensors
    return sum(math.prod(info.shape) for name, info in tensors.items() if name.startswith("member.0."))


def rebudgeted(own: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """`changes` laid over tables of a training configuration, whose budget a new one replaces."""
    kept = {name: value for name, value in own.items() if name not in BUDGETS} if BUDGETS & set(changes) else own
    return merged(kept, changes)
