"""The fast inertial relaxation engine for many structures at once."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from gnn.simulation.optimiser import Bounds, State, dot


@dataclass(frozen=True)
class Fire:
    """The fast inertial relaxation engine with ASE's defaults and order of operations.

    Source: E. Bitzek et al., Phys. Rev. Lett. 97, 170201 (2006); ase.optimize.FIRE.
    """

    dt: float = 0.1
    longest: float = 0.2
    dt_max: float = 1.0
    n_min: int = 5
    faster: float = 1.1
    slower: float = 0.5
    mixing: float = 0.1
    mixing_decay: float = 0.99

    padded = frozenset({"velocity"})

    def start(self, bounds: Bounds) -> State:
        """Everything at rest."""
        softness = bounds.softness
        column = softness.new_zeros(len(softness), 1, 1)
        return {
            "velocity": torch.zeros_like(softness),
            "dt": column + self.dt,
            "mixing": column + self.mixing,
            "downhill": column.clone(),
            "fresh": column + 1.0,
        }

    def step(self, state: State, forces: Tensor, energy: Tensor) -> tuple[State, Tensor]:  # noqa: ARG002
        """One step; see `Optimiser.step`."""
        velocity, dt, mixing, downhill = (state[name] for name in ("velocity", "dt", "mixing", "downhill"))
        fresh = state["fresh"] > 0
        going_down = (dot(forces, velocity) > 0) & ~fresh
        steer = (dot(velocity, velocity) / dot(forces, forces).clamp(min=1e-300)).sqrt() * forces
        mixed = (1 - mixing) * velocity + mixing * steer
        settled = going_down & (downhill > self.n_min)
        turned = ~going_down & ~fresh
        next_dt = torch.where(
            settled, (dt * self.faster).clamp(max=self.dt_max), torch.where(turned, dt * self.slower, dt)
        )
        next_mixing = torch.where(settled, mixing * self.mixing_decay, torch.where(turned, self.mixing, mixing))
        velocity = torch.where(going_down, mixed, 0.0) + next_dt * forces
        state = {
            "velocity": velocity,
            "dt": next_dt,
            "mixing": next_mixing,
            "downhill": torch.where(going_down, downhill + 1, 0.0),
            "fresh": torch.zeros_like(state["fresh"]),
        }
        return state, clipped(next_dt * velocity, self.longest)


def clipped(move: Tensor, longest: float) -> Tensor:
    """`move` scaled down where its norm over all coordinates exceeds `longest` Å, as ASE's FIRE does."""
    norm = dot(move, move).sqrt()
    return move * (longest / norm.clamp(min=longest))
