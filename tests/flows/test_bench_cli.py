"""`sluice bench` on the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from flows.bench.peers.environments import PEERS
from flows.bench.table import BenchTable
from flows.cli.main import app
from flows.cli.results import BenchPlanResult
from flows.settings import Home
from gnn.machine import processor

TASK_FILES = ("3bpa/train_300K.xyz.gz", "3bpa/iso_atoms.xyz")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A folder with files of the right names."""
    for name in TASK_FILES:
        path = tmp_path / "data" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")
    return tmp_path / "data"


def said(*words: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, ["bench", *words])
    return result.exit_code, result.stdout, result.stderr


def test_peers_as_json_and_as_a_page(home: Home) -> None:
    code, out, _ = said("peers", "--json")
    assert code == 0
    table = BenchTable.model_validate(json.loads(out))
    assert [row[3] for row in table.parts[0].rows] == ["no"] * len(PEERS)
    assert said("peers")[1].startswith("# Packages that are measured beside ours")


def test_unknown_names_are_the_users_mistakes(home: Home, data: Path) -> None:
    for words, message in [
        (["peers", "--install", "gap"], "peer 'gap' is unknown"),
        (["potential", "--data", str(data), "--set", "qm9"], "set 'qm9' is unknown"),
        (["potential", "--data", str(data), "--set", "3bpa", "--model", "mace"], "PACKAGE:MODEL"),
        (["potential", "--data", str(data), "--set", "3bpa", "--model", "mace:64_L0"], "bench peers --install mace"),
        (["potential", "--data", str(data), "--set", "si"], "training.json.gz is missing"),
        (["networks", "--size", "1 L9"], "size '1 L9' is unknown"),
        (["networks", "--structures", "liquid"], "kind of structures 'liquid' is unknown"),
        (["accuracy", "--data", str(data), "--case", "qm9"], "case 'qm9' is unknown"),
        (["step", "--data", str(data), "--task", "qm9"], "task 'qm9' is unknown"),
        (["step", "--data", str(data), "--task", "si"], "training.json.gz is missing"),
        (
            ["accuracy", "--data", str(data), "--case", "3bpa", "--peers"],
            "no peer is trained on 3bpa; there is",
        ),
        (["accuracy", "--data", str(data), "--peers"], "mp20 is missing"),
        (["ingest", "--data", str(data / "3bpa")], "holds none of"),
    ]:
        code, out, error = said(*words)
        assert (code, out) == (2, ""), words
        assert message in error
        assert len(error.strip().splitlines()) == 1


def test_dry_run_lists_what_is_left_and_writes_nothing(home: Home, data: Path, tmp_path: Path) -> None:
    words = ["--data", str(data), "--task", "3bpa", "--results", str(tmp_path / "results"), "--dry-run"]
    code, out, error = said("time-to-accuracy", *words, "--package", "sluice", "--minutes", "6", "--seed", "0")
    assert (code, out) == (0, "")
    assert error.splitlines() == [
        f"task=3bpa package=sluice model=default processor={processor()} cpu_minutes=2.0 seed=0 "
        "changes={'model': {'family': 'tensor', 'n_radial': 6}}"
    ]
    code, out, error = said("body-order", *words, "--json")
    assert (code, error) == (0, "")
    assert len(BenchPlanResult.model_validate_json(out).runs) == 9
    assert not (tmp_path / "results").exists()


def test_no_runs_only_write_the_page(home: Home, data: Path, tmp_path: Path) -> None:
    words = ["--data", str(data), "--task", "3bpa", "--results", str(tmp_path / "results"), "--limit", "0"]
    code, out, error = said("body-order", *words)
    assert code == 0, error
    assert out == (tmp_path / "results" / "body_order.md").read_text()
    assert "0 runs done now, 0 before, 9 of 9 left" in error
    code, out, error = said("time-to-accuracy", *words)
    assert code == 0, error
    assert out.startswith("# Time to accuracy")
