"""From what was asked for to what is done: defaults taken from the data, and said."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

from pydantic import ValidationError
from torch import Tensor

from gnn.errors import InputError
from gnn.graphs.graph_set import GraphSet, PropertyStatistics, Statistics
from gnn.models.config import ModelConfig, PropertyScale
from gnn.models.model import Model, build_model
from gnn.models.presets import preset_fields
from gnn.structures.properties import PropertySpec
from gnn.training.batch_size import atoms_a_batch, batches_told
from gnn.training.config import LossConfig, OptimiserConfig, PresetName, TrainConfig, describe_validation, run_digest
from gnn.training.data import TrainingData
from gnn.training.ema import copy_weights
from gnn.training.energy_weights import LEAST_FORCE, energy_spread, with_energy_weights
from gnn.training.finetune import Start, additions, continued, grown, settled, unsettled
from gnn.training.losses import Scales, Wanted, term_config

PRESET_CUTOFF: dict[PresetName, float] = {"small": 5.0, "default": 5.0, "accurate": 6.0}
DEFAULT_LR = {"muon": 4e-2, "adamw": 2e-2}
"""Peak learning rates by optimiser: weights are of order one, so they are large."""
TUNING_LR = 2e-3
"""From a trained model's weights."""
MOST_NAMED = 12
"""Elements that are named one by one."""
ROUNDING = 1e-9
"""Deviations that are a smaller part of the mean are its rounding errors."""
IN_MOTION = 0.1
"""Å of energy spread over force: a set below it shows few molecules in motion, one above it many structures."""
DERIVED = ("energy", "forces", "stress")
"""What a network's energy is trained by."""
FROM_DATA = (
    "elements",
    "cutoff",
    "theories",
    "references",
    "bonding",
    "energy_scale",
    "mean_neighbours",
    "properties",
    "property_scales",
    "property_shifts",
)
"""What the data decide about an architecture; a user's override of these would break it."""


@dataclass(frozen=True)
class Recipe:
    """One training, fully decided: nothing in it is still to be taken from the data.

    header: digest of all that decides the result; labels: what is learnt from, as `Statistics.labels` names it;
    remarks: what was taken from where, for people.
    """

    config: TrainConfig
    model: ModelConfig
    lr: float
    max_atoms: int
    scales: Scales
    wanted: Wanted
    header: str
    labels: tuple[str, ...]
    remarks: tuple[str, ...] = ()
    initial_weights: Callable[[Model], dict[str, Tensor]] | None = None

    @property
    def taken(self) -> dict[str, int | float | str | None]:
        """What is trained with where the configuration may be silent, by the names it has there."""
        energy = self.config.losses.energy
        return {
            "optimiser.lr": self.lr,
            "optimiser.radial": self.config.optimiser.radial,
            "batch.max_atoms": self.max_atoms,
            "losses.energy.weight": energy.weight,
            "losses.energy.late_weight": energy.late_weight,
        }


def cutoff_of(config: TrainConfig, start: ModelConfig | None = None) -> float:
    """The cutoff (Å) that the data are preprocessed with: as configured, else the start's, else the preset's."""
    return config.data.cutoff or (PRESET_CUTOFF[preset_of(config)] if start is None else start.cutoff)


def resolve(
    config: TrainConfig, graph_set: GraphSet, start: Start | None = None, data: TrainingData | None = None
) -> Recipe:
    """Fill what the configuration leaves open.

    `data` is looked at only where a start lacks elements or theories, for their reference energies.

    Raises:
        InputError: an override is unknown or contradicts the data, the start does not fit the data, or nothing is to
            be learnt.
    """
    losses = with_energy_weights(config.losses, graph_set.statistics)
    optimiser = with_radial_optimiser(config.optimiser, graph_set.statistics)
    config = config.model_copy(update={"losses": losses, "optimiser": optimiser})
    model = model_config(config, graph_set, start)
    labels = trained_labels(graph_set, config.losses, model.properties)
    max_atoms = config.batch.max_atoms or atoms_a_batch(graph_set.statistics, graph_set.n_own)
    lr = config.optimiser.lr or (DEFAULT_LR[config.optimiser.kind] if start is None else TUNING_LR)
    decided = {"model": model.model_dump(mode="json"), "lr": lr, "max_atoms": max_atoms}
    batches = f"learning rate {lr:g}; {batches_told(max_atoms, graph_set.statistics)}"
    if start is not None and data is not None:
        model = with_settled_references(model, start, data, max_atoms)
    statistics = graph_set.statistics
    wanted = Wanted(statistics.force_rms is not None, statistics.stress_rms is not None, frozenset(model.properties))
    return Recipe(
        config=config,
        model=model,
        lr=lr,
        max_atoms=max_atoms,
        scales=scales_of(model, graph_set),
        wanted=wanted,
        header=run_digest(config, graph_set.graph_set_id, None if start is None else start.sha256, decided),
        labels=labels,
        remarks=remarks_on(config, model, graph_set, start, batches),
        initial_weights=None if start is None else partial(grown, start),
    )


