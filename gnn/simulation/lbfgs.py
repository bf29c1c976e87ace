"""Limited-memory BFGS for many structures at once: few force calls, which is what a relaxation costs."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from gnn.simulation.optimiser import Bounds, State, dot

TINY = 1e-300


@dataclass(frozen=True)
class Lbfgs:
    """L-BFGS without line search, in coordinates weighted by the guessed softness of cell and atoms.

    `memory`: pairs of moves and changes of force that are kept. A pair of negative curvature is not taken. The guess is
    rescaled by the newest pair (factor `rescale` at most). Moves are as long as the rows' bounds allow, half as long
    (down to `least_trust`) after the energy rose.

    Source: J. Nocedal and S. J. Wright, Numerical Optimization, 2nd ed. (2006), algorithm 7.4 and equation 7.20.
    """

    memory: int = 20
    rescale: float = 10.0
    least_trust: float = 0.05
    regained: float = 1.5

    padded = frozenset({"moves", "changes", "move", "forces", "softness", "longest"})

    def start(self, bounds: Bounds) -> State:
        """No memory yet."""
        softness = bounds.softness
        history = softness.new_zeros(len(softness), self.memory, *softness.shape[1:])
        column = softness.new_zeros(len(softness), 1, 1)
        return {
            "moves": history,
            "changes": history.clone(),
            "weights": softness.new_zeros(len(softness), self.memory, 1, 1),
            "move": torch.zeros_like(softness),
            "forces": torch.zeros_like(softness),
            "softness": softness,
            "longest": bounds.longest,
            "scale": column + 1.0,
            "trust": column + 1.0,
            "energy": column + torch.inf,
        }

    def step(self, state: State, forces: Tensor, energy: Tensor) -> tuple[State, Tensor]:
        """One step; see `Optimiser.step`."""
        state = self._remember(state, forces)
        height = energy.view(-1, 1, 1)
        trust = torch.where(height > state["energy"], state["trust"] / 2, state["trust"] * self.regained).clamp(
            self.least_trust, 1.0
        )
        move = bounded(two_loops(state, forces), trust * state["longest"])
        return {**state, "move": move, "forces": forces, "energy": height, "trust": trust}, move

    def _remember(self, state: State, forces: Tensor) -> State:
        """Take the newest pair in where its curvature is positive; a structure's first call has moved nothing yet."""
        move, change = state["move"], state["forces"] - forces
        along = dot(move, change)
        size = (dot(move, move) * dot(change, change)).sqrt()
        good = along > 1e-8 * size.clamp(min=TINY)
        weight = 1.0 / torch.where(good, along, 1.0)
        ratio = along / dot(change, state["softness"] * change).clamp(min=TINY)
        return {
            **state,
            "moves": _pushed(state["moves"], move, good),
            "changes": _pushed(state["changes"], change, good),
            "weights": _pushed(state["weights"], weight, good),
            "scale": torch.where(good, ratio.clamp(1 / self.rescale, self.rescale), state["scale"]),
        }


def _pushed(history: Tensor, newest: Tensor, good: Tensor) -> Tensor:
    """`history` (B, M, ...) with `newest` (B, ...) as its last entry where `good` (B, 1, 1), the oldest dropped."""
    return torch.where(good.unsqueeze(1), torch.cat([history[:, 1:], newest.unsqueeze(1)], dim=1), history)


def two_loops(state: State, forces: Tensor) -> Tensor:
    """The quasi-Newton move H · forces by the two-loop recursion. Empty places of the memory have zero moves."""
    moves, changes, weights = state["moves"], state["changes"], state["weights"]
    filled = [m for m in range(moves.shape[1]) if bool(weights[:, m].any())]
    remaining, shares = forces, {}
    for m in reversed(filled):
        shares[m] = weights[:, m] * dot(moves[:, m], remaining)
        remaining = remaining - shares[m] * changes[:, m]
    direction = state["scale"] * state["softness"] * remaining
    for m in filled:
        again = weights[:, m] * dot(changes[:, m], direction)
        direction = direction + moves[:, m] * (shares[m] - again)
    return direction


def bounded(move: Tensor, longest: Tensor) -> Tensor:
    """`move` (B, R, 3) scaled down as a whole so that no row is longer than its `longest` (B, R, 1)."""
    excess = move.norm(dim=2, keepdim=True) / longest.clamp(min=TINY)
    return move / excess.amax(dim=1, keepdim=True).clamp(min=1.0)
