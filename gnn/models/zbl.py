"""Ziegler–Biersack–Littmark core repulsion between atoms that come too close."""

from __future__ import annotations

import torch
from ase.data import covalent_radii
from torch import Tensor

from gnn.models.constants import ExactConstants
from gnn.models.radial import envelope

COULOMB = 14.3996
"""e²/(4πε0) in eV·Å."""
EXPONENTS = (3.2, 0.9423, 0.4028, 0.2016)
FACTORS = (0.1818, 0.5099, 0.2802, 0.02817)


class ZblRepulsion(ExactConstants):
    """E_i = 1/2 sum_j k Z_i Z_j / r · φ(r/a) · u(r / (R_i + R_j)), eV; a = 0.46850 / (Z_i^0.23 + Z_j^0.23) Å.

    Universal screening function φ of Ziegler, Biersack and Littmark (1985); R are covalent radii (ASE), u the
    polynomial envelope with p = 6, so nothing acts beyond bonding distances.
    """

    radii: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.constant("radii", covalent_radii)

    def forward(self, numbers: Tensor, distance: Tensor, senders: Tensor, receivers: Tensor) -> Tensor:
        """Shapes: numbers (N,), distance (E,) Å, edges (E,) -> (N,) eV."""
        z_i, z_j = (numbers.index_select(0, side).to(distance.dtype) for side in (receivers, senders))
        radii = self.radii.to(distance.dtype).index_select(0, numbers)
        reach = radii.index_select(0, receivers) + radii.index_select(0, senders)
        reduced = distance * (z_i.pow(0.23) + z_j.pow(0.23)) / 0.46850
        screening = sum(f * torch.exp(-e * reduced) for f, e in zip(FACTORS, EXPONENTS, strict=True))
        pair = 0.5 * COULOMB * z_i * z_j / distance * screening * envelope(distance / reach, 6)
        return torch.zeros(numbers.shape[0], dtype=distance.dtype, device=distance.device).index_add(0, receivers, pair)
