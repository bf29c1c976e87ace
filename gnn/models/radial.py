"""Functions of the distance: Bessel basis, polynomial envelope, and the network that mixes them."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from gnn.models.constants import ExactConstants
from gnn.models.linear import SILU_GAIN, Linear


def envelope(x: Tensor, power: int) -> Tensor:
    """u(x) = 1 - (p+1)(p+2)/2 x^p + p(p+2) x^(p+1) - p(p+1)/2 x^(p+2) for x = r/r_c < 1, else 0.

    u(1) = u'(1) = u''(1) = 0 (Gasteiger et al., arXiv:2003.03123, eq. 8). Shapes: any.
    """
    p = power
    inside = x.clamp(max=1.0)
    return 1 + inside**p * (-(p + 1) * (p + 2) / 2 + inside * (p * (p + 2) - inside * (p * (p + 1) / 2)))


def envelope_slope(x: Tensor, power: int, order: int) -> Tensor:
    """The derivative of that order of `envelope` in x. Shapes: any."""
    if order == 0:
        return envelope(x, power)
    p, inside = power, x.clamp(max=1.0)
    factors = (-(p + 1) * (p + 2) / 2, p * (p + 2), -p * (p + 1) / 2)
    terms = [f * math.perm(p + k, order) * inside ** max(p + k - order, 0) for k, f in enumerate(factors)]
    total = terms[0] + terms[1] + terms[2]
    return total if order < 3 else total * (x < 1)


def bessel_slope(distance: Tensor, frequencies: Tensor, cutoff: float, power: int, order: int) -> Tensor:
    """The derivative of that order of sin(k r) · u(r/r_c)/r in r, for every k of `frequencies`.

    With w = u/r follows r·w^(m) + m·w^(m-1) = u^(m); the sine's derivatives are shifts by π/2.
    Shapes: (E,), (n,) -> (E, n).
    """
    phase, x = distance.unsqueeze(1) * frequencies, distance / cutoff
    weights = [envelope(x, power) / distance]
    for m in range(1, order + 1):
        weights.append((envelope_slope(x, power, m) / cutoff**m - m * weights[-1]) / distance)
    total = torch.sin(phase).mul_(weights[order].unsqueeze(1))
    for m in range(1, order + 1):
        shifted = torch.sin(phase + m * math.pi / 2) * (math.comb(order, m) * frequencies**m)
        total.addcmul_(shifted, weights[order - m].unsqueeze(1))
    return total


class _Bessel(torch.autograd.Function):
    """`bessel_slope` as one node: its derivative is itself of one order more."""

    @staticmethod
    def forward(ctx: Any, distance: Tensor, frequencies: Tensor, cutoff: float, power: int, order: int) -> Tensor:
        ctx.save_for_backward(distance, frequencies)
        ctx.arguments = (cutoff, power, order + 1)
        return bessel_slope(distance, frequencies, cutoff, power, order)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None, None]:
        slope = _Bessel.apply(*ctx.saved_tensors, *ctx.arguments)
        return (grads[0] * slope).sum(1), None, None, None, None


class BesselBasis(ExactConstants):
    """b_n(r) = sqrt(2/r_c) sin(nπ r/r_c)/r · u(r/r_c), n = 1..n_radial (arXiv:2003.03123, eq. 7), times r_c."""

    frequencies: Tensor

    def __init__(self, cutoff: float, n_radial: int, power: int) -> None:
        super().__init__()
        self.cutoff, self.power = cutoff, power
        self.scale = cutoff * math.sqrt(2 / cutoff)
        self.constant("frequencies", torch.arange(1, n_radial + 1).double() * (math.pi / cutoff))

    def forward(self, distance: Tensor) -> Tensor:
        """Shapes: (E,) distances in Å -> (E, n_radial)."""
        frequencies = self.frequencies.to(distance.dtype)
        out: Tensor = _Bessel.apply(distance, frequencies, self.cutoff, self.power, 0)
        return out * self.scale


class RadialNetwork(nn.Module):
    """R(r): a perceptron without bias on the enveloped basis; R and two derivatives vanish at the cutoff with it."""

    def __init__(self, basis: BesselBasis, hidden: list[int], n_out: int) -> None:
        super().__init__()
        self.basis = basis
        widths = [basis.frequencies.shape[0], *hidden]
        gains = [1.0] + [SILU_GAIN] * len(hidden)
        self.hidden = nn.ModuleList(Linear(a, b, g) for a, b, g in zip(widths[:-1], widths[1:], gains, strict=False))
        self.out = Linear(widths[-1], n_out, SILU_GAIN)

    def forward(self, distance: Tensor) -> Tensor:
        """Shapes: (E,) distances in Å -> (E, n_out)."""
        x = self.basis(distance)
        for layer in self.hidden:
            x = functional.silu(layer(x))
        return self.out(x)
