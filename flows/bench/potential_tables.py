"""Speeds of potentials as tables: every set, ours against peers of the same size, ours against the arithmetic floor."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from flows.bench.peers.client import OWN
from flows.bench.peers.environments import TORCH
from flows.bench.potential import COMPILED, TABULATED, TASKS, TENSOR, Measured, SetResult, Settings
from flows.bench.rounds import Spread, ratios
from flows.bench.table import BenchTable, Cell, Column, Part, bench_table, own_versions

NAME = "potential"
REFERENCE = "mace 64_L0"
SAME_SIZE = (
    (f"{OWN} ace_64_L0", "mace 64_L0"),
    (f"{OWN} ace_64_L1", "mace 64_L1"),
    (f"{OWN} {TENSOR}", "torchmd tn2_64"),
    (f"{OWN} {TENSOR}", "nequip S"),
    (f"{OWN} {TENSOR}", f"nequip S{COMPILED}"),
    (f"{OWN} ace_64_L0{COMPILED}", "mace 64_L0"),
    (f"{OWN} ace_64_L1{COMPILED}", "mace 64_L1"),
    (f"{OWN} ace_64_L0{TABULATED}", "mace 64_L0"),
    (f"{OWN} ace_64_L1{TABULATED}", "mace 64_L1"),
    (f"{OWN} {TENSOR}{TABULATED}", "torchmd tn2_64"),
    (f"{OWN} ace_64_L0", "mace 64_L0-cueq"),
    (f"{OWN} ace_64_L1", "mace 64_L1-cueq"),
    (f"{OWN} ace_64_L0{COMPILED}", "mace 64_L0-cueq"),
    (f"{OWN} ace_64_L1{COMPILED}", "mace 64_L1-cueq"),
)
"""Ours and the peer's model that it is to be compared with: same channels, degree, layers and correlation."""
PAIR_COLUMNS = [
    Column(name="set"),
    Column(name="ours"),
    Column(name="peer"),
    Column(name="train ×"),
    Column(name="infer ×"),
    Column(name="peak memory, ours / theirs", digits=2),
]
FLOOR_COLUMNS = [
    Column(name="set"),
    Column(name="model"),
    Column(name="step"),
    Column(name="ms", digits=1),
    Column(name="products, GFLOP", digits=2),
    Column(name="floor: products alone, ms", digits=1),
    Column(name="at GFLOP/s", digits=0),
    Column(name="times the floor", digits=1),
    Column(name="other operators move, MB", digits=0),
    Column(name="copies of that, ms", digits=1),
    Column(name="at GB/s", digits=0),
]
FLOOR_NOTES = [
    "The floor is every matrix product of the step, timed alone at its own shape and strides, in warm caches, on the "
    "same core.",
    "What the other operators read and write is counted as they stand, one by one; fusing them lowers it. Copies are "
    "timed at the sizes of their tensors, so small ones run from cache.",
]


def table_of(
    results: Sequence[SetResult], settings: Settings, command: str, ours: dict[str, str] | None = None
) -> BenchTable:
    """One part a set with all contenders, one with the pairs of the same size, one with the floor of ours.

    `ours`: our versions when the run began; those of now where None.
    """
    on_cpu = settings.device == "cpu"
    parts = [set_part(result, "CPU s" if on_cpu else "s") for result in results]
    if pairs := pair_rows(results):
        parts.append(Part(title="Ours against peers of the same size", columns=PAIR_COLUMNS, rows=pairs))
    if floors := floor_rows(results):
        parts.append(Part(title="The arithmetic floor", columns=FLOOR_COLUMNS, rows=floors, notes=FLOOR_NOTES))
    versions = dict(m.version.split() for result in results for m in result.measured.values())
    facts = {"seeds": [settings.seed], "versions": versions | (ours or own_versions()), "notes": notes_of(settings)}
    place = "one core" if on_cpu else f"one GPU ({gpu_name(settings.device)})"
    return bench_table(NAME, f"Speed of potentials, {place}, float32", command, parts, **facts)


def gpu_name(device: str) -> str:
    """What the maker calls it."""
    import torch

    return torch.cuda.get_device_name(device)


