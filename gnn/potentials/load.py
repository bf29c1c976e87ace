"""A checkpoint folder as a potential."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch
from ase import Atoms
from torch import Tensor

from gnn.errors import InputError
from gnn.graphs.batch import Batch
from gnn.models.device import device_of
from gnn.models.model import Model, Prediction
from gnn.models.radial_table import tabulate
from gnn.potentials.allocator import keep_freed_memory
from gnn.potentials.compiled import CompiledModel, compiled
from gnn.potentials.evaluate import predict_atoms
from gnn.potentials.potential import AtomsPrediction, BatchPrediction
from gnn.training.checkpoint import CheckpointManifest, read_checkpoint, read_whitening
from gnn.training.last_layer import LastLayer

if TYPE_CHECKING:
    from gnn.potentials.calculator import SluiceCalculator

Precision = Literal["float32", "float64"]
PRECISIONS: dict[str, torch.dtype] = {"float32": torch.float32, "float64": torch.float64}


class CheckpointPotential:
    """Members of one checkpoint at one level of theory: their mean, and their spread as uncertainty.

    The uncertainty of several members is the standard deviation of their energies per atom, times the factor that the
    checkpoint's calibration found on its validation split (1 where there is none). That of one member comes from its
    last layer, where the checkpoint was calibrated so.

    Args:
        manifest: the checkpoint's manifest.
        members: its networks, on `device`, with frozen weights.
        theory: the level of theory, one of the manifest's.
        device: where the networks are.
        slopes: whether forces and stress are computed.
        last_layer: the uncertainty of a single member.
    """

    def __init__(
        self,
        manifest: CheckpointManifest,
        members: Sequence[Model | CompiledModel],
        theory: str,
        device: torch.device,
        slopes: bool = True,
        last_layer: LastLayer | None = None,
    ) -> None:
        self.manifest = manifest
        self.members = list(members)
        self.theory = theory
        self.device = device
        self.slopes = slopes
        self.last_layer = last_layer
        self._theory_index = manifest.theories.index(theory)
        self._error_per_spread = manifest.calibration.energy_scale if manifest.calibration else 1.0
        specs = manifest.model.properties
        self._of_atoms = frozenset(name for name, spec in specs.items() if spec.level == "atom")

    @property
    def cutoff(self) -> float:
        """Reach of edges in Å."""
        return self.manifest.cutoff

    @property
    def elements(self) -> frozenset[str]:
        """Chemical symbols it knows at its level of theory."""
        return self.manifest.elements_at(self.theory)

    @property
    def provides(self) -> frozenset[str]:
        """Energy, forces, stress and the heads' properties; uncertainty of several members or of a last layer.

        Only the properties, where nothing else was trained.
        """
        if not self.manifest.knows_energies:
            return frozenset(self.manifest.model.properties)
        spread = {"uncertainty"} if len(self.members) > 1 or self.last_layer is not None else set()
        slopes = {"forces", "stress"} if self.slopes else set()
        return frozenset({"energy", *slopes, *spread, *self.manifest.model.properties})

    @property
    def inherited(self) -> frozenset[str]:
        """Elements that it knows from the model it was started from, and never saw in its own training."""
        seen = self.manifest.data.elements
        return frozenset() if seen is None else self.elements - frozenset(seen)

    def lead(self) -> CheckpointPotential:
        """The first member alone, without uncertainty: relaxations follow it, at a fraction of the cost."""
        return CheckpointPotential(self.manifest, self.members[:1], self.theory, self.device, self.slopes)

    def energies_only(self) -> CheckpointPotential:
        """The same without forces and stress, at less than half the cost: scores finished structures."""
        return CheckpointPotential(
            self.manifest, self.members, self.theory, self.device, slopes=False, last_layer=self.last_layer
        )

    @property
    def interval_90(self) -> float | None:
        """Half width of an interval that holds nine errors of ten, over the uncertainty; None if not calibrated."""
        calibration = self.manifest.calibration
        return None if calibration is None or "uncertainty" not in self.provides else calibration.interval_90

    def predict(self, batch: Batch) -> BatchPrediction:
        """Mean over the members; see `Potential.predict`."""
        ready = batch.to(self.device)
        ready = replace(ready, theory=torch.full_like(ready.theory, self._theory_index))
        wanted = {"forces": self.slopes, "stress": self.slopes, "last_layer": self.last_layer is not None}
        each = [member.predict(ready, **wanted) for member in self.members]
        mean = mean_of(each, ready.n_atoms)
        spread = self._last_layer_spread(each[0], ready) if self.last_layer is not None else mean.uncertainty
        uncertainty = None if spread is None else spread * self._error_per_spread
        return replace(mean, of_atoms=self._of_atoms, uncertainty=uncertainty)

    def _last_layer_spread(self, prediction: Prediction, batch: Batch) -> Tensor | None:
        if self.last_layer is None or prediction.last_layer is None:
            return None
        return self.last_layer.spread(prediction.last_layer, batch.theory)

    def predict_atoms(self, atoms_list: Sequence[Atoms], max_atoms: int | None = None) -> list[AtomsPrediction]:
        """Predictions in order; see `Potential.predict_atoms`."""
        return predict_atoms(self, atoms_list, max_atoms)

    def calculator(self) -> SluiceCalculator:
        """An ASE calculator that gives the same numbers."""
        from gnn.potentials.calculator import SluiceCalculator

        return SluiceCalculator(self)


def mean_of(predictions: Sequence[Prediction | BatchPrediction], n_atoms: Tensor) -> BatchPrediction:
    """The mean of several predictions of one batch; uncertainty (eV/atom) is the standard deviation of their energies.

    The deviation is that of the population (divided by the number of members). One prediction has none.
    """
    energies = torch.stack([one.energy.double() for one in predictions])
    several = len(predictions) > 1
    return BatchPrediction(
        energy=energies.mean(dim=0),
        forces=_mean([one.forces for one in predictions]),
        stress=_mean([one.stress for one in predictions]),
        uncertainty=energies.std(dim=0, correction=0) / n_atoms if several else None,
        properties={
            name: torch.stack([one.properties[name] for one in predictions]).mean(dim=0)
            for name in predictions[0].properties
        },
    )


def _mean(values: Sequence[Tensor | None]) -> Tensor | None:
    given = [value for value in values if value is not None]
    return torch.stack(given).mean(dim=0) if len(given) == len(values) else None


def load(
    path: Path,
    theory: str | None = None,
    device: str = "cpu",
    dtype: Precision | str = "float32",
    compile: bool = False,  # noqa: A002 (the word that torch has for it)
) -> CheckpointPotential:
    """The checkpoint in the folder `path` as a potential.

    In float32 on a CPU its radial functions come from tables, where these are exact (`gnn.models.radial_table`).

    Args:
        path: the folder with model.json and model.safetensors.
        theory: level of theory whose energies are wanted; needed where the checkpoint has several.
        device: `cpu`, `cuda`, `cuda:1`, or `auto` (a GPU where there is one).
        dtype: `float32`, or `float64` for phonons and finite differences.
        compile: whether the first batch waits for a compiler (a minute) to make the following ones faster; where that
            fails or changes the numbers, a warning says so and the networks are used as they are. Takes the place of
            tables.

    Raises:
        InputError: no whole checkpoint there, an unknown theory, or a device that this machine has not.
    """
    precision = precision_of(dtype)
    place = device_of(device)
    manifest, members = read_checkpoint(Path(path))
    chosen = _chosen_theory(manifest, theory, path)
    keep_freed_memory()
    ready = [member.to(device=place, dtype=precision).eval().requires_grad_(False) for member in members]
    last_layer = _last_layer(manifest, Path(path))
    if compile:
        return CheckpointPotential(manifest, compiled(ready), chosen, place, last_layer=last_layer)
    if place.type == "cpu" and precision == torch.float32:
        for member in ready:
            tabulate(member)
    return CheckpointPotential(manifest, ready, chosen, place, last_layer=last_layer)


def _last_layer(manifest: CheckpointManifest, path: Path) -> LastLayer | None:
    calibration = manifest.calibration
    if calibration is None or calibration.kind != "last_layer" or manifest.members > 1:
        return None
    whitening = read_whitening(path)
    return None if whitening is None else LastLayer(whitening, calibration.ridge or 0.0)


def precision_of(dtype: str) -> torch.dtype:
    """The precision of that name.

    Raises:
        InputError: it is none that potentials compute in.
    """
    if dtype not in PRECISIONS:
        raise InputError(f"dtype {dtype!r} is not known; choose {' or '.join(PRECISIONS)}")
    return PRECISIONS[dtype]


def _chosen_theory(manifest: CheckpointManifest, theory: str | None, path: Path) -> str:
    known, chosen = ", ".join(manifest.theories), theory or manifest.usual_theory
    if chosen is None:
        raise InputError(f"{path} knows several levels of theory; choose one by theory= (--theory): {known}")
    if chosen not in manifest.theories:
        raise InputError(f"{path} knows no theory {chosen!r}; it knows {known}")
    return chosen
