"""Time to accuracy as tables and curves: peers' best size beside the mean of ours, by processor and whatever it is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from math import log2
from pathlib import Path
from statistics import mean
from typing import Any

from flows.bench.peers.client import OWN
from flows.bench.peers.environments import PEERS
from flows.bench.runs import CODE_NOTE, Record, code_of, in_words, processors, run_table
from flows.bench.table import BenchTable, Cell, Column, Part
from flows.bench.tasks import task_named
from flows.bench.time_to_accuracy import BUDGETS, CONTENDERS, NAME, SHARE, TASKS, recipe_of

ERROR = "force_rmse_mev_per_angstrom"
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
    tables = [anywhere(current), *parts, all_runs(records)]
    return run_table(NAME, "Time to accuracy", command, tables, records, notes, peer_versions(records))


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


def made_on(name: str, records: Sequence[Record]) -> list[Record]:
    """Records of one processor."""
    return [record for record in records if record["where"]["processor"] == name]


def rows_on(name: str, records: Sequence[Record]) -> list[list[Cell]]:
    """The rows of one processor."""
    same = made_on(name, records)
    return [[*budget_row(same, budget), name] for budget in budgets_of(same)]


def budgets_of(records: Sequence[Record]) -> list[float]:
    """The peers' CPU minutes that anything was finished at."""
    peers = {r["key"]["cpu_minutes"] for r in records if r["key"]["package"] != OWN}
    ours = {round(SHARE * r["key"]["cpu_minutes"], 2) for r in records if r["key"]["package"] == OWN}
    return sorted(peers | ours)


def budget_row(records: Sequence[Record], budget: float) -> list[Cell]:
    """Peers at `budget`, ours at its third."""
    best = {name: best_of(records, name, budget) for name in CONTENDERS}
    errors = [error_of(found) for found in best.values() if found is not None]
    own = [error_of(record) for record in at(records, (OWN,), budget / SHARE)]
    limit, reached = (min(errors) if errors else None), (mean(own) if own else None)
    return [
        budget,
        *(None if found is None else f"{error_of(found):.1f} ({found['key']['model']})" for found in best.values()),
        limit,
        budget / SHARE,
        reached,
        f"{min(own):.1f} to {max(own):.1f} ({len(own)} seeds)" if own else None,
        None if limit is None or reached is None else ("yes" if reached <= limit else "no"),
    ]


def at(records: Sequence[Record], packages: Sequence[str], minutes: float) -> list[Record]:
    """Records of these packages at this budget."""
    found = [record for record in records if record["key"]["package"] in packages]
    return [record for record in found if abs(record["key"]["cpu_minutes"] - minutes) < 1e-3]


def error_of(record: Record) -> float:
    """Test force RMSE, meV/Å."""
    return float(record["result"][ERROR])


def best_of(records: Sequence[Record], package: str, minutes: float) -> Record | None:
    """The run of the least force error; None where there is none."""
    return min(at(records, (package,), minutes), key=error_of, default=None)


ANYWHERE_COLUMNS = [
    Column(name="task"),
    Column(name="peers' CPU minutes", digits=0),
    Column(name="best peer", digits=1),
    Column(name="its package, size and processor"),
    Column(name="ours, CPU minutes", digits=2),
    Column(name="ours, mean of seeds", digits=1),
    Column(name="its processor"),
    Column(name="reached"),
    Column(name="sizes not run (the fall a doubling they would need)"),
]


def anywhere(records: Sequence[Record]) -> Part:
    """Every task and budget: peers held against ours on their own processor, or else against our worst."""
    rows = [
        anywhere_row(of_task(records, name), budget)
        for name in TASKS
        for budget in BUDGETS
        if at(of_task(records, name), CONTENDERS, budget) and at(of_task(records, name), (OWN,), budget / SHARE)
    ]
    notes = [
        "The same CPU minutes are several times the work on one processor as on another. A peer is held against ours "
        "on its own processor; where ours was not run there, against ours where it is worst. The closest is shown.",
        "A size that was not run at a budget: by how much its error would have to fall every time its minutes double, "
        f"from the last budget it was run at, to come below ours.{greatest_falls(records)}",
    ]
    return Part(title="Whatever the processor", columns=ANYWHERE_COLUMNS, rows=rows, notes=notes)


