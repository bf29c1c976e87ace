"""What a training tells while it runs, and what it leaves."""

from __future__ import annotations

from dataclasses import dataclass

from gnn.models.model import Model
from gnn.training.state import EpochRecord


@dataclass(frozen=True)
class Progress:
    """What a progress bar shows; `elapsed_s` without compiling, so that it stands to `progress` as the rest will."""

    epoch: int
    step: int
    progress: float
    elapsed_s: float
    lr: float
    train: dict[str, float]
    valid: dict[str, float]


@dataclass(frozen=True)
class TrainOutcome:
    """A finished training; `model` holds the best averaged weights, on the CPU."""

    model: Model
    epochs: int
    steps: int
    structures: int
    bad_steps: int
    elapsed_s: float
    cpu_s: float
    best_epoch: int | None
    metrics: dict[str, float]
    curve: list[EpochRecord]
    reused: bool
    trained_on: tuple[str, ...]
