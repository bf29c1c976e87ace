"""Core repulsion against values worked out by hand in atomic units."""

from __future__ import annotations

from math import exp

import pytest
import torch

from gnn.models.zbl import ZblRepulsion, screening_function

HARTREE, BOHR = 27.211386, 0.52917721
SUM_OF_RADII = {(6, 6): 1.52, (1, 8): 0.97, (29, 29): 2.64, (14, 8): 1.77}
"""Å, Cordero et al., Dalton Trans. 2008, 2832."""


def energy_of_pair(first: int, second: int, distance: float, cutoff: float = 5.0) -> float:
    """Both atoms' shares together, eV."""
    repulsion = ZblRepulsion(cutoff).double()
    ends = torch.tensor([0, 1])
    pair = torch.full((2,), distance, dtype=torch.float64)
    return float(repulsion(torch.tensor([first, second]), pair, ends.flip(0), ends).sum())


def by_hand(first: int, second: int, distance: float, reach: float) -> float:
    """Z1 Z2/r · φ(r/a) in Hartree and Bohr with a = 0.8854/(Z1^0.23 + Z2^0.23), times the switch in factorised form."""
    r = distance / BOHR
    x = r * (first**0.23 + second**0.23) / 0.8854
    screening = 0.18175 * exp(-3.1998 * x) + 0.50986 * exp(-0.94229 * x)
    screening += 0.28022 * exp(-0.4029 * x) + 0.02817 * exp(-0.20162 * x)
    t = distance / reach
    switch = (1 - t) ** 3 * (1 + 3 * t + 6 * t**2 + 10 * t**3 + 15 * t**4 + 21 * t**5) if t < 1 else 0.0
    return first * second / r * screening * HARTREE * switch


@pytest.mark.parametrize("pair", SUM_OF_RADII)
@pytest.mark.parametrize("part", [0.05, 0.2, 0.5, 0.8, 0.99, 1.0, 1.3])
def test_energy_of_a_pair(pair: tuple[int, int], part: float) -> None:
    distance = part * SUM_OF_RADII[pair]
    expected = by_hand(*pair, distance, SUM_OF_RADII[pair])
    assert energy_of_pair(*pair, distance) == pytest.approx(expected, rel=2e-4, abs=1e-9)


def test_screening_at_the_nucleus_and_far_away() -> None:
    values = screening_function(torch.tensor([0.0, 1.0, 10.0, 200.0], dtype=torch.float64)).tolist()
    assert values == pytest.approx([1.0, 0.41643, 0.0087734, 0.0], abs=1e-5)


def test_carbon_pair_at_half_an_angstrom() -> None:
    """36 · 14.39964/0.5 = 1036.8 eV unscreened; φ(3.2228) = 0.11548, u(0.32895) = 0.9775."""
    assert energy_of_pair(6, 6, 0.5) == pytest.approx(by_hand(6, 6, 0.5, 1.52), rel=2e-4)
    assert 100 < energy_of_pair(6, 6, 0.5) < 125


def test_order_of_the_pair_does_not_matter() -> None:
    assert energy_of_pair(1, 8, 0.6) == pytest.approx(energy_of_pair(8, 1, 0.6), rel=1e-12)


def test_a_short_cutoff_ends_the_switch() -> None:
    assert energy_of_pair(29, 29, 1.999999, cutoff=2.0) == pytest.approx(0.0, abs=1e-9)
    assert energy_of_pair(29, 29, 1.5, cutoff=2.0) == pytest.approx(by_hand(29, 29, 1.5, 2.0), rel=2e-4)


def test_two_derivatives_vanish_where_it_ends() -> None:
    ends, numbers = torch.tensor([0, 1]), torch.tensor([6, 6])
    r = torch.tensor(1.52 - 1e-9, dtype=torch.float64, requires_grad=True)
    energy = ZblRepulsion(5.0)(numbers, r.expand(2), ends.flip(0), ends).sum()
    (slope,) = torch.autograd.grad(energy, r, create_graph=True)
    (bend,) = torch.autograd.grad(slope, r)
    assert abs(float(slope)) < 1e-9
    assert abs(float(bend)) < 1e-4


def test_derivatives() -> None:
    ends, numbers = torch.tensor([0, 1]), torch.tensor([14, 8])
    r = torch.tensor([0.9, 1.2], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda d: ZblRepulsion(5.0)(numbers, d, ends.flip(0), ends), (r,))
