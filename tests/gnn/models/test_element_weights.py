"""Weights of elements: of bounded rank, and shared by elements that are alike."""

from __future__ import annotations

import torch
from ase.data import chemical_symbols

from gnn.models.element_weights import ElementWeights


def test_elements_have_their_own_weights_at_bounded_rank() -> None:
    torch.manual_seed(0)
    table = ElementWeights(chemical_symbols[1:90], 16, 40).double()().detach()
    assert table.shape == (89, 40)
    assert int(torch.linalg.matrix_rank(table)) == 16
    assert float(torch.cdist(table, table).fill_diagonal_(1.0).min()) > 1e-3


def test_fresh_weights_are_of_order_one_and_alike_where_elements_are() -> None:
    torch.manual_seed(0)
    rows = torch.stack([ElementWeights(["Zr", "Hf", "Cl"], 3, 200)().detach() for _ in range(400)])
    variances = rows.square().mean(dim=(0, 2))
    torch.testing.assert_close(variances, torch.ones(3), rtol=0.15, atol=0)
    zr, hf, cl = rows.unbind(1)
    assert float((zr * hf).mean()) > 0.35
    assert abs(float((zr * cl).mean())) < 0.1


def test_what_one_element_learns_moves_those_like_it() -> None:
    torch.manual_seed(0)
    weights = ElementWeights(["Zr", "Hf", "Cl"], 3, 5)
    before = weights().detach()
    (gradient,) = torch.autograd.grad(weights()[0].sum(), [weights.element])
    with torch.no_grad():
        weights.element -= 0.01 * gradient
    zr, hf, cl = (weights() - before).norm(dim=1).tolist()
    assert zr > hf > 0.3 * zr
    assert cl < 0.01 * zr


def test_any_table_can_be_set() -> None:
    weights = ElementWeights(["H", "C", "N", "O"], 4, 5)
    table = torch.randn(4, 4)
    with torch.no_grad():
        weights.element.copy_(weights.element_of(table))
    torch.testing.assert_close(weights.table(), table)
