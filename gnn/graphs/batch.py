"""Several structures as one graph, ready for a network."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from gnn.graphs.grid import AtomGrid


@dataclass(frozen=True)
class Labels:
    """Targets of a batch in float64; NaN-free, with a mask where a label is missing.

    energy (B,) eV, total, consistent with the forces; forces (N, 3) eV/Å; stress (B, 6) eV/Å³, xx yy zz yz xz xy,
    positive = tension. Masks are bool: energy_mask (B,), force_mask (N,) (False on fixed atoms and where unlabelled),
    stress_mask (B,). properties[name] is (B,) or (N,) by its level, property_masks[name] likewise.
    """

    energy: Tensor
    energy_mask: Tensor
    forces: Tensor
    force_mask: Tensor
    stress: Tensor
    stress_mask: Tensor
    properties: dict[str, Tensor]
    property_masks: dict[str, Tensor]


@dataclass(frozen=True)
class Batch:
    """B structures with N atoms and E directed edges in all.

    numbers (N,) int64; positions (N, 3) Å; cell (B, 3, 3) Å, zeros where not periodic; pbc (B, 3) bool;
    structure (N,) int64, the structure of each atom; n_atoms (B,) int64;
    senders, receivers (E,) int64, **sorted by receiver**; shifts (E, 3), integer images as floats:
    the vector of an edge is positions[sender] - positions[receiver] + shift @ cell[structure[receiver]];
    theory (B,) int64, index into the model's theories; width, where every atom receives equally many edges: how many;
    grid, where somebody has made one: its atoms in rows.

    Geometry and labels are float64 whatever a network computes in: float32 would round 85 Å by 4e-6 Å, which is
    1e-4 eV/Å of a stiff bond's force, and 10⁴ eV by 1 meV. Bond vectors are short, and lose nothing.
    """

    numbers: Tensor
    positions: Tensor
    cell: Tensor
    pbc: Tensor
    structure: Tensor
    n_atoms: Tensor
    senders: Tensor
    receivers: Tensor
    shifts: Tensor
    theory: Tensor
    labels: Labels | None = None
    width: int | None = None
    grid: AtomGrid | None = None

    @property
    def n_structures(self) -> int:
        """B."""
        return int(self.n_atoms.shape[0])

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on `device`."""
        return _moved(self, device)


def _moved(value: Any, device: torch.device | str) -> Any:
    if isinstance(value, Tensor):
        return value.to(device)
    if isinstance(value, dict):
        return {key: _moved(item, device) for key, item in value.items()}
    if isinstance(value, Batch | Labels):
        return replace(value, **{f.name: _moved(getattr(value, f.name), device) for f in fields(value)})
    return value


def edge_vectors(batch: Batch) -> Tensor:
    """Vectors r_j - r_i + S·cell of every edge, shape (E, 3), Å, float64; differentiable in positions and cell."""
    vectors = batch.positions.index_select(0, batch.senders) - batch.positions.index_select(0, batch.receivers)
    if not bool(batch.pbc.any()):
        return vectors
    of_edge = batch.structure.index_select(0, batch.receivers)
    return vectors + torch.einsum("ek,ekd->ed", batch.shifts, batch.cell.index_select(0, of_edge))
