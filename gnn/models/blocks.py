"""Edges sorted by receiver as padded blocks: a sum over neighbours becomes one batched matrix product."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


class _Pad(torch.autograd.Function):
    """(E, F) -> (S, F): row e to row slot[e], zeros elsewhere. The transpose of `_Unpad`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, slot: Tensor, size: int) -> Tensor:
        ctx.save_for_backward(slot)
        ctx.size = size
        return x.new_zeros(size, x.shape[1]).index_copy_(0, slot, x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (slot,) = ctx.saved_tensors
        return _Unpad.apply(grads[0], slot, ctx.size), None, None


class _Unpad(torch.autograd.Function):
    """(S, F) -> (E, F): row e from row slot[e]. The transpose of `_Pad`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, slot: Tensor, size: int) -> Tensor:
        ctx.save_for_backward(slot)
        ctx.size = size
        return x.index_select(0, slot)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (slot,) = ctx.saved_tensors
        return _Pad.apply(grads[0], slot, ctx.size), None, None


@dataclass(frozen=True)
class NeighbourBlocks:
    """Where each edge stands in its receiver's block of `width` places; slot is None where nothing is padded."""

    n_atoms: int
    width: int
    slot: Tensor | None

    def pad(self, x: Tensor) -> Tensor:
        """Per-edge rows as blocks, zeros in empty places. Shapes: (E, F) -> (N, width, F)."""
        if self.slot is not None:
            x = _Pad.apply(x, self.slot, self.n_atoms * self.width)
        return x.view(self.n_atoms, self.width, x.shape[1])


def neighbour_blocks(receivers: Tensor, n_atoms: int, width: int | None = None) -> NeighbourBlocks:
    """Blocks of edges that are sorted by receiver; `width` where every atom receives so many. receivers (E,) int64."""
    if width is not None:
        return NeighbourBlocks(n_atoms, width, None)
    counts = torch.bincount(receivers, minlength=n_atoms)
    width = max(1, int(counts.max()))
    n_edges = receivers.shape[0]
    if n_edges == n_atoms * width:
        return NeighbourBlocks(n_atoms, width, None)
    first = counts.cumsum(0) - counts
    rank = torch.arange(n_edges, device=receivers.device) - first.index_select(0, receivers)
    return NeighbourBlocks(n_atoms, width, receivers * width + rank)
