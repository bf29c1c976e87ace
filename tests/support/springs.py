"""Structures held together by springs, so that they can move in the field of any network."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch
from ase import Atoms, units
from torch import Tensor

from gnn.graphs.batch import Batch, edge_vectors
from gnn.graphs.collate import batch_of_atoms
from gnn.models.model import Model
from gnn.potentials.edges import EdgeKeeper, Frame

REACH = 3.2
"""Å: atoms closer than this at rest have a spring between them, so that angles and torsions are held as bonds are."""
STIFFNESS = 20.0
"""eV·Å: a spring of length d at rest has the constant STIFFNESS / d³."""

Slopes = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Positions (N, 3) in Å to the energies (B,) in eV and the forces (N, 3) in eV/Å."""


class Springs:
    """E = 1/2 Σ_pairs k (d - d0)², at rest where the structures stand."""

    def __init__(self, structures: Sequence[Atoms]) -> None:
        self.structures = list(structures)
        self.rest = batch_of_atoms(structures, REACH)
        self.masses = torch.tensor(np.concatenate([atoms.get_masses() for atoms in structures])).unsqueeze(1)
        self.lengths = self._lengths(self.rest.positions)

    def __call__(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        moved = positions.detach().requires_grad_(True)
        stretch = self._lengths(moved) - self.lengths
        pair = 0.25 * STIFFNESS / self.lengths**3 * stretch**2  # each pair stands in both directions
        energy = self.by_structure(pair, self.rest.structure[self.rest.receivers])
        (slope,) = torch.autograd.grad(energy.sum(), moved)
        return energy.detach(), -slope

    def _lengths(self, positions: Tensor) -> Tensor:
        return torch.linalg.vector_norm(edge_vectors(replace(self.rest, positions=positions)), dim=1)

    def stretch(self, positions: Tensor) -> float:
        """How much longer or shorter any spring is than at rest, Å."""
        return float((self._lengths(positions) - self.lengths).abs().max())

    def by_structure(self, values: Tensor, structure: Tensor) -> Tensor:
        """Sums (B, ...) of what belongs to atoms or edges."""
        shape = (self.rest.n_structures, *values.shape[1:])
        return torch.zeros(shape, dtype=values.dtype).index_add(0, structure, values)

    def kinetic(self, velocities: Tensor) -> Tensor:
        """(B,) eV."""
        return 0.5 * self.by_structure((self.masses * velocities**2).sum(1), self.rest.structure)

    def velocities(self, kelvin: float, seed: int) -> Tensor:
        """Of atoms at a temperature, each structure's centre of mass at rest."""
        noise = torch.randn(self.rest.positions.shape, generator=torch.Generator().manual_seed(seed)).double()
        atoms = self.rest.structure
        found = noise * (units.kB * kelvin / self.masses).sqrt()
        momentum, mass = (self.by_structure(part, atoms) for part in (self.masses * found, self.masses))
        return found - (momentum / mass)[atoms]

    def moving(
        self, slopes: Slopes, kelvin: float, step: float, n_steps: int, seed: int
    ) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Velocity Verlet from rest: positions, potential and kinetic energies (B,) after every step."""
        positions, velocities = self.rest.positions, self.velocities(kelvin, seed)
        _, forces = slopes(positions)
        for _ in range(n_steps):
            velocities = velocities + 0.5 * step * forces / self.masses
            positions = positions + step * velocities
            potential, forces = slopes(positions)
            velocities = velocities + 0.5 * step * forces / self.masses
            yield positions, potential, self.kinetic(velocities)

    def beside(self, model: Model) -> Slopes:
        """The sum of the springs and of what a model says of these structures as they move."""
        keeper, still = EdgeKeeper(model.config.cutoff), self.rest
        keys = tuple(range(still.n_structures))

        def slopes(positions: Tensor) -> tuple[Tensor, Tensor]:
            frame = Frame(keys, still.numbers, still.n_atoms, still.pbc, positions, still.cell)
            found = model.predict(keeper.batch(frame)[0], stress=False)
            energy, forces = self(positions)
            return energy + found.energy, forces + found.forces

        return slopes

    def batch(self, positions: Tensor, cutoff: float) -> Batch:
        """The structures with their atoms elsewhere."""
        moved = [atoms.copy() for atoms in self.structures]
        for atoms, place in zip(moved, positions.split(self.rest.n_atoms.tolist()), strict=True):
            atoms.positions = place.numpy()
        return batch_of_atoms(moved, cutoff)
