"""Errors of a model against labels: summed batch by batch, so that memory does not grow with the data."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass, field

import numpy as np
import torch
from ase import units
from ase.data import chemical_symbols
from numpy.typing import NDArray
from torch import Tensor

from gnn.graphs.batch import Batch, Labels
from gnn.models.model import Model, Prediction
from gnn.structures.properties import PropertySpec
from gnn.training.metrics import GroupMetrics, Metrics, PropertyMetrics

Floats = NDArray[np.float64]
PARITY_ATOMS = 100_000
"""Atoms whose forces are kept for parity plots."""
MEV = 1e3


@dataclass
class ErrorSum:
    """Count, and the sums of error, |error| and error²."""

    n: int = 0
    signed: float = 0.0
    absolute: float = 0.0
    square: float = 0.0

    def add(self, errors: Floats) -> None:
        """Add errors of any shape."""
        self.n += errors.size
        self.signed += float(errors.sum())
        self.absolute += float(np.abs(errors).sum())
        self.square += float(np.square(errors).sum())

    def mean(self, factor: float = 1.0) -> float | None:
        """Mean of the errors with their signs times `factor`; None without errors."""
        return factor * self.signed / self.n if self.n else None

    def mae(self, factor: float = 1.0) -> float | None:
        """Mean absolute error times `factor`; None without errors."""
        return factor * self.absolute / self.n if self.n else None

    def rmse(self, factor: float = 1.0) -> float | None:
        """Root mean square error times `factor`; None without errors."""
        return factor * float(np.sqrt(self.square / self.n)) if self.n else None


@dataclass
class GroupSums:
    """Sums of one group: energy per atom and total (eV), force components (eV/Å), stress components (eV/Å³)."""

    n_structures: int = 0
    energy: ErrorSum = field(default_factory=ErrorSum)
    total_energy: ErrorSum = field(default_factory=ErrorSum)
    forces: ErrorSum = field(default_factory=ErrorSum)
    stress: ErrorSum = field(default_factory=ErrorSum)

    def metrics(self) -> GroupMetrics:
        """As numbers for people."""
        return GroupMetrics(
            n_structures=self.n_structures,
            energy_mae_mev_per_atom=self.energy.mae(MEV),
            energy_rmse_mev_per_atom=self.energy.rmse(MEV),
            energy_mean_error_mev_per_atom=self.energy.mean(MEV),
            force_mae_mev_per_angstrom=self.forces.mae(MEV),
            force_rmse_mev_per_angstrom=self.forces.rmse(MEV),
            stress_mae_gpa=self.stress.mae(1.0 / units.GPa),
        )


@dataclass(frozen=True)
class Parity:
    """Label and prediction side by side: energies per atom (eV), of every labelled structure, and force components.

    energy_std is the committee's spread per atom (zeros for one member). Forces are those of the first
    `PARITY_ATOMS` atoms. properties[name] is (label, prediction).
    """

    energy_label: Floats
    energy_predicted: Floats
    energy_std: Floats
    force_label: Floats
    force_predicted: Floats
    properties: dict[str, tuple[Floats, Floats]]


@dataclass(frozen=True)
class Evaluation:
    """What `evaluate` found."""

    metrics: Metrics
    parity: Parity

    def headline(self) -> dict[str, float]:
        """`Metrics.headline`."""
        return self.metrics.headline()


@dataclass(frozen=True)
class BatchErrors:
    """Errors of one batch as numpy arrays; rows without a label are masked out by the masks."""

    n_atoms: Floats
    energy: Floats
    energy_mask: NDArray[np.bool_]
    forces: Floats
    force_mask: NDArray[np.bool_]
    stress: Floats
    stress_mask: NDArray[np.bool_]
    numbers: NDArray[np.int64]
    structure: NDArray[np.int64]
    theory: NDArray[np.int64]


class Accumulator:
    """Sums errors over batches; `theories` gives the names of the batch's theory indices."""

    def __init__(self, theories: Sequence[str], properties: dict[str, PropertySpec]) -> None:
        self.theories = list(theories)
        self.specs = dict(properties)
        self.n_atoms = 0
        self.whole = GroupSums()
        self.by_theory: dict[str, GroupSums] = {}
        self.by_element: dict[int, GroupSums] = {}
        self.properties = {name: ErrorSum() for name in self.specs}
        self.kept: dict[str, list[Floats]] = {}

    def add(self, batch: Batch, prediction: Prediction, energy_std: Tensor | None = None) -> None:
        """Add one batch; `energy_std` (B,) is a committee's spread of total energies in eV.

        Raises:
            ValueError: the batch has no labels.
        """
        if batch.labels is None:
            raise ValueError("a batch without labels cannot be evaluated on")
        errors = batch_errors(batch, batch.labels, prediction)
        self.n_atoms += int(errors.n_atoms.sum())
        everything = np.ones(len(errors.n_atoms), dtype=bool)
        add_group(self.whole, errors, everything, everything[errors.structure])
        for index in np.unique(errors.theory):
            inside = errors.theory == index
            sums = self.by_theory.setdefault(self.theories[index], GroupSums())
            add_group(sums, errors, inside, inside[errors.structure])
        for number in np.unique(errors.numbers):
            of_element = errors.numbers == number
            inside = np.zeros(len(errors.n_atoms), dtype=bool)
            inside[errors.structure[of_element]] = True
            add_group(self.by_element.setdefault(int(number), GroupSums()), errors, inside, of_element)
        self._add_properties(batch.labels, prediction)
        self._keep_parity(batch.labels, errors, energy_std)

    def _add_properties(self, labels: Labels, prediction: Prediction) -> None:
        for name in self.specs:
            if name not in labels.properties or name not in prediction.properties:
                continue
            mask = labels.property_masks[name]
            label, predicted = numpy(labels.properties[name][mask]), numpy(prediction.properties[name][mask])
            self.properties[name].add(predicted - label)
            self._keep(f"label/{name}", label)
            self._keep(f"predicted/{name}", predicted)

    def _keep_parity(self, labels: Labels, errors: BatchErrors, energy_std: Tensor | None) -> None:
        mask = errors.energy_mask
        label = (numpy(labels.energy) / errors.n_atoms)[mask]
        self._keep("energy_label", label)
        self._keep("energy_predicted", label + (errors.energy / errors.n_atoms)[mask])
        std = np.zeros(len(mask)) if energy_std is None else numpy(energy_std) / errors.n_atoms
        self._keep("energy_std", std[mask])
        if sum(map(len, self.kept.get("force_label", []))) < 3 * PARITY_ATOMS:
            forces = numpy(labels.forces)[errors.force_mask]
            self._keep("force_label", forces.ravel())
            self._keep("force_predicted", (forces + errors.forces[errors.force_mask]).ravel())

    def totals(self) -> list[float]:
        """What `Metrics.headline` is made of, as sums that add up over parts of a set."""
        sums = [float(self.n_atoms), float(self.whole.n_structures)]
        return sums + [float(value) for errors in self._headline_sums() for value in astuple(errors)]

    def replace_totals(self, totals: Sequence[float]) -> None:
        """Put back what `totals` gave, added up over all parts; groups and parity stay those of this part."""
        self.n_atoms, self.whole.n_structures = int(totals[0]), int(totals[1])
        rows = np.reshape(totals[2:], (-1, 4)).tolist()
        for errors, (n, *sums) in zip(self._headline_sums(), rows, strict=True):
            errors.n, (errors.signed, errors.absolute, errors.square) = int(n), sums

    def _headline_sums(self) -> list[ErrorSum]:
        whole = self.whole
        properties = [self.properties[name] for name in sorted(self.properties)]
        return [whole.energy, whole.total_energy, whole.forces, whole.stress, *properties]

    def _keep(self, name: str, values: Floats) -> None:
        self.kept.setdefault(name, []).append(values)

    def _kept(self, name: str) -> Floats:
        return np.concatenate(self.kept[name]) if self.kept.get(name) else np.zeros(0)

    def result(self) -> Evaluation:
        """Metrics and parity arrays of all batches so far."""
        whole = self.whole.metrics()
        metrics = Metrics(
            n_atoms=self.n_atoms,
            energy_rmse_mev=self.whole.total_energy.rmse(MEV),
            properties=self._property_metrics(),
            by_theory={name: sums.metrics() for name, sums in sorted(self.by_theory.items())},
            by_element={chemical_symbols[z]: sums.metrics() for z, sums in sorted(self.by_element.items())},
            **whole.model_dump(),
        )
        return Evaluation(metrics, self._parity())

    def _property_metrics(self) -> dict[str, PropertyMetrics]:
        return {
            name: PropertyMetrics(unit=self.specs[name].unit, n=s.n, mae=s.mae() or 0.0, rmse=s.rmse() or 0.0)
            for name, s in self.properties.items()
            if s.n
        }

    def _parity(self) -> Parity:
        return Parity(
            energy_label=self._kept("energy_label"),
            energy_predicted=self._kept("energy_predicted"),
            energy_std=self._kept("energy_std"),
            force_label=self._kept("force_label"),
            force_predicted=self._kept("force_predicted"),
            properties={
                name: (self._kept(f"label/{name}"), self._kept(f"predicted/{name}"))
                for name, sums in self.properties.items()
                if sums.n
            },
        )


