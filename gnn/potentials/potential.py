"""What a potential is: something that declares what it gives and predicts it for batches of structures."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch
from ase import Atoms
from numpy.typing import NDArray
from torch import Tensor

from gnn.errors import InputError
from gnn.graphs.batch import Batch

Floats = NDArray[np.float64]

MAX_ATOMS = {"cpu": 512, "cuda": 16384}
"""Atoms of one batch by kind of device, where the caller says nothing."""


@dataclass(frozen=True)
class BatchPrediction:
    """What a potential gives for B structures with N atoms.

    energy (B,) eV, float64, total; forces (N, 3) eV/Å; stress (B, 6) eV/Å³, xx yy zz yz xz xy, positive = tension,
    meaningless where a structure is not periodic in three directions; uncertainty (B,) eV/atom; properties by name,
    (B,), or (N,) for those named in `of_atoms`.
    """

    energy: Tensor
    forces: Tensor | None = None
    stress: Tensor | None = None
    uncertainty: Tensor | None = None
    properties: dict[str, Tensor] = field(default_factory=dict)
    of_atoms: frozenset[str] = frozenset()


@dataclass(frozen=True)
class AtomsPrediction:
    """What a potential gives for one structure with N atoms.

    energy eV, total; forces (N, 3) eV/Å; stress (6,) eV/Å³ or None where not periodic in three directions;
    uncertainty eV/atom; properties by name: a float, or N floats.
    """

    energy: float
    forces: Floats | None = None
    stress: Floats | None = None
    uncertainty: float | None = None
    properties: dict[str, float | Floats] = field(default_factory=dict)


class Potential(Protocol):
    """Gives what it declares in `provides`: of energy, forces, stress, uncertainty and names of properties.

    `cutoff` (Å) is how far the edges of a batch must reach; 0 means that it needs none. `elements` are the chemical
    symbols it knows. `theory` is the level of theory whose total energies it returns. `device` is where batches go.
    """

    @property
    def provides(self) -> frozenset[str]:
        """Names of what it gives."""
        ...

    @property
    def cutoff(self) -> float:
        """Reach of edges in Å."""
        ...

    @property
    def elements(self) -> frozenset[str]:
        """Chemical symbols it knows."""
        ...

    @property
    def theory(self) -> str:
        """Level of theory of its energies."""
        ...

    @property
    def device(self) -> torch.device:
        """Where its batches live."""
        ...

    def predict(self, batch: Batch) -> BatchPrediction:
        """Everything it provides, for a batch whose edges reach at least to `cutoff`."""
        ...

    def predict_atoms(self, atoms_list: Sequence[Atoms], max_atoms: int | None = None) -> list[AtomsPrediction]:
        """Everything it provides for each of `atoms_list`, in their order, at most `max_atoms` atoms at a time.

        Raises:
            InputError: a structure holds elements it does not know, or no atoms.
        """
        ...


def usual_max_atoms(device: torch.device) -> int:
    """Atoms of one batch on `device` where the caller says nothing."""
    return MAX_ATOMS.get(device.type, MAX_ATOMS["cpu"])


def unknown_elements(atoms: Atoms, elements: frozenset[str]) -> list[str]:
    """Symbols of `atoms` that are not among `elements`, sorted."""
    return sorted(set(atoms.get_chemical_symbols()) - elements)


class NeverSeenWarning(UserWarning):
    """A structure holds elements that the last training of a potential never saw."""


def warn_of_inherited_elements(atoms_list: Sequence[Atoms], potential: Potential) -> None:
    """Warn, once a program, of elements that a fine-tuned potential knows only from the model it was started from."""
    inherited: frozenset[str] = getattr(potential, "inherited", frozenset())
    present = {symbol for atoms in atoms_list for symbol in atoms.get_chemical_symbols()} if inherited else set()
    if never_seen := sorted(present & inherited):
        warnings.warn(
            f"the potential ({potential.theory}) has not seen {', '.join(never_seen)} in its last training, only the "
            "model it was started from has; its shared weights have moved since: check such structures",
            NeverSeenWarning,
            stacklevel=3,
        )


def refuse_unknown_elements(atoms_list: Sequence[Atoms], elements: frozenset[str], theory: str) -> None:
    """Do nothing if every element is known.

    Raises:
        InputError: listing the elements that are not known, and the known ones.
    """
    present = {symbol for atoms in atoms_list for symbol in atoms.get_chemical_symbols()}
    if unknown := sorted(present - elements):
        known = ", ".join(sorted(elements))
        raise InputError(
            f"the potential ({theory}) has never seen {', '.join(unknown)}; it knows {known}; "
            "train with data that holds them or leave these structures out"
        )