def anywhere_row(records: Sequence[Record], budget: float) -> list[Cell]:
    """One budget of a task: the peer that comes closest."""
    own = means_of_ours(records, budget)
    closest = min(at(records, CONTENDERS, budget), key=lambda record: error_of(record) / against(own, record)[0])
    mine, where = against(own, closest)
    return [
        closest["key"]["task"],
        budget,
        error_of(closest),
        f"{size_of(closest)}, {closest['where']['processor']}",
        budget / SHARE,
        mine,
        where,
        "yes" if mine <= error_of(closest) else "no",
        not_run(records, budget) or None,
    ]


def means_of_ours(records: Sequence[Record], budget: float) -> dict[str, float]:
    """By processor, the mean error of our seeds at a third of the budget."""
    own = at(records, (OWN,), budget / SHARE)
    return {name: mean(map(error_of, made_on(name, own))) for name in processors(own)}


def against(own: Mapping[str, float], peer: Record) -> tuple[float, str]:
    """What a peer's run is held against, and on which processor that is."""
    name = peer["where"]["processor"]
    worst = max(own, key=lambda processor: own[processor])
    return (own[name], name) if name in own else (own[worst], worst)


def size_of(record: Record) -> str:
    """Package and size of a peer's run."""
    return f"{PEERS[record['key']['package']].title} {record['key']['model']}"


def not_run(records: Sequence[Record], budget: float) -> str:
    """Sizes of peers that nothing was finished of at this budget, and the fall a doubling that each would need."""
    done = {size_of(record) for record in at(records, CONTENDERS, budget)}
    sizes = [f"{PEERS[name].title} {size}" for name in CONTENDERS for size in PEERS[name].sizes]
    return ", ".join(f"{size}{needed(records, size, budget)}" for size in sizes if size not in done)


def needed(records: Sequence[Record], size: str, budget: float) -> str:
    """The least fall a doubling that would bring a size below ours, in brackets; nothing if it has no shorter run."""
    own = means_of_ours(records, budget)
    before = [r for r in records if r["key"]["package"] != OWN and size_of(r) == size and minutes_of(r) < budget]
    falls = [(error_of(r) / against(own, r)[0]) ** (1 / log2(budget / minutes_of(r))) for r in before]
    return f" ({min(falls):.1f})" if falls else ""


def greatest_falls(records: Sequence[Record]) -> str:
    """The most that doubling its minutes has done for any size of a peer, by task."""
    falls = [(name, fall) for name in TASKS if (fall := greatest_fall(of_task(records, name)))]
    return f" The greatest falls seen: {'; '.join(f'{name} {fall}' for name, fall in falls)}." if falls else ""


def greatest_fall(records: Sequence[Record]) -> str:
    """The greatest of one task and whose it is; nothing where no size was run at two budgets."""
    peers = [record for record in records if record["key"]["package"] != OWN]
    falls = [(error_of(short) / error_of(long), short) for short in peers for long in peers if doubled(short, long)]
    if not falls:
        return ""
    fall, run = max(falls, key=lambda found: found[0])
    minutes = f"{minutes_of(run):g} to {2 * minutes_of(run):g} minutes"
    return f"{fall:.2f} ({size_of(run)}, {minutes}, {run['where']['processor']})"


def doubled(short: Record, long: Record) -> bool:
    """Whether the second is the first with twice the minutes."""
    alike = all(short["key"][name] == long["key"][name] for name in ("package", "model", "seed"))
    alike = alike and short["where"]["processor"] == long["where"]["processor"]
    return alike and minutes_of(long) == 2 * minutes_of(short)


def minutes_of(record: Record) -> float:
    """The CPU minutes of a run."""
    return float(record["key"]["cpu_minutes"])


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
    return made_on(name, records)


def curves(records: Sequence[Record]) -> dict[str, list[tuple[float, float]]]:
    """By package, (CPU minutes, force RMSE): the mean of seeds for ours, the best size for peers."""
    found: dict[str, list[tuple[float, float]]] = {}
    for package in (OWN, *CONTENDERS):
        minutes = sorted({r["key"]["cpu_minutes"] for r in records if r["key"]["package"] == package})
        for budget in minutes:
            errors = [error_of(record) for record in at(records, (package,), budget)]
            point = (budget, mean(errors) if package == OWN else min(errors))
            found.setdefault("ours" if package == OWN else PEERS[package].title, []).append(point)
    return found
