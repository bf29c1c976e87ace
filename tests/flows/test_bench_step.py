"""Where a training step's time goes."""

from __future__ import annotations

import time
from pathlib import Path

import ase.io
import pytest
from ase.build import molecule
from ase.calculators.emt import EMT

from flows.bench import training_step
from flows.bench.tasks import Source, Task
from flows.bench.training_step import Settings, Stopwatch, run
from flows.settings import Home

CARD = 'name = "water"\nreader = "extxyz"\ntheory = "emt/ase"\nlicence = "MIT"\n[group]\nby = "none"\n'
PIECES = [
    "batch",
    "to the device",
    "energies, forces, loss, gradients",
    "clipping",
    "optimiser",
    "average of the weights",
]


@pytest.fixture
def task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Task:
    """Water molecules labelled by EMT."""
    frames = []
    for seed in range(10):
        atoms = molecule("H2O")
        atoms.rattle(0.05, seed=seed)
        atoms.calc = EMT()
        atoms.get_forces()
        frames.append(atoms)
    ase.io.write(tmp_path / "water.extxyz", frames, format="extxyz")
    card = tmp_path / "water.toml"
    card.write_text(CARD, encoding="utf-8")
    source = Source(dataset="water", card=str(card), files=("water.extxyz",))
    parts = {"train": 8, "valid": 2}
    found = Task(name="water", title="Water", fit=(source,), split=parts, split_by="structure")
    monkeypatch.setattr(training_step, "task_named", lambda name: found)
    return found


def test_pieces_of_a_step_add_up(task: Task, tmp_path: Path, home: Home) -> None:
    changes = {"preset": "small", "model": {"family": "tensor", "channels": 4, "layers": 1}}
    table = run(Settings(tmp_path, home, task.name, changes, warm=2, steps=5), "sluice bench step")
    *pieces, whole = table.parts[0].rows
    assert [row[0] for row in pieces] == PIECES
    assert all(isinstance(row[1], float) and row[1] > 0 for row in pieces)
    assert sum(float(row[1] or 0) for row in pieces) == pytest.approx(float(whole[1] or 0))
    assert sum(float(row[2] or 0) for row in pieces) == pytest.approx(100)
    assert "Medians of 5 steps after 2" in table.notes[0]


def test_a_piece_is_waited_for() -> None:
    watch = Stopwatch(time.perf_counter, lambda: time.sleep(0.01))
    assert watch.timed("work", lambda: 7) == 7
    assert watch.timed("work", lambda: 8) == 8
    assert [found >= 0.01 for found in watch.seconds["work"]] == [True, True]
