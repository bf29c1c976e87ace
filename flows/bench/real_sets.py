"""What `sluice train` gives on real data sets when nothing is told but a few CPU minutes, resumable."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from flows.bench.own_runs import train_and_test
from flows.bench.runs import CODE_NOTE, Record, Run, code_of, run_table
from flows.bench.table import BenchTable, Cell, Column, Part
from flows.bench.tasks import Task, known_tasks
from flows.settings import Home
from gnn.errors import named
from gnn.graphs.graph_set import SPLITS, GraphSet
from gnn.machine import processor

NAME = "real_sets"
SETS_FILE = Path(__file__).with_name("real_sets.toml")
MINUTES = 3.0


@dataclass(frozen=True)
class Label:
    """A label of structures: its errors in the metrics of a test, its name among parities, and their unit over its."""

    title: str
    mae: str
    rmse: str | None = None
    parity: str | None = None
    factor: float = 1.0


LABELS = (
    Label("energy, meV/atom", "energy_mae_mev_per_atom", "energy_rmse_mev_per_atom", "energy", 1000.0),
    Label("forces, meV/Å", "force_mae_mev_per_angstrom", "force_rmse_mev_per_angstrom", "forces", 1000.0),
    Label("stress, GPa", "stress_mae_gpa"),
)
MAE, RMSE = "_mae", "_rmse"


@dataclass(frozen=True)
class Plan:
    """What is run: the sets named (all if none), each for `minutes` of CPU time of one thread."""

    data: Path
    home: Home
    sets: tuple[str, ...] = ()
    minutes: float = MINUTES
    seed: int = 0


def sets_of(plan: Plan) -> list[Task]:
    """The data sets of a plan.

    Raises:
        InputError: one is unknown.
    """
    known = known_tasks(SETS_FILE)
    return [named("data set", name, known) for name in plan.sets or known]


def runs_of(plan: Plan) -> list[Run]:
    """One training a data set; CPU minutes are those of one kind of processor.

    Raises:
        InputError: a data set is unknown.
    """
    settings = {"minutes": plan.minutes, "clock": "cpu", "seed": plan.seed}
    key = {"cpu_minutes": plan.minutes, "seed": plan.seed, "processor": processor()}
    return [
        Run({"set": task.name} | key, partial(trained_as_is, task, plan.data, plan.home, settings))
        for task in sets_of(plan)
    ]


def trained_as_is(task: Task, data: Path, home: Home, settings: dict[str, Any]) -> dict[str, Any]:
    """Errors of a training with its defaults, how the structures were split, and how far the test's labels scatter."""
    result = train_and_test(task, data, home, settings)
    graph_set = GraphSet.read(home.graphs / result["graph_set_id"][:16])
    counts = [graph_set.split_counts.get(split, 0) for split in SPLITS]
    return result | {
        "structures": counts,
        "split_by": graph_set.split_by,
        "deviations": deviations(home.absolute(result["checkpoint"])),
    }


def deviations(checkpoint: Path) -> dict[str, float]:
    """Mean absolute deviation of the test's labels from their mean, by what is labelled."""
    from gnn.training.parity import read_parity

    tested = [found for found in read_parity(checkpoint) if found.split == "test"]
    return {found.quantity: float(np.abs(found.reference - found.reference.mean()).mean()) for found in tested}


COLUMNS = [
    Column(name="set"),
    Column(name="train / valid / test"),
    Column(name="split by"),
    Column(name="error of"),
    Column(name="MAE", digits=3),
    Column(name="RMSE", digits=3),
    Column(name="deviation of the labels", digits=3),
    Column(name="weights"),
    Column(name="CPU s", digits=0),
    Column(name="passes", digits=1),
    Column(name="on"),
    Column(name="sluice"),
]


def table_of(records: Sequence[Record], command: str) -> BenchTable:
    """One row a data set and label."""
    known = known_tasks(SETS_FILE)
    own = [record for record in records if record["key"]["set"] in known]
    rows = [row for record in own for row in rows_of(record)]
    notes = [
        "A training with its defaults: only data set, budget and thread are given, and every set is split as it comes.",
        "Errors of the test split. The deviation is the mean absolute one of its labels from their mean: the MAE of a"
        " model that knows nothing but that mean.",
        "Split by group, what belongs together (a run, a relaxation, a chemical system) stands on one side.",
        CODE_NOTE,
    ]
    titles = [f"{task.name}: {task.title}." for task in known.values()]
    parts = [Part(title="Test errors", columns=COLUMNS, rows=rows, notes=titles)]
    return run_table(NAME, "Real data sets as they come", command, parts, own, notes)


def rows_of(record: Record) -> Iterator[list[Cell]]:
    """One row a label of the set that was tested."""
    result = record["result"]
    split = [record["key"]["set"], " / ".join(map(str, result["structures"])), result["split_by"]]
    cost = [result["parameters"], result["cpu_s"], result["epochs"], record["where"]["processor"], code_of(record)]
    for label in labels_of(result):
        deviation = result["deviations"].get(label.parity)
        scatter = None if deviation is None else label.factor * deviation
        yield [*split, label.title, result[label.mae], result.get(label.rmse), scatter, *cost]


def labels_of(result: dict[str, Any]) -> list[Label]:
    """The labels that a result has errors of, properties last."""
    common = [label for label in LABELS if label.mae in result]
    properties = [name for name in result["deviations"] if f"{name}{MAE}" in result]
    return common + [Label(name, f"{name}{MAE}", f"{name}{RMSE}", name) for name in properties]
