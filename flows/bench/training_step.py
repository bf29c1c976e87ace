"""Where the time of a training step goes, piece by piece, on a CPU or a GPU."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, TypeVar

from flows.bench.table import BenchTable, Cell, Column, Part, bench_table
from flows.bench.tasks import bring, split_graphs, task_named
from flows.settings import Home
from gnn.machine import threads_of_torch
from gnn.overlay import merged

if TYPE_CHECKING:
    from gnn.graphs.batch import Batch
    from gnn.graphs.loader import GraphData
    from gnn.training.resolve import Recipe

NAME = "training_step"
Found = TypeVar("Found")


@dataclass(frozen=True)
class Settings:
    """What is trained and how: `changes` are tables of a training configuration; `warm` steps go before `steps`."""

    data: Path
    home: Home
    task: str = "3bpa"
    changes: dict[str, Any] | None = None
    device: str = "cpu"
    warm: int = 100
    steps: int = 40


class Stopwatch:
    """Seconds by `clock` of pieces of work by name; `finish` waits until a device has done what it was given."""

    def __init__(self, clock: Callable[[], float], finish: Callable[[], None]) -> None:
        self.clock, self.finish = clock, finish
        self.seconds: dict[str, list[float]] = {}

    def timed(self, name: str, work: Callable[[], Found]) -> Found:
        """Do a piece of work, and wait for it."""
        self.finish()
        started = self.clock()
        found = work()
        self.finish()
        self.seconds.setdefault(name, []).append(self.clock() - started)
        return found


class TrainingStep:
    """The pieces of a training step in the order that a training takes them."""

    def __init__(self, recipe: Recipe, data: GraphData, device: str) -> None:
        import torch

        from gnn.models.device import device_of
        from gnn.models.model import build_model
        from gnn.training.ema import Ema
        from gnn.training.optimiser import make_optimiser
        from gnn.training.step import make_step

        self.device = device_of(device)
        self.model = build_model(recipe.model, recipe.config.seed).to(self.device)
        self.optimiser = make_optimiser(self.model, recipe.config, recipe.lr)
        self.differentiate = make_step(self.model, recipe.config, recipe.scales, recipe.wanted)
        self.average = Ema(self.model, None)
        self.batches = endless(data, recipe.max_atoms, recipe.config.seed)
        self.lr, self.taken = recipe.lr, 0
        if self.device.type == "cuda":
            self.watch = Stopwatch(time.perf_counter, torch.cuda.synchronize)
        else:
            self.watch = Stopwatch(time.process_time, lambda: None)

    def take(self) -> None:
        """One step, waited for piece by piece."""
        from gnn.training.clipping import clip_gradients

        timed, model = self.watch.timed, self.model
        self.taken += 1
        batch = timed("batch", lambda: next(self.batches))
        batch = timed("to the device", lambda: batch.to(self.device))
        self.optimiser.zero_grad()
        timed("energies, forces, loss, gradients", lambda: self.differentiate(batch, 0.5, None))
        timed("clipping", lambda: clip_gradients(model.parameters(), None, 1.0))
        timed("optimiser", lambda: self.optimiser.step(self.lr))
        timed("average of the weights", lambda: self.average.update(model, self.taken))


def endless(data: GraphData, max_atoms: int, seed: int) -> Iterator[Batch]:
    """Batches of the training part, pass after pass."""
    for epoch in count():
        yield from data.batches("train", max_atoms, seed=seed, epoch=epoch)


def run(settings: Settings, command: str) -> BenchTable:
    """Measure.

    Raises:
        InputError: the task or the configuration is unknown.
    """
    step, recipe = prepared(settings)
    with threads_of_torch(recipe.config.threads):
        for _ in range(settings.warm):
            step.take()
        step.watch.seconds.clear()
        for _ in range(settings.steps):
            step.take()
    return table_of(step.watch.seconds, recipe, settings, command)


def prepared(settings: Settings) -> tuple[TrainingStep, Recipe]:
    """The step of a task with its graphs, memory kept as a training keeps it."""
    from gnn.potentials.allocator import keep_freed_memory
    from gnn.training.config import make_config
    from gnn.training.resolve import cutoff_of, resolve

    task = task_named(settings.task)
    base = {"data": task.data(), "threads": 1, "device": settings.device}
    config = make_config(merged(base, settings.changes or {}))
    bring(task, settings.data, settings.home)
    graphs = split_graphs(task, cutoff_of(config), settings.home)
    recipe = resolve(config, graphs.graph_set, None, graphs)
    keep_freed_memory()
    return TrainingStep(recipe, graphs, settings.device), recipe


def table_of(seconds: dict[str, list[float]], recipe: Recipe, settings: Settings, command: str) -> BenchTable:
    """One row a piece, medians over steps, and their sum."""
    from gnn.models.device import device_name, device_of

    milliseconds = {name: 1e3 * median(found) for name, found in seconds.items()}
    total = sum(milliseconds.values())
    rows: list[list[Cell]] = [[name, value, 100 * value / total] for name, value in milliseconds.items()]
    columns = [Column(name="piece"), Column(name="ms", digits=2), Column(name="part, %", digits=0)]
    part = Part(title=task_named(settings.task).title, columns=columns, rows=[*rows, ["all", total, 100.0]])
    notes = [
        f"On {device_name(device_of(settings.device))}. Medians of {settings.steps} steps after {settings.warm}, CPU "
        "time; on a GPU wall time, every piece waited for, so that the sum is more than a step of a training takes.",
        *recipe.remarks,
    ]
    title = "Where a training step's time goes"
    return bench_table(NAME, title, command, [part], notes=notes, seeds=[recipe.config.seed])
