"""The uncertainty of a single network: its formula, its calibration, and its way through a checkpoint."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ase.build import bulk

from gnn.errors import InputError
from gnn.graphs.collate import batch_of_atoms
from gnn.potentials.load import load
from gnn.training.checkpoint import Calibration, read_checkpoint, read_whitening, write_checkpoint
from gnn.training.last_layer import Held, LastLayer, deviance, fit, held_out, moments, whitening
from gnn.training.loop import train
from gnn.training.uncertainty import Uncertainty, of_committee, of_last_layer, residuals


@pytest.fixture(scope="module")
def gaussian() -> tuple[torch.Tensor, Held]:
    """Features of 400 training structures and 300 others, the errors of a Bayesian linear model."""
    random = np.random.default_rng(0)
    stretch = np.logspace(-1.5, 0, 8)
    train_features = torch.from_numpy(random.normal(size=(400, 8)) * stretch)
    covariance = (train_features.T @ train_features / 400).unsqueeze(0)
    features = torch.from_numpy(random.normal(size=(300, 8)) * random.permuted(stretch))
    spread = LastLayer(whitening(covariance, 1e-6), 1e-6).spread(features, torch.zeros(300, dtype=torch.int64))
    error = 0.02 * spread.numpy() * random.normal(size=300)
    return covariance, Held(features, torch.zeros(300, dtype=torch.int64), error)


def test_spread_is_the_quadratic_form(gaussian: tuple[torch.Tensor, Held]) -> None:
    covariance, held = gaussian
    ridge = 1e-3 * covariance[0].trace() / 8
    inverse = torch.linalg.inv(covariance[0] + ridge * torch.eye(8, dtype=torch.float64))
    expected = torch.einsum("bi,ij,bj->b", held.features, inverse, held.features).sqrt()
    found = LastLayer(whitening(covariance, 1e-3), 1e-3).spread(held.features, held.theory)
    torch.testing.assert_close(found, expected)


def test_the_right_ridge_and_scale_are_found(gaussian: tuple[torch.Tensor, Held]) -> None:
    from gnn.training.calibration import calibrate

    covariance, held = gaussian
    layer = fit(covariance, held)
    assert layer is not None
    assert layer.ridge <= 1e-4
    calibration = calibrate(residuals(layer, held), "last_layer", layer.ridge)
    assert calibration is not None
    assert calibration.energy_scale == pytest.approx(0.02, rel=0.2)


def test_a_singular_covariance_has_a_whitening() -> None:
    feature = torch.ones(1, 3, dtype=torch.float64)
    found = whitening((feature.T @ feature).unsqueeze(0), 1e-6)
    assert bool(torch.isfinite(found).all())
    assert bool(torch.isfinite(whitening(torch.zeros(1, 3, 3, dtype=torch.float64), 1e-6)).all())


def test_deviance_prefers_the_spread_that_follows_the_errors() -> None:
    random = np.random.default_rng(1)
    spread = np.exp(random.normal(size=500))
    error = spread * random.normal(size=500)
    assert deviance(error, spread) < deviance(error, np.ones(500))
    assert deviance(error, spread) == pytest.approx(deviance(error, 7.0 * spread))


@pytest.fixture
def trained(copper: Any, tiny_recipe: Callable[..., Any], run_folder: Path) -> Any:
    return train(tiny_recipe(epochs=20), copper, run_folder).model


def test_energy_is_linear_in_the_last_layer(copper: Any, trained: Any) -> None:
    batch = next(copper.batches("test", max_atoms=100))
    before = trained.predict(batch, last_layer=True)
    with torch.no_grad():
        change = torch.randn_like(trained.energy_head.readout.last.weight)
        trained.energy_head.readout.last.weight.add_(change)
    after = trained.predict(batch)
    scale = trained.energy_head.readout.last.scale * trained.config.energy_scale
    hidden = before.last_layer[:, -change.shape[0] :]
    expected = scale * batch.n_atoms * (hidden @ change.double()).squeeze(1)
    torch.testing.assert_close(after.energy - before.energy, expected, rtol=1e-4, atol=1e-5)
    assert before.last_layer.shape == (batch.n_structures, sum(r.weight.shape[0] for r in _readouts(trained)))


def _readouts(model: Any) -> list[Any]:
    readout = model.energy_head.readout
    return [*readout.linear, readout.last]


def test_moments_are_those_of_labelled_structures(copper: Any, trained: Any) -> None:
    found = moments(trained, copper.batches("train", 16), 1000)
    everything = held_out(trained, copper.batches("train", 100))
    expected = everything.features.T @ everything.features / len(everything.error)
    torch.testing.assert_close(found[0], expected, rtol=1e-5, atol=1e-8)
    few = moments(trained, copper.batches("train", 16, shuffle=False), 4)
    first = held_out(trained, [next(copper.batches("train", 16, shuffle=False))])
    torch.testing.assert_close(few[0], first.features.T @ first.features / 4, rtol=1e-5, atol=1e-8)


def test_no_energies_no_uncertainty(copper: Any, trained: Any) -> None:
    nothing = moments(trained, [], 10)
    assert nothing.shape == (1, 0, 0)
    assert fit(nothing, held_out(trained, [])) is None
    assert of_last_layer(trained, _without_validation(copper), {"valid": [], "test": []}, 64) == Uncertainty()
    assert of_committee({}, {}) == Uncertainty()


def _without_validation(data: Any) -> Any:
    from dataclasses import replace

    return replace(data, graph_set=data.graph_set.model_copy(update={"split_counts": {"train": 16}}))


@pytest.fixture
def calibrated(copper_atoms: Any, make_data: Callable[..., Any], trained: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A larger held-out part, so that there is something to calibrate on."""
    from gnn.graphs.graph import graph_of_atoms
    from gnn.training import calibration

    monkeypatch.setattr(calibration, "FEWEST", 4)
    data = make_data([graph_of_atoms(atoms, 4.0, "copper", "emt/ase") for atoms in copper_atoms])
    groups = {split: [str(k) for k in range(len(data.held[split]))] for split in ("valid", "test")}
    return of_last_layer(trained, data, groups, 64)


