"""A small labelled set held in memory, and a training of it that takes a second."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.emt import EMT

from gnn.graphs.batch import Batch
from gnn.graphs.collate import collate
from gnn.graphs.graph import Graph, graph_of_atoms
from gnn.graphs.graph_set import GraphSet, LakeInput, PropertyStatistics, Statistics, TheoryReferences
from gnn.structures.properties import PropertySpec
from gnn.training.config import TrainConfig, make_config
from gnn.training.resolve import Recipe, resolve

CUTOFF = 4.0
THEORY = "emt/ase"


@dataclass(frozen=True)
class MemoryData:
    """What `GraphData` is to a training, without files."""

    graph_set: GraphSet
    held: dict[str, list[Graph]]

    def batches(
        self, split: str, max_atoms: int, max_edges: int | None = None, seed: int = 0, epoch: int = 0,
        shuffle: bool = True, start: int = 0, stride: int = 1,
        helpers: bool = True,
    ) -> Iterator[Batch]:  # fmt: skip
        return islice(self._all(split, max_atoms, seed, epoch, shuffle), start, None, stride)

    def _all(self, split: str, max_atoms: int, seed: int, epoch: int, shuffle: bool) -> Iterator[Batch]:
        graphs = list(self.held[split])
        if shuffle:
            order = np.random.default_rng([seed, epoch]).permutation(len(graphs))
            graphs = [graphs[i] for i in order]
        packed: list[Graph] = []
        for graph in graphs:
            if packed and sum(g.n_atoms for g in packed) + graph.n_atoms > max_atoms:
                yield self._collate(packed)
                packed = []
            packed.append(graph)
        if packed:
            yield self._collate(packed)

    def _collate(self, graphs: list[Graph]) -> Batch:
        return collate(graphs, self.graph_set.theories, self.graph_set.properties)


def labelled_copper(n: int, seed: int = 0) -> list[Atoms]:
    """Rattled and strained Cu and CuAl cells with EMT labels."""
    rng = np.random.default_rng(seed)
    structures = []
    for index in range(n):
        atoms = bulk("Cu", "fcc", a=3.6, cubic=True)
        if index % 2:
            atoms.symbols[0] = "Al"
        atoms.set_cell(atoms.cell * rng.uniform(0.97, 1.04), scale_atoms=True)
        atoms.rattle(0.08, rng=rng)
        atoms.calc = EMT()
        atoms.get_potential_energy()
        atoms.get_stress()
        structures.append(atoms)
    return structures


def make_graph_set(graphs: dict[str, list[Graph]], properties: dict[str, PropertySpec]) -> GraphSet:
    train = graphs["train"]
    forces = [g.forces for g in train if g.forces is not None]
    stresses = [g.stress for g in train if g.stress is not None]
    energies = [g.energy / g.n_atoms for g in train if g.energy is not None]
    elements = sorted({symbol for g in train for symbol in Atoms(numbers=g.numbers).get_chemical_symbols()})
    n_atoms, n_edges = sum(g.n_atoms for g in train), sum(g.n_edges for g in train)
    values = {name: [g.properties[name] for g in train if name in g.properties] for name in properties}
    return GraphSet(
        graph_set_id="0" * 64,
        builder_version=1,
        cutoff=CUTOFF,
        inputs=[LakeInput(dataset="copper", version=3, content_digest="1" * 64, licence="CC-BY-4.0")],
        theories=[THEORY],
        elements=elements,
        properties=properties,
        shards=[],
        split_seed=0,
        split_counts={split: len(found) for split, found in graphs.items()},
        splits_path="splits.parquet",
        statistics=Statistics(
            n_structures=len(train),
            n_atoms=n_atoms,
            n_edges=n_edges,
            mean_neighbours=n_edges / n_atoms,
            energy_rms=float(np.std(energies)) if energies else None,
            force_rms=float(np.sqrt(np.mean(np.concatenate(forces) ** 2))) if forces else None,
            stress_rms=float(np.sqrt(np.mean(np.square(stresses)))) if stresses else None,
            properties={
                name: PropertyStatistics(n=len(v), mean=float(np.mean(v)), std=float(np.std(v)))
                for name, v in values.items()
            },
        ),
        references={
            THEORY: TheoryReferences(energies=dict.fromkeys(elements, 0.0), source=dict.fromkeys(elements, "isolated"))
        },
        rows_in=sum(map(len, graphs.values())),
        reference_rows=0,
        dropped={},
    )


@pytest.fixture(scope="session")
def copper_atoms() -> list[Atoms]:
    return labelled_copper(24)


@pytest.fixture
def make_data() -> Callable[..., MemoryData]:
    """A maker of data from graphs: two thirds to train on, the rest for validation and test."""

    def make(graphs: list[Graph], properties: dict[str, PropertySpec] | None = None) -> MemoryData:
        third = max(1, len(graphs) // 6)
        held = {"valid": graphs[:third], "test": graphs[third : 2 * third], "train": graphs[2 * third :]}
        return MemoryData(make_graph_set(held, properties or {}), held)

    return make


@pytest.fixture
def copper(copper_atoms: list[Atoms], make_data: Callable[..., MemoryData]) -> MemoryData:
    return make_data([graph_of_atoms(atoms, CUTOFF, "copper", THEORY) for atoms in copper_atoms])


@pytest.fixture
def water_graph() -> Graph:
    atoms = molecule("H2O")
    atoms.calc = EMT()
    atoms.get_forces()
    return graph_of_atoms(atoms, CUTOFF, "water", THEORY)


@pytest.fixture
def tiny_config() -> Callable[..., TrainConfig]:
    """A configuration of a network so small that an epoch takes a tenth of a second."""
    from tiny_network import TINY  # here, because processes of some tests load this file outside of pytest

    def make(**changes: Any) -> TrainConfig:
        values: dict[str, Any] = {"preset": "small", "model": TINY, "device": "cpu", "threads": 1}
        values["batch"] = {"max_atoms": 16}
        if "minutes" not in changes:
            values["epochs"] = 3
        return make_config(values | changes)

    return make


@pytest.fixture
def tiny_recipe(copper: MemoryData, tiny_config: Callable[..., TrainConfig]) -> Callable[..., Recipe]:
    def make(**changes: Any) -> Recipe:
        return resolve(tiny_config(**changes), copper.graph_set)

    return make


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    return tmp_path / "run"
