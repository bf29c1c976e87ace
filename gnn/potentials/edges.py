"""Edges of structures that move: candidate pairs are found with a skin and kept until a closer look is due.

A pair that is no candidate was farther apart than cutoff + skin. When the cell has been deformed by F (with s its
smallest singular value) and no atom has moved more than u beyond that deformation, the pair is still farther apart than
s · (cutoff + skin) - 2u. Candidates serve as long as that is at least the cutoff, so the edges handed out are always
exactly those of a fresh search. A cell without three vectors, as of a layer, says nothing of F: they serve until it
changes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from gnn.errors import InputError
from gnn.graphs.batch import Batch
from gnn.graphs.neighbours import NOT_FINITE, Edges, neighbour_list
from gnn.structures.record import Bools, Floats

SKIN = 0.6
"""Å; larger means fewer searches and more candidates to look through."""
FLAT = 1e-9
"""Å³; a cell of less is not full, its deformation unknown."""


@dataclass(frozen=True)
class Frame:
    """B structures with N atoms as they stand now.

    keys: who they are, from one frame to the next; numbers (N,) int64; n_atoms (B,) int64; pbc (B, 3) bool;
    positions (N, 3) Å; cell (B, 3, 3) Å, both float64.
    """

    keys: tuple[int, ...]
    numbers: Tensor
    n_atoms: Tensor
    pbc: Tensor
    positions: Tensor
    cell: Tensor

    @property
    def structure(self) -> Tensor:
        """(N,) which structure each atom belongs to."""
        return torch.repeat_interleave(torch.arange(len(self.keys), device=self.n_atoms.device), self.n_atoms)


@dataclass(frozen=True)
class _Searched:
    """One structure's candidates (E,), (E,), (E, 3), and where it stood when they were found."""

    senders: Tensor
    receivers: Tensor
    shifts: Tensor
    positions: Tensor
    cell: Tensor


@dataclass(frozen=True)
class _Together:
    """The candidates of the structures `keys`, in one row; `of_edge` (E,) says whose they are."""

    keys: tuple[int, ...]
    senders: Tensor
    receivers: Tensor
    shifts: Tensor
    of_edge: Tensor
    positions: Tensor
    cell: Tensor


