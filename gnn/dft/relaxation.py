"""Relaxation of positions and cell with an ASE calculator, keeping every step as a labelled frame.

Where atoms are fixed the cell is too: a slab's is its substrate's, and fixed atoms would move with it.
"""

from __future__ import annotations

import time

import numpy as np
from ase import Atoms
from ase.filters import FrechetCellFilter
from ase.optimize import BFGS

from gnn.dft.engine import Frame, JobKind, Labelled, RelaxSettings
from gnn.structures.readers.ase_atoms import fixed_mask

LARGEST_STEP = 0.1
"""Å a BFGS step may move an atom; keeps poor starts from exploding."""


def frame_of(atoms: Atoms) -> Frame:
    """The labels of `atoms` by its calculator, as a frame."""
    periodic = bool(atoms.pbc.all())
    return Frame(
        positions=atoms.get_positions(),
        cell=np.array(atoms.cell[:], dtype=float),
        energy=float(atoms.get_potential_energy()),
        free_energy=float(atoms.get_potential_energy(force_consistent=True)),
        forces=np.array(atoms.get_forces(apply_constraint=False)),
        stress=np.array(atoms.get_stress(apply_constraint=False)) if periodic else None,
    )


def run_job(atoms: Atoms, kind: JobKind, relax: RelaxSettings) -> Labelled:
    """Label `atoms`, whose calculator is set, as a static or along a relaxation."""
    start = time.process_time()
    if kind == "static":
        frames, converged = [frame_of(atoms)], True
    else:
        frames, converged = _relax(atoms, relax)
    return Labelled(frames=tuple(frames), converged=converged, cpu_s=time.process_time() - start)


def _relax(atoms: Atoms, relax: RelaxSettings) -> tuple[list[Frame], bool]:
    frames: list[Frame] = []
    target = FrechetCellFilter(atoms) if atoms.pbc.all() and not fixed_mask(atoms).any() else atoms
    optimiser = BFGS(target, logfile=None, maxstep=LARGEST_STEP)
    optimiser.attach(lambda: frames.append(frame_of(atoms)))
    converged = bool(optimiser.run(fmax=relax.fmax, steps=relax.max_steps))
    return frames, converged
