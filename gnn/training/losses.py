"""The loss of a batch: energy, forces, stress and properties, in the data's own scale, missing labels masked."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from gnn.graphs.batch import Batch, Labels
from gnn.models.model import Prediction
from gnn.training.config import LossConfig, TermConfig
from gnn.training.schedule import smoothstep

DEFAULT_PROPERTY_TERM = TermConfig()
TINY = 1e-24


@dataclass(frozen=True)
class Scales:
    """What an error is divided by: eV/atom for energies and virials, eV/Å for forces, the unit for properties.

    Errors of the `extensive` properties are taken per atom first.
    """

    energy: float = 1.0
    forces: float = 1.0
    properties: dict[str, float] = field(default_factory=dict)
    extensive: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Wanted:
    """Which derivatives the labels of a data set make worth computing."""

    forces: bool
    stress: bool


def term_weight(term: TermConfig, progress: float, handover: tuple[float, float]) -> float:
    """The weight of a term at `progress`, gliding from `weight` to `late_weight`."""
    if term.late_weight is None:
        return term.weight
    return term.weight + (term.late_weight - term.weight) * smoothstep(progress, *handover)


def pointwise(error: Tensor, term: TermConfig) -> Tensor:
    """Loss of each row of `error` (n, k): mean over k components, or of the row's length for "norm". Shape (n,).

    Huber: x²/(2 delta) within delta, |x| - delta/2 outside: the slope far away is 1 for every delta, so weights keep
    their meaning.
    """
    if term.kind == "mse":
        return error.square().mean(dim=1)
    if term.kind == "mae":
        return error.abs().mean(dim=1)
    if term.kind == "norm":
        return _huber((error.square().sum(dim=1) + TINY).sqrt(), term.delta)
    return _huber(error, term.delta).mean(dim=1)


def _huber(error: Tensor, delta: float) -> Tensor:
    return torch.nn.functional.huber_loss(error, torch.zeros_like(error), reduction="none", delta=delta) / delta


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean of `values` (n,) where `mask` (n,) is True; 0 where it is nowhere."""
    weights = mask.to(values.dtype)
    return (values * weights).sum() / weights.sum().clamp(min=1.0)


def energy_errors(prediction: Prediction, batch: Batch, labels: Labels) -> Tensor:
    """(E - E_ref) / n_atoms, shape (B,), eV/atom, differenced in float64."""
    return (prediction.energy - labels.energy.to(prediction.energy.dtype)) / batch.n_atoms


def virial_errors(stress: Tensor, batch: Batch, labels: Labels) -> Tensor:
    """(stress - stress_ref) · volume / n_atoms, shape (B, 6), eV/atom: the stress error in the unit of energies."""
    volume = torch.linalg.det(batch.cell).abs()
    return (stress - labels.stress) * (volume / batch.n_atoms).unsqueeze(1).to(stress.dtype)


def property_errors(prediction: Prediction, batch: Batch, labels: Labels, name: str, scales: Scales) -> Tensor:
    """Error of one property, per atom where it is extensive; shape (B,) or (N,) by its level."""
    error = prediction.properties[name].to(labels.properties[name].dtype) - labels.properties[name]
    return error / batch.n_atoms if name in scales.extensive else error


def loss_terms(prediction: Prediction, batch: Batch, config: LossConfig, scales: Scales) -> dict[str, Tensor]:
    """Unweighted loss of each target that the batch has labels for.

    Raises:
        ValueError: the batch has no labels.
    """
    labels = batch.labels
    if labels is None:
        raise ValueError("a batch without labels cannot be trained on")
    terms: dict[str, Tensor] = {}
    if bool(labels.energy_mask.any()):
        error = energy_errors(prediction, batch, labels).to(labels.energy.dtype) / scales.energy
        terms["energy"] = masked_mean(pointwise(error.unsqueeze(1), config.energy), labels.energy_mask)
    if prediction.forces is not None and bool(labels.force_mask.any()):
        error = (prediction.forces - labels.forces) / scales.forces
        terms["forces"] = masked_mean(pointwise(error, config.forces), labels.force_mask)
    if prediction.stress is not None and bool(labels.stress_mask.any()):
        error = virial_errors(prediction.stress, batch, labels) / scales.energy
        terms["stress"] = masked_mean(pointwise(error, config.stress), labels.stress_mask)
    for name, mask in labels.property_masks.items():
        if bool(mask.any()):
            error = property_errors(prediction, batch, labels, name, scales) / scales.properties.get(name, 1.0)
            term = config.properties.get(name, DEFAULT_PROPERTY_TERM)
            terms[f"property_{name}"] = masked_mean(pointwise(error.unsqueeze(1), term), mask)
    return terms


def term_config(config: LossConfig, name: str) -> TermConfig:
    """The settings of a term by the name that `loss_terms` gives it."""
    if name.startswith("property_"):
        return config.properties.get(name.removeprefix("property_"), DEFAULT_PROPERTY_TERM)
    found: TermConfig = getattr(config, name)
    return found


def total_loss(terms: dict[str, Tensor], config: LossConfig, progress: float) -> Tensor:
    """Weighted sum of `terms` at `progress`.

    Raises:
        ValueError: there is no term at all.
    """
    if not terms:
        raise ValueError("no label to train on in this batch")
    weighted = [term_weight(term_config(config, name), progress, config.handover) * t for name, t in terms.items()]
    return torch.stack([value.to(weighted[0].dtype) for value in weighted]).sum()
