"""Minimisers on quadratic bowls and against ASE."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from gnn.simulation.fire import Fire, clipped
from gnn.simulation.lbfgs import Lbfgs, bounded
from gnn.simulation.optimiser import Bounds, Optimiser


def bowls(seed: int, count: int = 3, rows: int = 4) -> tuple[Tensor, Tensor]:
    """Starting points and Hessians of quadratic bowls with curvatures from 1 to 30."""
    rng = np.random.default_rng(seed)
    size = rows * 3
    turned = np.linalg.qr(rng.normal(size=(count, size, size)))[0]
    curvature = rng.uniform(1, 30, size=(count, size))
    hessian = turned @ (curvature[:, :, None] * turned.transpose(0, 2, 1))
    return torch.tensor(rng.normal(scale=0.3, size=(count, rows, 3))), torch.tensor(hessian)


def descend(optimiser: Optimiser, x: Tensor, hessian: Tensor, steps: int) -> tuple[Tensor, int]:
    """Coordinates after `steps`, and after how many every force was below 1e-3."""
    state = optimiser.start(Bounds(torch.full_like(x, 0.1), torch.full_like(x[:, :, :1], 0.2)))
    for step in range(steps):
        forces = -torch.einsum("bij,bj->bi", hessian, x.flatten(1)).view_as(x)
        if bool((forces.abs() < 1e-3).all()):
            return x, step
        state, move = optimiser.step(state, forces, -0.5 * (forces * x).sum(dim=(1, 2)))
        x = x + move
    return x, steps


@given(st.integers(0, 10**6))
@settings(max_examples=15, deadline=None)
def test_both_reach_the_bottom_and_lbfgs_sooner(seed: int) -> None:
    x, hessian = bowls(seed)
    _, fire = descend(Fire(), x, hessian, 1000)
    _, lbfgs = descend(Lbfgs(), x, hessian, 1000)
    assert fire < 1000
    assert lbfgs < 0.7 * fire


@pytest.mark.parametrize("optimiser", [Fire(), Lbfgs(), Lbfgs(memory=3)])
def test_a_structure_moves_as_if_it_were_alone(optimiser: Optimiser) -> None:
    x, hessian = bowls(0)
    together, _ = descend(optimiser, x, hessian, 8)
    for k in range(len(x)):
        alone, _ = descend(optimiser, x[k : k + 1], hessian[k : k + 1], 8)
        assert together[k].numpy() == pytest.approx(alone[0].numpy(), abs=1e-12)


def test_what_may_not_move_does_not() -> None:
    x, hessian = bowls(3)
    softness = torch.full_like(x, 0.1)
    softness[:, 0] = 0.0
    optimiser = Lbfgs()
    state = optimiser.start(Bounds(softness, torch.full_like(x[:, :, :1], 0.2)))
    for _ in range(8):
        forces = -torch.einsum("bij,bj->bi", hessian, x.flatten(1)).view_as(x) * (softness > 0)
        state, move = optimiser.step(state, forces, torch.zeros(len(x), dtype=x.dtype))
        assert not move[:, 0].any()
        x = x + move


def test_moves_are_no_longer_than_allowed() -> None:
    move = torch.tensor([[[3.0, 4.0, 0.0], [0.1, 0.0, 0.0]], [[0.01, 0.0, 0.0], [0.0, 0.0, 0.0]]])
    longest = torch.tensor([[[1.0], [0.2]], [[1.0], [0.2]]])
    short = bounded(move, longest)
    assert short[0, 0].tolist() == pytest.approx([0.6, 0.8, 0.0])
    assert short[0, 1].tolist() == pytest.approx([0.02, 0.0, 0.0])
    assert torch.equal(short[1], move[1])
    assert clipped(move, 0.2).norm(dim=(1, 2)).tolist() == pytest.approx([0.2, 0.01])


def test_lbfgs_takes_shorter_moves_after_going_uphill() -> None:
    optimiser = Lbfgs()
    x, hessian = bowls(1)
    state = optimiser.start(Bounds(torch.full_like(x, 0.1), torch.full_like(x[:, :, :1], 0.2)))
    forces = -torch.einsum("bij,bj->bi", hessian, x.flatten(1)).view_as(x)
    state, _ = optimiser.step(state, forces, torch.tensor([1.0, 1.0, 1.0]))
    state, _ = optimiser.step(state, forces, torch.tensor([0.0, 2.0, 0.5]))
    assert state["trust"].flatten().tolist() == [1.0, 0.5, 1.0]
