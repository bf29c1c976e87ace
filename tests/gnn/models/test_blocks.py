"""Padded neighbour blocks."""

from __future__ import annotations

import torch

from gnn.models.blocks import neighbour_blocks


def test_rows_go_to_their_receivers() -> None:
    receivers = torch.tensor([0, 0, 2, 2, 2])
    blocks = neighbour_blocks(receivers, 4)
    padded = blocks.pad(torch.arange(1.0, 6.0).unsqueeze(1))
    assert blocks.width == 3
    assert padded.squeeze(2).tolist() == [[1, 2, 0], [0, 0, 0], [3, 4, 5], [0, 0, 0]]


def test_even_counts_need_no_padding() -> None:
    blocks = neighbour_blocks(torch.tensor([0, 0, 1, 1]), 2)
    x = torch.randn(4, 3)
    assert blocks.slot is None
    assert blocks.pad(x).data_ptr() == x.data_ptr()


def test_no_edges() -> None:
    padded = neighbour_blocks(torch.zeros(0, dtype=torch.int64), 3).pad(torch.zeros(0, 2))
    assert padded.shape == (3, 1, 2)
    assert not padded.any()


def test_derivatives_of_every_order() -> None:
    blocks = neighbour_blocks(torch.tensor([0, 2, 2]), 3)
    x = torch.randn(3, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda t: blocks.pad(t).square(), (x,))
    assert torch.autograd.gradgradcheck(lambda t: blocks.pad(t).square(), (x,))
