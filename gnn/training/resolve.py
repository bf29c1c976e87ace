"""From what was asked for to what is done: defaults taken from the data, and said."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError
from torch import Tensor

from gnn.errors import InputError
from gnn.graphs.graph_set import GraphSet
from gnn.models.config import ModelConfig, PropertyScale
from gnn.models.model import Model
from gnn.models.presets import preset_fields
from gnn.structures.properties import PropertySpec
from gnn.training.config import PresetName, TrainConfig, describe_validation, run_digest
from gnn.training.losses import Scales, Wanted

PRESET_CUTOFF: dict[PresetName, float] = {"small": 5.0, "default": 5.0, "accurate": 6.0}
DEFAULT_LR, TUNING_LR = 2e-2, 2e-3
"""Peak learning rates: weights are of order one, so it is large; from a trained model's weights it is smaller."""
SMALLEST_BATCH, LARGEST_BATCH, STRUCTURES_A_BATCH = 2, 32, 200
FEWEST_ATOMS = 64
"""A batch of fewer atoms costs as much as one of this size."""
FROM_DATA = (
    "elements",
    "cutoff",
    "theories",
    "references",
    "energy_scale",
    "mean_neighbours",
    "properties",
    "property_scales",
)
"""What the data decide about an architecture; a user's override of these would break it."""


@dataclass(frozen=True)
class Start:
    """Weights to start from: the architecture they belong to, their sha256, and how they fit a new model."""

    model: ModelConfig
    sha256: str
    weights: Callable[[Model], dict[str, Tensor]]


@dataclass(frozen=True)
class Recipe:
    """One training, fully decided: nothing in it is still to be taken from the data.

    header: digest of all that decides the result; remarks: what was taken from where, for people.
    """

    config: TrainConfig
    model: ModelConfig
    lr: float
    max_atoms: int
    scales: Scales
    wanted: Wanted
    header: str
    remarks: tuple[str, ...] = ()
    initial_weights: Callable[[Model], dict[str, Tensor]] | None = None


def cutoff_of(config: TrainConfig) -> float:
    """The cutoff (Å) that the data are preprocessed with."""
    return config.data.cutoff or PRESET_CUTOFF[config.preset]


def resolve(config: TrainConfig, graph_set: GraphSet, start: Start | None = None) -> Recipe:
    """Fill what the configuration leaves open.

    Raises:
        InputError: an override is unknown or contradicts the data, or the start does not fit the data.
    """
    model = model_config(config, graph_set, start)
    max_atoms, batch_remark = batch_atoms(config, graph_set)
    lr = config.optimiser.lr or (DEFAULT_LR if start is None else TUNING_LR)
    statistics = graph_set.statistics
    wanted = Wanted(forces=statistics.force_rms is not None, stress=statistics.stress_rms is not None)
    remarks = (
        f"{graph_set.split_counts['train']} training, {graph_set.split_counts.get('valid', 0)} validation, "
        f"{graph_set.split_counts.get('test', 0)} test structures; {len(model.elements)} elements; "
        f"{statistics.mean_neighbours:.0f} neighbours within {model.cutoff:g} Å",
        f"family {model.family}, preset {config.preset}: {model.channels} channels, {model.layers} layers, "
        f"correlation {model.correlation}, hidden l ≤ {model.hidden_l_max}",
        f"labels: {', '.join(labels_of(graph_set)) or 'none'}; energy scale {model.energy_scale:.4g} eV",
        f"learning rate {lr:g}; {batch_remark}",
    )
    return Recipe(
        config=config,
        model=model,
        lr=lr,
        max_atoms=max_atoms,
        scales=scales_of(model, graph_set),
        wanted=wanted,
        header=run_digest(config, graph_set.graph_set_id, None if start is None else start.sha256),
        remarks=remarks,
        initial_weights=None if start is None else start.weights,
    )


def model_config(config: TrainConfig, graph_set: GraphSet, start: Start | None) -> ModelConfig:
    """The architecture: the preset's (or the start's), the user's overrides, and what the data decide.

    Raises:
        InputError: an override is unknown, out of range, or not the user's to give.
    """
    check_overrides(config)
    if start is not None:
        return continued(start.model, config, graph_set)
    return _validated({**_preset(config), **config.model, **from_data(graph_set)})


def check_overrides(config: TrainConfig) -> None:
    """Check the user's architecture as far as it can be without data.

    Raises:
        InputError: an override is unknown, out of range, or not the user's to give.
    """
    forbidden = sorted(set(config.model) & set(FROM_DATA))
    if forbidden:
        raise InputError(f"model.{forbidden[0]} follows from the data and cannot be set (data.cutoff sets the cutoff)")
    _validated({**_preset(config), **config.model, "elements": ["H"]})


