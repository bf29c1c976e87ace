"""Molecular dynamics of a file's structures: read, move in batches, write."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import ase.io
from ase import Atoms

from flows.cli.results import DynamicsResult
from flows.relax import open_potential, read_structures, refuse_output
from flows.settings import Home
from flows.structure_bar import structure_bar
from gnn.files import write_atomically
from gnn.simulation.dynamics import DynamicsSettings, Trajectory, move_many


def move_file(
    model: str,
    file: Path,
    output: Path,
    home: Home,
    settings: DynamicsSettings,
    theory: str | None = None,
    device: str = "cpu",
    dtype: str = "float32",
    max_atoms: int | None = None,
) -> DynamicsResult:
    """Move every structure of `file` with `model` and write the frames to `output`, path by path in the file's order.

    Raises:
        InputError: the file cannot be read, the output cannot be written as extended XYZ, or the model has no forces.
    """
    started = time.monotonic()
    refuse_output(output, file)
    structures = read_structures(file)
    potential = open_potential(model, home, theory, device, dtype)
    with structure_bar("moving", len(structures), "given up") as advance:
        paths = move_many(
            structures, potential, settings, max_atoms, on_result=lambda _, path: advance(path.failure is None)
        )
    frames = frames_of(paths, settings.every)
    write_atomically(output, lambda path: ase.io.write(path, frames, format="extxyz"))
    lost = Counter(path.failure for path in paths if path.failure is not None)
    return DynamicsResult(
        model=model,
        n_structures=len(paths),
        n_frames=len(frames),
        failed=lost.total(),
        reasons={str(failure): count for failure, count in lost.items()},
        output=str(output),
        wall_s=round(time.monotonic() - started, 3),
    )


def frames_of(paths: Sequence[Trajectory], every: int) -> list[Atoms]:
    """All frames, with the number of the path and the step in `info`."""
    frames = []
    for number, path in enumerate(paths):
        for k, atoms in enumerate(path.frames, start=1):
            atoms.info |= {"path": number, "step": k * every}
            frames.append(atoms)
    return frames
