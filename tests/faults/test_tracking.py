"""The MLflow server gone while a network trains."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

pytestmark = [pytest.mark.faults, pytest.mark.server]

AWAY_S = 25.0
"""Longer than the pause between two batches of points, so that one finds no server."""


def test_kill_9_of_the_mlflow_server(
    room: Any, training: Any, free_port: Callable[[], int], noted: Callable[..., None]
) -> None:
    """MLflow server killed while a network trains, and started again."""
    port = free_port()
    url = room.mlflow_server(port)
    training.launch(url)
    training.wait_for_state()
    room.kill("mlflow", whole_group=True)
    time.sleep(AWAY_S)
    assert room.runs("flow"), room.log("flow")
    room.mlflow_server(port)
    noted("the training goes on, its points wait until the server is back", **training.judge(url))
