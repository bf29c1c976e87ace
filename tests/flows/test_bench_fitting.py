"""The plain training loop of peers, with a model of one number an atom and one a force component."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch

from flows.bench.peers.workers.fitting import Average, Recipe, errors, fit
from flows.bench.peers.workers.frames import Frame, Targets


def frame(n: int, energy: float, force: float) -> Frame:
    edges = np.zeros(0, dtype=np.int64)
    return Frame(np.ones(n, dtype=np.int64), np.zeros((n, 3)), np.zeros((3, 3)), np.zeros(3, dtype=bool), energy,
                 np.full((n, 3), force), edges, edges, np.zeros((0, 3), dtype=np.int64))  # fmt: skip


class Toy(torch.nn.Module):
    """Energy of an atom, and one force for all."""

    def __init__(self) -> None:
        super().__init__()
        self.energy, self.force = torch.nn.Parameter(torch.zeros(())), torch.nn.Parameter(torch.zeros(()))


class ToyAdapter:
    version = "toy 1.0"

    def __init__(self, rates: list[float] | None = None) -> None:
        self.rates = [] if rates is None else rates

    def build(self, model: str, frames: Sequence[Frame], cutoff: float, seed: int) -> Any:
        return Toy()

    def prepared(self, frame: Frame) -> Any:
        return frame.n_atoms

    def collate(self, prepared: Sequence[Any]) -> Any:
        return list(prepared)

    def forward(self, module: Any, batch: Any, training: bool) -> tuple[Any, Any]:
        return module.energy * torch.tensor(batch), module.force.expand(sum(batch), 3)

    def recipe(self, module: Any, frames: Sequence[Frame]) -> Recipe:
        def lr(step: int, progress: float) -> float:
            self.rates.append(progress)
            return 0.05 * (1 - progress)

        return Recipe(torch.optim.Adam(module.parameters()), 2, lr, lambda _: (1.0, 1.0), clip=10.0, ema=0.9)


@pytest.fixture(scope="module", autouse=True)
def imported() -> None:
    """The first optimiser of a process imports for seconds."""
    torch.optim.Adam([torch.zeros(1)])


@pytest.fixture
def frames() -> list[Frame]:
    return [frame(n, 0.3 * n, -0.2) for n in (1, 2, 3, 4)]


def test_it_learns_within_its_budget(frames: list[Frame]) -> None:
    adapter, module = ToyAdapter(), Toy()
    found = fit(adapter, module, frames, frames, cpu_s=1.0, seed=0, started=time.process_time())
    assert found.force_rmse_mev_per_angstrom < 20
    assert found.energy_mae_mev_per_atom < 30
    assert 1.0 <= found.cpu_s < 2.0
    assert found.epochs == pytest.approx(found.steps / 2)
    assert len(adapter.rates) == found.steps
    assert 0.9 < adapter.rates[-1] < 1.0
    assert adapter.rates == sorted(adapter.rates)


def test_a_budget_that_is_used_up_trains_nothing(frames: list[Frame]) -> None:
    found = fit(ToyAdapter(), Toy(), frames, frames, cpu_s=0.5, seed=0, started=time.process_time() - 1.0)
    assert found.steps == 0
    assert found.force_mae_mev_per_angstrom == pytest.approx(200.0)


def test_errors_are_of_energies_an_atom_and_of_components(frames: list[Frame]) -> None:
    found = errors(ToyAdapter(), Toy(), [*frames, frame(2, -0.6, 0.4)])
    assert found["energy_mae_mev_per_atom"] == pytest.approx(300.0)
    assert found["energy_rmse_mev_per_atom"] == pytest.approx(300.0)
    assert found["force_mae_mev_per_angstrom"] == pytest.approx(1e3 * (10 * 0.2 + 2 * 0.4) / 12, rel=1e-5)


@pytest.mark.parametrize(
    ("per_atom", "weigh", "loss"), [(True, lambda _: (2.0, 0.0), 8.0), (False, lambda _: (2.0, 0.0), 72.0),
                                    (True, lambda p: (0.0, p), 0.125)]
)  # fmt: skip
def test_loss(per_atom: bool, weigh: Callable[[float], tuple[float, float]], loss: float) -> None:
    recipe = Recipe(None, 1, lambda *_: 0.0, weigh, per_atom=per_atom)
    targets = Targets(torch.zeros(1), torch.zeros(3, 3), torch.full((1,), 3.0))
    found = recipe.loss(torch.full((1,), 6.0), torch.full((3, 3), 0.5), targets, progress=0.5)
    assert float(found) == pytest.approx(loss)


def test_the_average_follows_slowly_and_is_put_back() -> None:
    module = Toy()
    average = Average(module, 0.5)
    with torch.no_grad():
        module.energy.fill_(1.0)
    average.update(step=100)
    assert module.energy.item() == 1.0
    average.apply()
    assert module.energy.item() == pytest.approx(0.5)
