"""Sizes of batches: by the data where the configuration leaves them open."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gnn.graphs.graph_set import Statistics
from gnn.training.batch_size import FEWEST_ATOMS, FEWEST_STRUCTURES, MOST_STRUCTURES, atoms_a_batch
from gnn.training.config import make_config
from gnn.training.resolve import resolve


def statistics(size: int, force_rms: float | None) -> Statistics:
    return Statistics(
        n_structures=100,
        n_atoms=100 * size,
        n_edges=4000 * size,
        mean_neighbours=40.0,
        energy_rms=0.1,
        force_rms=force_rms,
        stress_rms=None,
    )


@pytest.mark.parametrize(
    ("set_of", "size", "n_own", "atoms"),
    [
        ("a small molecule, hundreds", 9, 950, 128),
        ("crystals of fifty atoms, hundreds", 53, 156, 128),
        ("cells of a hundred atoms and more", 192, 320, 384),
        ("an alloy, thousands", 64, 3366, 192),
        ("a million", 30, 1_000_000, 960),
    ],
)
def test_sets_with_forces(set_of: str, size: int, n_own: int, atoms: int) -> None:
    assert atoms_a_batch(statistics(size, 1.0), n_own) == atoms, set_of


@given(st.integers(1, 500), st.integers(0, 10**7))
def test_labels_of_structures_alone_take_more_structures_a_batch(size: int, n_own: int) -> None:
    with_forces, without = (atoms_a_batch(statistics(size, rms), n_own) for rms in (1.0, None))
    assert max(FEWEST_STRUCTURES * size, FEWEST_ATOMS) <= with_forces <= without
    assert without <= max(MOST_STRUCTURES * size, FEWEST_ATOMS)


def test_a_recipe_holds_and_says_them(copper: Any, tiny_config: Callable[..., Any]) -> None:
    recipe = resolve(make_config(tiny_config().model_dump() | {"batch": {"max_atoms": None}}), copper.graph_set)
    assert recipe.max_atoms == atoms_a_batch(copper.graph_set.statistics, copper.graph_set.n_own)
    assert f"batches of up to {recipe.max_atoms} atoms" in " ".join(recipe.remarks)


def test_what_is_given_stays(copper: Any, tiny_config: Callable[..., Any]) -> None:
    recipe = resolve(make_config(tiny_config().model_dump() | {"batch": {"max_atoms": 17}}), copper.graph_set)
    assert recipe.max_atoms == 17
