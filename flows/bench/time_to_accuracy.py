"""How accurate a training is after so many CPU minutes: ours beside peers on the same structures, resumable.

Peers are trained by a plain loop with their authors' recipe, its schedule stretched over the budget (the CPU seconds of
graphs and training, not of testing); ours by the product's own flow with a third of the budget.
"""

from __future__ import annotations

import tempfile
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from flows.bench.own_runs import train_and_test
from flows.bench.peers.client import OWN, command_of, worker
from flows.bench.peers.environments import PEERS, Peer
from flows.bench.peers.workers.frames import save_frames
from flows.bench.runs import Run
from flows.bench.tasks import Task, bring, frames_for_peers, task_named
from flows.settings import Home
from gnn.errors import InputError, named
from gnn.machine import processor
from gnn.overlay import merged

NAME = "time_to_accuracy"
RECIPES_FILE = Path(__file__).with_name("time_to_accuracy.toml")
TASKS = ("3bpa", "ethanol", "si")
CONTENDERS = ("mace", "nequip", "torchmd")
ALL = (OWN, *CONTENDERS)
BUDGETS = (5.0, 10.0, 20.0)
"""CPU minutes of peers."""
SHARE = 3.0
"""Ours has the budget divided by this."""
SEEDS = (0, 1, 2)
CUTOFF = 5.0


@dataclass(frozen=True)
class Plan:
    """What is run: ours with the task's recipe and `changes` laid over it, and every size of the peers."""

    data: Path
    home: Home
    peers_home: Path
    changes: dict[str, Any] | None = None
    tasks: tuple[str, ...] = TASKS
    budgets: tuple[float, ...] = BUDGETS
    seeds: tuple[int, ...] = SEEDS
    contenders: tuple[str, ...] = ALL


def recipe_of(task: str, changes: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Configuration of ours on a task, `changes` laid over what the file of recipes says.

    Raises:
        InputError: there is no recipe for the task.
    """
    told = tomllib.loads(RECIPES_FILE.read_text(encoding="utf-8"))
    return merged({"preset": "default"} | named("task of time to accuracy", task, told), changes or {})


def check(plan: Plan) -> None:
    """Find mistakes before anything is started.

    Raises:
        InputError: a package is unknown, or a change is of what every run has of its own.
    """
    for name in plan.contenders:
        if name not in ALL:
            raise InputError(f"package {name!r} is not compared here; choose of {', '.join(ALL)}")
    for name in sorted(fixed(0, 0).keys() & (plan.changes or {}).keys()):
        raise InputError(f"--set {name}: every run has its own; --minutes and --seed choose which runs")


def check_installed(plan: Plan) -> None:
    """Find missing peers before anything is trained.

    Raises:
        InputError: a peer is not installed.
    """
    for name in plan.contenders:
        command_of(name, plan.peers_home)


def runs_of(plan: Plan) -> list[Run]:
    """All runs, the decisive first: by task, ours before peers, the first size of every peer before the others."""
    runs: list[Run] = []
    for name in plan.tasks:
        for budget in plan.budgets:
            runs += own_runs(plan, task_named(name), budget) if OWN in plan.contenders else []
        for size in range(max(len(PEERS[peer].sizes) for peer in CONTENDERS)):
            for budget in plan.budgets:
                runs += peer_runs(plan, task_named(name), budget, size)
    return runs


def own_runs(plan: Plan, task: Task, budget: float) -> list[Run]:
    """Ours at a third of the budget, one run a seed."""
    recipe, minutes = recipe_of(task.name, plan.changes), budget / SHARE
    return [
        Run(
            key_of(task, OWN, recipe["preset"], minutes, seed) | {"changes": changes_of(recipe)},
            partial(train_and_test, task, plan.data, plan.home, recipe | fixed(minutes, seed)),
        )
        for seed in plan.seeds
    ]


def changes_of(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """What a recipe changes of its preset."""
    return {name: value for name, value in recipe.items() if name != "preset"}


def fixed(minutes: float, seed: int) -> dict[str, Any]:
    """What no recipe decides."""
    return {"minutes": minutes, "clock": "cpu", "seed": seed}


def peer_runs(plan: Plan, task: Task, budget: float, size: int) -> list[Run]:
    """One size of each peer that is wanted, at the whole budget."""
    peers = [PEERS[name] for name in CONTENDERS if name in plan.contenders and size < len(PEERS[name].sizes)]
    return [
        Run(
            key_of(task, peer.name, peer.sizes[size], budget, plan.seeds[0]),
            partial(fit_peer, plan, task, peer, peer.sizes[size], budget, plan.seeds[0]),
        )
        for peer in peers
    ]


def key_of(task: Task, package: str, model: str, minutes: float, seed: int) -> dict[str, Any]:
    """What a run is called by in the journal: CPU minutes are those of one kind of processor."""
    named = {"task": task.name, "package": package, "model": model, "processor": processor()}
    return named | {"cpu_minutes": round(minutes, 4), "seed": seed}


def fit_peer(plan: Plan, task: Task, peer: Peer, model: str, minutes: float, seed: int) -> dict[str, Any]:
    """Train and test one peer's model in its own environment."""
    bring(task, plan.data, plan.home)
    fitted, held_out = frames_for_peers(task, CUTOFF, plan.home)
    with tempfile.TemporaryDirectory(prefix="sluice-bench-") as scratch, worker(peer.name, plan.peers_home) as own:
        paths = {
            "frames": str(save_frames(Path(scratch) / "fit.npz", fitted)),
            "test": str(save_frames(Path(scratch) / "test.npz", held_out)),
        }
        return own.ask(do="fit", model=model, cutoff=CUTOFF, seed=seed, cpu_s=60 * minutes, **paths)
