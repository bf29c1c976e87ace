"""Radial functions from a table: for inference, where the network that made them need not run on every edge."""

from __future__ import annotations

import copy
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.interpolate import BSpline, make_lsq_spline
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from gnn.models.constants import ExactConstants
from gnn.models.radial import RadialNetwork

Floats = NDArray[np.float64]

DEGREE = 5
"""Of the spline: it has four continuous derivatives, and errors of slopes fall with the fifth power of the spacing."""
TERMS = DEGREE + 1
NEAREST = 1e-3
"""Å: where tables begin."""
SAMPLES_AN_INTERVAL = 3
INTERVALS = (256, 512, 1024, 2048, 4096)
"""Numbers of intervals that are tried, one after the other."""
TOLERANCE = 1e-7
"""Largest error of values and of slopes that is called exact, relative to the largest value and slope."""


@lru_cache
def basis_polynomials() -> Floats:
    """Coefficients [power, k] of the six B-splines that are not 0 in an interval, by the part t of it that is passed.

    Shape (6, 6), powers of t rising.
    """
    points = np.linspace(0, 1, DEGREE + 1)
    splines = [BSpline.basis_element(np.arange(-k, DEGREE + 2 - k), extrapolate=False) for k in range(DEGREE, -1, -1)]
    values = np.stack([np.nan_to_num(spline(points)) for spline in splines], axis=1)
    found: Floats = np.linalg.solve(np.vander(points, increasing=True), values)
    return found


class RadialTable(ExactConstants):
    """R_f(r) = sum_k t^k coefficients[i, k, f] with t the part of the i-th interval that is passed.

    A spline, but stored as polynomials: from B-spline coefficients in float32 slopes would be differences of nearly
    equal numbers. Its derivatives are those of what it returns, not another table. It cannot be differentiated twice:
    it serves inference only.

    Args:
        coefficients: (intervals, 6, n_out).
        cutoff: Å, the right end of the last interval; the first begins at `NEAREST`, and outside all is constant.
    """

    coefficients: Tensor

    def __init__(self, coefficients: Floats, cutoff: float) -> None:
        super().__init__()
        self.intervals = len(coefficients)
        self.per_length = self.intervals / (cutoff - NEAREST)
        self.constant("coefficients", coefficients.reshape(-1, coefficients.shape[2]))
        self._ready: Tensor | None = None

    def forward(self, distance: Tensor) -> Tensor:
        """Shapes: (E,) distances in Å -> (E, n_out)."""
        place = (distance - NEAREST) * self.per_length
        out: Tensor = _Polynomials.apply(place, self._coefficients_like(distance))
        return out

    def _coefficients_like(self, distance: Tensor) -> Tensor:
        """The coefficients in the precision and at the place of the distances, converted once."""
        ready = self._ready
        if ready is None or ready.dtype != distance.dtype or ready.device != distance.device:
            ready = self.coefficients.to(distance)
            self._ready = ready
        return ready


class _Polynomials(torch.autograd.Function):
    """The polynomials at places x (E,), counted in intervals."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, coefficients: Tensor) -> Tensor:
        """Shapes: x (E,), coefficients (I · 6, n_out) -> (E, n_out)."""
        end = coefficients.shape[0] // TERMS
        inside = x.clamp(0, end)
        interval = inside.long().clamp_(max=end - 1)
        part = (inside - interval).unsqueeze(1)
        rows = interval.unsqueeze(1) * TERMS + torch.arange(TERMS, device=x.device)
        powers = torch.cat([torch.ones_like(part), part.expand(-1, DEGREE)], dim=1).cumprod(1)
        ctx.save_for_backward(powers, rows, (x >= 0) & (x < end), coefficients)
        return functional.embedding_bag(rows, coefficients, mode="sum", per_sample_weights=powers)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        """The same sum with the slopes of the powers."""
        powers, rows, inside, coefficients = ctx.saved_tensors
        rising = torch.arange(1, TERMS, dtype=powers.dtype, device=powers.device)
        weights = powers[:, :-1] * rising
        slopes = functional.embedding_bag(rows[:, 1:], coefficients, mode="sum", per_sample_weights=weights)
        return slopes.mul_(grads[0]).sum(1) * inside, None


def tabulate(model: nn.Module) -> bool:
    """Put tables in the place of a model's radial networks, where tables are exact; whether any was put there.

    The model is changed: it can only predict afterwards.
    """
    found = False
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, RadialNetwork) and (table := exact_table(child)) is not None:
                setattr(parent, name, table)
                found = True
    return found


def exact_table(network: RadialNetwork) -> RadialTable | None:
    """The coarsest table that says what the network says to `TOLERANCE`, or None if there is no such table."""
    exact = copy.deepcopy(network).double().requires_grad_(False)
    for intervals in INTERVALS:
        table = table_of(exact, intervals)
        if table_error(table, exact) <= TOLERANCE:
            return table.to(next(network.parameters()).device)
    return None


def table_of(network: RadialNetwork, intervals: int) -> RadialTable:
    """The least-squares spline through several samples an interval; the network is one of float64."""
    cutoff = network.basis.cutoff
    samples = np.linspace(NEAREST, cutoff, SAMPLES_AN_INTERVAL * intervals + 1)
    spacing = (cutoff - NEAREST) / intervals
    knots = NEAREST + spacing * np.arange(-DEGREE, intervals + DEGREE + 1)
    samples = samples.clip(knots[DEGREE], knots[-DEGREE - 1])
    with torch.no_grad():
        values = network(torch.tensor(samples)).numpy()
    spline = make_lsq_spline(samples, values, knots, k=DEGREE).c
    local = np.stack([spline[k : k + intervals] for k in range(TERMS)])
    return RadialTable(np.einsum("pk,kif->ipf", basis_polynomials(), local), cutoff)


def table_error(table: RadialTable, network: RadialNetwork) -> float:
    """Largest error of values and of slopes between samples, relative to the largest value and slope."""
    fractions = torch.tensor([0.21, 0.5, 0.77], dtype=torch.float64)
    intervals = torch.arange(table.intervals, dtype=torch.float64).unsqueeze(1)
    places = NEAREST + (intervals + fractions).flatten() / table.per_length
    ours, theirs = (_probe(function, places) for function in (table, network))
    errors = [float((a - b).abs().max() / b.abs().max().clamp(min=1e-30)) for a, b in zip(ours, theirs, strict=True)]
    return max(errors)


def _probe(function: nn.Module, places: Tensor) -> tuple[Tensor, Tensor]:
    """Values (E, n_out), and slopes (E, 4) of random sums of the functions."""
    r = places.clone().requires_grad_(True)
    values = function(r)
    sums = torch.randn(values.shape[1], 4, dtype=values.dtype, generator=torch.Generator().manual_seed(0))
    slopes = [torch.autograd.grad((values @ column).sum(), r, retain_graph=True)[0] for column in sums.unbind(1)]
    return values.detach(), torch.stack(slopes, dim=1)
