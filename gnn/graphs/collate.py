"""Graphs put together into one batch of tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from ase import Atoms
from numpy.typing import NDArray
from torch import Tensor

from gnn.errors import InputError
from gnn.graphs.batch import Batch, Labels
from gnn.graphs.graph import Graph
from gnn.graphs.neighbours import neighbour_list
from gnn.structures.properties import PropertySpec

NO_PROPERTIES: dict[str, PropertySpec] = {}


def collate(
    graphs: Sequence[Graph],
    theories: Sequence[str],
    properties: Mapping[str, PropertySpec] = NO_PROPERTIES,
) -> Batch:
    """One batch of labelled graphs.

    Raises:
        InputError: there are no graphs, or one has a theory that is not among `theories`.
    """
    batch = _structures(graphs, _theory_indices(graphs, theories))
    targets = {name: _property(graphs, name, spec) for name, spec in properties.items()}
    labels = Labels(
        *_energies(graphs),
        *_forces(graphs),
        *_stresses(graphs),
        properties={name: values for name, (values, _) in targets.items()},
        property_masks={name: known for name, (_, known) in targets.items()},
    )
    return replace(batch, labels=labels)


def batch_of_atoms(atoms_list: Sequence[Atoms], cutoff: float, theory: int = 0) -> Batch:
    """One batch of ASE Atoms without labels, all of the theory with index `theory`.

    Raises:
        InputError: there are no atoms, or a structure has no neighbour list.
    """
    graphs = [_bare_graph(atoms, cutoff) for atoms in atoms_list]
    return _structures(graphs, np.full(len(graphs), theory, dtype=np.int64))


def _bare_graph(atoms: Atoms, cutoff: float) -> Graph:
    cell, pbc = np.array(atoms.cell[:], dtype=float), np.asarray(atoms.pbc, dtype=bool)
    edges = neighbour_list(atoms.positions, cell, pbc, cutoff)
    return Graph(
        "", "", "", None, atoms.numbers, atoms.positions, cell, pbc, edges.senders, edges.receivers, edges.shifts
    )  # fmt: skip


def _structures(graphs: Sequence[Graph], theory: NDArray[np.int64]) -> Batch:
    if not graphs:
        raise InputError("a batch needs at least one structure")
    n_atoms = np.array([graph.n_atoms for graph in graphs], dtype=np.int64)
    n_edges = np.array([graph.n_edges for graph in graphs], dtype=np.int64)
    offsets = np.repeat(np.cumsum(n_atoms) - n_atoms, n_edges)
    return Batch(
        numbers=_joined([graph.numbers for graph in graphs], np.int64),
        positions=_joined([graph.positions for graph in graphs], np.float64),
        cell=torch.from_numpy(np.stack([graph.cell for graph in graphs])),
        pbc=torch.from_numpy(np.stack([graph.pbc for graph in graphs])),
        structure=torch.from_numpy(np.repeat(np.arange(len(graphs)), n_atoms)),
        n_atoms=torch.from_numpy(n_atoms),
        senders=_joined([graph.senders for graph in graphs], np.int64) + torch.from_numpy(offsets),
        receivers=_joined([graph.receivers for graph in graphs], np.int64) + torch.from_numpy(offsets),
        shifts=_joined([graph.shifts for graph in graphs], np.float64),
        theory=torch.from_numpy(theory),
    )


def _joined(arrays: Sequence[NDArray[Any]], dtype: type) -> Tensor:
    return torch.from_numpy(np.concatenate(arrays).astype(dtype, copy=False))


def _theory_indices(graphs: Sequence[Graph], theories: Sequence[str]) -> NDArray[np.int64]:
    index = {theory: position for position, theory in enumerate(theories)}
    for graph in graphs:
        if graph.theory not in index:
            raise InputError(
                f"structure {graph.structure_id[:12]} of {graph.dataset!r} has theory {graph.theory!r}, which is not"
                f" among {', '.join(theories) or 'no theories at all'}"
            )
    return np.array([index[graph.theory] for graph in graphs], dtype=np.int64)


def _energies(graphs: Sequence[Graph]) -> tuple[Tensor, Tensor]:
    known = torch.tensor([graph.energy is not None for graph in graphs])
    return torch.tensor([graph.energy or 0.0 for graph in graphs], dtype=torch.float64), known


def _forces(graphs: Sequence[Graph]) -> tuple[Tensor, Tensor]:
    forces = [np.zeros((graph.n_atoms, 3)) if graph.forces is None else graph.forces for graph in graphs]
    masks = [_force_mask(graph) for graph in graphs]
    return _joined(forces, np.float64), torch.from_numpy(np.concatenate(masks))


def _force_mask(graph: Graph) -> NDArray[np.bool_]:
    if graph.forces is None or graph.fixed is None:
        return np.full(graph.n_atoms, graph.forces is not None)
    return ~graph.fixed


def _stresses(graphs: Sequence[Graph]) -> tuple[Tensor, Tensor]:
    found = [graph.crystal_stress for graph in graphs]
    stresses = np.stack([np.zeros(6) if stress is None else stress for stress in found])
    return torch.from_numpy(stresses), torch.tensor([stress is not None for stress in found])


def _property(graphs: Sequence[Graph], name: str, spec: PropertySpec) -> tuple[Tensor, Tensor]:
    """Values (float64) and mask of one property: (B,) for level "structure", (N,) for level "atom"."""
    counts = [graph.n_atoms if spec.level == "atom" else 1 for graph in graphs]
    values = [
        np.broadcast_to(np.asarray(graph.properties.get(name, 0.0), dtype=np.float64), (count,))
        for graph, count in zip(graphs, counts, strict=True)
    ]
    known = np.repeat([name in graph.properties for graph in graphs], counts)
    return _joined(values, np.float64), torch.from_numpy(known)
