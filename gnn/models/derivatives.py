"""Forces and stress as derivatives of the energy."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from gnn.graphs.batch import Batch

VOIGT = (0, 4, 8, 5, 2, 1)
"""Where xx yy zz yz xz xy stand in a flattened (3, 3) matrix."""


@dataclass(frozen=True)
class Derivatives:
    """forces (N, 3) eV/Å, or None; stress (B, 6) eV/Å³, Voigt, positive = tension, or None."""

    forces: Tensor | None
    stress: Tensor | None


def derivatives(
    energy: Tensor, vectors: Tensor, batch: Batch, *, forces: bool, stress: bool, training: bool
) -> Derivatives:
    """One derivative with respect to the bond vectors v gives both: with g = dE/dv,

    F_i = sum_{edges received by i} g - sum_{edges sent by i} g, and under a symmetric strain v -> v (1 + strain)
    stress = (1/V) sum_edges sym(v ⊗ g). Stress is zero unless a structure is periodic in all three directions.
    Shapes: energy (B,) eV, vectors (E, 3) Å. `training` keeps the graph for a second derivative.
    """
    if not (forces or stress):
        return Derivatives(None, None)
    (slope,) = torch.autograd.grad(energy.sum(), vectors, create_graph=training, materialize_grads=True)
    return from_slope(slope, vectors if training else vectors.detach(), batch, forces=forces, stress=stress)


def from_slope(slope: Tensor, bonds: Tensor, batch: Batch, *, forces: bool, stress: bool) -> Derivatives:
    """Forces and stress from g = dE/dv. Shapes: slope and bonds (E, 3)."""
    return Derivatives(_forces(slope, batch) if forces else None, _stress(slope, bonds, batch) if stress else None)


def _forces(slope: Tensor, batch: Batch) -> Tensor:
    zeros = slope.new_zeros(batch.numbers.shape[0], 3)
    return zeros.index_add(0, batch.receivers, slope).index_add(0, batch.senders, slope, alpha=-1)


def _stress(slope: Tensor, vectors: Tensor, batch: Batch) -> Tensor:
    periodic = batch.pbc.all(dim=1)
    virial = slope.new_zeros(batch.n_structures, 9)
    if not bool(periodic.any()):
        return virial.index_select(1, torch.tensor(VOIGT, device=virial.device))
    volume = torch.linalg.det(batch.cell).abs().to(slope.dtype)
    outer = torch.bmm(vectors.unsqueeze(2), slope.unsqueeze(1))
    symmetric = (0.5 * (outer + outer.transpose(1, 2))).flatten(1)
    virial = virial.index_add(0, batch.structure.index_select(0, batch.receivers), symmetric)
    stress = virial / torch.where(periodic, volume, torch.ones_like(volume)).unsqueeze(1) * periodic.unsqueeze(1)
    return stress.index_select(1, torch.tensor(VOIGT, device=stress.device))
