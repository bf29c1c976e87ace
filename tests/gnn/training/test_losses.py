"""Losses against sums done by hand."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.constraints import FixAtoms
from hypothesis import given
from hypothesis import strategies as st

from gnn.graphs.collate import collate
from gnn.graphs.graph import graph_of_atoms
from gnn.models.model import Prediction
from gnn.structures.properties import PropertySpec
from gnn.training.config import LossConfig, TermConfig
from gnn.training.losses import Scales, loss_terms, masked_mean, pointwise, term_weight, total_loss

MSE = {"weight": 1.0, "kind": "mse"}
ALL_MSE = LossConfig.model_validate({"energy": MSE, "forces": MSE, "stress": MSE, "properties": {"gap": MSE, "q": MSE}})


def off_by(batch: Any, energy: float = 0.0, forces: float = 0.0, stress: float = 0.0, prop: float = 0.0) -> Prediction:
    """A prediction that misses every label by a constant."""
    labels = batch.labels
    return Prediction(
        energy=labels.energy + energy,
        forces=labels.forces + forces,
        stress=labels.stress + stress,
        properties={name: value + prop for name, value in labels.properties.items()},
        node_energy=torch.zeros(len(batch.numbers)),
    )


@pytest.fixture
def batch(copper: Any) -> Any:
    return next(copper.batches("train", max_atoms=12))


def test_a_perfect_prediction_costs_nothing(batch: Any) -> None:
    for config in (LossConfig.model_validate({"energy": {"weight": 1.0}}), ALL_MSE):
        terms = loss_terms(off_by(batch), batch, config, Scales())
        assert set(terms) == {"energy", "forces", "stress"}
        assert float(total_loss(terms, config, 1.0)) < 1e-9


def test_energy_is_per_atom_and_in_units_of_the_scale(batch: Any) -> None:
    terms = loss_terms(off_by(batch, energy=0.8), batch, ALL_MSE, Scales(energy=0.1))
    assert float(terms["energy"]) == pytest.approx((0.8 / 4 / 0.1) ** 2, rel=1e-5)


def test_forces_are_in_units_of_the_scale(batch: Any) -> None:
    terms = loss_terms(off_by(batch, forces=0.3), batch, ALL_MSE, Scales(forces=0.5))
    assert float(terms["forces"]) == pytest.approx(0.36, rel=1e-4)


def test_stress_counts_as_virial_per_atom(batch: Any) -> None:
    terms = loss_terms(off_by(batch, stress=0.01), batch, ALL_MSE, Scales(energy=0.2))
    volume = torch.linalg.det(batch.cell)
    expected = ((0.01 * volume / 4 / 0.2) ** 2).mean()
    assert float(terms["stress"]) == pytest.approx(float(expected), rel=1e-4)


def test_norm_takes_the_length_of_the_force_error() -> None:
    term = TermConfig(weight=1.0, kind="norm", delta=0.1)
    found = pointwise(torch.tensor([[3.0, 4.0, 0.0], [0.03, 0.04, 0.0]]), term)
    assert found[0] == pytest.approx(5.0 - 0.05)
    assert found[1] == pytest.approx(0.05**2 / 0.2)


@given(error=st.floats(-10, 10), delta=st.floats(0.01, 1))
def test_huber_is_square_within_delta_and_slope_one_beyond(error: float, delta: float) -> None:
    term = TermConfig(weight=1.0, kind="huber", delta=delta)
    expected = error**2 / (2 * delta) if abs(error) <= delta else abs(error) - delta / 2
    assert float(pointwise(torch.tensor([[error]], dtype=torch.float64), term)) == pytest.approx(expected, abs=1e-12)


def test_mae_is_the_mean_of_components() -> None:
    found = pointwise(torch.tensor([[1.0, -2.0, 3.0]]), TermConfig(weight=1.0, kind="mae"))
    assert float(found) == pytest.approx(2.0)


def test_masked_mean_of_nothing_is_zero_with_no_gradient() -> None:
    values = torch.ones(3, requires_grad=True)
    mean = masked_mean(values, torch.zeros(3, dtype=torch.bool))
    mean.backward()
    assert float(mean.detach()) == 0.0
    assert float(values.grad.abs().sum()) == 0.0


def test_fixed_atoms_do_not_count(make_data: Callable[..., Any]) -> None:
    atoms = bulk("Cu", cubic=True)
    atoms.rattle(0.05, seed=1)
    atoms.set_constraint(FixAtoms([0, 1, 2]))
    atoms.calc = EMT()
    atoms.get_potential_energy()
    graph = graph_of_atoms(atoms, 4.0, "x", "t")
    batch = collate([graph], ["t"])
    prediction = off_by(batch)
    wrong = prediction.forces.clone()
    wrong[:3] += 100.0
    assert float(loss_terms(replace(prediction, forces=wrong), batch, ALL_MSE, Scales())["forces"]) < 1e-9
    wrong[3] += 1.0
    assert float(loss_terms(replace(prediction, forces=wrong), batch, ALL_MSE, Scales())["forces"]) == pytest.approx(1)


def test_missing_labels_are_masked(copper: Any) -> None:
    graphs = copper.held["train"][:3]
    mixed = [replace(graphs[0], forces=None), replace(graphs[1], energy=None), replace(graphs[2], stress=None)]
    batch = collate(mixed, copper.graph_set.theories)
    prediction = off_by(batch, energy=0.4, forces=0.3)
    prediction.energy[1] += 1e6
    prediction.forces[:4] += 1e6
    terms = loss_terms(prediction, batch, ALL_MSE, Scales())
    assert float(terms["energy"]) == pytest.approx(0.01, rel=1e-4)
    assert float(terms["forces"]) == pytest.approx(0.09, rel=1e-4)


def test_without_forces_or_energies_their_terms_are_absent(copper: Any) -> None:
    graphs = [replace(graph, forces=None, stress=None) for graph in copper.held["train"][:3]]
    batch = collate(graphs, copper.graph_set.theories)
    assert set(loss_terms(off_by(batch), batch, ALL_MSE, Scales())) == {"energy"}
    graphs = [replace(graph, energy=None) for graph in copper.held["train"][:3]]
    batch = collate(graphs, copper.graph_set.theories)
    assert set(loss_terms(off_by(batch), batch, ALL_MSE, Scales())) == {"forces", "stress"}


@pytest.mark.parametrize(("extensive", "expected"), [(False, 1.0), (True, 1.0 / 16)])
def test_extensive_properties_count_per_atom(copper: Any, extensive: bool, expected: float) -> None:
    spec = PropertySpec(unit="eV", extensive=extensive)
    graphs = [replace(g, properties={"gap": 1.5}) for g in copper.held["train"][:2]] + copper.held["train"][2:3]
    batch = collate(graphs, copper.graph_set.theories, {"gap": spec})
    scales = Scales(properties={"gap": 2.0}, extensive=frozenset({"gap"} if extensive else ()))
    terms = loss_terms(off_by(batch, prop=2.0), batch, ALL_MSE, scales)
    assert float(terms["property_gap"]) == pytest.approx(expected)


def test_atomic_properties(copper: Any) -> None:
    spec = PropertySpec(unit="e", level="atom")
    graphs = [replace(g, properties={"q": np.arange(4.0)}) for g in copper.held["train"][:2]]
    batch = collate(graphs, copper.graph_set.theories, {"q": spec})
    terms = loss_terms(off_by(batch, prop=0.5), batch, ALL_MSE, Scales(properties={"q": 0.5}))
    assert float(terms["property_q"]) == pytest.approx(1.0)


def test_weights_glide_from_early_to_late() -> None:
    term = TermConfig(weight=1.0, late_weight=11.0)
    assert term_weight(term, 0.5, (0.6, 0.8)) == 1.0
    assert term_weight(term, 0.7, (0.6, 0.8)) == pytest.approx(6.0)
    assert term_weight(term, 0.9, (0.6, 0.8)) == 11.0
    assert term_weight(TermConfig(weight=3.0), 0.9, (0.6, 0.8)) == 3.0


def test_weights_that_were_left_to_the_data_are_not_guessed() -> None:
    with pytest.raises(ValueError, match="weight is open"):
        total_loss({"energy": torch.tensor(1.0)}, LossConfig(), 0.0)


def test_total_is_the_weighted_sum() -> None:
    config = LossConfig.model_validate({"energy": {"weight": 2.0, "late_weight": 4.0}, "forces": {"weight": 3.0}})
    terms = {"energy": torch.tensor(1.0), "forces": torch.tensor(10.0), "property_gap": torch.tensor(0.5)}
    assert float(total_loss(terms, config, 0.0)) == pytest.approx(2 + 30 + 0.5)
    assert float(total_loss(terms, config, 1.0)) == pytest.approx(4 + 30 + 0.5)


def test_a_batch_without_any_label_is_refused(batch: Any) -> None:
    with pytest.raises(ValueError, match="without labels"):
        loss_terms(off_by(batch), replace(batch, labels=None), ALL_MSE, Scales())
    with pytest.raises(ValueError, match="no label"):
        total_loss({}, ALL_MSE, 0.0)


def test_large_totals_lose_no_digit(copper: Any) -> None:
    graph = replace(copper.held["train"][0], energy=-17_617.123456789)
    batch = collate([graph], copper.graph_set.theories)
    assert float(batch.labels.energy) == -17_617.123456789
    assert math.isclose(
        float(loss_terms(off_by(batch, energy=4e-4), batch, ALL_MSE, Scales())["energy"]), 1e-8, rel_tol=1e-3
    )
