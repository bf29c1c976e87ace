"""Jobs of the sample set: one level of theory, the cheapest cell of a crystal, and what a label costs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import spglib
from ase import Atoms
from ase.build import niggli_reduce
from ase.calculators.calculator import kptdensity2monkhorstpack

from gnn.dft.engine import JobKind, RelaxSettings
from gnn.dft.gpaw import GpawSettings
from gnn.dft.label import LabelJob

SETTINGS = GpawSettings()
"""One level of theory for the whole set; why this one: docs/decisions/0002-sample-theory.md."""
RELAX = RelaxSettings(fmax=0.08, max_steps=20)
"""The energy is flat here: 0.08 eV/Å of force means below 1 meV/atom above the minimum."""
CHEAP, DEAREST = 100, 220
"""Atoms times irreducible k-points of a label that takes some nine and twenty seconds."""


def cheapest_cell(atoms: Atoms, kind: JobKind, group: str, config_type: str) -> LabelJob:
    """A job on whichever of the given and the reduced cell has fewer irreducible k-points."""
    reduced = atoms.copy()
    niggli_reduce(reduced)
    return LabelJob.of(min(atoms, reduced, key=_irreducible_k_points), kind, group, config_type)


def label_cost(atoms: Atoms, density: float = SETTINGS.k_density) -> int:
    """Atoms times irreducible k-points: what a label's time is nearly proportional to."""
    return len(atoms) * _irreducible_k_points(atoms, density)


def _irreducible_k_points(atoms: Atoms, density: float = SETTINGS.k_density) -> int:
    mesh = kptdensity2monkhorstpack(atoms, density, even=True)
    cell = (atoms.cell[:], atoms.get_scaled_positions(), atoms.numbers)
    mapping, _ = spglib.get_ir_reciprocal_mesh(mesh, cell, is_shift=[1, 1, 1], symprec=1e-4)
    return len(np.unique(mapping))


def cost_of(job: LabelJob) -> int:
    """`label_cost` of a job's structure."""
    return label_cost(job.atoms())


def affordable(jobs: Iterable[LabelJob], dearest: int) -> Iterator[LabelJob]:
    """Jobs that cost no more than `dearest`."""
    return (job for job in jobs if label_cost(job.atoms()) <= dearest)
