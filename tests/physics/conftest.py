"""Small models of every family, and structures that are molecules, crystals, slabs, dense and alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, fcc111, molecule

from gnn.graphs.batch import Batch
from gnn.graphs.collate import batch_of_atoms
from gnn.models.config import ModelConfig
from gnn.models.model import Model, build_model
from gnn.models.network import FAMILIES

CUTOFF = 4.0
ELEMENTS = ["H", "C", "O", "Al", "Si", "Cu"]
DEGREES: dict[str, tuple[int, ...]] = {"ace": (0, 1, 2), "tensor": (2,)}
"""Degrees of hidden features that a family knows."""
VARIANTS = [
    pytest.param((family, correlation, degree), id=f"{family}-nu{correlation}-L{degree}")
    for family in FAMILIES
    for correlation, degree in product((1, 2, 3), DEGREES[family])
]

Batcher = Callable[..., Batch]


def config(family: str = "ace", correlation: int = 3, hidden_l_max: int = 1, **changes: object) -> ModelConfig:
    fields = {
        "family": family,
        "hidden_l_max": hidden_l_max if hidden_l_max in DEGREES[family] else DEGREES[family][0],
        "elements": ELEMENTS,
        "cutoff": CUTOFF,
        "channels": 8,
        "correlation": correlation,
        "radial_hidden": [16],
        "mean_neighbours": 12.0,
        "references": {"default": {symbol: -1.0 - 0.1 * i for i, symbol in enumerate(ELEMENTS)}},
        "bonding": {"default": {symbol: -0.5 - 0.1 * i for i, symbol in enumerate(ELEMENTS)}},
    }
    return ModelConfig.model_validate(fields | changes)


@pytest.fixture(params=VARIANTS)
def model(request: pytest.FixtureRequest) -> Model:
    """Every family, correlation order and degree, with random weights, in float64."""
    family, correlation, degree = request.param
    return build_model(config(family, correlation, degree), seed=3).double()


@pytest.fixture(params=list(FAMILIES))
def build(request: pytest.FixtureRequest) -> Callable[..., Model]:
    """A float64 model of each family with changed fields; a degree that the family does not know becomes its own."""
    return lambda **changes: build_model(config(request.param, **changes), seed=3).double()


@pytest.fixture
def batch() -> Batcher:
    """Structures as one batch at the models' cutoff."""

    def make(*atoms: Atoms, cutoff: float = CUTOFF) -> Batch:
        return batch_of_atoms(atoms, cutoff)

    return make


@pytest.fixture
def ethanol() -> Atoms:
    atoms = molecule("CH3CH2OH")
    atoms.rattle(0.05, seed=1)
    return atoms


@pytest.fixture
def alloy() -> Atoms:
    """A skewed, rattled crystal of two elements, smaller than the cutoff."""
    atoms = bulk("Al", cubic=True)
    atoms.symbols[0] = "Cu"
    atoms.set_cell(atoms.cell @ np.array([[1.0, 0.05, 0.02], [0.0, 1.03, -0.04], [0.01, 0.0, 0.97]]), scale_atoms=True)
    atoms.rattle(0.08, seed=2)
    return atoms


@pytest.fixture
def mixture(ethanol: Atoms, alloy: Atoms) -> Sequence[Atoms]:
    """A molecule, a crystal, a slab, one atom alone, one atom in a cell, and two atoms out of each other's reach."""
    slab = fcc111("Al", (1, 1, 3), vacuum=6.0)
    silicon = bulk("Si")
    return [ethanol, alloy, slab, Atoms("H"), silicon[:1], Atoms("OO", [[0, 0, 0], [0, 0, 9.0]])]
