"""Records, lakes and graph sets in the small."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from gnn.graphs.assembly import assemble
from gnn.graphs.graph_set import GraphSet, LakeInput
from gnn.graphs.plan import plan_rows, shard_plans
from gnn.graphs.preprocess import PreprocessSpec, build_shard
from gnn.lake.table import Lake
from gnn.structures.cards import Card
from gnn.structures.record import Record, Source

ELEMENT_ENERGIES = {3: -2.0, 12: -1.5, 14: -5.5, 47: -2.5}


def make_record(seed: int, n_atoms: int | None = None, **changes) -> Record:
    """A loose periodic structure whose energy is a sum over its elements."""
    rng = np.random.default_rng(seed)
    n = n_atoms or int(rng.integers(2, 9))
    numbers = rng.choice(list(ELEMENT_ENERGIES), n)
    length = 3.0 * n ** (1 / 3) + 2.0
    grid = np.stack(np.meshgrid(*[np.arange(3)] * 3), axis=-1).reshape(-1, 3)[:n] / 3.0
    positions = grid * length + rng.uniform(-0.2, 0.2, (n, 3))
    fields = {
        "dataset": "toy",
        "theory": "pbe/toy",
        "numbers": numbers.astype(np.int64),
        "positions": positions,
        "cell": np.eye(3) * length,
        "pbc": np.ones(3, dtype=bool),
        "energy": float(sum(ELEMENT_ENERGIES[z] for z in numbers)),
        "forces": rng.normal(scale=0.5, size=(n, 3)),
        "stress": rng.normal(scale=0.01, size=6),
        "group": f"g{seed % 17}",
        "source": Source("toy.xyz", seed, "00"),
    }
    return Record(**{**fields, **changes})


def make_atom(number: int, energy: float, **changes) -> Record:
    """A free atom: a reference row."""
    fields = {
        "dataset": "toy",
        "theory": "pbe/toy",
        "numbers": np.array([number]),
        "positions": np.zeros((1, 3)),
        "cell": np.zeros((3, 3)),
        "pbc": np.zeros(3, dtype=bool),
        "energy": energy,
        "source": Source("atoms.xyz", number, "00"),
    }
    return Record(**{**fields, **changes})


@pytest.fixture(scope="session")
def record() -> Callable[..., Record]:
    return make_record


@pytest.fixture(scope="session")
def free_atom() -> Callable[..., Record]:
    return make_atom


class Workshop:
    """A lake and a graph folder, and what is made there."""

    def __init__(self, root: Path) -> None:
        self.lake = Lake(root / "lake")
        self.graphs_root = root / "graphs"
        self.built: list[str] = []

    def append(self, dataset: str, records: list[Record], card: Card | None = None) -> int:
        """Append to a data set; its version."""
        card = card or Card(name=dataset)
        return self.lake.append(dataset, [replace(r, dataset=dataset) for r in records], card).version

    def preprocess(self, *datasets: str, **options) -> tuple[GraphSet, Path]:
        """A graph set, by the pure functions alone; keys of the shards built are in `built`."""
        spec = PreprocessSpec(datasets=datasets, **options).checked()
        inputs, properties, plans, shards = [], {}, [], []
        self.built = []
        for name in (*datasets, *spec.helpers):
            version = self.lake.version(name)
            card = self.lake.card(name)
            properties |= card.property_specs
            digest = self.lake.content_digest(name)
            inputs.append(LakeInput(dataset=name, version=version, content_digest=digest, licence=card.licence))
            plans += shard_plans(self.lake, name, version, spec.cutoff)
        for plan in plans:
            self.built.append(plan.key)
            manifest = build_shard(plan, plan_rows(self.lake, plan), spec.cutoff, self.graphs_root)
            shards.append(manifest.info())
        return assemble(spec, inputs, properties, plans, shards, self.graphs_root)


@pytest.fixture
def workshop(tmp_path: Path) -> Workshop:
    return Workshop(tmp_path)


@pytest.fixture(scope="session")
def toy_set(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A graph set of 300 structures in one data set: the graphs' root and its folder."""
    shop = Workshop(tmp_path_factory.mktemp("toy"))
    shop.append("toy", [make_record(seed) for seed in range(300)])
    _, folder = shop.preprocess("toy", cutoff=4.0)
    return shop.graphs_root, folder
