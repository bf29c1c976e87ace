"""Molecular dynamics of a file's structures: read, move in batches, write."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import asdict
from pathlib import Path

from ase import Atoms

from flows.cli.results import DynamicsResult, LostPathRow
from flows.relax import model_digest, open_potential
from flows.settings import Home
from flows.structure_bar import structure_bar
from flows.structure_files import read_structures, refuse_output
from flows.structure_journal import StructureJournal, work_of
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

    The same call goes on from the paths that were finished when it was stopped.

    Raises:
        InputError: the file cannot be read, the output cannot be written as extended XYZ, the model has no forces, or
            what is finished belongs to other work.
        SluiceError: the file system refuses.
    """
    started = time.monotonic()
    refuse_output(output, file)
    structures = read_structures(file)
    potential = open_potential(model, home, theory, device, dtype)
    sha256 = model_digest(model, potential, home)
    journal = StructureJournal(output, work_of("md", file, sha256, potential.theory, dtype, asdict(settings)))
    left = sorted(set(range(len(structures))) - journal.finished())
    with structure_bar("moving", len(left), "given up") as advance, journal.keeping() as keep:

        def finished(number: int, path: Trajectory) -> None:
            told = {"frames": len(path.frames), "failure": path.failure, "reason": path.reason}
            keep(number, frames_of(number, path, settings), told)
            path.frames.clear()
            advance(path.failure is None)

        move_many(structures, potential, settings, max_atoms, finished, left)
    paths = journal.write()
    lost = [
        LostPathRow(path=path["index"], failure=path["failure"], reason=path["reason"] or "")
        for path in paths
        if path["failure"] is not None
    ]
    return DynamicsResult(
        model=model,
        n_structures=len(paths),
        n_frames=sum(path["frames"] for path in paths),
        failed=len(lost),
        reasons=dict(Counter(one.failure for one in lost)),
        lost=lost,
        output=str(output),
        wall_s=round(time.monotonic() - started, 3),
    )


def frames_of(number: int, path: Trajectory, settings: DynamicsSettings) -> list[Atoms]:
    """The frames of a path, with its number and the step in `info`."""
    for k, atoms in enumerate(path.frames, start=1):
        atoms.info |= {"path": number, "step": min(k * settings.every, settings.steps)}
    return path.frames
