"""Radial functions: right values, smooth at the cutoff."""

from __future__ import annotations

import math

import pytest
import torch

from gnn.models.radial import BesselBasis, RadialNetwork, envelope


@pytest.mark.parametrize("power", [3, 5, 6, 8])
def test_envelope_and_two_derivatives_vanish_at_the_cutoff(power: int) -> None:
    x = torch.tensor([1.0], dtype=torch.float64, requires_grad=True)
    value = envelope(x * (1 - 1e-12), power)
    (first,) = torch.autograd.grad(value, x, create_graph=True)
    (second,) = torch.autograd.grad(first, x)
    for found in (value, first, second):
        assert abs(float(found)) < 1e-8


def test_envelope_is_one_at_zero_and_nothing_outside() -> None:
    x = torch.tensor([0.0, 1.0, 1.5, 7.0], dtype=torch.float64)
    torch.testing.assert_close(envelope(x, 5), torch.tensor([1.0, 0, 0, 0], dtype=torch.float64), atol=1e-12, rtol=0)


def test_envelope_falls_monotonically() -> None:
    values = envelope(torch.linspace(0, 1, 200, dtype=torch.float64), 6)
    assert bool((values.diff() <= 1e-12).all())


def test_bessel_values() -> None:
    r = torch.tensor([1.3], dtype=torch.float64)
    expected = [
        5.0 * math.sqrt(2 / 5) * math.sin(n * math.pi * 1.3 / 5) / 1.3 * float(envelope(r / 5, 5)) for n in (1, 2, 3)
    ]
    torch.testing.assert_close(BesselBasis(5.0, 3, 5)(r)[0], torch.tensor(expected, dtype=torch.float64))


def test_radial_network_is_smooth_at_the_cutoff() -> None:
    network = RadialNetwork(BesselBasis(4.0, 8, 5), [16, 16], 5).double()
    r = torch.tensor([4.0 - 1e-4, 4.0, 4.5], dtype=torch.float64, requires_grad=True)
    values = network(r)
    assert float(values.abs().max()) < 1e-9
    assert float(values[1:].abs().max()) == pytest.approx(0.0, abs=1e-14)
    (slope,) = torch.autograd.grad(values.sum(), r)
    assert float(slope[0].abs()) < 1e-5
    assert float(slope[2]) == pytest.approx(0.0, abs=1e-12)


def test_radial_derivatives() -> None:
    network = RadialNetwork(BesselBasis(4.0, 8, 5), [8], 3).double()
    r = torch.tensor([0.7, 1.9, 3.9], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(network, (r,))
    assert torch.autograd.gradgradcheck(network, (r,))


def test_radial_variance_is_of_order_one_at_bonding_distance() -> None:
    torch.manual_seed(0)
    values = RadialNetwork(BesselBasis(5.0, 8, 5), [64, 64], 256)(torch.linspace(1.0, 3.0, 50))
    assert 0.1 < float(values.square().mean().sqrt()) < 10
