"""Tasks: what a benchmark fits and tests, brought into the lake of a home of its own by the product's own flows."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict

from flows.bench.named import read_named
from flows.settings import Home
from gnn.errors import InputError, named
from gnn.graphs.graph_set import Split
from gnn.graphs.splits import DEFAULT_SHARES

if TYPE_CHECKING:
    from flows.bench.peers.workers.frames import Frame
    from flows.cli.results import EvaluateResult
    from gnn.graphs.graph import Graph
    from gnn.graphs.loader import GraphData

TASKS_FILE = Path(__file__).with_name("tasks.toml")


class Source(BaseModel):
    """A data set of the lake, and the files under the data folder that it is made of."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    dataset: str
    card: str
    files: tuple[str, ...]


class Task(BaseModel):
    """What is fitted and what is tested: the test part of the split, or the whole of `test`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    title: str
    fit: tuple[Source, ...]
    split: dict[Split, float] = DEFAULT_SHARES
    split_by: Literal["group", "structure"] | None = None
    test: Source | None = None

    @property
    def sources(self) -> tuple[Source, ...]:
        """All that the task reads."""
        return self.fit if self.test is None else (*self.fit, self.test)

    def data(self, cutoff: float | None = None) -> dict[str, Any]:
        """The `data` table of a training configuration."""
        given = {"split_by": self.split_by, "cutoff": cutoff}
        chosen = {name: value for name, value in given.items() if value is not None}
        return {"datasets": [source.dataset for source in self.fit], "split": dict(self.split), **chosen}


def known_tasks(path: Path = TASKS_FILE) -> dict[str, Task]:
    """Every task by its name.

    Raises:
        InputError: the file is not a table of tasks.
    """
    return read_named(path, Task)


def task_named(name: str) -> Task:
    """A task by its name.

    Raises:
        InputError: there is none of that name.
    """
    return named("task", name, known_tasks())


def missing_files(task: Task, data: Path) -> list[Path]:
    """Files of a task that are not under the folder `data`."""
    return [data / file for source in task.sources for file in source.files if not (data / file).exists()]


def check_files(tasks: list[Task], data: Path) -> None:
    """Find missing files before anything is started.

    Raises:
        InputError: one is missing.
    """
    for task in tasks:
        if missing := missing_files(task, data):
            raise InputError(
                f"{missing[0]} is missing; --data names the folder that holds the files of task {task.name}"
            )


def bring(task: Task, data: Path, home: Home) -> None:
    """Ingest what the lake does not have yet."""
    from flows.ingest import ingest
    from gnn.lake.table import Lake

    lake = Lake(home.lake)
    for source in task.sources:
        if not lake.has(source.dataset):
            ingest([str(data / file) for file in source.files], source.dataset, home, card=source.card)


def tested(task: Task, checkpoint: Path, home: Home) -> EvaluateResult:
    """Errors of a checkpoint on what the task tests, by the product's own `evaluate`."""
    from flows.evaluate import evaluate

    dataset = task.fit[0].dataset if task.test is None else task.test.dataset
    if task.test is None and len(task.fit) > 1:
        raise InputError(f"task {task.name} fits several data sets; test it by the metrics of its training")
    return evaluate(str(checkpoint), dataset, home, split="test" if task.test is None else "all", device="cpu")


def split_graphs(task: Task, cutoff: float, home: Home) -> GraphData:
    """What the task fits as graphs, in the very parts that ours is trained on."""
    from flows.preprocess import preprocess
    from gnn.graphs.loader import GraphData

    datasets = [source.dataset for source in task.fit]
    found = preprocess(
        datasets, home, cutoff=cutoff, split=task.split, split_by=task.split_by, cluster="threads", show=False
    )
    return GraphData(home.graphs, home.absolute(found.graph_set))


def frames_for_peers(task: Task, cutoff: float, home: Home) -> tuple[list[Frame], list[Frame]]:
    """What the task fits (training and validation part) and tests, as peers read it: the very structures of ours."""
    from flows.bench.frames import atom_energies, frames_of, labelled

    data = split_graphs(task, cutoff, home)
    fitted = [*data.graphs("train"), *data.graphs("valid")]
    held_out = list(data.graphs("test")) if task.test is None else labelled(lake_graphs(task.test, cutoff, home))
    energies = atom_energies(fitted)
    return frames_of(fitted, energies), frames_of(held_out, energies)


def lake_graphs(source: Source, cutoff: float, home: Home) -> list[Graph]:
    """Every structure of a data set of the lake as a graph."""
    from gnn.graphs.graph import graph_of_record
    from gnn.lake.table import Lake
    from gnn.structures.record import row_to_record

    rows = (row for batch in Lake(home.lake).record_batches(source.dataset) for row in batch.to_pylist())
    return [graph_of_record(row_to_record(row), cutoff) for row in rows]
