"""A potential that is cheap, exact in double precision, and can be told to fail."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk
from ase.data import atomic_numbers

from gnn.graphs.batch import Batch, edge_vectors
from gnn.models.derivatives import derivatives
from gnn.potentials.evaluate import predict_atoms
from gnn.potentials.potential import AtomsPrediction, BatchPrediction

XENON, RADON = atomic_numbers["Xe"], atomic_numbers["Rn"]


@dataclass
class Morse:
    """D (1 - exp(-a (r - r0)))² - D between atoms, smoothly cut off; one r0 for all elements.

    Structures with `nan_element` have no finite energy; those with `bad_element` make the whole batch fail.
    Batches of more than `memory` atoms run out of memory.
    """

    depth: float = 0.4
    steepness: float = 1.4
    distance: float = 2.6
    cutoff: float = 5.0
    nan_element: int = XENON
    bad_element: int = RADON
    memory: int = 10**9
    provides: frozenset[str] = frozenset({"energy", "forces", "stress"})
    theory: str = "morse"
    elements: frozenset[str] = frozenset({"Al", "Cu", "Ni", "Xe", "Rn"})
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    sizes: list[int] = field(default_factory=list)

    def predict(self, batch: Batch) -> BatchPrediction:
        self.sizes.append(len(batch.numbers))
        if len(batch.numbers) > self.memory:
            raise RuntimeError("out of memory")
        if bool((batch.numbers == self.bad_element).any()):
            raise ValueError("radon is not welcome")
        vectors = edge_vectors(batch).requires_grad_(True)
        r = vectors.norm(dim=1)
        well = self.depth * ((1 - torch.exp(-self.steepness * (r - self.distance))) ** 2 - 1)
        x = (r / self.cutoff).clamp(max=1.0)
        pair = 0.5 * well * (1 - x**2) ** 3
        of_edge = batch.structure[batch.receivers]
        energy = torch.zeros(batch.n_structures, dtype=torch.float64).index_add(0, of_edge, pair)
        found = derivatives(energy, vectors, batch, forces=True, stress=True, training=False)
        energy = energy.detach()
        energy[batch.structure[batch.numbers == self.nan_element]] = torch.nan
        return BatchPrediction(energy, found.forces, found.stress)

    def predict_atoms(self, atoms_list: Sequence[Atoms], max_atoms: int | None = None) -> list[AtomsPrediction]:
        return predict_atoms(self, atoms_list, max_atoms)


@pytest.fixture
def morse() -> Morse:
    return Morse()


@pytest.fixture
def make_morse() -> type[Morse]:
    return Morse


def crystal(rng: np.random.Generator, repeat: tuple[int, int, int] = (1, 1, 1), element: str = "Cu") -> Atoms:
    """An fcc crystal, strained and rattled."""
    atoms = bulk(element, a=3.6 * rng.uniform(0.94, 1.05)) * repeat
    strain = rng.normal(scale=0.02, size=(3, 3))
    atoms.set_cell(atoms.cell[:] @ (np.eye(3) + strain + strain.T), scale_atoms=True)
    atoms.rattle(0.05, rng=rng)
    return atoms


@pytest.fixture
def make_crystal() -> Callable[..., Atoms]:
    return crystal
