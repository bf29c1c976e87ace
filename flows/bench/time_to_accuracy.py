"""How accurate a training is after so many CPU minutes: ours beside peers on the same structures, resumable.

Peers are trained by a plain loop with their authors' recipe, its schedule stretched over the budget (the CPU seconds of
graphs and training, not of testing); ours by the product's own flow with a third of the budget.
"""

from __future__ import annotations

import tempfile
import tomllib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import mean
from typing import Any

from flows.bench.own_runs import train_and_test
from flows.bench.peers.client import OWN, command_of, worker
from flows.bench.peers.environments import PEERS, Peer
from flows.bench.peers.workers.frames import save_frames
from flows.bench.runs import CODE_NOTE, Record, Run, code_of, in_words
from flows.bench.table import BenchTable, Cell, Column, Part, bench_table, own_versions
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
ERROR = "force_rmse_mev_per_angstrom"


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


# ---- tables


COLUMNS = [
    Column(name="peers' CPU minutes", digits=0),
    *(Column(name=f"{PEERS[name].title}, best of its sizes") for name in CONTENDERS),
    Column(name="best peer", digits=1),
    Column(name="ours, CPU minutes", digits=2),
    Column(name="ours, mean of seeds", digits=1),
    Column(name="ours, least to greatest"),
    Column(name="reached"),
    Column(name="on"),
]


def table_of(records: Sequence[Record], command: str, changes: Mapping[str, Any] | None = None) -> BenchTable:
    """Force RMSE (meV/Å) after each budget, by task, and every run; ours by the recipes that `changes` give."""
    current = of_recipes(records, changes)
    parts = [task_part(name, rows) for name in TASKS if (rows := budget_rows(of_task(current, name)))]
    notes = [
        "Test force RMSE in meV/Å. Every budget has a schedule of its own. Peers: one seed, the best of up to three "
        "sizes at each budget, chosen by the test error, which is in their favour. Ours: the mean of its seeds.",
        "CPU seconds of one thread: of peers building graphs and training, of ours training and validation, which "
        "chooses the weights (preprocess apart); testing is not counted.",
        *(f"Ours, {name}: {in_words(recipe_of(name, changes))}." for name in TASKS if of_task(current, name)),
        CODE_NOTE,
    ]
    seeds = sorted({record["key"]["seed"] for record in records})
    facts = {"notes": notes, "seeds": seeds, "versions": own_versions() | peer_versions(records)}
    return bench_table(NAME, "Time to accuracy", command, [*parts, all_runs(records)], **facts)


def peer_versions(records: Sequence[Record]) -> dict[str, str]:
    """Versions of peers as their workers told them."""
    told = [record["result"]["version"] for record in records if "version" in record["result"]]
    return dict(text.split() for text in told)


def of_recipes(records: Sequence[Record], changes: Mapping[str, Any] | None = None) -> list[Record]:
    """All of the peers, and of ours those trained by the task's recipe with `changes` laid over it."""
    wanted = {name: recipe_of(name, changes) for name in TASKS}
    return [
        record
        for record in records
        if (key := record["key"])["package"] != OWN or recipe_in(key) == wanted[key["task"]]
    ]


def recipe_in(key: Mapping[str, Any]) -> dict[str, Any]:
    """The recipe that a run of ours was trained by."""
    return {"preset": key["model"], **key.get("changes", {})}


def of_task(records: Sequence[Record], name: str) -> list[Record]:
    """Records of one task."""
    return [record for record in records if record["key"]["task"] == name]


def task_part(name: str, rows: list[list[Cell]]) -> Part:
    """The table of one task."""
    return Part(title=task_named(name).title, columns=COLUMNS, rows=rows)


def budget_rows(records: Sequence[Record]) -> list[list[Cell]]:
    """One row a processor and budget that anything was finished at."""
    return [row for name in processors(records) for row in rows_on(name, records)]


def processors(records: Sequence[Record]) -> list[str]:
    """What the runs were made on, in the order they came."""
    return list(dict.fromkeys(record["where"]["processor"] for record in records))


def rows_on(name: str, records: Sequence[Record]) -> list[list[Cell]]:
    """The rows of one processor."""
    same = [record for record in records if record["where"]["processor"] == name]
    return [[*budget_row(same, budget), name] for budget in budgets_of(same)]


def budgets_of(records: Sequence[Record]) -> list[float]:
    """The peers' CPU minutes that anything was finished at."""
    peers = {r["key"]["cpu_minutes"] for r in records if r["key"]["package"] != OWN}
    ours = {round(SHARE * r["key"]["cpu_minutes"], 2) for r in records if r["key"]["package"] == OWN}
    return sorted(peers | ours)


