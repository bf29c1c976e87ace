"""A model: a network with its heads and reference energies."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
from ase.data import chemical_symbols
from torch import Tensor, nn

from gnn.errors import InputError
from gnn.graphs.batch import Batch, edge_vectors
from gnn.models.bonding import Bonding
from gnn.models.config import ModelConfig
from gnn.models.constants import ExactConstants
from gnn.models.derivatives import Derivatives, derivatives
from gnn.models.heads import EnergyHead, PropertyHead, head_key
from gnn.models.network import FAMILIES
from gnn.models.zbl import ZblRepulsion


@dataclass(frozen=True)
class Prediction:
    """What a model says of a batch of B structures with N atoms.

    energy (B,) float64, total eV including reference energies; forces (N, 3) eV/Å; stress (B, 6) eV/Å³, Voigt
    xx yy zz yz xz xy, positive = tension, zeros where a structure is not periodic in all directions;
    properties[name] (B,) or (N,) in its unit; node_energy (N,) float64, each atom's share of `energy`;
    last_layer (B, D) float64, only where asked for: what the energy per atom is linear in, averaged over atoms.
    """

    energy: Tensor
    forces: Tensor | None
    stress: Tensor | None
    properties: dict[str, Tensor]
    node_energy: Tensor
    last_layer: Tensor | None = None


class Model(ExactConstants):
    """E = sum_i [E0(theory, z_i) + bonding_i + scale · ε_i], in float64; forces and stress are its derivatives."""

    references: Tensor
    element_index: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.network = FAMILIES[config.family](config)
        self.energy_head = EnergyHead(config.channels, config.layers, config.readout_hidden, len(config.theories))
        self.property_heads = nn.ModuleDict({head_key(name): PropertyHead(config, name) for name in config.properties})
        self.zbl = ZblRepulsion(config.cutoff) if config.zbl else None
        self.bonding = Bonding(config) if any(map(any, config.by_theory(config.bonding))) else None
        self.constant("references", torch.tensor(config.by_theory(config.references), dtype=torch.float64))
        self.constant("element_index", _element_table(config))

    @property
    def dtype(self) -> torch.dtype:
        """What the network computes in."""
        return next(self.network.parameters()).dtype

    def predict(
        self, batch: Batch, forces: bool = True, stress: bool = True, training: bool = False, last_layer: bool = False
    ) -> Prediction:
        """Energies and what was asked for. `training` keeps the graph, so that losses of forces can be differentiated.

        Without `training` nothing that is returned carries a graph. `last_layer` adds what the energy is linear in.

        Raises:
            InputError: an element or a theory that the model does not know.
        """
        elements = self.element_indices(batch)
        slopes = forces or stress
        with torch.set_grad_enabled(training or slopes):
            vectors = edge_vectors(batch).detach().to(self.dtype).requires_grad_(slopes)
            features = self.network(batch, vectors, elements)
            theory = batch.theory.index_select(0, batch.structure)
            node_energy = self.node_energies(batch, vectors, features, elements, theory)
            energy = _sum_by_structure(node_energy, batch)
            properties = self._properties(batch, features, theory)
        found = derivatives(energy, vectors, batch, forces=forces, stress=stress, training=training)
        kept = partial(_kept, training=training)
        return Prediction(
            energy=kept(energy),
            forces=found.forces,
            stress=found.stress,
            properties={name: kept(value) for name, value in properties.items()},
            node_energy=kept(node_energy),
            last_layer=self._last_layer(batch, features) if last_layer else None,
        )

    def completed(
        self, batch: Batch, node_energy: Tensor, features: list[Tensor], slopes: Derivatives, last_layer: bool
    ) -> Prediction:
        """A prediction from energies (N,) and invariants (N, C) a layer of the atoms, and the energy's derivatives."""
        theory = batch.theory.index_select(0, batch.structure)
        return Prediction(
            energy=_sum_by_structure(node_energy, batch),
            forces=slopes.forces,
            stress=slopes.stress,
            properties=self._properties(batch, features, theory),
            node_energy=node_energy,
            last_layer=self._last_layer(batch, features) if last_layer else None,
        )

    def untaught(self, batch: Batch) -> Prediction:
        """What is known without the network: references, bonding, core repulsion, means; forces and stress are 0.

        Raises:
            InputError: an element or a theory that the model does not know.
        """
        config, n_atoms = self.config, batch.numbers.shape[0]
        elements, theory = self.element_indices(batch), batch.theory.index_select(0, batch.structure)
        silent = [torch.zeros(n_atoms, config.channels, dtype=self.dtype, device=elements.device)] * config.layers
        with torch.no_grad():
            node_energy = self.node_energies(batch, edge_vectors(batch).to(self.dtype), silent, elements, theory)
            return Prediction(
                energy=_sum_by_structure(node_energy, batch),
                forces=node_energy.new_zeros(n_atoms, 3),
                stress=node_energy.new_zeros(batch.n_structures, 6),
                properties=self._properties(batch, silent, theory),
                node_energy=node_energy,
            )

    def _properties(self, batch: Batch, features: list[Tensor], theory: Tensor) -> dict[str, Tensor]:
        heads = {name: self.property_heads[head_key(name)] for name in self.config.properties}
        return {name: head(features, theory, batch.structure, batch.n_atoms) for name, head in heads.items()}

    def _last_layer(self, batch: Batch, features: list[Tensor]) -> Tensor:
        """The energy readout's inputs, averaged over each structure's atoms: (B, D) float64."""
        inputs = self.energy_head.readout.inputs([layer.detach() for layer in features]).detach().double()
        total = inputs.new_zeros(batch.n_structures, inputs.shape[1]).index_add(0, batch.structure, inputs)
        return total / batch.n_atoms.unsqueeze(1)

    def element_indices(self, batch: Batch) -> Tensor:
        """Element indices of the atoms (N,), after a check of elements and theories with one wait for the device."""
        elements = self.element_index.index_select(0, batch.numbers)
        bounds = torch.stack([elements.min(), batch.theory.min(), batch.theory.max()]).tolist()
        if bounds[0] < 0:
            strangers = sorted({chemical_symbols[z] for z in batch.numbers[elements < 0].tolist()})
            raise InputError(
                f"the model does not know {', '.join(strangers)}; it was trained on {', '.join(self.config.elements)}"
            )
        if bounds[1] < 0 or bounds[2] >= len(self.config.theories):
            raise InputError(
                f"theory index {bounds[1] if bounds[1] < 0 else bounds[2]} is unknown; the model's theories are "
                f"{', '.join(self.config.theories)} (0 to {len(self.config.theories) - 1})"
            )
        return elements

    def node_energies(
        self, batch: Batch, vectors: Tensor, features: list[Tensor], elements: Tensor, theory: Tensor
    ) -> Tensor:
        """Each atom's energy in eV, float64 (N,)."""
        energy = self.energy_head(features, theory) * self.config.energy_scale
        if self.zbl is None and self.bonding is None:
            return energy.double() + self.references[theory, elements]
        distance = torch.linalg.vector_norm(vectors, dim=1)
        if self.zbl is not None:
            energy = energy + self.zbl(batch.numbers, distance, batch.senders, batch.receivers)
        if self.bonding is not None:
            energy = energy + self.bonding(distance, batch.receivers, elements, theory)
        return energy.double() + self.references[theory, elements]


def _kept(value: Tensor, training: bool) -> Tensor:
    return value if training else value.detach()


def _sum_by_structure(node_energy: Tensor, batch: Batch) -> Tensor:
    zeros = torch.zeros(batch.n_structures, dtype=torch.float64, device=node_energy.device)
    return zeros.index_add(0, batch.structure, node_energy)


def _element_table(config: ModelConfig) -> Tensor:
    """Index of each atomic number among the config's elements, -1 where it is unknown."""
    table = torch.full((len(chemical_symbols) + 1,), -1, dtype=torch.int64)
    table[config.numbers] = torch.arange(len(config.elements))
    return table


def build_model(config: ModelConfig, seed: int = 0) -> Model:
    """A model with fresh float32 weights; the same seed gives the same weights, torch's own generator is left alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Model(config).float()
