"""Exponential moving average of weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

SHORT_DECAY, LONG_DECAY = 0.99, 0.999
LONG_RUN_STEPS = 10_000
AVERAGE = torch.float64


def decay_at(step: int, largest: float | None) -> float:
    """Decay of the average at `step` (1, 2, …).

    It starts as (1 + t) / (10 + t), so that the first weights are soon forgotten, and is bounded by `largest`, or by a
    bound that grows from 0.99 to 0.999 as the run grows to 10 000 steps.
    """
    if largest is None:
        part = min(1.0, step / LONG_RUN_STEPS)
        horizon = (1 - part) / (1 - SHORT_DECAY) + part / (1 - LONG_DECAY)
        largest = 1.0 - 1.0 / horizon
    return min(largest, (1 + step) / (10 + step))


class Ema:
    """Averages of a module's parameters, by name, in double precision whatever theirs is.

    Single precision would not do: a step of the average below 6e-8 of a weight is lost to rounding, so at a decay of
    0.999 the average of weights that grow stops 3e-5 of them short, and every energy is off by as much of itself
    (docs/decisions/0019-average-in-double.md).
    """

    def __init__(self, module: nn.Module, largest_decay: float | None) -> None:
        self.largest_decay = largest_decay
        self.weights = {name: value.detach().to(AVERAGE, copy=True) for name, value in module.named_parameters()}

    @torch.no_grad()
    def update(self, module: nn.Module, step: int) -> None:
        """Average += (1 - decay) · (weights - average)."""
        averages = [self.weights[name] for name, _ in module.named_parameters()]
        weights = [value.detach().to(AVERAGE) for _, value in module.named_parameters()]
        torch._foreach_lerp_(averages, weights, 1.0 - decay_at(step, self.largest_decay))

    def restore(self, weights: Mapping[str, Tensor]) -> None:
        """Go on from the averages of an earlier process."""
        for name, average in self.weights.items():
            average.copy_(weights[name])

    @contextmanager
    def applied(self, module: nn.Module) -> Iterator[None]:
        """Lend the averages to `module`; its own weights come back afterwards, bit for bit."""
        own = {name: value.detach().clone() for name, value in module.named_parameters()}
        copy_weights(module, self.weights)
        try:
            yield
        finally:
            copy_weights(module, own)


@torch.no_grad()
def copy_weights(module: nn.Module, weights: dict[str, Tensor]) -> None:
    """Set the parameters of `module` from tensors of the same names."""
    for name, value in module.named_parameters():
        value.copy_(weights[name])
