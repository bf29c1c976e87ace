"""Energies and forces of a population, in the coordinates it moves in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from gnn.errors import told
from gnn.graphs.batch import Batch
from gnn.potentials.edges import SKIN, EdgeKeeper, Frame
from gnn.potentials.evaluate import is_out_of_memory
from gnn.potentials.potential import BatchPrediction, Potential
from gnn.simulation.cell_filter import cell_forces
from gnn.simulation.population import CELL_ROWS, Geometry, Population, geometry

NEAR = 2.0
"""Å; how far pairs are looked for where the potential needs no edges, to see atoms that come too close."""


@dataclass(frozen=True)
class Evaluation:
    """A population at its present geometry.

    energy (B,) eV; forces (B, R, 3) eV/Å on the atoms, raw, padded like the coordinates; stress (B, 6) eV/Å³ or None;
    row_forces (B, R, 3) eV/Å on the coordinates, cell rows included, 0 where nothing may move; fmax (B,) their largest
    row norm; volume_ratio (B,) to the start, 1 where not periodic; shortest (B,) Å; padded_positions (B, R, 3) Å;
    errors: the potential's complaint about a structure, or None.
    """

    where: Geometry
    energy: Tensor
    forces: Tensor
    stress: Tensor | None
    row_forces: Tensor
    fmax: Tensor
    volume_ratio: Tensor
    shortest: Tensor
    padded_positions: Tensor
    errors: Sequence[str | None]


class Evaluator:
    """Evaluates populations with a potential; halves `max_atoms` for good when memory runs out."""

    def __init__(self, potential: Potential, max_atoms: int, skin: float = SKIN) -> None:
        self.potential = potential
        self.max_atoms = max_atoms
        self.edges = EdgeKeeper(potential.cutoff or NEAR, skin)

    def forget(self, source: int) -> None:
        """Drop what is kept for a finished structure."""
        self.edges.forget(source)

    def evaluate(self, population: Population) -> Evaluation:
        """Energy, forces and what the convergence test needs."""
        where = geometry(population)
        batch, shortest = self.edges.batch(frame_of(population, where))
        prediction, errors = self._predict(batch)
        forces = _padded(_given(prediction.forces, where.positions), population)
        row_forces = _row_forces(population, where, forces, prediction.stress)
        start_volume = torch.linalg.det(population.cell).abs()
        periodic = population.pbc.all(dim=1) & (start_volume > 0)
        return Evaluation(
            where=where,
            energy=prediction.energy,
            forces=forces,
            stress=prediction.stress,
            row_forces=row_forces,
            fmax=row_forces.norm(dim=2).amax(dim=1),
            volume_ratio=torch.where(periodic, where.volume / start_volume.clamp(min=1e-300), 1.0),
            shortest=shortest,
            padded_positions=_padded(where.positions, population),
            errors=errors,
        )

    def _predict(self, batch: Batch) -> tuple[BatchPrediction, list[str | None]]:
        """Predict; on failure the two halves, down to single structures, whose failure becomes their reason."""
        if batch.n_structures == 1 or len(batch.numbers) <= self.max_atoms:
            try:
                return _as_double(self.potential.predict(batch)), [None] * batch.n_structures
            except Exception as error:  # noqa: BLE001 - foreign models raise whatever they like over one structure
                if batch.n_structures == 1:
                    return _nothing(batch), [told(error)]
                self._learn_from(error, len(batch.numbers))
        middle = batch.n_structures // 2
        first, its_errors = self._predict(slice_batch(batch, 0, middle))
        second, other_errors = self._predict(slice_batch(batch, middle, batch.n_structures))
        return _joined(first, second), its_errors + other_errors

    def _learn_from(self, error: Exception, n_atoms: int) -> None:
        """Take smaller batches from now on if memory ran out."""
        if is_out_of_memory(error):
            self.max_atoms = max(1, n_atoms // 2)
            if torch.cuda.is_available():
                torch.cuda.empty_cache()


def frame_of(population: Population, where: Geometry) -> Frame:
    """The population as it stands, for the search of edges."""
    return Frame(
        keys=tuple(population.source.tolist()),
        numbers=population.numbers[population.is_atom],
        n_atoms=population.n_atoms,
        pbc=population.pbc,
        positions=where.positions,
        cell=where.cell,
    )


def _row_forces(population: Population, where: Geometry, forces: Tensor, stress: Tensor | None) -> Tensor:
    """(B, R, 3) forces on the coordinates: those on atoms times F, and those on n · log F."""
    rows = forces @ where.deformation
    if stress is not None:
        free = population.free[:, :1]
        safe = torch.where(free > 0, stress.unsqueeze(1), 0.0).squeeze(1)
        rows[:, :CELL_ROWS] = cell_forces(
            population.log_strain, where.deformation, safe, where.volume, population.factor
        )
    return rows * population.free


def _padded(flat: Tensor, population: Population) -> Tensor:
    padded = flat.new_zeros(*population.numbers.shape, 3)
    padded[population.is_atom] = flat
    return padded


def _given(forces: Tensor | None, like: Tensor) -> Tensor:
    return torch.full_like(like, torch.nan) if forces is None else forces


def _as_double(prediction: BatchPrediction) -> BatchPrediction:
    return BatchPrediction(
        energy=prediction.energy.detach().double(),
        forces=None if prediction.forces is None else prediction.forces.detach().double(),
        stress=None if prediction.stress is None else prediction.stress.detach().double(),
    )


def _nothing(batch: Batch) -> BatchPrediction:
    """What stands for a prediction that could not be made."""
    nan = batch.positions.new_full((1,), torch.nan, dtype=torch.float64)
    return BatchPrediction(energy=nan, forces=nan.expand(len(batch.numbers), 3), stress=nan.expand(1, 6))


def _joined(first: BatchPrediction, second: BatchPrediction) -> BatchPrediction:
    def both(a: Tensor | None, b: Tensor | None) -> Tensor | None:
        return None if a is None or b is None else torch.cat([a, b])

    return BatchPrediction(
        energy=torch.cat([first.energy, second.energy]),
        forces=both(first.forces, second.forces),
        stress=both(first.stress, second.stress),
    )


def slice_batch(batch: Batch, start: int, stop: int) -> Batch:
    """Structures `start` to `stop` (exclusive) of a batch without labels, as a batch of its own."""
    ends = torch.cat([batch.n_atoms.new_zeros(1), batch.n_atoms.cumsum(0)])
    low, high = int(ends[start]), int(ends[stop])
    bounds = torch.tensor([low, high], device=batch.receivers.device)
    first, last = torch.searchsorted(batch.receivers.contiguous(), bounds).tolist()
    return replace(
        batch,
        numbers=batch.numbers[low:high],
        positions=batch.positions[low:high],
        cell=batch.cell[start:stop],
        pbc=batch.pbc[start:stop],
        structure=batch.structure[low:high] - start,
        n_atoms=batch.n_atoms[start:stop],
        senders=batch.senders[first:last] - low,
        receivers=batch.receivers[first:last] - low,
        shifts=batch.shifts[first:last],
        theory=batch.theory[start:stop],
    )