def numpy(values: Tensor) -> Floats:
    """A tensor as float64 on the CPU."""
    return values.detach().cpu().double().numpy()


def batch_errors(batch: Batch, labels: Labels, prediction: Prediction) -> BatchErrors:
    """Predicted minus labelled; a derivative that was not predicted counts as not labelled."""
    forces, stress = prediction.forces, prediction.stress
    n, b = len(batch.numbers), batch.n_structures
    return BatchErrors(
        n_atoms=numpy(batch.n_atoms),
        energy=numpy(prediction.energy) - numpy(labels.energy),
        energy_mask=labels.energy_mask.cpu().numpy(),
        forces=np.zeros((n, 3)) if forces is None else numpy(forces) - numpy(labels.forces),
        force_mask=np.zeros(n, dtype=bool) if forces is None else labels.force_mask.cpu().numpy(),
        stress=np.zeros((b, 6)) if stress is None else numpy(stress) - numpy(labels.stress),
        stress_mask=np.zeros(b, dtype=bool) if stress is None else labels.stress_mask.cpu().numpy(),
        numbers=batch.numbers.cpu().numpy(),
        structure=batch.structure.cpu().numpy(),
        theory=batch.theory.cpu().numpy(),
    )


def add_group(sums: GroupSums, errors: BatchErrors, structures: NDArray[np.bool_], atoms: NDArray[np.bool_]) -> None:
    """Add the chosen structures' energies and stresses and the chosen atoms' forces to `sums`."""
    with_energy = structures & errors.energy_mask
    sums.n_structures += int(structures.sum())
    sums.energy.add(errors.energy[with_energy] / errors.n_atoms[with_energy])
    sums.total_energy.add(errors.energy[with_energy])
    sums.forces.add(errors.forces[atoms & errors.force_mask])
    sums.stress.add(errors.stress[structures & errors.stress_mask])


