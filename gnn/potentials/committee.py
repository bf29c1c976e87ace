"""Several potentials as one: their mean, and their disagreement as uncertainty."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from ase import Atoms

from gnn.errors import InputError
from gnn.graphs.batch import Batch, edge_vectors
from gnn.potentials.evaluate import predict_atoms
from gnn.potentials.load import mean_of
from gnn.potentials.potential import AtomsPrediction, BatchPrediction, Potential

ALWAYS = frozenset({"energy", "forces", "stress"})


class Committee:
    """Potentials of one level of theory, from different checkpoints or packages.

    Args:
        members: at least two; batches carry the edges that the farthest-seeing one needs.

    Raises:
        InputError: fewer than two members, or members of different levels of theory.
    """

    def __init__(self, members: Sequence[Potential]) -> None:
        theories = sorted({member.theory for member in members})
        if len(members) < 2:
            raise InputError(f"a committee needs at least two potentials, not {len(members)}")
        if len(theories) > 1:
            raise InputError(f"a committee's members must share their level of theory, not {', '.join(theories)}")
        self.members = list(members)
        self.theory = theories[0]
        self.cutoff = max(member.cutoff for member in members)
        self.elements = frozenset.intersection(*(member.elements for member in members))
        self.provides = frozenset.intersection(*(m.provides for m in members)) | {"uncertainty"}
        self.device = members[0].device

    def lead(self) -> Potential:
        """The first member alone."""
        return self.members[0]

    def predict(self, batch: Batch) -> BatchPrediction:
        """Mean and spread; see `Potential.predict`."""
        each = [_in_double(member.predict(_seen_by(member, batch)), self.device) for member in self.members]
        shared = self.provides - ALWAYS
        common = [replace(one, properties={k: v for k, v in one.properties.items() if k in shared}) for one in each]
        return replace(mean_of(common, batch.n_atoms.to(self.device)), of_atoms=each[0].of_atoms & shared)

    def predict_atoms(self, atoms_list: Sequence[Atoms], max_atoms: int | None = None) -> list[AtomsPrediction]:
        """Predictions in order; see `Potential.predict_atoms`."""
        return predict_atoms(self, atoms_list, max_atoms)


def _seen_by(member: Potential, batch: Batch) -> Batch:
    """The batch on the member's device, with the edges that lie within its cutoff."""
    distance = edge_vectors(batch).norm(dim=1)
    near = distance < member.cutoff
    seen = replace(batch, senders=batch.senders[near], receivers=batch.receivers[near], shifts=batch.shifts[near])
    return seen.to(member.device)


def _in_double(prediction: BatchPrediction, device: torch.device) -> BatchPrediction:
    def moved(value: torch.Tensor | None) -> torch.Tensor | None:
        return None if value is None else value.to(device, torch.float64)

    return replace(
        prediction,
        energy=prediction.energy.to(device, torch.float64),
        forces=moved(prediction.forces),
        stress=moved(prediction.stress),
        properties={name: value.to(device, torch.float64) for name, value in prediction.properties.items()},
    )
