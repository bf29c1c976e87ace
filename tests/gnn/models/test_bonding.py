"""The mean binding of atoms: all of it in crystals and molecules, none for free atoms, smooth between."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gnn.models.bonding import Bonding
from gnn.models.config import ModelConfig

CONFIG = ModelConfig(
    elements=["H", "C"], cutoff=4.0, theories=["a", "b"], bonding={"a": {"H": -2.0, "C": -7.0}, "b": {"C": -6.0}}
)
ELEMENTS, THEORY = torch.tensor([1, 0]), torch.tensor([0, 0])


def of_pair(distance: float, elements: torch.Tensor = ELEMENTS, theory: torch.Tensor = THEORY) -> list[float]:
    """eV of both atoms of a pair."""
    ends = torch.tensor([0, 1])
    found: list[float] = Bonding(CONFIG)(torch.full((2,), distance).double(), ends, elements, theory).tolist()
    return found


def test_a_free_atom_has_none() -> None:
    nothing = torch.zeros(0, dtype=torch.int64)
    assert Bonding(CONFIG)(torch.zeros(0), nothing, ELEMENTS, THEORY).tolist() == [0.0, 0.0]


def test_many_neighbours_bring_all_of_it() -> None:
    receivers = torch.zeros(12, dtype=torch.int64)
    assert Bonding(CONFIG)(torch.full((12,), 1.5), receivers, ELEMENTS[:1], THEORY[:1]).item() == pytest.approx(-7.0)


@pytest.mark.parametrize("part", [0.1, 0.5, 0.9])
def test_energy_of_a_pair(part: float) -> None:
    """u for p = 5 in factorised form: (1 - x)³ (1 + 3x + 6x² + 10x³ + 15x⁴)."""
    x = part
    near = (1 - x) ** 3 * (1 + 3 * x + 6 * x**2 + 10 * x**3 + 15 * x**4)
    assert of_pair(4.0 * x) == pytest.approx([-7.0 * math.tanh(near), -2.0 * math.tanh(near)])


def test_theories_have_their_own_and_what_is_not_named_has_none() -> None:
    whole = of_pair(1.0)
    assert of_pair(1.0, theory=torch.tensor([1, 1])) == pytest.approx([whole[0] * 6 / 7, 0.0])


@given(st.floats(0.5, 3.999))
def test_it_falls_smoothly_to_nothing_at_the_cutoff(distance: float) -> None:
    near, far = of_pair(distance), of_pair(min(distance + 0.01, 4.0))
    assert near[0] <= far[0] <= 0.0 and far[0] - near[0] < 0.1
    assert of_pair(4.0) == of_pair(5.0) == [0.0, 0.0]
