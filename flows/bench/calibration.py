"""Whether nominal 90 % intervals cover 90 %: many group splits, each trained, calibrated and judged anew, resumable."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.bench.own_runs import EXPERIMENT
from flows.bench.runs import Record, Run, run_table, trained_by
from flows.bench.table import BenchTable, Cell, Column, Part
from flows.bench.tasks import Task, bring, task_named
from flows.settings import Home

if TYPE_CHECKING:
    from gnn.graphs.batch import Batch
    from gnn.potentials.load import CheckpointPotential
    from gnn.training.calibration import Coverage, Residuals
    from gnn.training.checkpoint import Calibration

NAME = "calibration"
TASKS = ("3bpa", "ethanol", "si")
SPLIT = {"train": 0.6, "valid": 0.2, "test": 0.2}
SPLITS = 20
MAX_ATOMS = 512
COLUMNS = [
    Column(name="data set"),
    Column(name="members"),
    Column(name="splits"),
    Column(name="targets"),
    Column(name="covered, %", digits=1),
    Column(name="± standard error", digits=1),
    Column(name="90 % within two of them"),
    Column(name="of a group, %", digits=1),
    Column(name="± its standard error", digits=1),
    Column(name="90 % within two of these"),
    Column(name="half width, meV/atom", digits=2),
    Column(name="energy MAE, meV/atom", digits=2),
    Column(name="covered over halves, %", digits=1),
    Column(name="CPU s a split", digits=0),
]


@dataclass(frozen=True)
class Plan:
    """What is run: every task with every number of members, `splits` times, `epochs` passes a training."""

    data: Path
    home: Home
    epochs: int
    preset: str = "small"
    tasks: tuple[str, ...] = TASKS
    members: tuple[int, ...] = (1,)
    splits: int = SPLITS


def runs_of(plan: Plan) -> list[Run]:
    """All runs, the first split of every task before the second."""
    return [
        own_run(plan, task_named(name), members, seed)
        for seed, members, name in product(range(plan.splits), plan.members, plan.tasks)
    ]


def own_run(plan: Plan, task: Task, members: int, seed: int) -> Run:
    """One split: its training, and what its held-out part says."""
    key = {
        "task": task.name,
        "preset": plan.preset,
        "epochs": plan.epochs,
        "members": members,
        "split_seed": seed,
    }
    return Run(key, partial(train_and_judge, task, plan, members, seed))


def train_and_judge(task: Task, plan: Plan, members: int, seed: int) -> dict[str, Any]:
    """Train on one split as `sluice train` does; coverage of the test part by the interval of the validation part."""
    from flows.train import groups_of, train
    from gnn.graphs.loader import GraphData
    from gnn.potentials.load import load
    from gnn.training.config import make_config

    bring(task, plan.data, plan.home)
    config = {
        "data": {"datasets": [source.dataset for source in task.fit], "split": SPLIT, "split_seed": seed},
        "preset": plan.preset,
        "epochs": plan.epochs,
        "committee": members,
        "seed": seed,
        "threads": 1,
        "device": "cpu",
        "experiment": EXPERIMENT,
    }
    found = train(make_config(config), plan.home, cluster="threads", show=False)
    potential = load(plan.home.absolute(found.checkpoint))
    data = GraphData(plan.home.graphs, plan.home.graphs / found.graph_set_id[:16])
    held = [
        residuals_of(potential, data.batches(split, MAX_ATOMS, shuffle=False), groups_of(data, split))
        for split in ("valid", "test")
    ]
    errors = {"energy_mae_mev_per_atom": found.metrics["test"]["energy_mae_mev_per_atom"], "cpu_s": found.cpu_s}
    return errors | judged(potential.manifest.calibration, *held)


def residuals_of(potential: CheckpointPotential, batches: Iterable[Batch], groups: Sequence[str]) -> Residuals:
    """Errors and uncertainties of the energies per atom of labelled batches; zeros without an uncertainty."""
    import numpy as np

    from gnn.training.calibration import Residuals

    errors, spreads = [np.zeros(0)], [np.zeros(0)]
    scorer = potential.energies_only()
    for batch in batches:
        if batch.labels is None:
            continue
        found = scorer.predict(batch)
        known = batch.labels.energy_mask
        uncertainty = found.uncertainty if found.uncertainty is not None else found.energy.new_zeros(len(known))
        errors.append(((found.energy.cpu() - batch.labels.energy) / batch.n_atoms)[known].numpy())
        spreads.append(uncertainty.cpu()[known].numpy())
    return Residuals(np.concatenate(errors), np.concatenate(spreads), groups)


def judged(calibration: Calibration | None, valid: Residuals, test: Residuals) -> dict[str, Any]:
    """What one split says.

    `covered_of_group` is the mean over groups of the part of each that is covered; `halves` the coverage when halves of
    all held-out groups calibrate and judge in turn.
    """
    import numpy as np

    from gnn.training.calibration import Residuals, coverage, mean_over_groups

    if calibration is None or calibration.interval_90 is None:
        return {"covered": None, "targets": len(test.error), "half_width": None, "halves": None}
    half_widths = calibration.interval_90 * test.spread
    pooled = Residuals(
        np.concatenate([valid.error, test.error]),
        np.concatenate([valid.spread, test.spread]),
        [*valid.names(), *test.names()],
    )
    halves = asdict(coverage(pooled, splits=SPLITS)) if len(set(pooled.names())) >= 4 else None
    inside = np.abs(test.error) <= half_widths
    return {
        "covered": float(np.mean(inside)) if len(test.error) else None,
        "covered_of_group": mean_over_groups(inside, test.names()) if len(test.error) else None,
        "targets": len(test.error),
        "half_width": float(np.median(half_widths)) if len(test.error) else None,
        "interval_90": calibration.interval_90,
        "groups": len(set(test.names())),
        "halves": halves,
    }


def table_of(records: Sequence[Record], command: str) -> BenchTable:
    """One row a task and number of members, in the order of their first record."""
    names = ("task", "members", "preset", "epochs")
    cases = list(dict.fromkeys(tuple(record["key"][name] for name in names) for record in records))
    sizes = sorted({case[2:] for case in cases})
    parts = [
        Part(
            title=f"Preset {preset}, {epochs} passes a training",
            columns=COLUMNS,
            rows=[
                row([r for r in records if tuple(r["key"][name] for name in names) == case])
                for case in cases
                if case[2:] == (preset, epochs)
            ],
        )
        for preset, epochs in sizes
    ]
    notes = [
        "Every split is trained on 60 % of the groups (of the structures where a set has none), calibrated on 20 % and "
        "judged on the last 20 %. The standard error takes splits as independent, though they share the set.",
        "Of a group: the mean over groups, each counting alike however many structures it has; an interval is made for "
        "structures of new groups.",
        "Over halves: halves of the held-out groups of each training calibrate and judge in turn, 20 times.",
        "One member: last-layer rigidity. Several: their spread.",
        trained_by(records),
    ]
    return run_table(NAME, "Do 90 % intervals cover 90 %?", command, parts, records, notes)


def row(records: Sequence[Record]) -> list[Cell]:
    """All splits of one case as a row of the table."""
    from gnn.training.calibration import LEVEL, summary

    results = [record["result"] for record in records if record["result"]["covered"] is not None]
    key = records[0]["key"]
    if not results:
        return [key["task"], key["members"], 0, *[None] * (len(COLUMNS) - 3)]
    of_structures, of_groups = (
        summary(
            LEVEL,
            [result[name] for result in results],
            [result["half_width"] for result in results],
            sum(result["targets"] for result in results),
        )
        for name in ("covered", "covered_of_group")
    )
    halves = [result["halves"]["mean"] for result in results if result["halves"] is not None]
    return [
        key["task"],
        key["members"],
        of_structures.splits,
        of_structures.targets,
        *verdict(of_structures),
        *verdict(of_groups),
        1000 * of_structures.half_width,
        sum(result["energy_mae_mev_per_atom"] for result in results) / len(results),
        100 * sum(halves) / len(halves) if halves else None,
        sum(result["cpu_s"] for result in results) / len(results),
    ]


def verdict(found: Coverage) -> list[Cell]:
    """Coverage and standard error in %, and whether it is nominal; one split has no standard error."""
    if found.splits < 2:
        return [100 * found.mean, None, None]
    return [100 * found.mean, 100 * found.standard_error, "yes" if found.is_nominal else "no"]
