"""A cheap teacher: frames near those of a task's training part, labelled by a cheap engine, are trained on first.

A network of the task itself moves the training frames about, the engine labels what it finds, a network learns that,
and the task is trained from its weights. Nothing of the validation and test parts is looked at.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ase.io
from ase import Atoms
from pydantic import BaseModel, ConfigDict

from flows.bench.own_runs import flat_errors, train_and_test, trained
from flows.bench.tasks import Task, bring, split_graphs
from flows.settings import Home
from gnn.errors import SluiceError
from gnn.files import digest, write_atomically
from gnn.overlay import merged

if TYPE_CHECKING:
    from flows.cli.results import LabelResult, TrainResult
    from gnn.graphs.graph import Graph

SPLIT = {"train": 0.95, "valid": 0.025, "test": 0.025}
"""Of what the engine labelled."""


class Teacher(BaseModel):
    """Which engine teaches, what it is shown, and for how long that is learnt.

    Every structure of the training part moves for `steps` fs at `temperature` K by a network of the task, trained as
    `sampler` (tables of a training configuration) says: a quick one will do, since the engine has the last word.
    Every `every` fs there is a frame to label. `minutes` are those of learning the labels, `rate` is the learning rate
    of what follows.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    engine: str
    sampler: dict[str, Any]
    temperature: float
    steps: int
    every: int
    minutes: float
    rate: float


def train_taught(
    task: Task, teacher: Teacher, data: Path, home: Home, changes: dict[str, Any], seed: int
) -> dict[str, Any]:
    """Train and test as `train_and_test` does, from the weights that the teacher's labels gave.

    Only the last training has the `seed`: what comes before is done once for all of them. `taught` are the
    test errors on the teacher's labels and `taught_cpu_s` what learning them cost; dynamics and labels are not counted.

    Raises:
        SluiceError: the engine could label nothing.
    """
    bring(task, data, home)
    first = taught(task, teacher, home, changes)
    start = {"init": str(home.absolute(first.checkpoint)), "optimiser": {"lr": teacher.rate}, "seed": seed}
    rest = {name: value for name, value in changes.items() if name != "model"}
    found = train_and_test(task, data, home, merged(rest, start))
    return found | {"taught": flat_errors(first.metrics["test"]), "taught_cpu_s": first.cpu_s}


def taught(task: Task, teacher: Teacher, home: Home, changes: dict[str, Any]) -> TrainResult:
    """The network that has learnt the teacher's labels."""
    labels = labelled(task, teacher, home)
    data = {"datasets": [labels.dataset], "split": SPLIT, "split_by": "structure"}
    return trained(data, home, changes | {"minutes": teacher.minutes})


def labelled(task: Task, teacher: Teacher, home: Home) -> LabelResult:
    """The frames near the task's, with the engine's labels, in the lake."""
    from flows.label import LabelRequest, label

    shown = teacher.model_dump(exclude={"minutes", "rate"})
    name = f"{task.name}-{teacher.engine}-{digest(shown)[:8]}"
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
