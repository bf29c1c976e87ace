"""Accuracy at convergence: long trainings by the product's own flow against what they have to reach, resumable."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from pydantic import BaseModel, ConfigDict

from flows.bench.crystal_peers import fit_crystals
from flows.bench.named import read_named
from flows.bench.own_runs import rebudgeted, train_and_test
from flows.bench.peers.client import command_of
from flows.bench.runs import CODE_NOTE, Record, Run, code_of, in_words, run_table
from flows.bench.table import BenchTable, Cell, Column, Part
from flows.bench.tasks import task_named
from flows.bench.teaching import Teacher, train_taught
from flows.settings import Home
from gnn.errors import InputError, named
from gnn.machine import processor
from gnn.overlay import merged

NAME = "accuracy"
CASES_FILE = Path(__file__).with_name("accuracy.toml")


class Goal(BaseModel):
    """An error of the test, times `factor` in `unit`, that must not exceed `gate` and would better not exceed `aim`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    metric: str
    name: str
    unit: str
    gate: float
    aim: float
    factor: float = 1.0

    def value(self, result: dict[str, Any]) -> float | None:
        """The error of a run in `unit`; None where it was not measured."""
        found = result.get(self.metric)
        return None if found is None else self.factor * float(found)


class Rival(BaseModel):
    """A peer that is trained on the rows of a case, for so many CPU minutes; it predicts the property `target`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    package: str
    target: str
    minutes: float


class Case(BaseModel):
    """A task, how it is trained, with which seeds, its goals, a cheap engine whose labels help, a peer beside."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    task: str
    seeds: tuple[int, ...]
    changes: dict[str, Any]
    goals: tuple[Goal, ...]
    teacher: Teacher | None = None
    rival: Rival | None = None


@dataclass(frozen=True)
class Plan:
    """What is run: the cases named (all if none), with `changes` laid over those of each."""

    data: Path
    home: Home
    cases: tuple[str, ...] = ()
    changes: dict[str, Any] | None = None


def known_cases(path: Path = CASES_FILE) -> dict[str, Case]:
    """Every case by its name.

    Raises:
        InputError: the file is not a table of cases.
    """
    return read_named(path, Case)


def cases_of(plan: Plan) -> list[Case]:
    """The cases of a plan.

    Raises:
        InputError: one is unknown.
    """
    known = known_cases()
    return [named("case", name, known) for name in plan.cases or known]


def runs_of(plan: Plan) -> list[Run]:
    """All runs of ours, the first seed of every case before the second.

    Raises:
        InputError: a case is unknown, or its configuration with the changes is none.
    """
    cases = cases_of(plan)
    longest = max(len(case.seeds) for case in cases)
    return [own_run(plan, case, case.seeds[k]) for k in range(longest) for case in cases if k < len(case.seeds)]


def own_run(plan: Plan, case: Case, seed: int) -> Run:
    """One training; its key holds all that was changed of a plain configuration.

    Raises:
        InputError: the changes contradict each other or are none of a training.
    """
    from gnn.training.config import make_config

    task, teacher, key = task_named(case.task), case.teacher, key_of(case, plan.changes or {}, seed)
    changes = key["changes"]
    make_config(changes)
    if teacher is None:
        return Run(key, partial(train_and_test, task, plan.data, plan.home, merged(changes, {"seed": seed})))
    return Run(key, partial(train_taught, task, teacher, plan.data, plan.home, changes, seed))


def key_of(case: Case, changes: dict[str, Any], seed: int) -> dict[str, Any]:
    """What a run is called by in the journal."""
    taught = {} if case.teacher is None else {"teacher": case.teacher.model_dump()}
    return {"case": case.name, "seed": seed, "changes": rebudgeted(case.changes, changes)} | taught


def rival_cases(plan: Plan) -> list[Case]:
    """The cases of a plan that a peer is trained on.

    Raises:
        InputError: a case is unknown, or none has a peer.
    """
    cases = [case for case in cases_of(plan) if case.rival is not None]
    if not cases:
        with_peers = ", ".join(name for name, case in known_cases().items() if case.rival is not None)
        raise InputError(f"no peer is trained on {', '.join(plan.cases)}; there is one for {with_peers}")
    return cases


def rival_runs(plan: Plan, peers_home: Path) -> list[Run]:
    """The peers of the cases that have one, trained in their environments under `peers_home`.

    Raises:
        InputError: a case is unknown, none has a peer, or the peer is not installed.
    """
    return [rival_run(plan, case, case.rival, peers_home) for case in rival_cases(plan) if case.rival is not None]


def rival_run(plan: Plan, case: Case, rival: Rival, peers_home: Path) -> Run:
    """One training of a peer; CPU minutes are those of one kind of processor."""
    command_of(rival.package, peers_home)
    task, seed = task_named(case.task), case.seeds[0]
    key = {"case": case.name, "package": rival.package, "minutes": rival.minutes, "seed": seed}
    work = partial(
        fit_crystals, task, rival.package, rival.target, rival.minutes, seed, plan.data, plan.home, peers_home
    )
    return Run(key | {"processor": processor()}, work)


