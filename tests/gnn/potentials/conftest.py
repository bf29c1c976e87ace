"""Checkpoints of small networks with random weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, fcc111, molecule

from gnn.graphs.graph_set import GraphSet, Statistics
from gnn.models.config import ModelConfig
from gnn.models.model import build_model
from gnn.structures.properties import PropertySpec
from gnn.training.checkpoint import Calibration, write_checkpoint

ELEMENTS = ["H", "O", "Al", "Cu"]


def empty_graph_set(theories: list[str]) -> GraphSet:
    return GraphSet(
        graph_set_id="0" * 64,
        builder_version=1,
        cutoff=4.0,
        inputs=[],
        theories=theories,
        elements=ELEMENTS,
        shards=[],
        split_seed=0,
        split_counts={"train": 1, "valid": 0, "test": 0},
        splits_path="splits.parquet",
        statistics=Statistics(
            n_structures=1, n_atoms=1, n_edges=1, mean_neighbours=20.0, energy_rms=1.0, force_rms=1.0, stress_rms=None
        ),
        references={},
        rows_in=1,
        reference_rows=0,
        dropped={},
    )


@pytest.fixture(scope="session")
def make_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """A maker of checkpoint folders."""

    def make(
        members: int = 3,
        theories: tuple[str, ...] = ("pbe",),
        properties: bool = False,
        calibration: float | None = None,
        cutoff: float = 4.0,
        trained_on: tuple[str, ...] = tuple(ELEMENTS),
        family: str = "ace",
        helper_theories: tuple[str, ...] = (),
        references: dict[str, dict[str, float]] | None = None,
    ) -> Path:
        specs = {
            "gap": PropertySpec(unit="eV"),
            "charge": PropertySpec(unit="e", level="atom"),
        }
        light, numbered = {"H": 0.0, "O": 0.0}, enumerate(theories)
        config = ModelConfig(
            family=family,
            elements=ELEMENTS,
            cutoff=cutoff,
            channels=8,
            layers=1,
            correlation=2,
            edge_l_max=2,
            radial_hidden=[8],
            theories=list(theories),
            references=references or {theory: {"Al": -3.0 - k, "Cu": -4.0 - k} | light for k, theory in numbered},
            properties=specs if properties else {},
        )
        folder = tmp_path_factory.mktemp("checkpoint") / "model"
        models = [build_model(config, seed=seed) for seed in range(members)]
        fitted = None if calibration is None else Calibration(energy_scale=calibration, n=10)
        known = {"elements": list(trained_on), "helper_theories": list(helper_theories)}
        data = empty_graph_set(list(theories)).model_copy(update=known)
        write_checkpoint(folder, models, name="test", graph_set=data, calibration=fitted)
        return folder

    return make


@pytest.fixture(scope="session")
def checkpoint(make_checkpoint: Callable[..., Path]) -> Path:
    """Three members, one theory."""
    return make_checkpoint()


@pytest.fixture(scope="session")
def structures() -> list[Atoms]:
    """Crystals, a slab, molecules and one atom, all rattled."""
    found = [
        bulk("Al"),
        bulk("Cu", cubic=True),
        bulk("Al", "hcp", a=2.9, c=4.6),
        fcc111("Al", (1, 1, 3), vacuum=5.0),
        molecule("H2O"),
        Atoms("Cu"),
        bulk("Cu") * (2, 2, 2),
    ]
    rng = np.random.default_rng(0)
    for atoms in found:
        atoms.rattle(0.05, rng=rng)
    return found
