"""Atoms of several structures in rows of equal length."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class AtomGrid:
    """Places for atoms, a row a structure; rows may be longer than a structure, and there may be rows without atoms.

    place (N,) int64: where each atom stands, row · width + rank; atom (rows, width) int64: who stands at each place,
    any atom where it is empty.
    """

    place: Tensor
    atom: Tensor

    @property
    def is_full(self) -> bool:
        """Whether no place is empty; atoms then stand in their own order."""
        return self.atom.shape[0] * self.atom.shape[1] == self.place.shape[0]


def atom_grid(structure: Tensor, n_atoms: Tensor, least: int = 1) -> AtomGrid:
    """The smallest grid of structures with `n_atoms` (B,) atoms each, of at least `least` rows and columns.

    structure (N,) int64 is the structure of each atom, in ascending order.
    """
    rows, width = max(least, n_atoms.shape[0]), max(least, int(n_atoms.max()))
    order = torch.arange(structure.shape[0], device=structure.device)
    first = n_atoms.cumsum(0) - n_atoms
    place = structure * width + order - first.index_select(0, structure)
    atom = torch.zeros(rows * width, dtype=torch.int64, device=structure.device).index_copy(0, place, order)
    return AtomGrid(place, atom.view(rows, width))
