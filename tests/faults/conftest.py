"""What a calm run gives, and the room, campaign and training that a fault disturbs.

Every fault is judged by the same measure: the final table of a campaign that was disturbed equals that of one that was
not (energies within 0.1 meV/atom, the same convergence flags, funnel and shortlist), every structure stands in one
journal once, and nothing that was journalled before the fault was computed again.
"""

from __future__ import annotations

import json
import os
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ase.io import write
from disturbed_runs import CAMPAIGN, TRAINING, Campaign, Training, assert_same
from emt_cells import labelled_cells
from in_process import without_servers
from machine_room import Room, find_port

from flows.settings import Home
from gnn.lake.table import Lake
from gnn.structures.cards import generic_card
from gnn.structures.readers import read_records

PATIENT = """
import os, time
from pathlib import Path
from ase.calculators.emt import EMT, parameters
from gnn.potentials.foreign import CalculatorPotential

class Patient(CalculatorPotential):
    def predict(self, batch):
        time.sleep(float(os.environ.get("PAUSE_S", "0")))
        return super().predict(batch)

def patient():
    return Patient(EMT, "emt/ase", frozenset(parameters))
"""


@pytest.fixture(scope="session")
def plugins(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for PYTHONPATH with the potential `foreign:patient`: EMT that takes its time without using the CPU."""
    folder = tmp_path_factory.mktemp("plugins")
    (folder / "patient_potential.py").write_text(textwrap.dedent(PATIENT))
    info = folder / "patient_potential-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: patient-potential\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[sluice.potentials]\npatient = patient_potential:patient\n")
    return folder


@pytest.fixture
def room(tmp_path: Path, plugins: Path) -> Iterator[Room]:
    """An empty room."""
    found = Room(tmp_path, plugins)
    yield found
    found.close()


@pytest.fixture(scope="session")
def standing_server(tmp_path_factory: pytest.TempPathFactory, plugins: Path) -> Iterator[str]:
    """A Prefect server for the tests that do not kill it; its API address."""
    found = Room(tmp_path_factory.mktemp("standing"), plugins)
    yield found.prefect_server()
    found.close()


@pytest.fixture
def campaign(room: Room, tmp_path: Path) -> Campaign:
    """A campaign that was not started."""
    file = tmp_path / "metals.toml"
    file.write_text(CAMPAIGN)
    return Campaign(room, Home(tmp_path / "home"), file)


@pytest.fixture
def training(room: Room, tmp_path: Path, cells: Path) -> Training:
    """A training that was not started."""
    home, card = Home(tmp_path / "home"), generic_card("cells", "emt/ase")
    Lake(home.lake).append("cells", read_records(cells, card), card)
    (tmp_path / "train.toml").write_text(TRAINING)
    return Training(room, home, tmp_path / "train.toml")


@pytest.fixture(scope="session")
def calm(tmp_path_factory: pytest.TempPathFactory, plugins: Path) -> Iterator[Campaign]:
    """The campaign, finished without any disturbance: shard after shard in this process, without any server."""
    folder = tmp_path_factory.mktemp("calm")
    (folder / "metals.toml").write_text(CAMPAIGN)
    found = Campaign(Room(folder, plugins), Home(folder / "home"), folder / "metals.toml")
    with pytest.MonkeyPatch.context() as patched, without_servers() as run:
        patched.syspath_prepend(str(plugins))
        result = run(found.file, found.home)
    assert result.state == "COMPLETED"
    assert len(found.records()) == result.computed
    yield found


Judge = Callable[..., dict[str, int]]


@pytest.fixture
def judge(calm: Campaign, request: pytest.FixtureRequest) -> Judge:
    """Compares a campaign with the calm one; gives the counts, and adds them to the table of faults."""

    def compare(campaign: Campaign, before: list[dict[str, Any]], how: str) -> dict[str, int]:
        records, expected = campaign.records(), calm.records()
        ids = [record["candidate_id"] for record in records]
        kept = [record for record in before if record in records]
        counts = {
            "structures": len(expected),
            "before": len(before),
            "lost": len(before) - len(kept),
            "twice": len(ids) - len(set(ids)),
            "missing": len({record["candidate_id"] for record in expected} - set(ids)),
        }
        note(request, how, counts)
        assert (counts["lost"], counts["twice"], counts["missing"]) == (0, 0, 0)
        assert len(ids) == len(expected)
        assert_same(campaign, calm)
        return counts

    return compare


def note(request: pytest.FixtureRequest, how: str, counts: dict[str, Any]) -> None:
    """Keep a row of the table of faults in the file that SLUICE_FAULT_TABLE names."""
    if table := os.environ.get("SLUICE_FAULT_TABLE"):
        doc = " ".join((request.function.__doc__ or request.node.name).split())
        with Path(table).open("a") as stream:
            stream.write(json.dumps({"fault": doc, "how": how, **counts}) + "\n")


@pytest.fixture
def noted(request: pytest.FixtureRequest) -> Callable[..., None]:
    """Adds a row to the table of faults."""
    return lambda how, **counts: note(request, how, counts)


@pytest.fixture
def same(calm: Campaign) -> Callable[[Campaign], None]:
    """Asserts that a campaign's final table is the calm one's."""
    return lambda campaign: assert_same(campaign, calm)


@pytest.fixture
def free_port() -> Callable[[], int]:
    """Finds ports of loopback that nobody uses."""
    return find_port


@pytest.fixture(scope="session")
def cells(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of three hundred labelled cells, which nobody changes."""
    path = tmp_path_factory.mktemp("cells") / "cells.xyz"
    write(path, labelled_cells(300), format="extxyz")
    return path
