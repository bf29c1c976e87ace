"""Functions of the distance: Bessel basis, polynomial envelope, and the network that mixes them."""

from __future__ import annotations

import math

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
        weight = self.scale * envelope(distance / self.cutoff, self.power) / distance
        phase = distance.unsqueeze(1) * self.frequencies.to(distance.dtype)
        return torch.sin(phase) * weight.unsqueeze(1)


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
