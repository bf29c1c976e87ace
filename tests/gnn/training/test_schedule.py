"""Schedule, hand-over and budgets."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gnn.training.config import ScheduleConfig
from gnn.training.schedule import EpochBudget, Position, TimeBudget, learning_rate_factor, smoothstep

PROGRESS = st.floats(0, 1)


@pytest.mark.parametrize("decay", ["cosine", "linear"])
def test_it_starts_low_peaks_after_the_warm_up_and_ends_at_one_percent(decay: str) -> None:
    schedule = ScheduleConfig(warmup=0.1, decay=decay, final=0.01)
    assert learning_rate_factor(0.0, schedule) == pytest.approx(0.01)
    assert learning_rate_factor(0.05, schedule) == pytest.approx(0.5)
    assert learning_rate_factor(0.1, schedule) == pytest.approx(1.0)
    assert learning_rate_factor(0.55, schedule) == pytest.approx(0.505)
    assert learning_rate_factor(1.0, schedule) == pytest.approx(0.01)
    assert learning_rate_factor(7.0, schedule) == pytest.approx(0.01)


@given(first=PROGRESS, second=PROGRESS, decay=st.sampled_from(["cosine", "linear"]))
def test_after_the_warm_up_it_only_falls(first: float, second: float, decay: str) -> None:
    schedule = ScheduleConfig(warmup=0.0, decay=decay)
    low, high = sorted((first, second))
    assert learning_rate_factor(high, schedule) <= learning_rate_factor(low, schedule) + 1e-12


@given(progress=PROGRESS, warmup=st.floats(0, 0.9))
def test_it_stays_within_its_bounds(progress: float, warmup: float) -> None:
    assert 0 < learning_rate_factor(progress, ScheduleConfig(warmup=warmup)) <= 1.0 + 1e-12


def test_smoothstep_has_flat_ends() -> None:
    assert smoothstep(0.2, 0.2, 0.8) == 0.0
    assert smoothstep(0.5, 0.2, 0.8) == pytest.approx(0.5)
    assert smoothstep(0.8, 0.2, 0.8) == 1.0
    assert smoothstep(0.201, 0.2, 0.8) < 1e-4
    assert smoothstep(0.5, 0.5, 0.5) == 1.0


def test_epochs_count_structures() -> None:
    budget = EpochBudget(epochs=4, n_train=10)
    assert budget.progress(Position(0, 0, 99.0)) == 0.0
    assert budget.progress(Position(1, 5, 99.0)) == pytest.approx(0.375)
    assert budget.progress(Position(4, 0, 0.0)) == 1.0


def test_a_pass_that_is_longer_than_usual_is_one_pass() -> None:
    budget = EpochBudget(epochs=4, n_train=15)
    shown = [budget.progress(Position(epoch, seen, 0.0)) for epoch in range(4) for seen in range(21)]
    assert shown == sorted(shown)
    assert budget.progress(Position(2, 20, 0.0)) == budget.progress(Position(3, 0, 0.0)) == 0.75


def test_time_leaves_room_for_the_last_validation_but_not_more_than_a_tenth() -> None:
    budget = TimeBudget(100.0)
    assert budget.progress(Position(0, 0, 50.0)) == pytest.approx(0.5)
    assert budget.progress(Position(0, 0, 95.0, reserve_s=5.0)) == 1.0
    assert budget.progress(Position(0, 0, 45.0, reserve_s=500.0)) == pytest.approx(0.5)


def test_compiling_uses_the_budget_and_not_the_schedule() -> None:
    budget = TimeBudget(100.0)
    assert budget.progress(Position(0, 0, 40.0, compiling_s=40.0)) == 0.0
    assert budget.progress(Position(0, 0, 70.0, compiling_s=40.0)) == pytest.approx(0.5)
    assert budget.progress(Position(0, 0, 95.0, reserve_s=5.0, compiling_s=40.0)) == 1.0
    assert budget.progress(Position(0, 0, 120.0, compiling_s=120.0)) == 1.0
