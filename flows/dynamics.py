"""Molecular dynamics of a file's structures: read, move in batches, write."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from ase import Atoms

from flows.cli.results import DynamicsResult, LostPathRow
from flows.relax import open_potential
from flows.settings import Home
from flows.structure_bar import structure_bar
from flows.structure_files import read_structures, refuse_output, write_structures
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
    frames = frames_of(paths, settings)
    write_structures(output, frames)
    lost = [
        LostPathRow(path=number, failure=path.failure, reason=path.reason or "")
        for number, path in enumerate(paths)
        if path.failure is not None
    ]
    return DynamicsResult(
        model=model,
        n_structures=len(paths),
        n_frames=len(frames),
        failed=len(lost),
        reasons=dict(Counter(one.failure for one in lost)),
        lost=lost,
        output=str(output),
        wall_s=round(time.monotonic() - started, 3),
    )


def frames_of(paths: Sequence[Trajectory], settings: DynamicsSettings) -> list[Atoms]:
    """All frames, with the number of the path and the step in `info`."""
    frames = []
    for number, path in enumerate(paths):
        for k, atoms in enumerate(path.frames, start=1):
            atoms.info |= {"path": number, "step": min(k * settings.every, settings.steps)}
            frames.append(atoms)
    return frames
