"""What a minimiser for many structures at once is; each structure has its own state and sees nothing of the others.

Coordinates of B structures are one padded array (B, R, 3): three rows of cell, then the atoms, then zeros.
A minimiser's state is a dictionary of tensors with leading dimension B, so that the driver can drop finished structures
and add new ones without knowing what the tensors mean; those that have a dimension R (the last but one) are named in
`padded`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

State = dict[str, Tensor]


@dataclass(frozen=True)
class Bounds:
    """What is known of new structures before their first forces.

    softness (B, R, 3): a guess of the inverse curvature, Å²/eV, 0 where nothing may move.
    longest (B, R, 1): how far a row may go in one move, Å.
    """

    softness: Tensor
    longest: Tensor


class Optimiser(Protocol):
    """Proposes the next move from forces."""

    @property
    def padded(self) -> frozenset[str]:
        """Names of the state's tensors that have a dimension R, the last but one."""
        ...

    def start(self, bounds: Bounds) -> State:
        """State of new structures."""
        ...

    def step(self, state: State, forces: Tensor, energy: Tensor) -> tuple[State, Tensor]:
        """The next state and the move. Shapes: forces (B, R, 3) eV/Å, energy (B,) eV -> move (B, R, 3) Å.

        Forces are 0 on rows that may not move.
        """
        ...


def dot(a: Tensor, b: Tensor) -> Tensor:
    """Scalar products structure by structure. Shapes: (B, R, 3), (B, R, 3) -> (B, 1, 1)."""
    return (a * b).sum(dim=(1, 2), keepdim=True)
