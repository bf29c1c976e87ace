"""The optimiser and the budget it works within."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from gnn.errors import InputError
from gnn.models.element_weights import ElementWeights
from gnn.models.radial import RadialNetwork
from gnn.training.config import TrainConfig
from gnn.training.muon import Muon
from gnn.training.schedule import Budget, EpochBudget, TimeBudget
from gnn.training.state import optimiser_tensors, restore_optimiser


class Optimiser:
    """Several torch optimisers as one; each parameter belongs to one of them."""

    def __init__(self, parts: Sequence[torch.optim.Optimizer]) -> None:
        self.parts = list(parts)

    def zero_grad(self) -> None:
        """Drop all gradients."""
        for part in self.parts:
            part.zero_grad(set_to_none=True)

    def step(self, lr: float) -> None:
        """One step at the learning rate `lr`."""
        for part in self.parts:
            for group in part.param_groups:
                group["lr"] = lr
            part.step()

    def tensors(self, parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The state of every parameter as `NAME.MOMENT`."""
        names = {id(parameter): name for name, parameter in parameters.items()}
        return {key: value for part in self.parts for key, value in optimiser_tensors(part, names).items()}

    def restore(self, parameters: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> None:
        """Put back what `tensors` gave."""
        for part in self.parts:
            own = {id(parameter) for group in part.param_groups for parameter in group["params"]}
            restore_optimiser(part, {n: p for n, p in parameters.items() if id(p) in own}, tensors)


def make_optimiser(model: nn.Module, config: TrainConfig, lr: float) -> Optimiser:
    """AdamW, or Muon for the network's matrices and AdamW for the rest; weight decay on matrices only."""
    settings = config.optimiser
    decay = settings.weight_decay
    if settings.kind == "adamw":
        return Optimiser([_adamw(list(model.parameters()), config, lr)])
    matrices = network_matrices(model, with_radial=settings.radial == "muon")
    chosen = {id(parameter) for parameter in matrices}
    others = [parameter for parameter in model.parameters() if id(parameter) not in chosen]
    parts: list[torch.optim.Optimizer] = [_adamw(others, config, lr)]
    if matrices:
        parts.append(Muon(matrices, lr, settings.momentum, decay))
    return Optimiser(parts)


def _adamw(parameters: Sequence[Tensor], config: TrainConfig, lr: float) -> torch.optim.AdamW:
    settings = config.optimiser
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": settings.weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=lr, betas=settings.betas, amsgrad=settings.amsgrad, foreach=True)


def network_matrices(model: nn.Module, with_radial: bool) -> list[nn.Parameter]:
    """Weights that mix features into features: matrices of the network, but neither of elements nor of readouts.

    A row of an element table sees only its element's atoms, and a readout has few outputs: orthogonal steps suit
    neither (K. Jordan 2024 leaves embeddings and output layers to AdamW). In radial networks they give the fastest
    waves of the distance as much as the slow ones: good for many crystals, too rough for a few hundred frames of one
    molecule (docs/decisions/0017-radial-networks.md).
    """
    network = getattr(model, "network", model)
    tables = (ElementWeights,) if with_radial else (ElementWeights, RadialNetwork)
    left_out = {id(p) for part in network.modules() if isinstance(part, tables) for p in part.parameters()}
    return [p for p in network.parameters() if id(p) not in left_out and p.ndim >= 2 and min(p.shape[-2:]) > 1]


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