COLUMNS = [
    Column(name="case"),
    Column(name="error"),
    Column(name="gate (aim)"),
    Column(name="mean of seeds", digits=3),
    Column(name="deviation", digits=3),
    Column(name="seeds"),
    Column(name="CPU s a seed", digits=0),
    Column(name="on"),
    Column(name="reached"),
    Column(name="training"),
    Column(name="sluice"),
]


def table_of(records: Sequence[Record], command: str) -> BenchTable:
    """One row a case, configuration and goal; test errors to three decimals."""
    known = known_cases()
    rivals = [record for record in records if "package" in record["key"]]
    own = [record for record in records if "package" not in record["key"] and record["key"]["case"] in known]
    titles = [f"{name}: {task_named(case.task).title}." for name, case in known.items()]
    chosen, others = as_configured(known, own)
    parts = [Part(title="Against the gates", columns=COLUMNS, rows=goal_rows(known, chosen), notes=titles)]
    if others:
        parts.append(Part(title="Other trainings", columns=COLUMNS, rows=goal_rows(known, others)))
    if rivals:
        beside = [rival_row(known[record["key"]["case"]], record) for record in rivals]
        parts.append(Part(title="Peers on the same rows", columns=RIVAL_COLUMNS, rows=beside, notes=[RIVAL_NOTE]))
    notes = ["Errors on what was not trained on; the deviation is that of the seeds.", CODE_NOTE]
    return run_table(NAME, "Accuracy at convergence", command, parts, records, notes)


def as_configured(known: Mapping[str, Case], records: Sequence[Record]) -> tuple[list[Record], list[Record]]:
    """The runs that are what `accuracy.toml` says, in its order, and all others."""
    chosen: dict[str, list[Record]] = {name: [] for name in known}
    others: list[Record] = []
    for record in records:
        key, name = record["key"], record["key"]["case"]
        (chosen[name] if key == key_of(known[name], {}, key["seed"]) else others).append(record)
    return [record for runs in chosen.values() for record in runs], others


def goal_rows(known: Mapping[str, Case], records: Sequence[Record]) -> list[list[Cell]]:
    """One row a case, configuration and goal."""
    groups = grouped(records).items()
    return [goal_row(known[name], goal, group) for (name, _), group in groups for goal in known[name].goals]


def grouped(records: Sequence[Record]) -> dict[tuple[str, str], list[Record]]:
    """Runs that differ in nothing but the seed."""
    groups: dict[tuple[str, str], list[Record]] = {}
    for record in records:
        groups.setdefault((record["key"]["case"], training_of(record["key"])), []).append(record)
    return groups


def training_of(key: Mapping[str, Any]) -> str:
    """What the key of a run says was changed of a plain configuration, and the teacher if there was one, in words."""
    return in_words(key["changes"] | ({"teacher": key["teacher"]} if "teacher" in key else {}))


def goal_row(case: Case, goal: Goal, records: Sequence[Record]) -> list[Cell]:
    """One goal over the seeds of one configuration."""
    values = [value for record in records if (value := goal.value(record["result"])) is not None]
    found = mean(values) if values else None
    return [
        case.name,
        f"{goal.name}, {goal.unit}",
        f"{goal.gate:g} ({goal.aim:g})",
        found,
        stdev(values) if len(values) > 1 else None,
        len(values),
        mean_of(records, "cpu_s"),
        ", ".join(sorted({name for record in records for name in record["result"]["trained_on"]})),
        verdict(found, goal),
        training_of(records[0]["key"]),
        ", ".join(sorted({code_of(record) for record in records})),
    ]


def mean_of(records: Sequence[Record], figure: str) -> float | None:
    """The mean over the runs that have the figure; None where none has."""
    found = [float(record["result"][figure]) for record in records if figure in record["result"]]
    return mean(found) if found else None


RIVAL_COLUMNS = [
    Column(name="case"),
    Column(name="peer"),
    Column(name="error"),
    Column(name="value", digits=3),
    Column(name="CPU s", digits=0),
    Column(name="epochs", digits=1),
    Column(name="weights"),
    Column(name="on"),
]
RIVAL_NOTE = (
    "`sluice bench accuracy --data DATA --peers`. Fitted to our training and validation rows, tested on our test rows; "
    "neighbour lists are made beforehand and not counted. The package's default model and optimiser, the rate falling "
    "to 0 in the last quarter of the budget."
)


def rival_row(case: Case, record: Record) -> list[Cell]:
    """One training of a peer, by the first goal of its case."""
    goal, result = case.goals[0], record["result"]
    error = f"{goal.name}, {goal.unit}"
    taken = [result["cpu_s"], result["epochs"], result["parameters"], ", ".join(result["trained_on"])]
    return [case.name, result["version"], error, goal.value(result), *taken]


def verdict(value: float | None, goal: Goal) -> str | None:
    """`aim`, `gate` or `no`; None where nothing was measured."""
    if value is None:
        return None
    return "aim" if value <= goal.aim else "gate" if value <= goal.gate else "no"
