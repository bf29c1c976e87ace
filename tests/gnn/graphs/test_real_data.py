"""Real sets: wild frames, isolated atoms, fixed layers, formation energies."""

from __future__ import annotations

import pytest

from gnn.graphs.loader import GraphData
from gnn.structures.cards import load_card
from gnn.structures.readers import read_records

pytestmark = [pytest.mark.data, pytest.mark.slow]


@pytest.fixture
def ingest(workshop, real_data, repository):
    def read(card_name: str, *files: str) -> None:
        card = load_card(card_name, [repository / "datasets" / "cards"])
        for file in files:
            workshop.lake.append(card_name, read_records(real_data / file, card), card)

    return read


def test_wild_frames_of_relaxations_are_dropped_and_fixed_atoms_masked(workshop, ingest):
    ingest("oc20_relax", *(f"oc20_relax/random{number}.traj.gz" for number in (1000120, 1000156)))
    graph_set, folder = workshop.preprocess("oc20_relax")
    assert graph_set.dropped == {"large-force": 1}
    assert graph_set.energy_kinds == {"rpbe/vasp-pw350": "free_energy"}
    assert graph_set.statistics.force_rms < 2
    batch = next(GraphData(workshop.graphs_root, folder).batches("train", 500))
    assert 0 < int(batch.labels.force_mask.sum()) < len(batch.numbers)


def test_3bpa_has_its_published_split_and_free_atoms_as_references(workshop, ingest):
    ingest("3bpa", "3bpa/iso_atoms.xyz", "3bpa/train_300K.xyz.gz")
    graph_set, _ = workshop.preprocess("3bpa", split={"train": 450, "valid": 50})
    assert graph_set.split_counts == {"train": 450, "valid": 50, "test": 0}
    assert graph_set.reference_rows == 4
    assert set(next(iter(graph_set.references.values())).source.values()) == {"isolated"}


def test_formation_energies_need_no_references(workshop, ingest):
    ingest("mp20", "mp20/mp_20_pilot_test.csv.gz")
    graph_set, _ = workshop.preprocess("mp20")
    assert graph_set.rows_in == 933
    assert graph_set.references == {}
    assert graph_set.statistics.energy_rms is None
    assert graph_set.statistics.properties["formation_energy_per_atom"].mean == pytest.approx(-1.0, abs=0.2)
    assert len(graph_set.elements) > 80
