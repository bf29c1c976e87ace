"""The loss of a batch: energy, forces, stress and properties, in the data's own scale, missing labels masked."""

from __future__ import annotations

from collections.abc import Mapping
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
    """What is trained on beside energies: derivatives that the data have labels of, and properties with a head."""

    forces: bool
    stress: bool
    properties: frozenset[str] = frozenset()


def term_weight(term: TermConfig, progress: float, handover: tuple[float, float]) -> float:
    """The weight of a term at `progress`, gliding from `weight` to `late_weight`.

    Raises:
        ValueError: the weight of energies was left to the data, and nothing has asked them.
    """
    if term.weight is None:
        raise ValueError("the energy's weight is open: fill it with gnn.training.energy_weights.with_energy_weights")
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


def masked_mean(values: Tensor, mask: Tensor, count: float | None = None) -> Tensor:
    """Sum of `values` (n,) where `mask` (n,) is True, over `count`, or over how often it is; 0 where it is nowhere."""
    weights = mask.to(values.dtype)
    return (values * weights).sum() / (weights.sum().clamp(min=1.0) if count is None else count)


def label_masks(batch: Batch, wanted: Wanted) -> dict[str, Tensor]:
    """Where a batch has labels, by the name of the term they enter.

    Raises:
        ValueError: the batch has no labels.
    """
    labels = batch.labels
    if labels is None:
        raise ValueError("a batch without labels cannot be trained on")
    masks = {"energy": labels.energy_mask}
    if wanted.forces:
        masks["forces"] = labels.force_mask
    if wanted.stress:
        masks["stress"] = labels.stress_mask
    of_properties = labels.property_masks.items()
    return masks | {f"property_{name}": mask for name, mask in of_properties if name in wanted.properties}


def energy_errors(prediction: Prediction, batch: Batch, labels: Labels) -> Tensor:
    """(E - E_ref) / n_atoms, shape (B,), eV/atom, in float64."""
    return (prediction.energy - labels.energy) / batch.n_atoms


def virial_errors(stress: Tensor, batch: Batch, labels: Labels) -> Tensor:
    """(stress - stress_ref) · volume / n_atoms, shape (B, 6), eV/atom: the stress error in the unit of energies."""
    volume = torch.linalg.det(batch.cell).abs()
    return (stress - labels.stress) * (volume / batch.n_atoms).unsqueeze(1)


def property_errors(prediction: Prediction, batch: Batch, labels: Labels, name: str, scales: Scales) -> Tensor:
    """Error of one property, per atom where it is extensive; shape (B,) or (N,) by its level."""
    error = prediction.properties[name] - labels.properties[name]
    return error / batch.n_atoms if name in scales.extensive else error


def loss_terms(
    prediction: Prediction,
    batch: Batch,
    config: LossConfig,
    scales: Scales,
    counts: Mapping[str, float] | None = None,
) -> dict[str, Tensor]:
    """Unweighted loss of each target that the batch has labels for.

    `counts` are the labels of each term in all parts of a batch that several processes share: the terms of the parts
    then add up to those of the whole. None: this batch is the whole.

    Raises:
        ValueError: the batch has no labels.
    """
    wanted = Wanted(prediction.forces is not None, prediction.stress is not None, frozenset(prediction.properties))
    terms: dict[str, Tensor] = {}
    for name, mask in label_masks(batch, wanted).items():
        count = None if counts is None else counts.get(name, 0.0)
        if bool(mask.any()) if count is None else count > 0:
            losses = pointwise(scaled_error(name, prediction, batch, scales), term_config(config, name))
            terms[name] = masked_mean(losses, mask, count)
    return terms


def scaled_error(name: str, prediction: Prediction, batch: Batch, scales: Scales) -> Tensor:
    """The error of a term in units of the data's scale: (B, 1), (N, 3) for forces, (B, 6) for stress, (N, 1).

    Raises:
        ValueError: the batch has no labels, or what the term needs was not predicted.
    """
    labels = batch.labels
    if labels is None:
        raise ValueError("a batch without labels cannot be trained on")
    if name == "energy":
        return (energy_errors(prediction, batch, labels) / scales.energy).unsqueeze(1)
    if name == "forces" and prediction.forces is not None:
        return (prediction.forces - labels.forces) / scales.forces
    if name == "stress" and prediction.stress is not None:
        return virial_errors(prediction.stress, batch, labels) / scales.energy
    if not name.startswith("property_"):
        raise ValueError(f"{name} was not predicted")
    target = name.removeprefix("property_")
    error = property_errors(prediction, batch, labels, target, scales) / scales.properties.get(target, 1.0)
    return error.unsqueeze(1)


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
    return torch.stack(weighted).sum()
