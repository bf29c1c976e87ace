"""The MLflow server gone while a network trains."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny_network import TINY_MODEL

from flows.settings import Home
from gnn.lake.table import Lake
from gnn.structures.cards import generic_card
from gnn.structures.readers import read_records

pytestmark = [pytest.mark.faults, pytest.mark.server]

MINUTES = 1.0
AWAY_S = 25.0
"""Longer than the pause between two batches of points, so that one finds no server."""

CONFIG = f"""
preset = "small"
device = "cpu"
minutes = {MINUTES}
register_as = "metals"
[data]
datasets = ["cells"]
cutoff = 4.0
split_by = "structure"
{TINY_MODEL}"""


def test_kill_9_of_the_mlflow_server(
    room: Any, tmp_path: Path, cells: Path, free_port: Callable[[], int], noted: Callable[..., None]
) -> None:
    """MLflow server killed while a network trains, and started again."""
    from mlflow import MlflowClient

    home = Home(tmp_path / "home")
    card = generic_card("cells", "emt/ase")
    Lake(home.lake).append("cells", read_records(cells, card), card)
    (tmp_path / "train.toml").write_text(CONFIG)
    port = free_port()
    url = room.mlflow_server(port)
    room.start("flow", "sluice", "train", str(tmp_path / "train.toml"), "--json", SLUICE_HOME=str(home.root),
               MLFLOW_TRACKING_URI=url)  # fmt: skip
    room.until(lambda: list(home.root.rglob("state.json")) or not room.runs("flow"), "the first saved state")
    assert room.runs("flow"), room.log("flow")
    room.kill("mlflow", whole_group=True)
    time.sleep(AWAY_S)
    assert room.runs("flow"), room.log("flow")
    room.mlflow_server(port)
    assert room.wait("flow") == 0, room.log("flow")
    assert "points wait" in room.log("flow")
    result = room.output("flow")
    client = MlflowClient(tracking_uri=url, registry_uri=url)
    assert client.get_run(result["run_id"]).info.status == "FINISHED"
    (state,) = home.root.rglob("state.json")
    expected = [point["step"] for point in json.loads(state.read_text())["curve"]]
    steps = [point.step for point in client.get_metric_history(result["run_id"], "lr")]
    assert steps == expected
    assert client.get_model_version("metals", result["model_version"]).tags["sha256"] == result["sha256"]
    noted("the training goes on, its points wait until the server is back", structures=len(expected), before=0,
          lost=0, twice=0, missing=0)  # fmt: skip
