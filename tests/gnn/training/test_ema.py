"""The moving average of weights."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from gnn.training.ema import Ema, copy_weights, decay_at


def test_decay_rises_to_its_bound() -> None:
    assert decay_at(1, None) == pytest.approx(2 / 11)
    assert decay_at(900, None) < 0.9911
    assert decay_at(10_000, None) == pytest.approx(0.999)
    assert decay_at(10**7, None) == pytest.approx(0.999)
    assert decay_at(10**7, 0.9) == 0.9
    decays = [decay_at(step, None) for step in range(1, 20_000, 50)]
    assert decays == sorted(decays)


def test_it_follows_the_recursion() -> None:
    module = nn.Linear(2, 1)
    ema = Ema(module, 0.5)
    expected = {name: value.detach().clone() for name, value in module.named_parameters()}
    for step in range(1, 6):
        with torch.no_grad():
            for value in module.parameters():
                value.add_(step)
        ema.update(module, step)
        decay = decay_at(step, 0.5)
        for name, value in module.named_parameters():
            expected[name] = decay * expected[name] + (1 - decay) * value.detach()
    for name in expected:
        torch.testing.assert_close(ema.weights[name], expected[name].double())


def test_rounding_does_not_hold_it_back() -> None:
    """Weights at rest are reached: in single precision the average would stop 3e-5 of them short."""
    module = nn.Linear(64, 1, bias=False)
    ema = Ema(module, 0.999)
    with torch.no_grad():
        module.weight.mul_(1.0 + 1e-3)
    for step in range(20_000, 40_000):
        ema.update(module, step)
    torch.testing.assert_close(ema.weights["weight"], module.weight.detach().double(), rtol=1e-8, atol=0.0)


def test_what_was_saved_goes_on() -> None:
    module = nn.Linear(3, 2)
    ema, again = Ema(module, 0.9), Ema(nn.Linear(3, 2), 0.9)
    with torch.no_grad():
        module.weight.add_(1.0)
    ema.update(module, 100)
    again.restore({name: value.clone() for name, value in ema.weights.items()})
    for average in (ema, again):
        average.update(module, 101)
    assert all(torch.equal(again.weights[name], value) for name, value in ema.weights.items())


def test_lending_gives_the_own_weights_back_bit_for_bit() -> None:
    module = nn.Linear(3, 2)
    ema = Ema(module, None)
    own = {name: value.detach().clone() for name, value in module.named_parameters()}
    for value in ema.weights.values():
        value.fill_(7.0)
    with ema.applied(module):
        assert all((value == 7.0).all() for value in module.parameters())
    assert all(torch.equal(value, own[name]) for name, value in module.named_parameters())


def test_an_error_inside_gives_them_back_too() -> None:
    module = nn.Linear(3, 2)
    ema = Ema(module, None)
    ema.weights = {name: value + 1 for name, value in ema.weights.items()}
    own = [value.detach().clone() for value in module.parameters()]
    with pytest.raises(RuntimeError), ema.applied(module):
        raise RuntimeError
    assert all(torch.equal(a, b) for a, b in zip(own, module.parameters(), strict=True))


def test_weights_are_copied_not_shared() -> None:
    module = nn.Linear(1, 1)
    weights = {name: torch.ones_like(value) for name, value in module.named_parameters()}
    copy_weights(module, weights)
    weights["weight"].fill_(5.0)
    assert float(module.weight.detach()) == 1.0
