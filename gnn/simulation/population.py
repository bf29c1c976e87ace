"""The structures that are being relaxed at one time, padded to one size.

Coordinates are those of the cell filter: three rows of n · log F (n atoms, F the deformation since the start), then the
positions with the deformation undone. Positions in space are coordinates @ F, the cell is start cell @ F (F symmetric).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from ase import Atoms
from torch import Tensor

from gnn.errors import InputError
from gnn.simulation.cell_filter import symmetric_exponential
from gnn.simulation.optimiser import Bounds, State
from gnn.structures.readers.ase_atoms import fixed_mask, holds_atoms, holds_nothing

CELL_ROWS = 3
ATOM_CURVATURE = 10.0
"""eV/Å² of an atom in its cage, roughly."""
ELASTIC = 0.6
"""eV/Å³ (about 100 GPa), roughly an elastic constant."""
ATOM_MOVE = 0.2
"""Å that an atom may go in one move."""
STRAIN_MOVE = 0.06
"""Strain of one move, row by row."""


@dataclass(frozen=True)
class Population:
    """B structures of at most A atoms; R = A + 3 rows.

    source (B,) int64: which of the caller's structures; n_atoms (B,) int64; numbers (B, R) int64, 0 where no atom is;
    coordinates (B, R, 3) float64; free (B, R, 1) float64: 1 on rows that may move; cell (B, 3, 3): at the start;
    pbc (B, 3) bool; steps (B,) int64; cpu (B,) float64 s; state: the minimiser's.
    """

    source: Tensor
    n_atoms: Tensor
    numbers: Tensor
    coordinates: Tensor
    free: Tensor
    cell: Tensor
    pbc: Tensor
    steps: Tensor
    cpu: Tensor
    state: State

    def __len__(self) -> int:
        return len(self.source)

    @property
    def is_atom(self) -> Tensor:
        """(B, R) bool: rows that hold an atom."""
        return self.numbers > 0

    @property
    def factor(self) -> Tensor:
        """(B,) what log F is multiplied by."""
        return self.n_atoms.to(self.coordinates.dtype)

    @property
    def log_strain(self) -> Tensor:
        """(B, 3, 3) log F."""
        return self.coordinates[:, :CELL_ROWS] / self.factor.view(-1, 1, 1)


PADDED = ("numbers", "coordinates", "free")
"""Fields whose second dimension is R."""


@dataclass(frozen=True)
class Geometry:
    """Where things are: positions (N, 3) Å of all atoms in a row, cell (B, 3, 3) Å, deformation (B, 3, 3)."""

    positions: Tensor
    cell: Tensor
    deformation: Tensor

    @property
    def volume(self) -> Tensor:
        """(B,) Å³; 0 without a cell."""
        return torch.linalg.det(self.cell).abs()


def geometry(population: Population) -> Geometry:
    """Positions and cells of a population."""
    deformation = symmetric_exponential(population.log_strain)
    positions = population.coordinates @ deformation
    return Geometry(positions[population.is_atom], population.cell @ deformation, deformation)


def population_of(
    atoms_list: Sequence[Atoms], sources: Sequence[int], relax_cell: bool, device: torch.device
) -> Population:
    """Structures at the start of their relaxation; their minimiser's state is still empty.

    Cells move where `relax_cell` and the structure is periodic in three directions; wholly fixed atoms do not move.
    """
    rows = CELL_ROWS + max(len(atoms) for atoms in atoms_list)
    count = len(atoms_list)
    numbers = np.zeros((count, rows), dtype=np.int64)
    coordinates = np.zeros((count, rows, 3))
    free = np.zeros((count, rows, 1))
    for k, atoms in enumerate(atoms_list):
        end = CELL_ROWS + len(atoms)
        numbers[k, CELL_ROWS:end] = atoms.numbers
        coordinates[k, CELL_ROWS:end] = atoms.positions
        free[k, CELL_ROWS:end, 0] = ~fixed_mask(atoms)
        free[k, :CELL_ROWS] = float(relax_cell and atoms.pbc.all())
    return Population(
        source=torch.tensor(list(sources), device=device),
        n_atoms=torch.tensor([len(atoms) for atoms in atoms_list], device=device),
        numbers=torch.from_numpy(numbers).to(device),
        coordinates=torch.from_numpy(coordinates).to(device),
        free=torch.from_numpy(free).to(device),
        cell=torch.from_numpy(np.stack([np.array(atoms.cell[:], dtype=float) for atoms in atoms_list])).to(device),
        pbc=torch.from_numpy(np.stack([np.asarray(atoms.pbc, dtype=bool) for atoms in atoms_list])).to(device),
        steps=torch.zeros(count, dtype=torch.int64, device=device),
        cpu=torch.zeros(count, dtype=torch.float64, device=device),
        state={},
    )


def bounds(population: Population) -> Bounds:
    """Softness and longest moves of structures that start.

    The curvature along an atom's coordinate is `ATOM_CURVATURE`; along the cell's, n · log F, it is V · `ELASTIC` / n².
    """
    factor = population.factor.view(-1, 1, 1)
    volume = torch.linalg.det(population.cell).abs().clamp(min=1.0).view(-1, 1, 1)
    softness = torch.full_like(population.coordinates, 1.0 / ATOM_CURVATURE)
    softness[:, :CELL_ROWS] = factor**2 / (volume * ELASTIC)
    longest = torch.full_like(population.free, ATOM_MOVE)
    longest[:, :CELL_ROWS] = STRAIN_MOVE * factor
    return Bounds(softness * population.free, longest)


def refuse_loose_constraints(atoms_list: Sequence[Atoms]) -> None:
    """Do nothing if all that constraints do is to hold atoms in all three directions.

    Raises:
        InputError: there is a constraint of another kind, which would be broken.
    """
    for number, atoms in enumerate(atoms_list):
        for constraint in atoms.constraints:
            if not (holds_atoms(constraint) or holds_nothing(constraint)):
                raise InputError(
                    f"structure {number} ({atoms.get_chemical_formula()}) has a constraint {type(constraint).__name__} "
                    "that cannot be kept: atoms move in all directions or in none; take it away or fix its atoms wholly"
                )


def select(population: Population, keep: Tensor, padded_state: frozenset[str]) -> Population:
    """The structures where `keep` (B,) is true, without padding that no longer serves."""
    n_atoms = population.n_atoms[keep]
    rows = CELL_ROWS + (int(n_atoms.max()) if len(n_atoms) else 0)
    return _mapped(population, padded_state, lambda t: t[keep], lambda t, dim: t[keep].narrow(dim, 0, rows))


def join(one: Population, other: Population, padded_state: frozenset[str]) -> Population:
    """Both populations as one."""
    rows = max(one.numbers.shape[1], other.numbers.shape[1])
    a, b = (_mapped(p, padded_state, lambda t: t, lambda t, dim: _pad(t, dim, rows)) for p in (one, other))
    merged = {f.name: torch.cat([getattr(a, f.name), getattr(b, f.name)]) for f in fields(a) if f.name != "state"}
    return replace(a, **merged, state={name: torch.cat([a.state[name], b.state[name]]) for name in a.state})


def _pad(tensor: Tensor, dim: int, rows: int) -> Tensor:
    missing = rows - tensor.shape[dim]
    if missing == 0:
        return tensor
    shape = list(tensor.shape)
    shape[dim] = missing
    return torch.cat([tensor, tensor.new_zeros(shape)], dim=dim)


def _mapped(population: Population, padded_state: frozenset[str], plain, padded) -> Population:  # type: ignore[no-untyped-def]  # noqa: ANN001
    changed = {
        f.name: padded(value, 1) if f.name in PADDED else plain(value)
        for f in fields(population)
        if isinstance(value := getattr(population, f.name), Tensor)
    }
    state = {
        name: padded(value, value.ndim - 2) if name in padded_state else plain(value)
        for name, value in population.state.items()
    }
    return replace(population, **changed, state=state)
