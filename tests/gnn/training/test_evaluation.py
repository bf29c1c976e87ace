"""Errors as a plain loop over ASE structures would count them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from ase import Atoms, units
from ase.constraints import FixAtoms

from gnn.graphs.collate import batch_of_atoms
from gnn.graphs.graph import graph_of_atoms
from gnn.models.config import ModelConfig
from gnn.models.model import Model, build_model
from gnn.structures.properties import PropertySpec
from gnn.training.evaluation import Accumulator, ErrorSum, committee_prediction, evaluate

THEORY, CUTOFF = "emt/ase", 4.0


@pytest.fixture(scope="module")
def models() -> list[Model]:
    config = ModelConfig(
        elements=["Al", "Cu"], cutoff=CUTOFF, channels=4, layers=1, correlation=2, edge_l_max=1, n_radial=4,
        radial_hidden=[8], theories=[THEORY], properties={"gap": PropertySpec(unit="eV")},
    )  # fmt: skip
    return [build_model(config, seed=seed) for seed in (0, 1, 2)]


def by_hand(model: Model, structures: list[Atoms]) -> dict[str, float]:
    """Errors one structure at a time; force errors only where atoms are free."""
    energy, forces, stress = [], [], []
    for atoms in structures:
        found = model.predict(batch_of_atoms([atoms], CUTOFF))
        free = np.ones(len(atoms), dtype=bool)
        for constraint in atoms.constraints:
            free[constraint.index] = False
        energy.append((float(found.energy) - atoms.calc.results["energy"], len(atoms)))
        forces.append((found.forces.numpy() - atoms.calc.results["forces"])[free].ravel())
        stress.append(found.stress.numpy()[0] - atoms.calc.results["stress"])
    errors, sizes = (np.array(values) for values in zip(*energy, strict=True))
    components = np.concatenate(forces)
    return {
        "energy_mae_mev_per_atom": 1e3 * np.abs(errors / sizes).mean(),
        "energy_rmse_mev_per_atom": 1e3 * np.sqrt(np.square(errors / sizes).mean()),
        "energy_mean_error_mev_per_atom": 1e3 * (errors / sizes).mean(),
        "energy_rmse_mev": 1e3 * np.sqrt(np.square(errors).mean()),
        "force_mae_mev_per_angstrom": 1e3 * np.abs(components).mean(),
        "force_rmse_mev_per_angstrom": 1e3 * np.sqrt(np.square(components).mean()),
        "stress_mae_gpa": np.abs(np.concatenate(stress)).mean() / units.GPa,
    }


def test_numbers_of_a_plain_loop(models: list[Model], copper_atoms: list[Atoms], make_data: Callable[..., Any]) -> None:
    structures = [atoms.copy() for atoms in copper_atoms[:10]]
    for copy, atoms in zip(structures, copper_atoms, strict=False):
        copy.calc = atoms.calc
    structures[0].set_constraint(FixAtoms([0, 2]))
    data = make_data([graph_of_atoms(atoms, CUTOFF, "x", THEORY) for atoms in structures])
    every = replace(data, held={"train": [g for part in ("valid", "test", "train") for g in data.held[part]]})
    found = evaluate(models[:1], every.batches("train", max_atoms=12, shuffle=False)).metrics
    assert found.n_structures == 10
    assert found.n_atoms == 40
    for name, value in by_hand(models[0], structures).items():
        assert getattr(found, name) == pytest.approx(value, rel=1e-4), name
    assert found.by_theory[THEORY].energy_mae_mev_per_atom == pytest.approx(found.energy_mae_mev_per_atom)


def test_the_size_of_batches_does_not_matter(models: list[Model], copper: Any) -> None:
    small = evaluate(models[:1], copper.batches("train", max_atoms=1, shuffle=False)).headline()
    large = evaluate(models[:1], copper.batches("train", max_atoms=1000, shuffle=False)).headline()
    assert small == pytest.approx(large, rel=1e-4)


def test_elements_count_structures_that_hold_them_and_forces_of_their_atoms(models: list[Model], copper: Any) -> None:
    found = evaluate(models[:1], copper.batches("train", max_atoms=12)).metrics
    graphs = copper.held["train"]
    with_al = [g for g in graphs if 13 in g.numbers]
    assert found.by_element["Al"].n_structures == len(with_al)
    assert found.by_element["Cu"].n_structures == len(graphs)
    alone = replace(copper, held={"train": with_al})
    assert found.by_element["Al"].energy_mae_mev_per_atom == pytest.approx(
        evaluate(models[:1], alone.batches("train", max_atoms=12)).metrics.energy_mae_mev_per_atom, rel=1e-5
    )
    n_al = sum(int((g.numbers == 13).sum()) for g in graphs)
    n_cu = sum(int((g.numbers == 29).sum()) for g in graphs)
    weighted = (
        n_al * found.by_element["Al"].force_mae_mev_per_angstrom
        + n_cu * found.by_element["Cu"].force_mae_mev_per_angstrom
    ) / (n_al + n_cu)
    assert weighted == pytest.approx(found.force_mae_mev_per_angstrom, rel=1e-6)


def test_a_committee_is_its_mean_and_its_spread(models: list[Model], copper: Any) -> None:
    batch = next(copper.batches("test", max_atoms=100))
    mean, std = committee_prediction(models, batch)
    each = torch.stack([model.predict(batch).energy for model in models])
    torch.testing.assert_close(mean.energy, each.mean(dim=0))
    torch.testing.assert_close(std, each.std(dim=0, correction=0))
    torch.testing.assert_close(mean.forces, torch.stack([m.predict(batch).forces for m in models]).mean(dim=0))
    parity = evaluate(models, [batch]).parity
    np.testing.assert_allclose(parity.energy_std, std.numpy() / batch.n_atoms.numpy())


def test_what_is_not_labelled_is_none(models: list[Model], copper: Any) -> None:
    graphs = [replace(graph, forces=None, stress=None) for graph in copper.held["train"]]
    found = evaluate(models[:1], replace(copper, held={"train": graphs}).batches("train", max_atoms=12)).metrics
    assert found.force_mae_mev_per_angstrom is None
    assert found.stress_mae_gpa is None
    assert found.energy_mae_mev_per_atom is not None
    assert "force_mae_mev_per_angstrom" not in found.headline()


def test_properties(models: list[Model], copper: Any) -> None:
    specs = {"gap": PropertySpec(unit="eV")}
    graphs = [replace(g, energy=None, forces=None, stress=None, properties={"gap": 1.0}) for g in copper.held["train"]]
    graphs[0] = replace(graphs[0], properties={})
    graph_set = copper.graph_set.model_copy(update={"properties": specs})
    data = replace(copper, held={"train": graphs}, graph_set=graph_set)
    batches = list(data.batches("train", max_atoms=8, shuffle=False))
    found = evaluate(models[:1], batches)
    predicted = torch.cat([models[0].predict(b, forces=False, stress=False).properties["gap"] for b in batches])[1:]
    assert found.metrics.energy_mae_mev_per_atom is None
    assert found.metrics.properties["gap"].n == len(graphs) - 1
    assert found.metrics.properties["gap"].mae == pytest.approx(float((predicted - 1).abs().mean()), rel=1e-5)
    assert found.headline()["gap_mae"] == found.metrics.properties["gap"].mae
    np.testing.assert_allclose(found.parity.properties["gap"][1], predicted.numpy(), rtol=1e-5)


def test_nothing_at_all() -> None:
    found = Accumulator(["t"], {}).result()
    assert found.metrics.n_structures == 0
    assert found.headline() == {}
    assert len(found.parity.energy_label) == 0


def test_error_sum() -> None:
    errors = ErrorSum()
    assert errors.mae() is None
    assert errors.rmse() is None
    assert errors.mean() is None
    errors.add(np.array([3.0, -4.0]))
    assert errors.mean(10.0) == pytest.approx(-5.0)
    assert errors.mae(10.0) == pytest.approx(35.0)
    assert errors.rmse() == pytest.approx(np.sqrt(12.5))
