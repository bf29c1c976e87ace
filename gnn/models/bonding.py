"""What an atom with neighbours gains in the mean, so that networks need not learn it."""

from __future__ import annotations

import torch
from torch import Tensor

from gnn.models.config import ModelConfig
from gnn.models.constants import ExactConstants
from gnn.models.radial import envelope


class Bonding(ExactConstants):
    """E_i = b(theory, z_i) · tanh(sum_j u(r_ij / cutoff)), eV: b for an atom in a molecule or crystal, 0 for free ones.

    References of free atoms leave several eV an atom over, nearly the same for all structures. A network that has to
    learn them first is worse at what differs between structures. u is the network's envelope, so the sum counts
    neighbours; with three the tanh is at 0.995, and what it still changes is the network's to correct.
    """

    binding: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.cutoff, self.power = config.cutoff, config.envelope_power
        self.constant("binding", torch.tensor(config.by_theory(config.bonding), dtype=torch.float64))

    def forward(self, distance: Tensor, receivers: Tensor, elements: Tensor, theory: Tensor) -> Tensor:
        """Shapes: distance (E,) Å, receivers (E,), elements and theory (N,) -> (N,) eV, float64."""
        near = envelope(distance / self.cutoff, self.power)
        neighbours = torch.zeros(elements.shape[0], dtype=near.dtype, device=near.device).index_add(0, receivers, near)
        return self.binding[theory, elements] * torch.tanh(neighbours).double()
