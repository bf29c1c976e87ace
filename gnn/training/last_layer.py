"""The uncertainty of one network: how far a structure's last-layer features are from those it was trained on.

The energy per atom is linear in the inputs f of its readout. Laplace's approximation of that last layer gives
    σ² = s² · fᵀ (C + λ·tr(C)/D)⁻¹ f,    C = 1/n Σ f fᵀ over the training structures with an energy,
the "last-layer prediction rigidity" of Bigi, Chong, Ceriotti and Grasselli, Mach. Learn.: Sci. Technol. 5, 045018
(2024), arXiv:2403.02251. λ is chosen and s is found on held-out data. Each level of theory has its own readout, so its
own C.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gnn.graphs.batch import Batch
from gnn.models.model import Model

RIDGES = (1e-8, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1)
"""λ to choose from, as parts of the mean square of a feature."""
SMALLEST_SPREAD = 1e-12

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class LastLayer:
    """L⁻¹ of C + λ·tr(C)/D = L Lᵀ for every theory: whitening (T, D, D) float64; ridge is λ."""

    whitening: Tensor
    ridge: float

    def spread(self, features: Tensor, theory: Tensor) -> Tensor:
        """σ/s = |L⁻¹ f| of each structure. Shapes: features (B, D) per atom, theory (B,) -> (B,)."""
        found = features.new_zeros(len(features), dtype=torch.float64)
        for index, whitening in enumerate(self.whitening.to(features.device)):
            mine = theory == index
            found[mine] = torch.linalg.vector_norm(features[mine].double() @ whitening.T, dim=1)
        return found


@dataclass(frozen=True)
class Held:
    """Held-out structures: features (n, D), theory (n,), error of the energy per atom (n,) in eV."""

    features: Tensor
    theory: Tensor
    error: Floats


def moments(model: Model, batches: Iterable[Batch], most: int, device: torch.device | str = "cpu") -> Tensor:
    """C of each theory over at most `most` structures with an energy: (T, D, D) float64.

    A theory without energies has the C of all together.
    """
    n_theories = len(model.config.theories)
    sums: Tensor | None = None
    counts = torch.zeros(n_theories, dtype=torch.float64)
    for batch in batches:
        features, theory, _ = labelled(model, batch, device)
        if sums is None:
            sums = torch.zeros(n_theories, features.shape[1], features.shape[1], dtype=torch.float64)
        sums.index_add_(0, theory, features.unsqueeze(2) * features.unsqueeze(1))
        counts += torch.bincount(theory, minlength=n_theories)
        if counts.sum() >= most:
            break
    if sums is None or counts.sum() == 0:
        return torch.zeros(n_theories, 0, 0, dtype=torch.float64)
    pooled = sums.sum(0) / counts.sum()
    own = sums / counts.clamp(min=1).view(-1, 1, 1)
    return torch.where(counts.view(-1, 1, 1) > 0, own, pooled)


def held_out(model: Model, batches: Iterable[Batch], device: torch.device | str = "cpu") -> Held:
    """Features and errors of the structures that have an energy."""
    parts = [labelled(model, batch, device) for batch in batches]
    if not parts:
        return Held(torch.zeros(0, 0), torch.zeros(0, dtype=torch.int64), np.zeros(0))
    features, theory, error = (torch.cat(column) for column in zip(*parts, strict=True))
    return Held(features, theory, error.numpy())


def labelled(model: Model, batch: Batch, device: torch.device | str) -> tuple[Tensor, Tensor, Tensor]:
    """Features (n, D), theory (n,) and error per atom (n,) of a batch's structures with an energy, on the CPU.

    Raises:
        ValueError: the batch has no labels.
    """
    if batch.labels is None:
        raise ValueError("a batch without labels says nothing about errors")
    moved = batch.to(device)
    found = model.predict(moved, forces=False, stress=False, last_layer=True)
    if found.last_layer is None:
        raise ValueError("the model gave no features of its last layer")
    error = (found.energy - batch.labels.energy.to(found.energy.device)) / moved.n_atoms
    known = batch.labels.energy_mask.cpu()
    return found.last_layer.cpu()[known], batch.theory.cpu()[known], error.cpu()[known]


def fit(covariance: Tensor, held: Held, ridges: Sequence[float] = RIDGES) -> LastLayer | None:
    """The ridge under which the held-out errors are likeliest; None where there is nothing to fit.

    With the best scale s² = mean(e²/σ²) put in, the Gaussian log-likelihood is -(mean ln σ + ½ ln s²) and a constant.
    """
    if covariance.shape[1] == 0 or len(held.error) == 0:
        return None
    candidates = [LastLayer(whitening(covariance, ridge), ridge) for ridge in ridges]
    return min(candidates, key=lambda layer: deviance(held.error, layer.spread(held.features, held.theory).numpy()))


def whitening(covariance: Tensor, ridge: float) -> Tensor:
    """L⁻¹ with L Lᵀ = C + λ·tr(C)/D. Shapes: (T, D, D) -> (T, D, D)."""
    size = covariance.shape[1]
    identity = torch.eye(size, dtype=covariance.dtype)
    mean = covariance.diagonal(dim1=1, dim2=2).mean(dim=1).clamp(min=SMALLEST_SPREAD)
    lower = torch.linalg.cholesky(covariance + ridge * mean.view(-1, 1, 1) * identity)
    return torch.linalg.solve_triangular(lower, identity.expand_as(lower), upper=False)


def deviance(error: Floats, spread: Floats) -> float:
    """The mean of ln σ + ½ ln mean(e²/σ²): smaller for a spread that is large where errors are."""
    safe = np.maximum(spread, SMALLEST_SPREAD)
    scale = max(float(np.mean(np.square(error / safe))), SMALLEST_SPREAD)
    return float(np.mean(np.log(safe))) + 0.5 * float(np.log(scale))
