"""A cheap teacher: only the training part moves, its labels are a data set, the task starts from its weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ase.io
import numpy as np
import pytest
from ase.build import molecule
from tblite.ase import TBLite

from flows.bench.tasks import Source, Task, split_graphs
from flows.bench.teaching import Teacher, labelled, starts_of, train_taught
from flows.settings import Home
from gnn.lake.table import Lake
from gnn.training.state import read_state

CHANGES: dict[str, Any] = {
    "preset": "small",
    "model": {"family": "tensor", "channels": 4, "layers": 1},
    "minutes": 0.02,
    "clock": "cpu",
}
TEACHER = Teacher(engine="xtb", sampler=CHANGES, temperature=200, steps=6, every=3, alone={"epochs": 3})


CARD = 'name = "water"\nreader = "extxyz"\ntheory = "gfn1-xtb/tblite"\nlicence = "MIT"\n[group]\nby = "none"\n'


@pytest.fixture
def task(tmp_path: Path) -> Task:
    card = tmp_path / "water.toml"
    card.write_text(CARD, encoding="utf-8")
    source = Source(dataset="water", card=str(card), files=("water.extxyz",))
    parts = {"train": 12, "valid": 4, "test": 4}
    return Task(name="water", title="Water", fit=(source,), split=parts, split_by="structure")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Water molecules with another level of theory than the teacher's."""
    frames = []
    for seed in range(20):
        atoms = molecule("H2O")
        atoms.rattle(0.05, seed=seed)
        atoms.calc = TBLite(method="GFN1-xTB", verbosity=0)
        atoms.get_forces()
        frames.append(atoms)
    ase.io.write(tmp_path / "water.extxyz", frames, format="extxyz")
    return tmp_path


@pytest.mark.long
def test_a_network_is_taught_then_trained(task: Task, data: Path, home: Home) -> None:
    found, other = (train_taught(task, TEACHER, data, home, CHANGES, seed) for seed in (0, 1))
    assert found["taught"] == other["taught"] == 24
    assert found["sha256"] != other["sha256"]
    states = [state for folder in (home.models / "runs").iterdir() if (state := read_state(folder)) is not None]
    alone = [state for state in states if state.curve[0].step == 0]  # step 0: what starts from weights
    assert (len(states), len(alone)) == (5, 2)  # the sampler's, and two of each seed
    assert all(state.step > 0 for state in alone)
    assert found["helped"]["force_rmse_mev_per_angstrom"] > 0
    assert found["cpu_s"] > 60 * CHANGES["minutes"] - 0.5
    assert found["epochs"] == TEACHER.alone["epochs"]
    assert np.isfinite(found["force_rmse_mev_per_angstrom"])
    starts = starts_of(split_graphs(task, 5.0, home).graphs("train"))
    (source,) = home.labels.glob("water-xtb-*.extxyz")
    near = ase.io.read(source, ":")
    assert len(near) == 2 * len(starts) == 24
    for start, first in zip(starts, near[::2], strict=True):
        assert 0 < np.abs(first.positions - start.positions).max() < 0.5
    rows = [row for batch in Lake(home.lake).record_batches(source.stem) for row in batch.to_pylist()]
    assert {row["theory"] for row in rows} == {"gfn2-xtb/tblite"}
    again = labelled(task, TEACHER, home)
    assert (again.reused, again.done) == (len(rows), len(near))
