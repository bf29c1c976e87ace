"""What body order and the degree of features pay: correlation 1, 2, 3 and L = 0, 1, 2 at equal CPU time, resumable."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from statistics import mean
from typing import Any

from flows.bench.own_runs import train_and_test
from flows.bench.runs import Record, Run, run_table, trained_by
from flows.bench.table import BenchTable, Cell, Column, Part
from flows.bench.tasks import Task, task_named
from flows.settings import Home

NAME = "body_order"
TASKS = ("3bpa", "si")
CORRELATIONS, DEGREES = (1, 2, 3), (0, 1, 2)
ERRORS = {
    "force_rmse_mev_per_angstrom": "force RMSE, meV/Å",
    "energy_mae_mev_per_atom": "energy MAE, meV/atom",
    "epochs": "epochs",
}
WORDS = {1: "1 (pairs)", 2: "2 (triplets)", 3: "3 (quadruplets)"}


@dataclass(frozen=True)
class Plan:
    """What is run: every order and degree for `minutes` of CPU time."""

    data: Path
    home: Home
    minutes: float
    preset: str = "default"
    tasks: tuple[str, ...] = TASKS
    seeds: tuple[int, ...] = (0,)


def runs_of(plan: Plan) -> list[Run]:
    """All runs, the first seed of all before the second."""
    return [
        own_run(plan, task_named(name), correlation, degree, seed)
        for seed, name, correlation, degree in product(plan.seeds, plan.tasks, CORRELATIONS, DEGREES)
    ]


def own_run(plan: Plan, task: Task, correlation: int, degree: int, seed: int) -> Run:
    """One order and degree."""
    model = {"correlation": correlation, "hidden_l_max": degree}
    settings: dict[str, Any] = {
        "preset": plan.preset,
        "minutes": plan.minutes,
        "clock": "cpu",
        "seed": seed,
        "model": model,
    }
    key = {"task": task.name, "preset": plan.preset, **model, "cpu_minutes": plan.minutes, "seed": seed}
    return Run(key, partial(train_and_test, task, plan.data, plan.home, settings))


def table_of(records: Sequence[Record], command: str) -> BenchTable:
    """One table a task, budget and error: orders down, degrees across."""
    cases = sorted(
        {(record["key"]["task"], record["key"]["cpu_minutes"], record["key"]["preset"]) for record in records}
    )
    parts = [case_part(records, *case, error) for case in cases for error in ERRORS]
    passes = "Test errors after equal CPU time of one thread; a dearer network makes fewer passes. Mean over seeds."
    notes = [passes, trained_by(records)]
    return run_table(NAME, "Body order and degree at equal CPU time", command, parts, records, notes)


def case_part(records: Sequence[Record], task: str, minutes: float, preset: str, error: str) -> Part:
    """One error after one budget."""
    columns = [Column(name="correlation"), *(Column(name=f"L = {degree}", digits=1) for degree in DEGREES)]
    own = [
        r for r in records if (r["key"]["task"], r["key"]["cpu_minutes"], r["key"]["preset"]) == (task, minutes, preset)
    ]
    rows: list[list[Cell]] = [
        [WORDS[correlation], *(mean_of(own, correlation, degree, error) for degree in DEGREES)]
        for correlation in CORRELATIONS
    ]
    return Part(title=f"{task}, {minutes:g} CPU minutes, preset {preset}: {ERRORS[error]}", columns=columns, rows=rows)


def mean_of(records: Sequence[Record], correlation: int, degree: int, error: str) -> float | None:
    """Mean over seeds; None where nothing is finished."""
    found = [
        float(record["result"][error])
        for record in records
        if record["key"]["correlation"] == correlation and record["key"]["hidden_l_max"] == degree
    ]
    return mean(found) if found else None
