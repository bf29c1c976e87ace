"""Labelled structures as one file of plain arrays, which every environment can read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


@dataclass(frozen=True)
class Frame:
    """One structure of n atoms and e directed edges.

    numbers (n,); positions (n, 3) Å; cell (3, 3) Å, zeros without periodicity; pbc (3,); energy eV relative to the
    atoms' own; forces (n, 3) eV/Å; senders, receivers (e,), sorted by receiver; shifts (e, 3) integer images.
    The vector of an edge is positions[sender] - positions[receiver] + shift @ cell.
    """

    numbers: Integers
    positions: Floats
    cell: Floats
    pbc: NDArray[np.bool_]
    energy: float
    forces: Floats
    senders: Integers
    receivers: Integers
    shifts: Integers

    @property
    def n_atoms(self) -> int:
        """Number of atoms."""
        return len(self.numbers)

    def atoms(self) -> Any:
        """The structure as ASE has it, without labels."""
        from ase import Atoms

        return Atoms(self.numbers, self.positions, cell=self.cell, pbc=self.pbc)


def save_frames(path: Path, frames: Sequence[Frame]) -> Path:
    """Write frames to an .npz file: the arrays one after the other, and how many atoms and edges each frame has."""
    joined: dict[str, Any] = {
        name: np.concatenate([getattr(frame, name) for frame in frames])
        for name in ("numbers", "positions", "forces", "senders", "receivers", "shifts")
    }
    stacked: dict[str, Any] = {name: np.stack([getattr(frame, name) for frame in frames]) for name in ("cell", "pbc")}
    counts: dict[str, Any] = {
        "n_atoms": np.array([frame.n_atoms for frame in frames]),
        "n_edges": np.array([len(frame.senders) for frame in frames]),
        "energy": np.array([frame.energy for frame in frames], dtype=np.float64),
    }
    np.savez(path, **joined, **stacked, **counts)
    return path


def load_frames(path: Path) -> list[Frame]:
    """Read what `save_frames` wrote."""
    with np.load(path, allow_pickle=False) as stored:
        data = {name: stored[name] for name in stored.files}
    atoms, edges = (np.concatenate([[0], np.cumsum(data[name])]) for name in ("n_atoms", "n_edges"))
    return [_frame(data, k, slice(*atoms[k : k + 2]), slice(*edges[k : k + 2])) for k in range(len(data["n_atoms"]))]


def _frame(data: dict[str, Any], k: int, atoms: slice, edges: slice) -> Frame:
    of_atoms = {name: data[name][atoms] for name in ("numbers", "positions", "forces")}
    of_edges = {name: data[name][edges] for name in ("senders", "receivers", "shifts")}
    return Frame(cell=data["cell"][k], pbc=data["pbc"][k], energy=float(data["energy"][k]), **of_atoms, **of_edges)


def elements_of(frames: Sequence[Frame]) -> list[int]:
    """Atomic numbers that occur, ascending."""
    return sorted({int(z) for frame in frames for z in frame.numbers})


def mean_neighbours(frames: Sequence[Frame]) -> float:
    """Directed edges an atom."""
    return sum(len(frame.senders) for frame in frames) / sum(frame.n_atoms for frame in frames)


def force_rms(frames: Sequence[Frame]) -> float:
    """Root mean square of the force components, eV/Å."""
    return float(np.sqrt(np.mean(np.concatenate([frame.forces for frame in frames]) ** 2)))


def joined_edges(frames: Sequence[Frame]) -> tuple[Integers, Integers, Floats]:
    """Senders, receivers (E,) and shifts in Å (E, 3) of frames put one after the other."""
    offsets = np.cumsum([0] + [frame.n_atoms for frame in frames[:-1]])
    senders = np.concatenate([frame.senders + start for frame, start in zip(frames, offsets, strict=True)])
    receivers = np.concatenate([frame.receivers + start for frame, start in zip(frames, offsets, strict=True)])
    shifts = np.concatenate([frame.shifts @ frame.cell for frame in frames])
    return senders, receivers, shifts


@dataclass(frozen=True)
class Targets:
    """Labels of a batch: energy (B,) eV, forces (N, 3) eV/Å, atoms a structure (B,), all float32."""

    energy: torch.Tensor
    forces: torch.Tensor
    n_atoms: torch.Tensor

    def to(self, device: str) -> Targets:
        """The same on `device`."""
        return Targets(self.energy.to(device), self.forces.to(device), self.n_atoms.to(device))


def targets_of(frames: Sequence[Frame]) -> Targets:
    """The labels of frames put together."""
    import torch

    return Targets(
        energy=torch.tensor([frame.energy for frame in frames], dtype=torch.float32),
        forces=torch.tensor(np.concatenate([frame.forces for frame in frames]), dtype=torch.float32),
        n_atoms=torch.tensor([frame.n_atoms for frame in frames], dtype=torch.float32),
    )
