"""Small campaigns and crystals that the tests of screening share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms

from gnn.lake.table import Lake
from gnn.potentials.foreign import emt
from gnn.screening.campaign import CampaignSpec, parse_campaign
from gnn.screening.candidates import Candidate
from gnn.screening.dedupe import Crystal
from gnn.screening.gather import Inputs
from gnn.screening.manifest import ModelPin


@pytest.fixture
def make_spec(tmp_path: Path) -> Callable[..., CampaignSpec]:
    """A campaign over Al-Cu binaries with EMT and its own hull; keywords replace tables."""

    def make(**changes: Any) -> CampaignSpec:
        content: dict[str, Any] = {
            "name": "test",
            "model": "foreign:emt",
            "candidates": {"elements": ["Al", "Cu"], "min_elements": 2, "prototypes": ["CsCl", "L1_0", "L1_2"]},
            "hull": {"reference": "model"},
            "base": str(tmp_path),
        }
        return parse_campaign({**content, **changes}, "test")

    return make


@pytest.fixture
def emt_pin() -> ModelPin:
    return ModelPin(
        uri="foreign:emt",
        version=None,
        sha256="0" * 64,
        path=None,
        theory="emt/ase",
        elements=sorted(emt().elements),
        foreign="emt",
    )


@pytest.fixture
def inputs(tmp_path: Path, emt_pin: ModelPin) -> Inputs:
    """An empty lake and EMT."""
    return Inputs(Lake(tmp_path / "lake"), {}, emt_pin)


@pytest.fixture
def crystal() -> Callable[..., Crystal]:
    def make(atoms: Atoms, name: str = "x", energy: float | None = None) -> Crystal:
        return Crystal(name, atoms.numbers.astype(np.int64), atoms.positions, np.array(atoms.cell[:]), energy)

    return make


@pytest.fixture
def candidate() -> Callable[..., Candidate]:
    def make(atoms: Atoms, source: str = "test", prototype: str | None = None) -> Candidate:
        return Candidate.of(atoms, prototype, source)

    return make
