"""`sluice bench real-sets`: its data sets, one training of it, and its page."""

from __future__ import annotations

from pathlib import Path

import pytest
from ase.io import write
from emt_cells import labelled_cells
from tiny_network import TINY

from flows.bench import real_sets
from flows.bench.tasks import Source, Task, known_tasks, missing_files
from flows.settings import Home
from gnn.errors import InputError
from gnn.graphs.splits import DEFAULT_SHARES
from gnn.training.config import make_config


def test_nothing_but_the_budget_is_told(tmp_path: Path) -> None:
    runs = real_sets.runs_of(real_sets.Plan(tmp_path, Home(tmp_path)))
    assert [run.key["set"] for run in runs] == list(known_tasks(real_sets.SETS_FILE))
    assert {run.key["cpu_minutes"] for run in runs} == {3.0}
    for task in known_tasks(real_sets.SETS_FILE).values():
        assert make_config({"data": task.data(), "minutes": 3.0}).data.split == DEFAULT_SHARES
        assert (task.split_by, task.test) == (None, None)


def test_unknown_sets_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="data set 'qm9' is unknown"):
        real_sets.sets_of(real_sets.Plan(tmp_path, Home(tmp_path), sets=("qm9",)))


def test_files_of_every_set_are_there(real_data: Path) -> None:
    tasks = known_tasks(real_sets.SETS_FILE).values()
    assert [found for task in tasks for found in missing_files(task, real_data)] == []


@pytest.mark.slow
@pytest.mark.server
def test_a_training_becomes_rows(home: Home, prefect_server: str) -> None:
    from flows.ingest import ingest

    write(home.root / "cells.xyz", labelled_cells(40, 0), format="extxyz")
    ingest([str(home.root / "cells.xyz")], "cells", home, theory="emt/ase")
    task = Task(name="cells", title="Cells", fit=(Source(dataset="cells", card="auto", files=()),))
    result = real_sets.trained_as_is(task, home.root, home, {"preset": "small", "epochs": 2, "model": TINY})
    assert len(result["structures"]) == 3
    assert result["structures"][2] > 0
    record = {
        "key": {"set": "cu", "seed": 0},
        "result": result,
        "where": {"processor": "AMD EPYC"},
        "versions": {"sluice": "0.1.0 4d3c37f"},
    }
    (part,) = real_sets.table_of([record], "command").parts
    found = {row[3]: row for row in part.rows}
    assert {"energy, meV/atom", "forces, meV/Å"} <= found.keys()
    forces = found["forces, meV/Å"]
    assert forces[0] == "cu"
    assert forces[4] == pytest.approx(result["force_mae_mev_per_angstrom"])
    assert forces[6] == pytest.approx(1000 * result["deviations"]["forces"])
    assert forces[6] > 0
    assert forces[-2:] == ["AMD EPYC", "4d3c37f"]


def test_properties_have_rows_of_their_own_names() -> None:
    result = {"band_gap_mae": 0.3, "band_gap_rmse": 0.5, "deviations": {"band_gap": 1.2}}
    (label,) = real_sets.labels_of(result)
    assert (label.title, label.mae, label.rmse, label.factor) == ("band_gap", "band_gap_mae", "band_gap_rmse", 1.0)
