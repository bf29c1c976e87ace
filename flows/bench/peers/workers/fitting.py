"""A plain training loop for peers: their authors' recipe, the schedule stretched over a budget of CPU seconds."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .frames import Frame, Targets, targets_of

if TYPE_CHECKING:
    import torch

    from .session import Adapter, Trainable

LAST_PART = 0.75
"""Progress at which the last part of a schedule begins."""
TEST_BATCH = 10


@dataclass(frozen=True)
class Recipe:
    """How a model is trained: `lr(step, progress)`, `weights(progress)` of energy and forces, progress from 0 to 1.

    The loss is weighted mean squares of energy errors (an atom where `per_atom`) and of force components.
    """

    optimiser: Any
    batch: int
    lr: Callable[[int, float], float]
    weights: Callable[[float], tuple[float, float]]
    per_atom: bool = True
    clip: float | None = None
    ema: float = 0.99

    def loss(self, energy: torch.Tensor, forces: torch.Tensor, targets: Targets, progress: float) -> torch.Tensor:
        """The loss of a batch."""
        error = energy.reshape(-1).float() - targets.energy
        if self.per_atom:
            error = error / targets.n_atoms
        of_energy, of_forces = self.weights(progress)
        return of_energy * error.square().mean() + of_forces * (forces.float() - targets.forces).square().mean()


@dataclass(frozen=True)
class Fitted:
    """Errors on the test frames (meV/atom and meV/Å), and what it took."""

    energy_mae_mev_per_atom: float
    energy_rmse_mev_per_atom: float
    force_mae_mev_per_angstrom: float
    force_rmse_mev_per_angstrom: float
    cpu_s: float
    steps: int
    epochs: float


def last_part(progress: float) -> float:
    """0 until the last part of the schedule, then linearly to 1."""
    return max(0.0, (progress - LAST_PART) / (1.0 - LAST_PART))


class Average:
    """Exponential moving average of a module's weights, its decay rising over the first steps."""

    def __init__(self, module: Any, decay: float) -> None:
        self.parameters = [p for p in module.parameters() if p.requires_grad]
        self.weights = [p.detach().clone() for p in self.parameters]
        self.decay = decay

    def update(self, step: int) -> None:
        """Take the weights after step `step` in."""
        import torch

        decay = min(self.decay, (1 + step) / (10 + step))
        with torch.no_grad():
            for mean, parameter in zip(self.weights, self.parameters, strict=True):
                mean.lerp_(parameter, 1 - decay)

    def apply(self) -> None:
        """Put the average into the module."""
        import torch

        with torch.no_grad():
            for mean, parameter in zip(self.weights, self.parameters, strict=True):
                parameter.copy_(mean)


def shuffled(n: int, batch: int, seed: int) -> Iterator[list[int]]:
    """Batches of indices for ever, every pass in a new order, the last incomplete batch of a pass left out."""
    rng = np.random.default_rng(seed)
    size = min(batch, n)
    while True:
        order = rng.permutation(n)
        for start in range(0, n - size + 1, size):
            yield [int(k) for k in order[start : start + size]]


def fit(
    adapter: Trainable,
    module: Any,
    frames: Sequence[Frame],
    tested: Sequence[Frame],
    cpu_s: float,
    seed: int,
    started: float,
) -> Fitted:
    """Train until `cpu_s` CPU seconds have passed since `started`, graphs included; test the averaged weights."""
    recipe = adapter.recipe(module, frames)
    prepared = [adapter.prepared(frame) for frame in frames]
    average = Average(module, recipe.ema)
    module.train()
    step = 0
    for chosen in shuffled(len(frames), recipe.batch, seed):
        progress = (time.process_time() - started) / cpu_s
        if progress >= 1.0:
            break
        batch = adapter.collate([prepared[k] for k in chosen])
        descend(adapter, module, recipe, batch, targets_of([frames[k] for k in chosen]), step, progress)
        step += 1
        average.update(step)
    used = time.process_time() - started
    average.apply()
    epochs = step * min(recipe.batch, len(frames)) / len(frames)
    return Fitted(**errors(adapter, module, tested), cpu_s=used, steps=step, epochs=epochs)


def descend(
    adapter: Adapter, module: Any, recipe: Recipe, batch: Any, targets: Targets, step: int, progress: float
) -> None:
    """One optimiser step."""
    import torch

    for group in recipe.optimiser.param_groups:
        group["lr"] = recipe.lr(step, progress)
    recipe.optimiser.zero_grad(set_to_none=True)
    energy, forces = adapter.forward(module, batch, True)
    recipe.loss(energy, forces, targets, progress).backward()
    if recipe.clip is not None:
        torch.nn.utils.clip_grad_norm_(module.parameters(), recipe.clip)
    recipe.optimiser.step()


def errors(adapter: Adapter, module: Any, frames: Sequence[Frame]) -> dict[str, float]:
    """Mean absolute and root mean square errors on frames: energies in meV/atom, force components in meV/Å."""
    module.eval()
    of_energy, of_forces = [], []
    for start in range(0, len(frames), TEST_BATCH):
        chosen = frames[start : start + TEST_BATCH]
        targets = targets_of(chosen)
        energy, forces = adapter.forward(module, adapter.collate([adapter.prepared(f) for f in chosen]), False)
        of_energy.append(((energy.detach().reshape(-1).float() - targets.energy) / targets.n_atoms).numpy())
        of_forces.append((forces.detach().float() - targets.forces).numpy().ravel())
    energies, forces = 1e3 * np.concatenate(of_energy), 1e3 * np.concatenate(of_forces)
    return {
        "energy_mae_mev_per_atom": float(np.abs(energies).mean()),
        "energy_rmse_mev_per_atom": float(np.sqrt((energies**2).mean())),
        "force_mae_mev_per_angstrom": float(np.abs(forces).mean()),
        "force_rmse_mev_per_angstrom": float(np.sqrt((forces**2).mean())),
    }
