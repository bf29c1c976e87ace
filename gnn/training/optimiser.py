"""The optimiser, the device it works on, and the budget it works within."""

from __future__ import annotations

import torch
from torch import nn

from gnn.errors import InputError
from gnn.training.config import TrainConfig
from gnn.training.schedule import Budget, EpochBudget, TimeBudget


def make_optimiser(model: nn.Module, config: TrainConfig, lr: float) -> torch.optim.AdamW:
    """AdamW; weight decay on matrices only."""
    matrices = [p for p in model.parameters() if p.ndim >= 2]
    others = [p for p in model.parameters() if p.ndim < 2]
    groups = [
        {"params": matrices, "weight_decay": config.optimiser.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    settings = config.optimiser
    return torch.optim.AdamW(groups, lr=lr, betas=settings.betas, amsgrad=settings.amsgrad, foreach=True)


def make_budget(config: TrainConfig, n_train: int) -> Budget:
    """The budget that the configuration names.

    Raises:
        InputError: it names none.
    """
    if config.minutes is not None:
        return TimeBudget(60.0 * config.minutes)
    if config.epochs is None:
        raise InputError("no budget: give --minutes M or `epochs = N` in the configuration")
    return EpochBudget(config.epochs, n_train)
