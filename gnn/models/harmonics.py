"""Real spherical harmonics as polynomials of unit vectors, with derivatives that are matrix products."""

from __future__ import annotations

from functools import lru_cache
from math import sqrt
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gnn.models.config import MAX_DEGREE
from gnn.models.constants import ExactConstants


def _second(x: Tensor, y: Tensor, z: Tensor) -> list[Tensor]:
    xx, yy, zz = x * x, y * y, z * z
    zero = sqrt(5) / 2 * (2 * zz - xx - yy)
    return [sqrt(15) * x * y, sqrt(15) * y * z, zero, sqrt(15) * x * z, sqrt(15) / 2 * (xx - yy)]


def _third(x: Tensor, y: Tensor, z: Tensor) -> list[Tensor]:
    xx, yy, zz = x * x, y * y, z * z
    rr = xx + yy + zz
    return [
        sqrt(35 / 8) * y * (3 * xx - yy),
        sqrt(105) * x * y * z,
        sqrt(21 / 8) * y * (5 * zz - rr),
        sqrt(7) / 2 * z * (5 * zz - 3 * rr),
        sqrt(21 / 8) * x * (5 * zz - rr),
        sqrt(105) / 2 * z * (xx - yy),
        sqrt(35 / 8) * x * (xx - 3 * yy),
    ]


def _fourth(x: Tensor, y: Tensor, z: Tensor) -> list[Tensor]:
    xx, yy, zz = x * x, y * y, z * z
    rr = xx + yy + zz
    return [
        sqrt(315 / 4) * x * y * (xx - yy),
        sqrt(315 / 8) * y * z * (3 * xx - yy),
        sqrt(45 / 4) * x * y * (7 * zz - rr),
        sqrt(45 / 8) * y * z * (7 * zz - 3 * rr),
        3 / 8 * (35 * zz * zz - 30 * zz * rr + 3 * rr * rr),
        sqrt(45 / 8) * x * z * (7 * zz - 3 * rr),
        sqrt(45 / 16) * (xx - yy) * (7 * zz - rr),
        sqrt(315 / 8) * x * z * (xx - 3 * yy),
        sqrt(315 / 64) * (xx * (xx - 3 * yy) - yy * (3 * xx - yy)),
    ]


def _degree(degree: int, x: Tensor, y: Tensor, z: Tensor) -> list[Tensor]:
    """Homogeneous polynomials Y_lm, m = -l..l, 'component' normalised: the mean of Y_lm² over the sphere is 1."""
    if degree == 0:
        return [torch.ones_like(x)]
    if degree == 1:
        return [sqrt(3) * y, sqrt(3) * z, sqrt(3) * x]
    return {2: _second, 3: _third, 4: _fourth}[degree](x, y, z)


def solid_harmonics(vectors: Tensor, l_max: int) -> Tensor:
    """Homogeneous harmonic polynomials of degree 0..l_max, ordered (l, m = -l..l); spherical harmonics on unit vectors.

    'Component' normalisation: sum_m Y_lm(unit)² = 2l + 1. Shapes: (E, 3) -> (E, (l_max + 1)²).
    """
    x, y, z = vectors.unbind(1)
    parts = [part for degree in range(l_max + 1) for part in _degree(degree, x, y, z)]
    return torch.stack(parts, dim=1)


@lru_cache
def gradient_matrix(l_max: int) -> NDArray[np.float64]:
    """D with dY_a/dr_k = sum_b Y_b D[b, a, k]: gradients of harmonic polynomials are those of one degree less.

    Fitted on random points and rounded at 1e-10. Shape (n, n, 3), n = (l_max + 1)².
    """
    points = torch.tensor(np.random.default_rng(0).normal(size=(200, 3)), requires_grad=True)
    values = solid_harmonics(points, l_max)
    n = values.shape[1]
    columns = [torch.autograd.grad(values[:, a].sum(), points, retain_graph=True)[0] if a else None for a in range(n)]
    slopes = np.stack([np.zeros((200, 3)) if c is None else c.numpy() for c in columns], axis=1)
    fit = np.linalg.lstsq(values.detach().numpy(), slopes.reshape(200, -1), rcond=None)[0]
    fit[abs(fit) < 1e-10] = 0.0
    return fit.reshape(n, n, 3)


class _Harmonics(torch.autograd.Function):
    """Y(v) with one stacked kernel forward; its derivative is Y times a constant matrix."""

    @staticmethod
    def forward(ctx: Any, vectors: Tensor, l_max: int, gradient: Tensor) -> Tensor:
        values = solid_harmonics(vectors, l_max)
        ctx.save_for_backward(values, gradient)
        return values

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        values, gradient = ctx.saved_tensors
        slopes = (values @ gradient).view(values.shape[0], 3, values.shape[1])
        return torch.bmm(slopes, grads[0].unsqueeze(2)).squeeze(2), None, None


class SphericalHarmonics(ExactConstants):
    """Real spherical harmonics of unit vectors to degree l_max.

    Raises:
        ValueError: l_max exceeds what is written out.
    """

    gradient: Tensor

    def __init__(self, l_max: int) -> None:
        super().__init__()
        if not 0 <= l_max <= MAX_DEGREE:
            raise ValueError(f"l_max is {l_max}, harmonics are written out for 0 to {MAX_DEGREE}")
        self.l_max = l_max
        n = (l_max + 1) ** 2
        matrix = gradient_matrix(l_max).transpose(0, 2, 1).reshape(n, 3 * n)
        self.constant("gradient", matrix)

    def forward(self, unit: Tensor) -> Tensor:
        """Shapes: (E, 3) -> (E, (l_max + 1)²)."""
        out: Tensor = _Harmonics.apply(unit, self.l_max, self.gradient.to(unit.dtype))
        return out