def with_radial_optimiser(settings: OptimiserConfig, statistics: Statistics) -> OptimiserConfig:
    """The same with the optimiser of radial networks filled in where it is None.

    AdamW where energies tell little beside forces, as those of a molecule in motion: docs/decisions/0017.
    """
    spread = energy_spread(statistics)
    smooth = settings.kind == "adamw" or (spread is not None and spread < IN_MOTION)
    return settings.model_copy(update={"radial": settings.radial or ("adamw" if smooth else "muon")})


def remarks_on(
    config: TrainConfig, model: ModelConfig, graph_set: GraphSet, start: Start | None, batches: str
) -> tuple[str, ...]:
    """What was taken from where, for people."""
    counts, statistics = graph_set.split_counts, graph_set.statistics
    known = ", ".join(graph_set.elements) if len(graph_set.elements) <= MOST_NAMED else f"{len(graph_set.elements)}"
    size = (
        f"{model.channels} channels, {model.layers} layers, correlation {model.correlation}, "
        f"hidden l ≤ {model.hidden_l_max}"
    )
    begun = () if start is None else (_begun(start, graph_set, model.properties),)
    return (
        f"{counts['train']} training, {counts.get('valid', 0)} validation, {counts.get('test', 0)} test structures "
        f"of {statistics.mean_size:.0f} atoms; elements {known}; "
        f"{statistics.mean_neighbours:.0f} neighbours within {model.cutoff:g} Å",
        f"family {model.family}, {'preset ' + preset_of(config) if start is None else 'as --init'}: {size}",
        *helpers_told(graph_set, config.schedule.helpers_leave),
        *begun,
        f"labels: {', '.join(graph_set.statistics.labels) or 'none'}; energy scale {model.energy_scale:.4g} eV; "
        f"weights of energies {config.losses.energy.weight:.3g} to {config.losses.energy.late_weight:.3g}",
        f"{batches}{_processes(config)}; {_optimisers(config.optimiser)}",
    )


def helpers_told(graph_set: GraphSet, leave: float) -> tuple[str, ...]:
    """What is only trained on, for people; nothing where nothing is."""
    if not graph_set.helpers:
        return ()
    counts = ", ".join(f"{n} of {name}" for name, n in graph_set.helpers.items())
    until = "" if leave == 1 else f", {graph_set.repeats_alone} times without them, after {leave:.0%} of the budget"
    return (
        f"only trained on: {counts}; each of the other {graph_set.n_own} comes {graph_set.repeats} times a pass{until}",
    )


def _begun(start: Start, graph_set: GraphSet, properties: Iterable[str]) -> str:
    added = additions(start, graph_set, properties)
    kept = "weights, energy scale and reference energies of --init"
    fitted = ", ".join(f"{theory}: {', '.join(names)}" for theory, names in unsettled(start, graph_set).items())
    return f"{kept}; added: {added}" + (f"; references fitted to what it leaves over of {fitted}" if fitted else "")


def _optimisers(settings: OptimiserConfig) -> str:
    return settings.kind + ("" if settings.radial == settings.kind else f", {settings.radial} for radial networks")


def _processes(config: TrainConfig) -> str:
    return f", one in each of {config.devices} processes" if config.devices > 1 else ""


def with_settled_references(model: ModelConfig, start: Start, data: TrainingData, max_atoms: int) -> ModelConfig:
    """The architecture with reference energies for what the start does not know."""
    wanted = unsettled(start, data.graph_set)
    if not wanted:
        return model
    network = build_model(model)
    copy_weights(network, grown(start, network))
    references = settled(network, data.batches("train", max_atoms, shuffle=True), wanted)
    return model.model_copy(update={"references": references})


def model_config(config: TrainConfig, graph_set: GraphSet, start: Start | None) -> ModelConfig:
    """The architecture: the preset's (or the start's), the user's overrides, and what the data decide.

    Raises:
        InputError: an override is unknown, out of range, or not the user's to give.
    """
    check_overrides(config)
    properties = trained_properties(graph_set, config.losses)
    scales = property_scales(graph_set, properties)
    if start is not None:
        return continued(start, graph_set, properties, scales)
    heads = {"properties": properties, "property_scales": scales}
    return _validated({**_preset(config), **config.model, **from_data(graph_set), **heads})


