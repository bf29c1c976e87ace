"""Learning rate and loss weights as functions of progress, and the budgets that progress is measured in."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from gnn.training.config import ScheduleConfig

WARMUP_FLOOR = 0.01
CLOCKS: dict[str, Callable[[], float]] = {"wall": time.monotonic, "cpu": time.process_time}
"""What a budget of minutes is counted with, in seconds, by `TrainConfig.clock`."""


def learning_rate_factor(progress: float, schedule: ScheduleConfig) -> float:
    """Learning rate as part of its peak at `progress` in [0, 1]: a linear warm-up, then cosine or linear to `final`."""
    progress = min(max(progress, 0.0), 1.0)
    if progress < schedule.warmup:
        return max(progress / schedule.warmup, WARMUP_FLOOR)
    fallen = (progress - schedule.warmup) / (1.0 - schedule.warmup)
    shape = 0.5 * (1.0 + math.cos(math.pi * fallen)) if schedule.decay == "cosine" else 1.0 - fallen
    return schedule.final + (1.0 - schedule.final) * shape


def smoothstep(value: float, start: float, end: float) -> float:
    """0 before `start`, 1 after `end`, 3x² - 2x³ between: continuous with its slope."""
    if value >= end:
        return 1.0
    if value <= start:
        return 0.0
    x = (value - start) / (end - start)
    return x * x * (3.0 - 2.0 * x)


@dataclass(frozen=True)
class Position:
    """Where a training stands: whole epochs done, structures seen in the current one, seconds used in all.

    Of a budget of time, `reserve_s` is what the last validation will still need, and `compiling_s` what went into
    compiling, during which nothing was learnt.
    """

    epoch: int
    seen: int
    elapsed_s: float
    reserve_s: float = 0.0
    compiling_s: float = 0.0


class Budget(Protocol):
    """Turns a position into progress from 0 to 1; at 1 the training is over."""

    def progress(self, position: Position) -> float:
        """Part of the budget that is used."""
        ...


@dataclass(frozen=True)
class EpochBudget:
    """So many passes over `n_train` structures; depends on nothing but the position, hence repeatable."""

    epochs: int
    n_train: int

    def progress(self, position: Position) -> float:
        """Structures seen over structures to see; a pass is one pass, though without helpers it may be longer."""
        return min(1.0, (position.epoch + min(1.0, position.seen / self.n_train)) / self.epochs)


@dataclass(frozen=True)
class TimeBudget:
    """So many seconds of wall time, whatever the number of resumes."""

    seconds: float

    def progress(self, position: Position) -> float:
        """Seconds learnt over seconds to learn in; of these a tenth at most is kept for the end."""
        learnt = position.elapsed_s - position.compiling_s
        left = self.seconds - min(position.reserve_s, 0.1 * self.seconds) - position.compiling_s
        return min(1.0, learnt / left) if left > 0 else 1.0