def evaluate(
    models: Sequence[Model], batches: Iterable[Batch], device: torch.device | str = "cpu", stress: bool = True
) -> Evaluation:
    """Errors of a committee's mean (or of one model) over labelled batches.

    Derivatives are computed only where a batch has labels for them. All members share their configuration.
    """
    config = models[0].config
    accumulator = Accumulator(config.theories, config.properties)
    for batch in batches:
        moved = batch.to(device)
        prediction, std = committee_prediction(models, moved, stress)
        accumulator.add(moved, prediction, std)
    return accumulator.result()


def committee_prediction(models: Sequence[Model], batch: Batch, stress: bool = True) -> tuple[Prediction, Tensor]:
    """Mean of the members' predictions, and the standard deviation of their energies, shape (B,), eV."""
    labels = batch.labels
    with_forces = labels is not None and bool(labels.force_mask.any())
    with_stress = stress and labels is not None and bool(labels.stress_mask.any())
    each = [model.predict(batch, forces=with_forces, stress=with_stress) for model in models]
    if len(each) == 1:
        return each[0], torch.zeros_like(each[0].energy)
    energies = torch.stack([p.energy for p in each])
    return mean_prediction(each), energies.std(dim=0, correction=0)


def mean_prediction(each: Sequence[Prediction]) -> Prediction:
    """Mean over members of everything predicted."""
    return Prediction(
        energy=_mean([p.energy for p in each]),
        forces=_mean_or_none([p.forces for p in each]),
        stress=_mean_or_none([p.stress for p in each]),
        properties={name: _mean([p.properties[name] for p in each]) for name in each[0].properties},
        node_energy=_mean([p.node_energy for p in each]),
    )


def _mean(values: Sequence[Tensor]) -> Tensor:
    return torch.stack(list(values)).mean(dim=0)


def _mean_or_none(values: Sequence[Tensor | None]) -> Tensor | None:
    present = [value for value in values if value is not None]
    return _mean(present) if len(present) == len(values) else None
