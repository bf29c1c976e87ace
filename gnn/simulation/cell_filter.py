"""The Frechet cell filter for many structures at once: the logarithm of the deformation as three more rows.

As ASE's FrechetCellFilter with its default factor (the number of atoms), except that the deformation is kept symmetric:
the antisymmetric part of its logarithm only turns the crystal. A symmetric logarithm makes exponential and derivative
eigenvalue problems of 3 × 3 matrices, which a batch solves at once.

Source: C. Ortner, JuLIP.jl `expcell`, and the notes on cell gradients that ase.filters.FrechetCellFilter cites.
"""

from __future__ import annotations

import torch
from torch import Tensor

VOIGT_ROWS = ((0, 5, 4), (5, 1, 3), (4, 3, 2))
"""Where each entry of a 3 × 3 stress stands in xx yy zz yz xz xy."""


def symmetric_exponential(log_strain: Tensor) -> Tensor:
    """exp(U) of symmetric matrices. Shapes: (B, 3, 3) -> (B, 3, 3)."""
    values, vectors = torch.linalg.eigh(log_strain)
    return (vectors * values.exp().unsqueeze(-2)) @ vectors.mT


def exponential_adjoint(log_strain: Tensor, gradient: Tensor) -> Tensor:
    """Gradient with respect to U where `gradient` is that with respect to exp(U), U symmetric.

    With U = Q diag(u) Q^T it is Q (G ∘ (Q^T gradient Q)) Q^T, where G_ij = (e^{u_i} - e^{u_j}) / (u_i - u_j), here
    written e^{(u_i + u_j)/2} sinh(d)/d with d = (u_i - u_j)/2, which is exact for equal eigenvalues too
    (Daleckii-Krein theorem). Shapes: (B, 3, 3), (B, 3, 3) -> (B, 3, 3).
    """
    values, vectors = torch.linalg.eigh(log_strain)
    half_sum = 0.5 * (values.unsqueeze(-1) + values.unsqueeze(-2))
    half_difference = 0.5 * (values.unsqueeze(-1) - values.unsqueeze(-2))
    safe = torch.where(half_difference.abs() < 1e-4, torch.ones_like(half_difference), half_difference)
    series = 1.0 + half_difference**2 / 6.0
    ratio = torch.where(half_difference.abs() < 1e-4, series, safe.sinh() / safe)
    rotated = vectors.mT @ gradient @ vectors
    return vectors @ (half_sum.exp() * ratio * rotated) @ vectors.mT


def stress_matrix(stress: Tensor) -> Tensor:
    """Voigt stress as matrices. Shapes: (B, 6) -> (B, 3, 3)."""
    return stress[:, torch.tensor(VOIGT_ROWS, device=stress.device)]


def cell_forces(log_strain: Tensor, deformation: Tensor, stress: Tensor, volume: Tensor, factor: Tensor) -> Tensor:
    """Forces (eV/Å) on the cell's coordinates, which are `factor` · log F.

    The force on log F is the adjoint of the exponential's derivative, applied to -V σ F^-T, symmetrised.
    Shapes: log_strain, deformation (B, 3, 3), stress (B, 6) eV/Å³, volume (B,) Å³, factor (B,) -> (B, 3, 3).
    """
    virial = -volume.view(-1, 1, 1) * stress_matrix(stress)
    gradient = torch.linalg.solve(deformation, virial.mT).mT
    on_logarithm = exponential_adjoint(log_strain, gradient)
    return 0.5 * (on_logarithm + on_logarithm.mT) / factor.view(-1, 1, 1)