def check_overrides(config: TrainConfig) -> None:
    """Check the user's architecture as far as it can be without data.

    Raises:
        InputError: an override is unknown, out of range, or not the user's to give.
    """
    forbidden = sorted(set(config.model) & set(FROM_DATA))
    if forbidden:
        raise InputError(f"model.{forbidden[0]} follows from the data and cannot be set (data.cutoff sets the cutoff)")
    _validated({**_preset(config), **config.model, "elements": ["H"]})


def preset_of(config: TrainConfig) -> PresetName:
    """The size of a network that starts from nothing."""
    return config.preset or "default"


def _preset(config: TrainConfig) -> dict[str, Any]:
    """Fields of the preset, of the family that the user's overrides name."""
    return preset_fields(preset_of(config), config.model.get("family", "ace"))


def _validated(values: dict[str, Any]) -> ModelConfig:
    try:
        return ModelConfig.model_validate(values)
    except ValidationError as error:
        raise InputError(f"model: {describe_validation(error)}") from None


def from_data(graph_set: GraphSet) -> dict[str, Any]:
    """What the graph set decides about the architecture but its heads of properties."""
    return {
        "elements": list(graph_set.elements),
        "cutoff": graph_set.cutoff,
        "theories": list(graph_set.theories),
        "references": {theory: dict(found.energies) for theory, found in graph_set.references.items()},
        "bonding": {theory: dict(found.bonding) for theory, found in graph_set.references.items()},
        "energy_scale": energy_scale(graph_set),
        "mean_neighbours": max(graph_set.statistics.mean_neighbours, 1.0),
    }


def energy_scale(graph_set: GraphSet) -> float:
    """RMS force (eV/Å) of the training split; without forces to speak of the RMS energy (eV/atom); else 1."""
    statistics = graph_set.statistics
    if (force := statistics.force_rms or 0.0) >= LEAST_FORCE:
        return force
    return next((scale for scale in (statistics.energy_rms, force) if scale is not None and scale > 1e-6), 1.0)


def trained_properties(graph_set: GraphSet, losses: LossConfig) -> dict[str, PropertySpec]:
    """The declared properties that the training split has labels for and the loss a weight.

    Raises:
        InputError: the loss names a property that the data do not declare.
    """
    declared = graph_set.properties
    if strangers := sorted(set(losses.properties) - set(declared)):
        known = ", ".join(sorted(declared)) or "none"
        raise InputError(f"losses.properties.{strangers[0]}: the data have no such property; they have {known}")
    counted = {name for name, found in graph_set.statistics.properties.items() if found.n > 0}
    switched_off = {name for name, term in losses.properties.items() if term.is_off}
    return {name: spec for name, spec in declared.items() if name in counted - switched_off}


def trained_labels(graph_set: GraphSet, losses: LossConfig, properties: Container[str]) -> tuple[str, ...]:
    """The labels of the training split that the loss gives a weight; `properties` are those that have one.

    Raises:
        InputError: there are none.
    """
    known = graph_set.statistics.labels
    derived = {name for name in DERIVED if not term_config(losses, name).is_off}
    found = tuple(name for name in known if name in properties or name in derived)
    if not found:
        raise InputError(f"losses: nothing to learn: of {', '.join(known) or 'no labels'} every loss weighs 0")
    return found


def property_scales(graph_set: GraphSet, names: Iterable[str]) -> dict[str, PropertyScale]:
    """Mean and deviation of each of these properties."""
    found = graph_set.statistics.properties
    return {name: PropertyScale(mean=found[name].mean, std=deviation(found[name])) for name in names}


def deviation(found: PropertyStatistics) -> float:
    """The standard deviation of a property in its unit; of one that is always the same its size, else 1."""
    if found.std > ROUNDING * abs(found.mean):
        return found.std
    return abs(found.mean) or 1.0


def scales_of(model: ModelConfig, graph_set: GraphSet) -> Scales:
    """What errors are divided by, so that weights and learning rate do not depend on the data's magnitudes."""
    return Scales(
        energy=model.energy_scale,
        forces=model.energy_scale if graph_set.statistics.force_rms is not None else 1.0,
        properties={name: scale.std for name, scale in model.property_scales.items()},
        extensive=frozenset(n for n, s in model.properties.items() if s.extensive and s.level == "structure"),
    )
