"""Errors of a model on files: what it was trained to predict, on whatever holds labels of that; the rest is counted."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from ase import Atoms
from ase.build import bulk
from ase.io import write
from emt_cells import labelled_cells
from pymatgen.io.ase import AseAtomsAdaptor
from tiny_network import TINY
from typer.testing import CliRunner, Result

from flows.cli.main import app
from flows.evaluate import evaluate, graphs_of
from flows.settings import Home
from gnn.errors import InputError
from gnn.graphs.graph_set import GraphSet, LakeInput, PropertyStatistics, Statistics
from gnn.graphs.members import SCHEMA, write_members
from gnn.models.config import ModelConfig
from gnn.models.model import build_model
from gnn.structures.atoms import atoms_to_record
from gnn.structures.properties import PropertySpec
from gnn.training.checkpoint import read_manifest, write_checkpoint

THEORY = "pbe/x"
GAP = {"gap": PropertySpec(unit="eV")}


@pytest.fixture
def checkpoint(tmp_path: Path) -> Callable[..., Path]:
    """A maker of untrained models that say they were trained on given labels."""

    def make(energy: float | None, forces: float | None, gap: bool = False) -> Path:
        statistics = Statistics(
            n_structures=1, n_atoms=1, n_edges=1, mean_neighbours=20.0, energy_rms=energy, force_rms=forces,
            stress_rms=None, properties={"gap": PropertyStatistics(n=1, mean=0.5, std=1.0)} if gap else {},
        )  # fmt: skip
        data = GraphSet(
            graph_set_id="0" * 64, builder_version=1, cutoff=4.0, theories=[THEORY], elements=["Al", "Cu"], shards=[],
            inputs=[LakeInput(dataset="mine", version=98, content_digest="1" * 64, licence=None)], split_seed=0,
            split_counts={"train": 1}, splits_path="splits.parquet", statistics=statistics, references={}, rows_in=1,
            reference_rows=0, dropped={}, energy_kinds={} if energy is None else {THEORY: "energy"},
        )  # fmt: skip
        config = ModelConfig(
            elements=["Al", "Cu"], cutoff=4.0, mean_neighbours=20.0, theories=[THEORY], properties=GAP if gap else {},
            **TINY,
        )  # fmt: skip
        folder = tmp_path / f"model-{energy}-{forces}-{gap}"
        write_checkpoint(folder, [build_model(config)], name="m", graph_set=data)
        return folder

    return make


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "cells.xyz"
    write(path, labelled_cells(4, 0), format="extxyz")
    return path


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["evaluate", *map(str, arguments)])


def entries(frames: list[Atoms], **values: Any) -> str:
    structures = [AseAtomsAdaptor.get_structure(atoms).as_dict() for atoms in frames]
    return json.dumps([{"structure": structure, **values} for structure in structures])


def test_a_model_of_properties_is_not_asked_for_energies(checkpoint, file: Path, home: Home, tmp_path: Path) -> None:
    folder = checkpoint(None, None, gap=True)
    assert not read_manifest(folder).knows_energies
    with pytest.raises(InputError, match="4 no label of what the model predicts"):
        evaluate(str(folder), str(file), home)
    path = tmp_path / "gaps.json"
    path.write_text(entries(labelled_cells(3, 0), gap=0.5, energy=-1.0))
    card = tmp_path / "gaps.toml"
    card.write_text(f'theory = "{THEORY}"\nunits = {{ energy = "eV" }}\n[properties.gap]\nunit = "eV"\n')
    found = evaluate(str(folder), str(path), home, card=str(card))
    assert found.n_structures == found.properties["gap"].n == 3
    assert found.energy_mae_mev_per_atom is None and found.force_mae_mev_per_angstrom is None


def test_nothing_is_not_the_folder_one_is_in(checkpoint, home: Home) -> None:
    with pytest.raises(InputError, match="'' cannot name a data set"):
        evaluate(str(checkpoint(1.0, 1.0)), "", home)


def test_a_model_of_forces_alone_is_not_asked_for_energies(checkpoint, file: Path, home: Home) -> None:
    found = evaluate(str(checkpoint(None, 1.0)), str(file), home)
    assert found.energy_mae_mev_per_atom is None and found.force_mae_mev_per_angstrom is not None


def test_a_model_of_energies_has_slopes(checkpoint, file: Path, home: Home) -> None:
    found = evaluate(str(checkpoint(1.0, None)), str(file), home)
    assert found.energy_mae_mev_per_atom is not None and found.force_mae_mev_per_angstrom is not None


def test_structures_without_labels_are_counted(checkpoint, home: Home, tmp_path: Path) -> None:
    labelled, bare = labelled_cells(2, 0), labelled_cells(3, 1)
    for atoms in bare:
        atoms.calc = None
    write(tmp_path / "some.xyz", [*labelled, *bare], format="extxyz")
    found = evaluate(str(checkpoint(1.0, 1.0)), str(tmp_path / "some.xyz"), home)
    assert (found.n_structures, found.skipped) == (2, {"no label of what the model predicts": 3})


def test_a_folder_counts_as_its_files(checkpoint, file: Path, home: Home, tmp_path: Path) -> None:
    (tmp_path / "set" / "deep").mkdir(parents=True)
    write(tmp_path / "set" / "a.xyz", labelled_cells(2, 0), format="extxyz")
    write(tmp_path / "set" / "deep" / "b.extxyz", labelled_cells(3, 5), format="extxyz")
    assert evaluate(str(checkpoint(1.0, 1.0)), str(tmp_path / "set"), home).n_structures == 5


def test_a_data_set_goes_before_a_folder_of_its_name(
    checkpoint, file: Path, home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flows.cards import card_for
    from flows.ingest import ingest_group

    (tmp_path / "cells").mkdir()
    write(tmp_path / "cells" / "more.xyz", labelled_cells(6, 9), format="extxyz")
    monkeypatch.chdir(tmp_path)
    model = str(checkpoint(1.0, 1.0))
    assert evaluate(model, "cells", home).n_structures == 6
    ingest_group([str(file)], "cells", str(home.lake), card_for("cells", home, None, THEORY))
    assert evaluate(model, "cells", home).n_structures == 4
    assert evaluate(model, "./cells", home).n_structures == 6


@pytest.fixture
def trained_on_mine(checkpoint, home: Home) -> Callable[..., Path]:
    """A maker of a model whose graph set, of another version of `mine`, has these structures in these roles."""

    def make(rows: list[tuple[str, str]]) -> Path:
        model = checkpoint(1.0, 1.0)
        folder = home.graphs / read_manifest(model).graph_set_id[:16]
        folder.mkdir(parents=True)
        graph_set = GraphSet(
            graph_set_id="0" * 64, builder_version=1, cutoff=4.0, theories=[THEORY], elements=["Al", "Cu"], shards=[],
            inputs=[LakeInput(dataset="mine", version=99, content_digest="1" * 64, licence=None)], split_seed=0,
            split_counts={"train": 1}, splits_path="splits.parquet", references={}, rows_in=1, reference_rows=0,
            statistics=Statistics(n_structures=1, n_atoms=1, n_edges=1, mean_neighbours=20.0, energy_rms=1.0,
                                  force_rms=1.0, stress_rms=None, properties={}),
            dropped={},
        )  # fmt: skip
        graph_set.write(folder)
        places = {"dataset": "mine", "theory": THEORY, "shard": 0, "row": 0, "n_atoms": 1, "n_edges": 1}
        table = [{"structure_id": name, "role": role, **places} for name, role in rows]
        write_members(folder / graph_set.splits_path, pa.Table.from_pylist(table, schema=SCHEMA))
        return model

    return make


def test_another_version_of_the_training_data_lends_only_what_was_not_trained_on(
    trained_on_mine, home: Home, tmp_path: Path
) -> None:
    from flows.cards import card_for
    from flows.ingest import ingest_group
    from gnn.lake.table import Lake

    lake, versions = Lake(home.lake), []
    for seed in (0, 1):
        write(tmp_path / "mine.xyz", labelled_cells(4, seed), format="extxyz")
        ingest_group([str(tmp_path / "mine.xyz")], "mine", str(home.lake), card_for("mine", home, None, THEORY))
        versions.append(lake.version("mine"))
    rows = [row for batch in lake.record_batches("mine", versions[0]) for row in batch.to_pylist()]
    roles = ["train", "valid", "test", "dropped"]
    model = str(trained_on_mine([(row["structure_id"], role) for row, role in zip(rows, roles, strict=True)]))
    later = f"mine@{versions[1]}"
    found = evaluate(model, later, home)
    assert found.n_structures == 1 + 4
    assert found.skipped == {f"{role} of the training": 1 for role in ("train", "valid", "dropped")}
    assert evaluate(model, later, home, split="valid").n_structures == 1
    assert evaluate(model, later, home, split="all").n_structures == 8


def test_without_the_graph_set_it_is_not_guessed_what_was_trained_on(checkpoint, file: Path, home: Home) -> None:
    from flows.cards import card_for
    from flows.ingest import ingest_group

    ingest_group([str(file)], "mine", str(home.lake), card_for("mine", home, None, THEORY))
    with pytest.raises(InputError, match=r"has seen of mine is not known here.*--split all"):
        evaluate(str(checkpoint(1.0, 1.0)), "mine", home)
    assert evaluate(str(checkpoint(1.0, 1.0)), "mine", home, split="all").n_structures == 4


def test_what_cannot_be_read_is_one_line(checkpoint, file: Path, home: Home, tmp_path: Path) -> None:
    folder = checkpoint(1.0, 1.0)
    file.write_text(file.read_text()[:-60])
    torn = run(folder, file, "--json")
    assert (torn.exit_code, torn.stdout) == (2, "") and "truncated" in torn.stderr
    path = tmp_path / "new.json"
    path.write_text(entries(labelled_cells(2, 0), energy=-1.0))
    unexplained = run(folder, path)
    assert unexplained.exit_code == 2 and unexplained.stderr.count("\n") == 1
    assert "nothing says its unit" in unexplained.stderr and "--card mine reads it" in unexplained.stderr


def test_a_data_set_of_the_lake_lends_its_card(home: Home, tmp_path: Path) -> None:
    from flows.cards import card_for
    from flows.ingest import ingest_group

    path = tmp_path / "new.json"
    path.write_text(entries(labelled_cells(2, 0), energy=-1.0))
    card = tmp_path / "own.toml"
    card.write_text(f'theory = "{THEORY}"\nenergy_is = "per_atom"\nunits = {{ energy = "eV" }}\n')
    ingest_group([str(path)], "mine", str(home.lake), card_for("mine", home, str(card), None))
    lent = card_for("other", home, "mine", None)
    assert (lent.energy_is, lent.theory) == ("per_atom", THEORY)


def test_relaxing_and_screening_need_energies(checkpoint, tmp_path: Path) -> None:
    from gnn.potentials.load import load
    from gnn.simulation.relax import relax_many

    potential = load(checkpoint(None, None, gap=True))
    assert potential.provides == {"gap"}
    with pytest.raises(InputError, match=r"not trained on energies or forces \(it predicts gap\): it cannot relax"):
        relax_many(labelled_cells(1, 0), potential)
    assert np.isfinite(potential.predict_atoms(labelled_cells(1, 0))[0].properties["gap"])


def test_a_campaign_with_a_model_of_properties_is_refused(checkpoint, home: Home, campaign_file: Path) -> None:
    from flows.campaigns import pin_model
    from gnn.screening.campaign import read_campaign

    folder = checkpoint(None, None, gap=True)
    with pytest.raises(InputError, match=r"not trained on energies or forces \(it predicts gap\)"):
        pin_model(read_campaign(campaign_file, {"model": str(folder), "relaxation": {"mode": "none"}}), home)
    assert pin_model(read_campaign(campaign_file, {"model": str(checkpoint(1.0, None))}), home).theory == THEORY


def test_a_structure_without_neighbour_list_costs_itself() -> None:
    flat = Atoms("Cu2", positions=[[0, 0, 0], [2, 0, 0]], cell=[[4, 0, 0], [0, 4, 0], [4, 4, 0]], pbc=True)
    skipped: Counter[str] = Counter()
    records = [atoms_to_record(atoms, "x", "t") for atoms in (bulk("Cu"), flat, bulk("Al"))]
    graphs = list(graphs_of(records, 4.0, skipped))
    assert [graph.numbers.tolist() for graph in graphs] == [[29], [13]]
    assert skipped == {"no-neighbour-list": 1}
