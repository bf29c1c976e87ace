"""The arithmetic floor."""

from __future__ import annotations

from collections import Counter

import pytest
import torch

from flows.bench.floor import (
    Floor,
    Product,
    Work,
    count_work,
    floor_of,
    nbytes,
    size_class,
    strided,
    time_call,
    time_product,
)


def test_product_of_two_matrices() -> None:
    a, b = torch.ones(3, 4), torch.ones(4, 5)
    work = count_work(lambda: a @ b)
    assert work.flops == 2 * 3 * 4 * 5
    assert work.products == Counter({Product((3, 4), (4, 5), (4, 1), (5, 1)): 1})
    assert work.moved_bytes == 0


def test_batched_product_and_its_derivatives() -> None:
    a, b = torch.ones(2, 3, 4, requires_grad=True), torch.ones(2, 4, 5)
    work = count_work(lambda: (a @ b).sum().backward())
    once = 2 * 2 * 3 * 4 * 5
    assert work.flops == 2 * once  # forward, and the derivative with respect to a alone
    assert sum(product.flops * count for product, count in work.products.items()) == work.flops


def test_second_derivatives_inside_a_step_are_counted() -> None:
    x = torch.ones(6, 4, requires_grad=True)
    w = torch.ones(4, 3, requires_grad=True)

    def step() -> None:
        (slope,) = torch.autograd.grad((x @ w).square().sum(), x, create_graph=True)
        slope.square().sum().backward()

    work = count_work(step)
    assert work.flops == sum(product.flops * count for product, count in work.products.items())
    assert work.flops > 3 * 2 * 6 * 4 * 3


def test_other_operators_move_what_they_read_and_write() -> None:
    x = torch.ones(1000)
    assert count_work(lambda: x + x).moved_bytes == 3 * 4000
    assert count_work(lambda: x.view(10, 100).t()).moved_bytes == 0
    assert count_work(lambda: x[:500] * 2).moved_bytes == 2 * 2000


def test_a_broadcast_tensor_is_read_once() -> None:
    assert nbytes(torch.ones(1, 10).expand(100, 10)) == 40
    assert nbytes(torch.ones(0)) == 0


@pytest.mark.parametrize(("size", "power"), [(1, 1), (2, 2), (3, 2), (4096, 4096), (5000, 4096)])
def test_size_class(size: int, power: int) -> None:
    assert size_class(size) == power


def test_floor_is_the_sum_over_shapes() -> None:
    small, large = Product((2, 2), (2, 2), (2, 1), (2, 1)), Product((8, 8), (8, 8), (8, 1), (8, 1))
    work = Work(Counter({small: 3, large: 2}), Counter({1024: 2048.0}), flops=3 * 16 + 2 * 1024)
    found = floor_of(work, lambda product: product.flops / 1e9, lambda size: 2 * size / 1e9)
    assert found.products_s == pytest.approx(work.flops / 1e9)
    assert found.moved_s == pytest.approx(2048 / 1e9)
    assert found.gflop_rate == pytest.approx(1.0)
    assert found.gbyte_rate == pytest.approx(1.0)


@pytest.mark.parametrize("strides", [(4, 1), (1, 3), (0, 1), (1, 1), (0, 0)])
def test_factors_have_the_strides_of_the_step(strides: tuple[int, int]) -> None:
    factor = strided((3, 4), strides, torch.float32)
    assert factor.shape == (3, 4)
    assert factor.stride() == strides
    assert time_product(Product((3, 4), (4, 2), strides, (2, 1))) > 0


def test_empty_factors() -> None:
    assert strided((0, 4), (4, 1), torch.float64).dtype == torch.float64
    assert Product((0, 4), (4, 2), (4, 1), (2, 1)).flops == 0


def test_nothing_done_has_no_rate() -> None:
    assert Floor(0, 0.0, 0.0, 0.0).gflop_rate == 0.0
    assert Floor(0, 0.0, 0.0, 0.0).gbyte_rate == 0.0


def test_timing_repeats_what_is_short() -> None:
    calls = []
    seconds = time_call(lambda: calls.append(1))
    assert len(calls) > 100
    assert 0 < seconds < 1e-3


def test_our_own_step_is_counted() -> None:
    from ase.build import molecule

    from gnn.graphs.collate import batch_of_atoms
    from gnn.models.config import ModelConfig
    from gnn.models.model import build_model

    model = build_model(ModelConfig(elements=["H", "O"], channels=4, radial_hidden=[8]))
    batch = batch_of_atoms([molecule("H2O")], 5.0)
    inference = count_work(lambda: model.predict(batch))
    training = count_work(lambda: model.predict(batch, training=True).energy.sum().backward())
    assert inference.flops > 0
    assert inference.flops == sum(product.flops * count for product, count in inference.products.items())
    assert training.flops > inference.flops
    assert inference.moved_bytes > 0
