"""What labels a structure: an engine with fixed settings and hence one level of theory."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from gnn.errors import SluiceError

Floats = NDArray[np.float64]
JobKind = Literal["static", "relax"]
ELECTRONS = ("total_charge", "multiplicity")
"""What a structure may say of its electrons, in `Atoms.info`."""


class LabelError(SluiceError):
    """The engine could not label a structure; the message says why."""


def check_electrons(atoms: Atoms, charge: int, multiplicities: Collection[int]) -> None:
    """Refuse a structure that says that it has other electrons than are computed; what says nothing is taken as it is.

    Raises:
        LabelError: it states another charge (e) or none of these multiplicities (2 S + 1).
    """
    stated, spins = (atoms.info.get(name) for name in ELECTRONS)
    if stated is not None and stated != charge:
        raise LabelError(f"the structure has charge {stated:+d}, and this level of theory computes {charge:+d}")
    if spins is not None and spins not in multiplicities:
        computed = " or ".join(map(str, sorted(multiplicities)))
        raise LabelError(f"the structure has multiplicity {spins}, and this level of theory computes {computed}")


@dataclass(frozen=True)
class Frame:
    """One labelled geometry.

    positions (N, 3) Å, cell (3, 3) Å, energy and free_energy in eV (zero-smearing limit, and consistent with the
    forces), forces (N, 3) eV/Å, stress (6,) eV/Å³ in ASE's order and sign, or None where the cell is not periodic.
    """

    positions: Floats
    cell: Floats
    energy: float
    free_energy: float
    forces: Floats
    stress: Floats | None

    @property
    def is_finite(self) -> bool:
        """Whether all of its labels are numbers."""
        stress = np.zeros(6) if self.stress is None else self.stress
        return all(np.isfinite(value).all() for value in (self.energy, self.free_energy, self.forces, stress))

    def to_json(self) -> dict[str, Any]:
        """Plain lists and numbers."""
        return {
            "positions": self.positions.tolist(),
            "cell": self.cell.tolist(),
            "energy": self.energy,
            "free_energy": self.free_energy,
            "forces": self.forces.tolist(),
            "stress": None if self.stress is None else self.stress.tolist(),
        }

    @classmethod
    def from_json(cls, frame: dict[str, Any]) -> Frame:
        """The frame of what `to_json` gave."""
        return cls(
            positions=np.array(frame["positions"]),
            cell=np.array(frame["cell"]),
            energy=frame["energy"],
            free_energy=frame["free_energy"],
            forces=np.array(frame["forces"]),
            stress=None if frame["stress"] is None else np.array(frame["stress"]),
        )


@dataclass(frozen=True)
class Labelled:
    """What an engine gives for one job: a frame for a static, every ionic step for a relaxation."""

    frames: tuple[Frame, ...]
    converged: bool
    cpu_s: float


@dataclass(frozen=True)
class RelaxSettings:
    """How an engine relaxes positions and cell: fmax in eV/Å, also of the cell (as ASE's FrechetCellFilter has it)."""

    fmax: float = 0.03
    max_steps: int = 40


class Engine(Protocol):
    """A DFT (or stand-in) engine."""

    name: str
    theory: str

    def run(self, atoms: Atoms, kind: JobKind, relax: RelaxSettings) -> Labelled:
        """Label `atoms`.

        Raises:
            LabelError: no label could be had; the reason is the message.
        """
        ...

    def close(self) -> None:
        """Release what the engine holds (worker processes)."""
        ...