def budget_row(records: Sequence[Record], budget: float) -> list[Cell]:
    """Peers at `budget`, ours at its third."""
    best = {name: best_of(records, name, budget) for name in CONTENDERS}
    errors = [found["result"][ERROR] for found in best.values() if found is not None]
    own = [r["result"][ERROR] for r in records if is_at(r, OWN, budget / SHARE)]
    limit, reached = (min(errors) if errors else None), (mean(own) if own else None)
    return [
        budget,
        *(
            None if found is None else f"{found['result'][ERROR]:.1f} ({found['key']['model']})"
            for found in best.values()
        ),
        limit,
        budget / SHARE,
        reached,
        f"{min(own):.1f} to {max(own):.1f} ({len(own)} seeds)" if own else None,
        None if limit is None or reached is None else ("yes" if reached <= limit else "no"),
    ]


def is_at(record: Record, package: str, minutes: float) -> bool:
    """Whether a record is of this package at this budget."""
    key = record["key"]
    return key["package"] == package and abs(key["cpu_minutes"] - minutes) < 1e-3


def best_of(records: Sequence[Record], package: str, minutes: float) -> Record | None:
    """The run of the least force error; None where there is none."""
    found = [record for record in records if is_at(record, package, minutes)]
    return min(found, key=lambda record: float(record["result"][ERROR]), default=None)


RUN_COLUMNS = [
    Column(name="task"),
    Column(name="package, model"),
    Column(name="seed"),
    Column(name="CPU minutes", digits=2),
    Column(name="CPU s spent", digits=0),
    Column(name="epochs", digits=1),
    Column(name="energy MAE, meV/atom", digits=2),
    Column(name="force MAE, meV/Å", digits=1),
    Column(name="force RMSE, meV/Å", digits=1),
    Column(name="load", digits=1),
    Column(name="on"),
    Column(name="sluice"),
]


def all_runs(records: Sequence[Record]) -> Part:
    """Every finished run."""
    return Part(title="Every run", columns=RUN_COLUMNS, rows=[run_row(record) for record in records])


def run_row(record: Record) -> list[Cell]:
    """One run."""
    key, result = record["key"], record["result"]
    named = f"{key['package']} {key['model']}" + (f", {in_words(key['changes'])}" if "changes" in key else "")
    head: list[Cell] = [key["task"], named, key["seed"], key["cpu_minutes"], result["cpu_s"], float(result["epochs"])]
    names = ("energy_mae_mev_per_atom", "force_mae_mev_per_angstrom", ERROR)
    where = (record["where"]["load"], record["where"]["processor"], code_of(record))
    return [*head, *(result.get(name) for name in names), *where]


def draw(records: Sequence[Record], path: Path, changes: Mapping[str, Any] | None = None) -> Path:
    """Force RMSE against CPU minutes, one panel a task, on the processor that most of its runs were made on: an SVG."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    current = of_recipes(records, changes)
    names = [name for name in TASKS if of_task(current, name)]
    figure, axes = pyplot.subplots(1, max(1, len(names)), figsize=(4.2 * max(1, len(names)), 3.6), squeeze=False)
    for axis, name in zip(axes[0], names, strict=False):
        draw_panel(axis, name, of_busiest_processor(of_task(current, name)))
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)
    return path


def draw_panel(axis: Any, name: str, records: Sequence[Record]) -> None:
    """The curves of one task on one processor."""
    of_packages = curves(records)
    for package, points in of_packages.items():
        axis.plot(*zip(*points, strict=True), marker="o", label=package)
    axis.set(xscale="log", yscale="log", xlabel="CPU minutes", ylabel="test force RMSE, meV/Å")
    minutes = sorted({point[0] for points in of_packages.values() for point in points})
    axis.set_xticks(minutes, [f"{value:.3g}" for value in minutes])
    axis.set_xticks([], minor=True)
    axis.yaxis.set_major_formatter("{x:g}")
    axis.yaxis.set_minor_formatter("{x:g}")
    axis.set_title(f"{name}, {records[0]['where']['processor']}", fontsize=9)
    axis.legend(fontsize=7)


def of_busiest_processor(records: Sequence[Record]) -> list[Record]:
    """Records of the processor that most of them are of."""
    counts = Counter(record["where"]["processor"] for record in records)
    (name, _), *_ = counts.most_common(1)
    return [record for record in records if record["where"]["processor"] == name]


def curves(records: Sequence[Record]) -> dict[str, list[tuple[float, float]]]:
    """By package, (CPU minutes, force RMSE): the mean of seeds for ours, the best size for peers."""
    found: dict[str, list[tuple[float, float]]] = {}
    for package in (OWN, *CONTENDERS):
        minutes = sorted({r["key"]["cpu_minutes"] for r in records if r["key"]["package"] == package})
        for budget in minutes:
            errors = [float(r["result"][ERROR]) for r in records if is_at(r, package, budget)]
            point = (budget, mean(errors) if package == OWN else min(errors))
            found.setdefault("ours" if package == OWN else PEERS[package].title, []).append(point)
    return found
