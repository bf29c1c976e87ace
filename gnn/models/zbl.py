"""Ziegler–Biersack–Littmark core repulsion between atoms that come too close."""

from __future__ import annotations

import torch
from ase.data import covalent_radii
from ase.units import Bohr, Hartree
from torch import Tensor

from gnn.models.constants import ExactConstants
from gnn.models.radial import envelope

COULOMB = Hartree * Bohr
"""e²/(4πε0) in eV·Å."""
LENGTH = 0.8854 * Bohr
"""Å."""
EXPONENTS = (3.19980, 0.94229, 0.40290, 0.20162)
FACTORS = (0.18175, 0.50986, 0.28022, 0.02817)
SWITCH_POWER = 6


class ZblRepulsion(ExactConstants):
    """E_i = 1/2 sum_j k Z_i Z_j / r · φ(r/a) · u(r / r_max), eV; a = 0.8854 a0 / (Z_i^0.23 + Z_j^0.23).

    φ(x) = sum_k c_k exp(-d_k x) is the universal screening function of Ziegler, Biersack and Littmark (The Stopping and
    Range of Ions in Solids, 1985, eqs. 9 and 10; digits as in LAMMPS, pair_style zbl). u is the polynomial envelope
    with p = 6 and two continuous derivatives at r_max = min(R_i + R_j, cutoff) with ASE's covalent radii R, so nothing
    acts beyond bonding distances.
    """

    radii: Tensor

    def __init__(self, cutoff: float) -> None:
        super().__init__()
        self.cutoff = cutoff
        self.constant("radii", covalent_radii)

    def forward(self, numbers: Tensor, distance: Tensor, senders: Tensor, receivers: Tensor) -> Tensor:
        """Shapes: numbers (N,), distance (E,) Å, edges (E,) -> (N,) eV."""
        z_i, z_j = (numbers.index_select(0, side).to(distance.dtype) for side in (receivers, senders))
        radii = self.radii.to(distance.dtype).index_select(0, numbers)
        reach = (radii.index_select(0, receivers) + radii.index_select(0, senders)).clamp(max=self.cutoff)
        screening = screening_function(distance * (z_i.pow(0.23) + z_j.pow(0.23)) / LENGTH)
        pair = 0.5 * COULOMB * z_i * z_j / distance * screening * envelope(distance / reach, SWITCH_POWER)
        return torch.zeros(numbers.shape[0], dtype=distance.dtype, device=distance.device).index_add(0, receivers, pair)


def screening_function(x: Tensor) -> Tensor:
    """The universal φ of the reduced distance, 1 at x = 0. Shapes: any."""
    terms = torch.stack(
        [factor * torch.exp(-exponent * x) for factor, exponent in zip(FACTORS, EXPONENTS, strict=True)]
    )
    return terms.sum(0)
