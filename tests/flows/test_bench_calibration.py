"""The calibration benchmark: its plan, what one split says, and its table from invented records."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from flows.bench import calibration as bench
from flows.bench.runs import Record
from flows.settings import Home
from gnn.files import canonical_json
from gnn.training.calibration import Residuals
from gnn.training.checkpoint import Calibration


def record(covered: float | None, seed: int = 0, **key: Any) -> Record:
    result = {
        "covered": covered,
        "covered_of_group": covered,
        "targets": 50,
        "half_width": 0.004,
        "halves": {"mean": 0.91},
        "cpu_s": 60.0,
    }
    named = {"task": "3bpa", "preset": "small", "epochs": 10, "members": 1, "split_seed": seed} | key
    made = {"where": {"processor": "AMD EPYC"}, "versions": {"sluice": "0.1.0 4d3c37f", "torch": "2.13.0"}}
    return {"key": named, "result": {**result, "energy_mae_mev_per_atom": 1.5}, **made}


def test_every_split_is_a_run_of_its_own(tmp_path: Path) -> None:
    plan = bench.Plan(tmp_path, Home(tmp_path), 10, members=(1, 4), splits=3)
    keys = [run.key for run in bench.runs_of(plan)]
    assert len({canonical_json(key) for key in keys}) == len(keys) == 3 * 2 * 3
    assert [key["split_seed"] for key in keys[:6]] == [0] * 6
    assert sum(bench.SPLIT.values()) == pytest.approx(1.0)


def test_a_row_says_mean_error_and_verdict() -> None:
    records = [record(0.9 + 0.02 * (-1) ** seed, seed) for seed in range(20)]
    row = dict(zip((c.name for c in bench.COLUMNS), bench.row(records), strict=True))
    assert (row["splits"], row["targets"]) == (20, 1000)
    assert row["covered, %"] == pytest.approx(90.0)
    assert row["± standard error"] == pytest.approx(0.46, abs=0.01)
    assert row["90 % within two of them"] == "yes"
    assert row["half width, meV/atom"] == pytest.approx(4.0)
    assert row["covered over halves, %"] == pytest.approx(91.0)
    narrow = dict(zip(row, bench.row([record(0.8, seed) for seed in range(5)]), strict=True))
    assert narrow["90 % within two of them"] == "no"


def test_the_table_has_a_row_a_case_and_bears_gaps() -> None:
    records = [record(0.9), record(None, task="si"), record(0.88, members=4)]
    page = bench.table_of(records, "sluice bench calibration")
    assert [row[:3] for row in page.parts[0].rows] == [["3bpa", 1, 1], ["si", 1, 0], ["3bpa", 4, 1]]
    assert "Trained by sluice 4d3c37f." in page.notes
    assert bench.table_of([], "x").parts == []


def test_a_page_of_runs_says_what_they_were_made_on_and_not_where_it_is_drawn() -> None:
    later = record(0.88, 1) | {
        "where": {"processor": "Some Other"},
        "versions": {"sluice": "0.1.0 a", "torch": "2.14.0"},
    }
    page = bench.table_of([record(0.9), later], "x")
    assert page.provenance() == "Runs on AMD EPYC; Some Other. torch 2.13.0, 2.14.0."
    assert "Trained by sluice 4d3c37f, a." in page.notes
    assert bench.table_of([], "x").provenance() == "No run yet."


def test_one_split_is_judged_by_the_interval_of_its_own_validation() -> None:
    random = np.random.default_rng(0)
    valid, test = (
        Residuals(random.normal(size=n), np.ones(n), [f"{n}-{k // 2}" for k in range(n)]) for n in (400, 600)
    )
    found = bench.judged(Calibration(energy_scale=1.0, n=400, interval_90=1.645), valid, test)
    assert found["covered"] == pytest.approx(0.9, abs=0.03)
    assert found["covered_of_group"] == pytest.approx(found["covered"], abs=1e-12)
    assert (found["targets"], found["groups"], found["half_width"]) == (600, 300, 1.645)
    assert found["halves"]["splits"] == 20
    assert found["halves"]["mean"] == pytest.approx(0.9, abs=0.02)
    assert bench.judged(None, valid, test)["covered"] is None


def test_residuals_are_errors_and_uncertainties_of_labelled_structures() -> None:
    from ase.build import bulk

    from gnn.graphs.collate import collate
    from gnn.graphs.graph import graph_of_atoms

    class Fixed:
        def energies_only(self) -> Fixed:
            return self

        def predict(self, batch: Any) -> Any:
            from gnn.potentials.potential import BatchPrediction

            ones = torch.ones(batch.n_structures, dtype=torch.float64)
            return BatchPrediction(energy=4.0 * ones, uncertainty=0.1 * ones)

    from dataclasses import replace

    graph = graph_of_atoms(bulk("Cu", cubic=True), 3.0, "cu", "t")
    batch = collate([replace(graph, energy=2.0), graph], ["t"])
    found = bench.residuals_of(Fixed(), [batch], ["a"])
    assert found.error.tolist() == [0.5]
    assert found.spread.tolist() == [0.1]