def test_it_goes_through_the_checkpoint_into_the_potential(
    copper: Any, trained: Any, calibrated: Any, tmp_path: Path
) -> None:
    assert calibrated.calibration.kind == "last_layer"
    assert 0 <= calibrated.calibration.test_coverage_90 <= 1
    folder = tmp_path / "checkpoint"
    write_checkpoint(
        folder, [trained], name="c", graph_set=copper.graph_set,
        calibration=calibrated.calibration, whitening=calibrated.whitening,
    )  # fmt: skip
    potential = load(folder)
    assert "uncertainty" in potential.provides
    assert potential.interval_90 == calibrated.calibration.interval_90
    known, strange = bulk("Cu", cubic=True, a=3.6), bulk("Cu", cubic=True, a=3.0)
    found = potential.predict_atoms([known, known * (2, 1, 1), strange])
    assert found[0].uncertainty == pytest.approx(found[1].uncertainty, rel=1e-3)
    assert found[2].uncertainty > 2 * found[0].uncertainty
    assert [p.uncertainty for p in potential.energies_only().predict_atoms([known])] == [
        pytest.approx(found[0].uncertainty, rel=1e-3)
    ]
    assert "uncertainty" not in potential.lead().provides
    assert potential.lead().interval_90 is None
    batch = batch_of_atoms([known], 4.0)
    layer = LastLayer(read_whitening(folder), 0.0)
    features = trained.predict(batch, last_layer=True).last_layer
    expected = calibrated.calibration.energy_scale * layer.spread(features, batch.theory)
    assert found[0].uncertainty == pytest.approx(float(expected), rel=1e-3)
    known.calc = potential.calculator()
    known.get_potential_energy()
    assert known.calc.results["uncertainty"] == pytest.approx(found[0].uncertainty, rel=1e-3)


@pytest.mark.parametrize(
    ("matrices", "words"),
    [
        (None, "lacks the tensor calibration.whitening"),
        (torch.zeros(1, 3, 3, dtype=torch.float64), "should be float64"),
        (torch.full((1, 16, 16), torch.nan, dtype=torch.float64), "not finite"),
    ],
)
def test_matrices_that_cannot_be_are_refused(
    copper: Any, trained: Any, tmp_path: Path, matrices: torch.Tensor | None, words: str
) -> None:
    calibration = Calibration(energy_scale=1.0, n=20, kind="last_layer", ridge=1e-6)
    folder = tmp_path / "c"
    write_checkpoint(
        folder, [trained], name="c", graph_set=copper.graph_set, calibration=calibration, whitening=matrices
    )
    with pytest.raises(InputError, match=words):
        read_checkpoint(folder)
