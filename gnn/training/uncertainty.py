"""What a finished training says of its own uncertainty: the committee's spread, or the last layer of one network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from gnn.graphs.graph_set import Split
from gnn.models.model import Model
from gnn.training.calibration import Residuals, calibrate
from gnn.training.checkpoint import Calibration
from gnn.training.data import TrainingData
from gnn.training.evaluation import Parity
from gnn.training.last_layer import Held, LastLayer, fit, held_out, moments

MOST_STRUCTURES = 20_000
"""Training structures whose features are looked at."""


@dataclass(frozen=True)
class Uncertainty:
    """The calibration, and the matrices it needs where it is of one network's last layer."""

    calibration: Calibration | None = None
    whitening: Tensor | None = None


Groups = Mapping[Split, Sequence[str]]
"""For each split, what every structure with an energy belongs to, in stored order."""


def of_committee(parities: Mapping[Split, Parity], groups: Groups) -> Uncertainty:
    """The spread of the members' energies, calibrated on the validation split and judged on the test split."""
    held: dict[Split, Residuals] = {
        split: Residuals(parity.energy_predicted - parity.energy_label, parity.energy_std, groups[split])
        for split, parity in parities.items()
    }
    return Uncertainty(judged(calibrate(held["valid"]), held.get("test")) if "valid" in held else None)


def of_last_layer(model: Model, data: TrainingData, groups: Groups, max_atoms: int) -> Uncertainty:
    """The rigidity of the last layer, calibrated and judged likewise; nothing without validation energies."""
    device = next(model.parameters()).device
    counts = data.graph_set.split_counts
    if not counts.get("valid", 0):
        return Uncertainty()
    valid = held_out(model, data.batches("valid", max_atoms, shuffle=False), device)
    covariance = moments(model, data.batches("train", max_atoms, shuffle=True), MOST_STRUCTURES, device)
    layer = fit(covariance, valid)
    if layer is None:
        return Uncertainty()
    found = calibrate(residuals(layer, valid, groups["valid"]), "last_layer", layer.ridge)
    if found is None:
        return Uncertainty()
    test = held_out(model, data.batches("test", max_atoms, shuffle=False), device) if counts.get("test", 0) else None
    calibration = judged(found, None if test is None else residuals(layer, test, groups["test"]))
    return Uncertainty(calibration, layer.whitening)


def residuals(layer: LastLayer, held: Held, groups: Sequence[str] | None = None) -> Residuals:
    """Errors and spreads of held-out structures."""
    if len(held.error) == 0:
        return Residuals(np.zeros(0), np.zeros(0), [])
    return Residuals(held.error, layer.spread(held.features, held.theory).numpy(), groups)


def judged(calibration: Calibration | None, test: Residuals | None) -> Calibration | None:
    """The calibration with the part of the test split's errors that its 90 % interval holds."""
    if calibration is None or calibration.interval_90 is None or test is None or len(test.error) == 0:
        return calibration
    half_widths = calibration.interval_90 * calibration.energy_scale * test.spread
    inside = float(np.mean(np.abs(test.error) <= half_widths))
    return calibration.model_copy(update={"test_coverage_90": inside})
