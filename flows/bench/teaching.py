"""A cheap teacher: frames near those of a task's training part, labelled by a cheap engine, help to train.

A network of the task itself moves the training frames about, the engine labels what it finds, the task is trained with
these labels as a helper, a level of theory of its own, and from there alone. Nothing is made of the validation and
test parts.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ase.io
from ase import Atoms
from pydantic import BaseModel, ConfigDict

from flows.bench.own_runs import flat_errors, rebudgeted, train_and_test, trained
from flows.bench.tasks import Task, bring, split_graphs
from flows.settings import Home
from gnn.errors import SluiceError
from gnn.files import digest, write_atomically
from gnn.overlay import merged

if TYPE_CHECKING:
    from flows.cli.results import LabelResult
    from gnn.graphs.graph import Graph


class Teacher(BaseModel):
    """Which engine teaches, what it is shown, and how the task is trained without its help in the end.

    Every structure of the training part moves for `steps` fs at `temperature` K by a network of the task, trained as
    `sampler` (tables of a training configuration) says: a quick one will do, since the engine has the last word.
    Every `every` fs there is a frame to label. `alone` is laid over the case's changes; it holds a budget of its own.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    engine: str
    sampler: dict[str, Any]
    temperature: float
    steps: int
    every: int
    alone: dict[str, Any]


def train_taught(
    task: Task, teacher: Teacher, data: Path, home: Home, changes: dict[str, Any], seed: int
) -> dict[str, Any]:
    """Train with the teacher's labels as a helper, then alone from these weights; test as `train_and_test` does.

    The two trainings have the `seed`: what comes before is done once for all of them. `cpu_s` is theirs together;
    `taught` is how many labels there are, whose making is not counted; `helped` are the test errors in between.

    Raises:
        SluiceError: the engine could label nothing.
    """
    bring(task, data, home)
    labels = labelled(task, teacher, home)
    help_of = {"data": {"helpers": [labels.dataset]}, "seed": seed}
    first = trained(task.data(), home, merged(changes, help_of))
    start = {"init": str(home.absolute(first.checkpoint)), "seed": seed}
    kept = rebudgeted(changes, teacher.alone).items()
    rest = {name: value for name, value in kept if name not in ("preset", "model")}
    found = train_and_test(task, data, home, merged(rest, start))
    spent = round(first.cpu_s + found["cpu_s"], 2)
    return found | {"cpu_s": spent, "taught": labels.done, "helped": flat_errors(first.metrics["test"])}


def labelled(task: Task, teacher: Teacher, home: Home) -> LabelResult:
    """The frames near the task's, with the engine's labels, in the lake."""
    from flows.label import LabelRequest, label

    name = f"{task.name}-{teacher.engine}-{digest(teacher.model_dump(exclude={'alone'}))[:8]}"
    source = home.labels / f"{name}.extxyz"
    if not source.exists():
        frames = frames_near(task, teacher, home)
        source.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(source, lambda path: ase.io.write(path, frames, format="extxyz"))
    found = label(LabelRequest(str(source), teacher.engine, name), home)
    if found.dataset is None:
        raise SluiceError(f"{teacher.engine} labelled none of {found.jobs} frames near those of {task.name}")
    return found


def frames_near(task: Task, teacher: Teacher, home: Home) -> list[Atoms]:
    """Frames of dynamics that start at every structure of the training part with more than one atom."""
    from gnn.potentials.load import load
    from gnn.simulation.dynamics import DynamicsSettings, move_many

    potential = load(home.absolute(trained(task.data(), home, teacher.sampler).checkpoint))
    graphs = split_graphs(task, potential.cutoff, home).graphs("train")
    settings = DynamicsSettings(temperature=teacher.temperature, steps=teacher.steps, every=teacher.every)
    paths = move_many(starts_of(graphs), potential, settings)
    return [frame for path in paths for frame in path.frames]


def starts_of(graphs: Iterable[Graph]) -> list[Atoms]:
    """The structures of graphs; isolated atoms have nowhere to go."""
    return [
        Atoms(numbers=graph.numbers, positions=graph.positions, cell=graph.cell, pbc=graph.pbc)
        for graph in graphs
        if len(graph.numbers) > 1
    ]
