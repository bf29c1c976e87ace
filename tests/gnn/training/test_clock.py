"""Budgets of CPU time."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from gnn.training.config import TrainConfig
from gnn.training.loop import train
from gnn.training.schedule import CLOCKS


def test_cpu_clock_stands_still_while_asleep() -> None:
    started = {name: clock() for name, clock in CLOCKS.items()}
    time.sleep(0.2)
    passed = {name: clock() - started[name] for name, clock in CLOCKS.items()}
    assert passed["wall"] >= 0.2
    assert passed["cpu"] < 0.1


def test_a_budget_of_cpu_time_is_kept(copper: Any, tiny_recipe: Callable[..., Any], tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()

    def dawdle(_: object) -> None:
        time.sleep(0.002)

    outcome = train(tiny_recipe(minutes=3 / 60, clock="cpu"), copper, folder, progress=dawdle)
    assert 2.4 < outcome.cpu_s < 4.5
    assert outcome.elapsed_s == pytest.approx(outcome.cpu_s, rel=0.2)


def test_the_clock_is_wall_or_cpu() -> None:
    assert TrainConfig().clock == "wall"
    with pytest.raises(ValidationError):
        TrainConfig(clock="sun")  # type: ignore[arg-type]