def notes_of(settings: Settings) -> list[str]:
    """How it was measured."""
    core = "the system's choice of core" if settings.core is None else f"core {settings.core} for all"
    clock, of_what = "CPU s", "the whole process, imports and both kinds of step included"
    if settings.device != "cpu":
        clock, of_what = "s, every step waited for,", "what tensors took on the GPU, both kinds of step included"
    return [
        "A training step is energies, forces, loss of both, backward and an Adam update, three batches in turn; "
        f"inference is energies and forces. Graphs (cutoff {settings.cutoff:g} Å) are built outside.",
        f"{settings.rounds} rounds in turn, each at least {settings.seconds:g} {clock} and two steps of either kind; "
        "medians, ratios round by round (least to greatest).",
        f"One process a model, one thread, {core}, glibc told to keep freed memory for all; peers with {TORCH}.",
        f"`{TABULATED}`: the radial functions of our network are tables, exact to 1e-6: inference with work avoided.",
        f"`{COMPILED}`: energies and slopes are one compiled program; the minute or two of compiling stand outside.",
        f"Peak memory is that of {of_what}.",
    ]


def set_columns(clock: str) -> list[Column]:
    """The columns of a set's table; `clock` is the second that rates are by."""
    of_tasks = [
        Column(name=f"{task}, {what}", digits=digits)
        for task, piece in (("train", "step"), ("infer", "batch"))
        for what, digits in ((f"ms a {piece}", 1), (f"atoms / {clock}", 0), ("µs / atom", 2), ("× reference", None))
    ]
    return [Column(name="package, model"), Column(name="weights"), *of_tasks, Column(name="peak MB", digits=0)]


def set_part(result: SetResult, clock: str) -> Part:
    """The table of one set."""
    reference = reference_of(result)
    faster = {task: faster_than(reference, result, task) for task in TASKS}
    rows = [set_row(result, name, {task: faster[task].get(name) for task in TASKS}) for name in result.measured]
    atoms = ", ".join(f"{result.atoms[task]:.0f} atoms ({task})" for task in TASKS)
    return Part(
        title=f"{result.name}: batches of {atoms}; reference {reference}", columns=set_columns(clock), rows=rows
    )


def faster_than(reference: str, result: SetResult, task: str) -> dict[str, Spread]:
    """How many times faster than `reference` each contender is that does the task."""
    return ratios(
        {name: found.seconds[task] for name, found in result.measured.items() if found.seconds[task]}, reference
    )


def reference_of(result: SetResult) -> str:
    """MACE with 64 channels and L=0 where it is there, else the first contender."""
    return REFERENCE if REFERENCE in result.measured else next(iter(result.measured))


def set_row(result: SetResult, name: str, faster: dict[str, Spread | None]) -> list[Cell]:
    """One contender's row."""
    found = result.measured[name]
    row: list[Cell] = [name, found.parameters]
    for task in TASKS:
        ratio = faster[task]
        if ratio is None:
            row += [None, None, None, None]
            continue
        seconds, atoms = median(found.seconds[task]), result.atoms[task]
        row += [1e3 * seconds, atoms / seconds, 1e6 * seconds / atoms, ratio.text()]
    return [*row, found.peak_mb]


def pair_rows(results: Sequence[SetResult]) -> list[list[Cell]]:
    """Rows of `SAME_SIZE` where both were measured."""
    rows: list[list[Cell]] = []
    for result in results:
        for ours, theirs in SAME_SIZE:
            if ours in result.measured and theirs in result.measured:
                rows.append([result.name, ours, theirs, *pair_cells(result.measured[ours], result.measured[theirs])])
    return rows


def pair_cells(ours: Measured, theirs: Measured) -> list[Cell]:
    """How many times faster ours is, by task, and its memory over theirs."""
    each = [{"ours": ours.seconds[task], "theirs": theirs.seconds[task]} for task in TASKS]
    faster: list[Cell] = [
        ratios(seconds, "theirs")["ours"].text() if seconds["ours"] and seconds["theirs"] else None for seconds in each
    ]
    return [*faster, ours.peak_mb / theirs.peak_mb]


def floor_rows(results: Sequence[SetResult]) -> list[list[Cell]]:
    """Rows of our models: their steps against what their matrix products alone take."""
    return [
        [result.name, name, task, *floor_cells(1e3 * median(found.seconds[task]), floor)]
        for result in results
        for name, found in result.measured.items()
        for task, floor in found.floors.items()
    ]


def floor_cells(step_ms: float, floor: dict[str, float]) -> list[Cell]:
    """A step of so many milliseconds, and its floor."""
    products_ms = 1e3 * floor["products_s"]
    return [
        step_ms,
        floor["flops"] / 1e9,
        products_ms,
        floor["gflop_rate"],
        step_ms / products_ms if products_ms else None,
        floor["moved_bytes"] / 1e6,
        1e3 * floor["moved_s"],
        floor["gbyte_rate"],
    ]
