"""`sluice bench`: benchmarks, each a table for people and one JSON object for programs."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.cli.output import DryRunOption, JsonOption, SetOption, goes_on, overrides, say, show, speaks_plainly
from flows.cli.results import BenchPlanResult

if TYPE_CHECKING:
    from flows.bench.drivers import Driver
    from flows.bench.table import BenchTable
    from flows.settings import Home

app = typer.Typer(help="Benchmarks: each prints a table, or JSON.", no_args_is_help=True)

DataOption = Annotated[
    Path, typer.Option("--data", metavar="DIR", help="Folder of real data sets.", show_default=False, file_okay=False)
]
PeersOption = Annotated[
    Path | None, typer.Option("--peers-home", metavar="DIR", help="Environments of peers; default HOME/peers.")
]
HomeOption = Annotated[
    Path | None,
    typer.Option("--home", metavar="DIR", help="Lake and checkpoints of benchmarks; default HOME/benchmarks."),
]
ResultsOption = Annotated[
    Path, typer.Option("--results", metavar="DIR", help="Where the journal, the page and the picture are written.")
]
LimitOption = Annotated[int | None, typer.Option(min=0, help="At most so many runs; 0 only writes the page.")]
PresetOption = Annotated[str, typer.Option(help="Size of our network: small, default or accurate.")]
SeedsOption = Annotated[list[int] | None, typer.Option("--seed", help="Only these seeds of ours; repeatable.")]
RESULTS = Path("docs/results")


def bench_home(given: Path | None) -> Home:
    """The home that benchmarks work in."""
    from flows.settings import Home, find_home

    return Home((given or find_home().root / "benchmarks").resolve())


def drive(driver: Driver, home: Home, limit: int | None, dry_run: bool, as_json: bool) -> None:
    """Say what is left, or do it and print the table."""
    if dry_run:
        show(BenchPlanResult(runs=driver.plan()), as_json, say_runs)
        return
    from flows.cli.output import terminating_like_interrupt

    with terminating_like_interrupt():
        show(driver.drive(home, limit), as_json, print_table)


def say_runs(plan: BenchPlanResult) -> None:
    """A line a run."""
    for line in plan.runs:
        say(line)


def peers_folder(given: Path | None) -> Path:
    """Where the environments of peers lie."""
    from flows.settings import find_home

    return (given or find_home().root / "peers").resolve()


def print_table(table: BenchTable) -> None:
    """The table as Markdown on stdout."""
    sys.stdout.write(table.markdown())


@app.command("peers")
@speaks_plainly
def peers(
    install: Annotated[
        list[str] | None, typer.Option("--install", metavar="NAME", help="Install this peer, or `all`; repeatable.")
    ] = None,
    peers_home: PeersOption = None,
    as_json: JsonOption = False,
) -> None:
    """Which packages are measured beside ours, and whether their environments are there."""
    from flows.bench.peers import environments as found

    home = peers_folder(peers_home)
    chosen = list(found.PEERS) if "all" in (install or []) else install or []
    for peer in [found.peer_named(name) for name in chosen]:
        say(f"{peer.requirement}: {'installed' if found.install(peer, home) else 'was there'}")
    show(found.listing(home), as_json, print_table)


@app.command("potential")
@speaks_plainly
def potential(
    data: DataOption,
    sets: Annotated[list[str] | None, typer.Option("--set", help="3bpa or si; both if none is given.")] = None,
    model: Annotated[
        list[str] | None, typer.Option("--model", metavar="PACKAGE:MODEL", help="Measure only these; repeatable.")
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds in turn.")] = 4,
    seconds: Annotated[float, typer.Option(min=0.0, help="Least CPU seconds of each task in a round.")] = 1.0,
    compiled: Annotated[bool, typer.Option("--compiled", help="Ours and NequIP compiled too: some minutes.")] = False,
    device: Annotated[
        str, typer.Option(help="cpu (one core), or cuda, where MACE with cuEquivariance is one more.")
    ] = "cpu",
    peers_home: PeersOption = None,
    as_json: JsonOption = False,
) -> None:
    """Speed and memory of our networks beside other packages', in turn, and against the arithmetic floor."""
    from flows.bench import potential as bench
    from flows.bench.potential_tables import table_of
    from flows.bench.table import own_versions
    from gnn.models.device import device_of

    settings = bench.Settings(
        data=data,
        peers_home=peers_folder(peers_home),
        sets=tuple(sets or ("3bpa", "si")),
        contenders=tuple(map(bench.parse_contender, model or [])) or bench.default_contenders(compiled, device),
        rounds=rounds,
        seconds=seconds,
        core=bench.last_core(),
        device=device_of(device).type,
    )
    bench.check(settings)
    extra = [f"--set {name}" for name in sets or []] + [f"--model {name}" for name in model or []]
    extra += ["--compiled"] if compiled else []
    extra += [f"--device {device}"] if device != "cpu" else []
    command = " ".join(["sluice bench potential --data DATA", f"--rounds {rounds} --seconds {seconds:g}", *extra])
    began = own_versions()
    show(table_of(bench.run(settings), settings, command, began), as_json, print_table)


