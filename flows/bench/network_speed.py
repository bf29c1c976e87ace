"""Speed of the networks on this machine: atoms a CPU second in training and inference, parameters, peak memory.

`sluice bench networks [--size NAME]... [--rounds N]` prints a table. Each size runs in a process of its own, so that
its peak memory is its own. CPU seconds (user + system of one thread) are compared, because other
work on the machine does not count in them; it still slows memory down, so quote ratios of runs made in turn.
"""

from __future__ import annotations

import multiprocessing
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ase import Atoms
from ase.build import bulk, molecule

from flows.bench.peers.workers.session import peak_mb
from flows.bench.table import BenchTable, Cell, Column, Part, bench_table
from gnn.errors import check_known

TRAIN_STRUCTURES, INFER_STRUCTURES = 8, 32
WARM_UP = 3
KINDS = ("molecule", "crystal")

SIZES: dict[str, dict[str, Any]] = {
    "32 L0": {"channels": 32},
    "64 L0": {"channels": 64},
    "128 L0": {"channels": 128},
    "64 L0 pair": {"channels": 64, "correlation": 1},
    "64 L0 triplet": {"channels": 64, "correlation": 2},
    "64 L1": {"channels": 64, "hidden_l_max": 1},
    "32 L2": {"channels": 32, "hidden_l_max": 2},
    "tensor 32": {"family": "tensor", "channels": 32},
    "tensor 64": {"family": "tensor", "channels": 64},
}
"""Fields of ModelConfig by the name of a row."""


@dataclass(frozen=True)
class Row:
    """One size on one kind of structure; rates are atoms a CPU second, peak memory is that of the whole process."""

    size: str
    structures: str
    parameters: int
    atoms: int
    train_rate: float
    infer_rate: float
    peak_mb: float


def structures(kind: str, number: int) -> list[Atoms]:
    """`molecule`: 24 atoms of C, H, O; `crystal`: silicon, 64 atoms; rattled, the same every time."""
    frame = molecule("C6H6") + molecule("C6H6") if kind == "molecule" else bulk("Si", cubic=True) * (2, 2, 2)
    if kind == "molecule":
        frame.positions[12:] += [0.3, 0.2, 3.4]
    frames = [frame.copy() for _ in range(number)]
    for seed, copy in enumerate(frames):
        copy.rattle(0.05, seed=seed)
    return frames


def measure(size: str, kind: str, cutoff: float, rounds: int) -> Row:
    """Train and infer with one thread; medians over `rounds` after a warm-up."""
    import torch

    from gnn.graphs.collate import batch_of_atoms
    from gnn.models.config import ModelConfig
    from gnn.models.model import build_model

    torch.set_num_threads(1)
    small, large = (batch_of_atoms(structures(kind, n), cutoff) for n in (TRAIN_STRUCTURES, INFER_STRUCTURES))
    neighbours = small.receivers.shape[0] / small.numbers.shape[0]
    fields = {"elements": ["H", "C", "Si"], "cutoff": cutoff, "mean_neighbours": neighbours} | SIZES[size]
    model = build_model(ModelConfig.model_validate(fields))
    optimiser = torch.optim.Adam(model.parameters(), 1e-6)

    def step() -> None:
        found = model.predict(small, stress=kind == "crystal", training=True)
        assert found.forces is not None
        loss = found.energy.square().mean() * 1e-6 + found.forces.square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()

    train_s = _median_s(step, rounds)
    infer_s = _median_s(lambda: model.predict(large, stress=kind == "crystal"), rounds)
    atoms = len(small.numbers)
    parameters = sum(p.numel() for p in model.parameters())
    return Row(size, kind, parameters, atoms, atoms / train_s, len(large.numbers) / infer_s, peak_mb())


def _median_s(work: Callable[[], object], rounds: int) -> float:
    """Median CPU seconds of a call."""
    found = []
    for _ in range(WARM_UP + rounds):
        start = time.process_time()
        work()
        found.append(time.process_time() - start)
    return statistics.median(found[WARM_UP:])


COLUMNS = [
    Column(name="size"),
    Column(name="structures"),
    Column(name="parameters"),
    Column(name="train atoms / CPU s", digits=0),
    Column(name="infer atoms / CPU s", digits=0),
    Column(name="peak MB", digits=0),
]


def table(rows: Sequence[Row], command: str) -> BenchTable:
    """The rows as a table."""
    cells: list[list[Cell]] = [
        [r.size, r.structures, r.parameters, r.train_rate, r.infer_rate, r.peak_mb] for r in rows
    ]
    part = Part(title="One thread, float32", columns=COLUMNS, rows=cells)
    return bench_table("networks", "Speed of the networks", command, [part])


def run(sizes: Sequence[str], kind: str, cutoff: float, rounds: int) -> BenchTable:
    """Measure sizes (all if none is given), each in its own process.

    Raises:
        InputError: a size or a kind of structure is unknown.
    """
    check_known("size", sizes, SIZES)
    check_known("kind of structures", [kind], KINDS)
    context = multiprocessing.get_context("spawn")
    rows = []
    for size in sizes or SIZES:
        with context.Pool(1) as pool:
            rows.append(pool.apply(measure, (size, kind, cutoff, rounds)))
    chosen = "".join(f" --size '{name}'" for name in sizes)
    return table(rows, f"sluice bench networks{chosen} --structures {kind} --cutoff {cutoff:g} --rounds {rounds}")
