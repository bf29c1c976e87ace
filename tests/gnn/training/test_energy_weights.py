"""Weights of energies against forces: by the data where the configuration leaves them open."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gnn.graphs.graph_set import Statistics
from gnn.training.config import LossConfig, make_config
from gnn.training.energy_weights import LEAST, MOST, RISE, energy_weights, with_energy_weights
from gnn.training.resolve import resolve


def statistics(energy_rms: float | None, force_rms: float | None) -> Statistics:
    return Statistics(
        n_structures=10,
        n_atoms=40,
        n_edges=400,
        mean_neighbours=10.0,
        energy_rms=energy_rms,
        force_rms=force_rms,
        stress_rms=None,
        properties={},
    )


def test_molecules_in_motion_and_symmetric_cells_stand_at_the_ends() -> None:
    assert energy_weights(statistics(0.006, 0.95)) == pytest.approx((10.9, 109), rel=0.01)
    assert energy_weights(statistics(0.37, 0.2)) == (MOST, RISE * MOST)


@pytest.mark.parametrize(("energy", "force"), [(0.3, None), (None, 0.3), (0.3, 0.0), (0.3, 1e-5)])
def test_without_forces_there_is_nothing_to_balance(energy: float | None, force: float | None) -> None:
    assert energy_weights(statistics(energy, force)) == (LEAST, RISE * LEAST)


@given(st.floats(1e-4, 10), st.floats(0.2, 10), st.floats(0.01, 100))
def test_weights_do_not_depend_on_the_unit_of_energy_and_rise_with_what_energies_tell(
    energy: float, force: float, unit: float
) -> None:
    found = energy_weights(statistics(energy, force))
    assert energy_weights(statistics(unit * energy, unit * force)) == pytest.approx(found)
    more = energy_weights(statistics(1.5 * energy, force))
    assert LEAST <= found[0] <= more[0] <= MOST
    assert found[1] <= more[1]


def test_what_is_given_stays() -> None:
    losses = LossConfig.model_validate({"energy": {"weight": 0.0, "late_weight": 7.0, "delta": 0.3}})
    assert with_energy_weights(losses, statistics(0.37, 0.2)) == losses
    half = LossConfig.model_validate({"energy": {"weight": 3.0}})
    assert with_energy_weights(half, statistics(0.37, 0.2)).energy.late_weight == RISE * 3.0
    off = LossConfig.model_validate({"energy": {"weight": 0.0}})
    assert with_energy_weights(off, statistics(0.37, 0.2)).energy.is_off


def test_a_recipe_holds_and_says_them(copper: Any, tiny_config: Callable[..., Any]) -> None:
    early, late = energy_weights(copper.graph_set.statistics)
    recipe = resolve(tiny_config(losses={}), copper.graph_set)
    assert (recipe.config.losses.energy.weight, recipe.config.losses.energy.late_weight) == (early, late)
    assert any(f"weights of energies {early:.3g} to {late:.3g}" in remark for remark in recipe.remarks)
    assert make_config({"epochs": 1}).losses.energy.weight is None
