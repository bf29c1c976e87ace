"""Heads: numbers per atom from a network's invariant features."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from gnn.models.config import ModelConfig, PropertyScale
from gnn.models.linear import SILU_GAIN, Linear

READOUT_GAIN = 0.3
"""Spread of a fresh readout: training starts near the reference energies."""


class AtomReadout(nn.Module):
    """A linear readout of every layer, and a perceptron on the last; one output a theory (or one in all)."""

    def __init__(self, channels: int, layers: int, hidden: int, n_out: int) -> None:
        super().__init__()
        self.linear = nn.ModuleList(Linear(channels, n_out, READOUT_GAIN) for _ in range(layers - 1))
        self.hidden = Linear(channels, hidden)
        self.last = Linear(hidden, n_out, READOUT_GAIN * SILU_GAIN)

    def inputs(self, features: list[Tensor]) -> Tensor:
        """What the output is linear in, (N, D): invariants of the inner layers, hidden units of the last."""
        return torch.cat([*features[: len(self.linear)], functional.silu(self.hidden(features[-1]))], dim=1)

    def forward(self, features: list[Tensor]) -> Tensor:
        """Shapes: features (N, C) a layer -> (N, n_out)."""
        out: Tensor = self.last(functional.silu(self.hidden(features[-1])))
        for readout, layer in zip(self.linear, features, strict=False):
            out = out + readout(layer)
        return out


class EnergyHead(nn.Module):
    """Energy of every atom in network units; the trunk is shared, each theory has its own readout."""

    def __init__(self, channels: int, layers: int, hidden: int, n_theories: int) -> None:
        super().__init__()
        self.readout = AtomReadout(channels, layers, hidden, n_theories)
        self.n_theories = n_theories

    def forward(self, features: list[Tensor], theory: Tensor) -> Tensor:
        """Shapes: features (N, C) a layer, theory of each atom (N,) -> (N,)."""
        out = self.readout(features)
        if self.n_theories == 1:
            return out.squeeze(1)
        return out.gather(1, theory.unsqueeze(1)).squeeze(1)


class TheoryShift(nn.Module):
    """What a level of theory adds to a readout that all share: nothing, until its labels say so.

    of_theory (C + 1, T): a weight for each feature, then a constant, a column a theory.
    """

    def __init__(self, channels: int, n_theories: int) -> None:
        super().__init__()
        self.of_theory = nn.Parameter(torch.zeros(channels + 1, n_theories))
        self.scale = channels**-0.5

    def forward(self, features: Tensor, theory: Tensor) -> Tensor:
        """Shapes: features (N, C), theory of each atom (N,) -> (N,)."""
        weights, constants = self.of_theory.split([features.shape[1], 1])
        shifts = torch.addmm(constants, features, weights * self.scale)
        return shifts.gather(1, theory.unsqueeze(1)).squeeze(1)


def head_key(name: str) -> str:
    """What the head of a property is called among modules, where torch keeps some names for itself."""
    return f"{name}_" if hasattr(nn.ModuleDict, name) else name


class PropertyHead(nn.Module):
    """A scalar property in its unit: mean + std · readout an atom; structures take the sum (extensive) or the mean.

    The readout is shared; where there are several levels of theory, each adds a shift of its own. What structures take
    is added up in float64: a sum over atoms may be large beside its deviation.
    """

    def __init__(self, config: ModelConfig, name: str) -> None:
        super().__init__()
        self.readout = AtomReadout(config.channels, config.layers, config.readout_hidden, 1)
        self.shift = TheoryShift(config.channels, len(config.theories)) if config.shifts_properties else None
        self.spec, self.scale = config.properties[name], config.property_scales.get(name, PropertyScale())

    def forward(self, features: list[Tensor], theory: Tensor, structure: Tensor, n_atoms: Tensor) -> Tensor:
        """Shapes: features (N, C) a layer, theory of each atom (N,) -> (B,) float64; (N,) of an atomic property."""
        unscaled = self.readout(features).squeeze(1)
        if self.shift is not None:
            unscaled = unscaled + self.shift(features[-1], theory)
        if self.spec.level == "atom":
            return unscaled * self.scale.std + self.scale.mean
        total = torch.zeros(n_atoms.shape[0], dtype=torch.float64, device=n_atoms.device)
        total = total.index_add(0, structure, unscaled.double()) * self.scale.std + n_atoms * self.scale.mean
        return total if self.spec.extensive else total / n_atoms