def _preset(config: TrainConfig) -> dict[str, Any]:
    """Fields of the preset, of the family that the user's overrides name."""
    return preset_fields(config.preset, config.model.get("family", "ace"))


def _validated(values: dict[str, Any]) -> ModelConfig:
    try:
        return ModelConfig.model_validate(values)
    except ValidationError as error:
        raise InputError(f"model: {describe_validation(error)}") from None


def from_data(graph_set: GraphSet) -> dict[str, Any]:
    """What the graph set decides about the architecture."""
    return {
        "elements": list(graph_set.elements),
        "cutoff": graph_set.cutoff,
        "theories": list(graph_set.theories),
        "references": {theory: dict(found.energies) for theory, found in graph_set.references.items()},
        "energy_scale": energy_scale(graph_set),
        "mean_neighbours": max(graph_set.statistics.mean_neighbours, 1.0),
        "properties": trained_properties(graph_set),
        "property_scales": property_scales(graph_set),
    }


def continued(model: ModelConfig, config: TrainConfig, graph_set: GraphSet) -> ModelConfig:
    """The start's architecture with this data's reference energies; scale and widths stay.

    Raises:
        InputError: other elements, theories or cutoff than the start knows, or overrides of its architecture.
    """
    if config.model:
        raise InputError(f"model.{min(config.model)}: the architecture of --init cannot be changed")
    unknown = sorted(set(graph_set.elements) - set(model.elements))
    if unknown:
        raise InputError(f"--init knows no {', '.join(unknown)} (it knows {', '.join(model.elements)})")
    if abs(graph_set.cutoff - model.cutoff) > 1e-9:
        raise InputError(f"--init has cutoff {model.cutoff:g} Å, the graphs {graph_set.cutoff:g} Å; set data.cutoff")
    strangers = sorted(set(graph_set.theories) - set(model.theories))
    if strangers:
        raise InputError(f"--init knows no theory {strangers[0]!r} (it knows {', '.join(model.theories)})")
    unlearnt = sorted(set(graph_set.properties) - set(model.properties))
    if unlearnt:
        raise InputError(f"--init has no head for the property {unlearnt[0]!r}")
    return model


def energy_scale(graph_set: GraphSet) -> float:
    """RMS force (eV/Å) of the training split; without forces the RMS energy (eV/atom); else 1."""
    statistics = graph_set.statistics
    return next((s for s in (statistics.force_rms, statistics.energy_rms) if s is not None and s > 1e-6), 1.0)


def trained_properties(graph_set: GraphSet) -> dict[str, PropertySpec]:
    """The declared properties that the training split has labels for."""
    found = graph_set.statistics.properties
    return {name: spec for name, spec in graph_set.properties.items() if name in found and found[name].n > 0}


def property_scales(graph_set: GraphSet) -> dict[str, PropertyScale]:
    """Mean and standard deviation of each trained property."""
    found = graph_set.statistics.properties
    return {n: PropertyScale(mean=found[n].mean, std=max(found[n].std, 1e-6)) for n in trained_properties(graph_set)}


def scales_of(model: ModelConfig, graph_set: GraphSet) -> Scales:
    """What errors are divided by, so that weights and learning rate do not depend on the data's magnitudes."""
    return Scales(
        energy=model.energy_scale,
        forces=model.energy_scale if graph_set.statistics.force_rms is not None else 1.0,
        properties={name: scale.std for name, scale in model.property_scales.items()},
        extensive=frozenset(n for n, s in model.properties.items() if s.extensive and s.level == "structure"),
    )


def batch_atoms(config: TrainConfig, graph_set: GraphSet) -> tuple[int, str]:
    """Atoms a batch, and why: structures of mean size, 1 for 200 that are trained on, 2 to 32; at least 64 atoms."""
    if config.batch.max_atoms is not None:
        return config.batch.max_atoms, f"batches of up to {config.batch.max_atoms} atoms"
    statistics = graph_set.statistics
    mean = statistics.n_atoms / max(statistics.n_structures, 1)
    structures = min(max(statistics.n_structures // STRUCTURES_A_BATCH, SMALLEST_BATCH), LARGEST_BATCH)
    atoms = max(round(structures * mean), FEWEST_ATOMS)
    return atoms, f"batches of up to {atoms} atoms, about {max(1, round(atoms / max(mean, 1)))} structures"


def labels_of(graph_set: GraphSet) -> list[str]:
    """Targets that the training split has labels for."""
    statistics = graph_set.statistics
    scalars = {"energy": statistics.energy_rms, "forces": statistics.force_rms, "stress": statistics.stress_rms}
    named = [name for name, value in scalars.items() if value is not None]
    return named + [name for name, found in statistics.properties.items() if found.n > 0]
