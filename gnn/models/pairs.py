"""Sums over neighbours that depend on distances alone: pairs of atoms, whatever images of a cell they are made of."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gnn.graphs.batch import Batch
from gnn.graphs.grid import AtomGrid, atom_grid
from gnn.models.rows import Gather, Scatter

DENSE_PLACES_AN_EDGE = 8
"""A grid of all pairs is used as long as it has at most this many places for each edge."""
CHUNK_EDGES = 1024
"""Edges whose messages exist at one time where there is no grid."""


@dataclass(frozen=True)
class PairGrid:
    """All pairs of atoms of each structure: a square of width x width places for each of the grid's rows.

    place (E,): where an edge's pair stands, receiver by receiver; several images of a sender fall on one place.
    """

    atoms: AtomGrid
    place: Tensor

    def weights(self, radial: Tensor) -> Tensor:
        """One matrix of pair weights a row and radial function. Shapes: (E, H) -> (rows · H, width, width)."""
        n, w = self.atoms.atom.shape
        grid = Scatter.apply(radial, self.place, n * w * w)
        return grid.view(n, w, w, -1).permute(0, 3, 1, 2).reshape(-1, w, w)

    def sum(self, weights: Tensor, x: Tensor) -> Tensor:
        """sum_j weight_h(i, j) · x_j, h the group of a channel. Shapes: (rows · H, w, w), (K, N, C) -> (K, N, C)."""
        if self.atoms.is_full:
            return self._sum(weights, x)
        padded = Gather.apply(x.transpose(0, 1), self.atoms.atom.flatten()).transpose(0, 1)
        summed = self._sum(weights, padded)
        return Gather.apply(summed.transpose(0, 1), self.atoms.place).transpose(0, 1).contiguous()

    def _sum(self, weights: Tensor, x: Tensor) -> Tensor:
        (n, w), parts = self.atoms.atom.shape, x.shape[0]
        groups = weights.shape[0] // n
        sent = x.reshape(parts, n, w, groups, -1).permute(1, 3, 2, 0, 4).reshape(n * groups, w, -1)
        found = torch.bmm(weights, sent).view(n, groups, w, parts, -1)
        return found.permute(3, 0, 2, 1, 4).reshape(parts, n * w, -1)


@dataclass(frozen=True)
class PairList:
    """The same sums edge by edge, for structures so large that most pairs of atoms are no neighbours."""

    senders: Tensor
    receivers: Tensor
    n_atoms: int

    def weights(self, radial: Tensor) -> Tensor:
        """The radial functions as they are. Shapes: (E, H) -> (E, H)."""
        return radial

    def sum(self, weights: Tensor, x: Tensor) -> Tensor:
        """See `PairGrid.sum`. Shapes: (E, H), (K, N, C) -> (K, N, C)."""
        parts, _, channels = x.shape
        rows = x.transpose(0, 1).reshape(self.n_atoms, parts, weights.shape[1], -1)
        summed: Tensor = _EdgeSum.apply(weights, rows, self.senders, self.receivers)
        return summed.view(-1, parts, channels).transpose(0, 1).contiguous()


class _EdgeSum(torch.autograd.Function):
    """y[to] += w · x[from] over edges, groups of channels having weights of their own; messages are never stored.

    Shapes: w (E, H), x (N, K, H, c) -> (N, K, H, c).
    """

    @staticmethod
    def forward(ctx: Any, weights: Tensor, x: Tensor, source: Tensor, target: Tensor) -> Tensor:
        """Add up, some edges at a time."""
        ctx.save_for_backward(weights, x, source, target)
        out = torch.zeros_like(x)
        for some in _chunks(len(source)):
            out.index_add_(0, target[some], x.index_select(0, source[some]) * weights[some, None, :, None])
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None, None]:
        """The edges turned round, and what both ends say of the weights."""
        weights, x, source, target = ctx.saved_tensors
        of_weights = _EdgeProduct.apply(grads[0], x, target, source)
        return of_weights, _EdgeSum.apply(weights, grads[0], target, source), None, None


class _EdgeProduct(torch.autograd.Function):
    """sum over parts and channels of a[i] · b[j] on every edge and group: the derivative of `_EdgeSum` by its weights.

    Shapes: a, b (N, K, H, c) -> (E, H).
    """

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, i: Tensor, j: Tensor) -> Tensor:
        """Multiply, some edges at a time."""
        ctx.save_for_backward(a, b, i, j)
        found = [(a.index_select(0, i[some]) * b.index_select(0, j[some])).sum((1, 3)) for some in _chunks(len(i))]
        return torch.cat(found) if found else a.new_zeros(0, a.shape[2])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None, None]:
        """Sums over edges again."""
        a, b, i, j = ctx.saved_tensors
        return _EdgeSum.apply(grads[0], b, j, i), _EdgeSum.apply(grads[0], a, i, j), None, None


def _chunks(n_edges: int) -> Iterator[slice]:
    return (slice(start, start + CHUNK_EDGES) for start in range(0, n_edges, CHUNK_EDGES))


def pair_sums(batch: Batch) -> PairGrid | PairList:
    """The cheaper way to sum over the neighbours of this batch; its own grid, where it has one."""
    if batch.grid is not None:
        return pair_grid(batch, batch.grid)
    if is_dense(batch):
        return pair_grid(batch, atom_grid(batch.structure, batch.n_atoms))
    return PairList(batch.senders, batch.receivers, batch.numbers.shape[0])


def is_dense(batch: Batch) -> bool:
    """Whether a grid of all pairs of this batch has few enough places without an edge."""
    places = batch.n_structures * int(batch.n_atoms.max()) ** 2
    return places <= DENSE_PLACES_AN_EDGE * batch.senders.shape[0]


def pair_grid(batch: Batch, atoms: AtomGrid) -> PairGrid:
    """The grid of all pairs in the rows of `atoms`."""
    width = atoms.atom.shape[1]
    receiver, sender = atoms.place.index_select(0, batch.receivers), atoms.place.index_select(0, batch.senders)
    return PairGrid(atoms, receiver * width + sender % width)