@app.command("networks")
@speaks_plainly
def networks(
    size: Annotated[list[str] | None, typer.Option(help="As '64 L0'; all if none is given.")] = None,
    structures: Annotated[str, typer.Option(help="molecule or crystal.")] = "molecule",
    cutoff: Annotated[float, typer.Option(help="Å")] = 5.0,
    rounds: Annotated[int, typer.Option(min=1, help="Steps that are timed.")] = 10,
    as_json: JsonOption = False,
) -> None:
    """Speed and memory of our networks by size, without other packages and without data."""
    from flows.bench.network_speed import run

    show(run(size or [], structures, cutoff, rounds), as_json, print_table)


@app.command("step")
@speaks_plainly
def step(
    data: DataOption,
    task: Annotated[str, typer.Option(help="Task of flows/bench/tasks.toml.")] = "3bpa",
    changes: SetOption = None,
    device: Annotated[str, typer.Option(help="cpu, cuda or cuda:N.")] = "cpu",
    warm: Annotated[int, typer.Option(min=1, help="Steps before any is measured.")] = 100,
    steps: Annotated[int, typer.Option(min=1, help="Steps that are measured.")] = 40,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Where the time of a training step goes: batch, gradients, clipping, optimiser, average."""
    from flows.bench.tasks import check_files, task_named
    from flows.bench.training_step import Settings, run

    check_files([task_named(task)], data)
    settings = Settings(data, bench_home(home), task, overrides(changes) or None, device, warm, steps)
    words = [
        "sluice bench step --data DATA",
        f"--task {task} --device {device}",
        *(f"--set {c}" for c in changes or []),
    ]
    show(run(settings, " ".join(words)), as_json, print_table)


@app.command("graphs")
@speaks_plainly
def graphs(
    datasets: Annotated[list[str], typer.Argument(help="Data sets of the lake.", show_default=False)],
    cutoff: Annotated[float, typer.Option(help="Å")] = 5.0,
    limit: Annotated[int, typer.Option(min=1, help="Structures of each set.")] = 1000,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds in turn.")] = 3,
    as_json: JsonOption = False,
) -> None:
    """Neighbour lists beside ASE's; building, writing, reading and batching graphs."""
    from flows.bench.graph_speed import run

    show(run(datasets, cutoff, limit, rounds), as_json, print_table)


@app.command("relaxation")
@speaks_plainly
def relaxation(
    model: Annotated[str, typer.Argument(help="A registered model, URI or checkpoint folder.", show_default=False)],
    element: Annotated[
        list[str] | None, typer.Option(metavar="X", help="Of these elements; the model's first four if none.")
    ] = None,
    cells: Annotated[int, typer.Option(min=1, help="Cells to relax.")] = 60,
    fmax: Annotated[float, typer.Option(min=1e-6, help="eV/Å")] = 0.05,
    rattle: Annotated[float, typer.Option(min=0, help="Å by which atoms are displaced at random.")] = 0.0,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds in turn.")] = 3,
    as_json: JsonOption = False,
) -> None:
    """Batched relaxation beside ASE's optimisers, one structure after the other."""
    from flows.bench.relaxation_speed import Plan, run

    show(run(model, Plan(tuple(element or ()), cells, fmax, rattle, rounds)), as_json, print_table)


@app.command("ingest")
@speaks_plainly
def ingest(data: DataOption, as_json: JsonOption = False) -> None:
    """Every real data set into a lake that is thrown away, held against what its card says."""
    from flows.bench.ingest_table import run

    show(run(data), as_json, print_table)


@app.command("time-to-accuracy")
@goes_on
def time_to_accuracy(
    data: DataOption,
    task: Annotated[list[str] | None, typer.Option(help="3bpa, ethanol or si; all if none is given.")] = None,
    package: Annotated[list[str] | None, typer.Option(help="sluice, mace, nequip or torchmd; all if none.")] = None,
    minutes: Annotated[list[float] | None, typer.Option(help="CPU minutes of peers; 5, 10 and 20 if none.")] = None,
    changes: SetOption = None,
    seed: SeedsOption = None,
    limit: LimitOption = None,
    home: HomeOption = None,
    peers_home: PeersOption = None,
    results: ResultsOption = RESULTS,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Force error after so many CPU minutes, ours at a third of the peers'; goes on from where it was stopped."""
    from flows.bench import time_to_accuracy as bench
    from flows.bench import time_to_accuracy_tables as tables
    from flows.bench.drivers import Driver
    from flows.bench.tasks import check_files, task_named

    own = bench_home(home)
    plan = bench.Plan(
        data=data,
        home=own,
        peers_home=peers_folder(peers_home),
        changes=overrides(changes) or None,
        tasks=tuple(task or bench.TASKS),
        budgets=tuple(minutes or bench.BUDGETS),
        seeds=tuple(seed or bench.SEEDS),
        contenders=tuple(package or bench.ALL),
    )
    bench.check(plan)
    check_files([task_named(name) for name in plan.tasks], data)
    if limit != 0 and not dry_run:
        bench.check_installed(plan)
    words = ["sluice bench time-to-accuracy --data DATA", *(f"--set {text}" for text in changes or [])]
    table, picture = partial(tables.table_of, changes=plan.changes), partial(tables.draw, changes=plan.changes)
    driver = Driver(bench.NAME, bench.runs_of(plan), table, results, " ".join(words), picture)
    drive(driver, own, limit, dry_run, as_json)


@app.command("body-order")
@goes_on
def body_order(
    data: DataOption,
    minutes: Annotated[float, typer.Option(min=0.001, help="CPU minutes of every training.")] = 5.0,
    task: Annotated[list[str] | None, typer.Option(help="3bpa or si; both if none is given.")] = None,
    preset: PresetOption = "default",
    seed: SeedsOption = None,
    limit: LimitOption = None,
    home: HomeOption = None,
    results: ResultsOption = RESULTS,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Correlation 1, 2, 3 against L = 0, 1, 2 at equal CPU time; goes on from where it was stopped."""
    from flows.bench import body_order as bench
    from flows.bench.drivers import Driver
    from flows.bench.tasks import check_files, task_named

    own, tasks = bench_home(home), tuple(task or bench.TASKS)
    check_files([task_named(name) for name in tasks], data)
    plan = bench.Plan(data, own, minutes, preset, tasks, tuple(seed or (0,)))
    command = f"sluice bench body-order --data DATA --minutes {minutes:g} --preset {preset}"
    drive(Driver(bench.NAME, bench.runs_of(plan), bench.table_of, results, command), own, limit, dry_run, as_json)


@app.command("accuracy")
@goes_on
def accuracy(
    data: DataOption,
    case: Annotated[list[str] | None, typer.Option(help="Case of flows/bench/accuracy.toml; all if none.")] = None,
    changes: SetOption = None,
    rivals: Annotated[bool, typer.Option("--peers", help="Train the peers of the cases, not ours.")] = False,
    limit: LimitOption = None,
    home: HomeOption = None,
    peers_home: PeersOption = None,
    results: ResultsOption = RESULTS,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Long trainings against the errors they have to reach; goes on from where it was stopped."""
    from flows.bench import accuracy as bench
    from flows.bench.drivers import Driver
    from flows.bench.tasks import check_files, task_named

    own = bench_home(home)
    plan = bench.Plan(data, own, tuple(case or ()), overrides(changes) or None)
    cases = bench.rival_cases(plan) if rivals else bench.cases_of(plan)
    check_files([task_named(found.task) for found in cases], data)
    words = ["sluice bench accuracy --data DATA", *(f"--set {text}" for text in changes or [])]
    runs = bench.rival_runs(plan, peers_folder(peers_home)) if rivals else bench.runs_of(plan)
    driver = Driver(bench.NAME, runs, bench.table_of, results, " ".join(words))
    drive(driver, own, limit, dry_run, as_json)


@app.command("real-sets")
@goes_on
def real_sets(
    data: DataOption,
    name: Annotated[list[str] | None, typer.Option("--set", help="Of flows/bench/real_sets.toml; all if none.")] = None,
    minutes: Annotated[float, typer.Option(min=0.001, help="CPU minutes of every training.")] = 3.0,
    limit: LimitOption = None,
    home: HomeOption = None,
    results: ResultsOption = RESULTS,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Trainings of minutes with nothing but defaults, on data of many kinds; goes on from where it was stopped."""
    from flows.bench import real_sets as bench
    from flows.bench.drivers import Driver
    from flows.bench.tasks import check_files

    own = bench_home(home)
    plan = bench.Plan(data, own, tuple(name or ()), minutes)
    check_files(bench.sets_of(plan), data)
    command = f"sluice bench real-sets --data DATA --minutes {minutes:g}"
    drive(Driver(bench.NAME, bench.runs_of(plan), bench.table_of, results, command), own, limit, dry_run, as_json)


@app.command("calibration")
@goes_on
def calibration(
    data: DataOption,
    epochs: Annotated[int, typer.Option(min=1, help="Passes of every training over its structures.")] = 10,
    task: Annotated[list[str] | None, typer.Option(help="Task of flows/bench/tasks.toml; three if none.")] = None,
    member: Annotated[list[int] | None, typer.Option("--members", help="Members of the committee; repeatable.")] = None,
    splits: Annotated[int, typer.Option(min=1, help="Group splits, each with a training of its own.")] = 20,
    preset: PresetOption = "small",
    limit: LimitOption = None,
    home: HomeOption = None,
    results: ResultsOption = RESULTS,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Whether nominal 90 % intervals cover 90 % of held-out energies; goes on from where it was stopped."""
    from flows.bench import calibration as bench
    from flows.bench.drivers import Driver
    from flows.bench.tasks import check_files, task_named

    own, tasks, members = bench_home(home), tuple(task or bench.TASKS), tuple(member or (1,))
    check_files([task_named(name) for name in tasks], data)
    plan = bench.Plan(data, own, epochs, preset, tasks, members, splits)
    command = f"sluice bench calibration --data DATA --epochs {epochs} --splits {splits} --preset {preset}"
    drive(Driver(bench.NAME, bench.runs_of(plan), bench.table_of, results, command), own, limit, dry_run, as_json)