class EdgeKeeper:
    """Gives the edges of a moving population within `cutoff` Å, searching again only where it must.

    `searches` counts how often one structure was searched.
    """

    def __init__(self, cutoff: float, skin: float = SKIN) -> None:
        self.cutoff = cutoff
        self.skin = skin
        self.searches = 0
        self._searched: dict[int, _Searched] = {}
        self._together: _Together | None = None

    def forget(self, key: int) -> None:
        """Drop what is known of a structure that is finished."""
        self._searched.pop(key, None)
        if self._together is not None and key in self._together.keys:
            self._together = None

    def batch(self, now: Frame) -> tuple[Batch, Tensor]:
        """The frame as a batch, and the shortest edge of each structure (B,), Å, infinite where there is none.

        Raises:
            InputError: positions or cells are not finite.
        """
        if not (now.positions.isfinite().all() and now.cell.isfinite().all()):
            raise InputError(NOT_FINITE)
        structure = now.structure
        candidates = self._candidates(now, structure)
        vectors = now.positions[candidates.senders] - now.positions[candidates.receivers]
        vectors = vectors + torch.einsum("ek,ekd->ed", candidates.shifts, now.cell[candidates.of_edge])
        squared = (vectors * vectors).sum(dim=1)
        near = squared < self.cutoff**2
        batch = Batch(
            numbers=now.numbers,
            positions=now.positions,
            cell=now.cell,
            pbc=now.pbc,
            structure=structure,
            n_atoms=now.n_atoms,
            senders=candidates.senders[near],
            receivers=candidates.receivers[near],
            shifts=candidates.shifts[near],
            theory=torch.zeros_like(now.n_atoms),
        )
        shortest = now.cell.new_full((len(now.keys),), torch.inf)
        return batch, shortest.scatter_reduce(0, candidates.of_edge[near], squared[near], "amin").sqrt()

    def _candidates(self, now: Frame, structure: Tensor) -> _Together:
        """Candidates that serve at the present geometry."""
        if self._together is None or self._together.keys != now.keys:
            self._search(now, [k for k, key in enumerate(now.keys) if key not in self._searched])
            self._together = self._gather(now)
        if stale := self._stale(self._together, now, structure):
            self._search(now, stale)
            self._together = self._gather(now)
        return self._together

    def _search(self, now: Frame, which: list[int]) -> None:
        starts = [0, *now.n_atoms.cumsum(0).tolist()]
        for k in which:
            positions, cell = now.positions[starts[k] : starts[k + 1]], now.cell[k]
            edges = self._found(positions.cpu().numpy(), cell.cpu().numpy(), now.pbc[k].cpu().numpy())
            device = positions.device
            self._searched[now.keys[k]] = _Searched(
                senders=torch.as_tensor(edges.senders, dtype=torch.int64, device=device),
                receivers=torch.as_tensor(edges.receivers, dtype=torch.int64, device=device),
                shifts=torch.as_tensor(edges.shifts, dtype=positions.dtype, device=device).view(-1, 3),
                positions=positions,
                cell=cell,
            )
            self.searches += 1

    def _found(self, positions: Floats, cell: Floats, pbc: Bools) -> Edges:
        """Candidates within cutoff + skin; none for a potential that needs no edges."""
        if self.cutoff == 0:
            nobody = np.zeros(0, dtype=np.int64)
            return Edges(nobody, nobody, np.zeros((0, 3), dtype=np.int64))
        return neighbour_list(positions, cell, pbc, self.cutoff + self.skin)

    def _gather(self, now: Frame) -> _Together:
        found = [self._searched[key] for key in now.keys]
        device = now.n_atoms.device
        counts = torch.tensor([len(one.senders) for one in found], device=device)
        of_edge = torch.repeat_interleave(torch.arange(len(found), device=device), counts)
        first_atom = (now.n_atoms.cumsum(0) - now.n_atoms)[of_edge]
        return _Together(
            keys=now.keys,
            senders=torch.cat([one.senders for one in found]) + first_atom,
            receivers=torch.cat([one.receivers for one in found]) + first_atom,
            shifts=torch.cat([one.shifts for one in found]),
            of_edge=of_edge,
            positions=torch.cat([one.positions for one in found]),
            cell=torch.stack([one.cell for one in found]),
        )

    def _stale(self, then: _Together, now: Frame, structure: Tensor) -> list[int]:
        """Structures whose candidates may miss an edge, by the bound in this module's docstring."""
        if self.cutoff == 0:
            return []
        deformation = deformation_between(then.cell, now.cell)
        resized = ~is_full(then.cell) & (then.cell != now.cell).flatten(1).any(dim=1)
        beyond = now.positions - torch.einsum("ni,nij->nj", then.positions, deformation[structure])
        moved = now.cell.new_zeros(len(now.keys)).scatter_reduce(0, structure, beyond.norm(dim=1), "amax")
        shrink = torch.linalg.svdvals(deformation).amin(dim=1)
        missed = shrink * (self.cutoff + self.skin) - 2 * moved < self.cutoff
        return torch.nonzero(missed | resized).flatten().tolist()


def is_full(cell: Tensor) -> Tensor:
    """Whether three vectors span a volume; (B, 3, 3) -> (B,)."""
    return torch.linalg.det(cell).abs() >= FLAT


def deformation_between(before: Tensor, now: Tensor) -> Tensor:
    """(B, 3, 3) F with now = before @ F; the identity where there is no full cell."""
    identity = torch.eye(3, dtype=now.dtype, device=now.device).expand_as(now)
    flat = ~is_full(before).view(-1, 1, 1)
    return torch.where(flat, identity, torch.linalg.solve(torch.where(flat, identity, before), now))
