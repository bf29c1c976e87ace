"""Campaigns against the hull of what the lake holds."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.io import write
from screened import journal_ids, rows_of

from flows.campaign_log import LOG_NAME
from flows.campaign_outputs import report_context
from flows.campaign_shard import compute_shard
from flows.campaigns import CampaignFolder, result_of
from flows.settings import Home
from flows.used_versions import used_versions
from gnn.errors import InputError
from gnn.lake.table import Lake
from gnn.structures.atoms import atoms_to_record
from gnn.structures.cards import generic_card

Run = Callable[..., Any]


@pytest.fixture
def lake(home: Home) -> Lake:
    """Al and Cu, and one compound, labelled by EMT; Ni is missing."""
    table = Lake(home.lake)
    add_labelled(table, bulk("Al"), bulk("Cu"), bulk("Al", "fcc", a=4.3), bulk("CuAl", "cesiumchloride", a=3.03))
    return table


def add_labelled(table: Lake, *crystals: Atoms) -> None:
    """Append crystals with their labels by EMT."""
    for atoms in crystals:
        atoms.calc = EMT()
        atoms.get_potential_energy()
        atoms.get_forces()
        atoms.get_stress()
    records = [atoms_to_record(atoms, "emt-labels", "emt/ase") for atoms in crystals]
    table.append("emt-labels", records, generic_card("emt-labels", "emt/ase"))


DFT = {"hull": {"reference": "dft"}}


def test_a_fixed_hull_from_the_lake(run_here: Run, home: Home, lake: Lake, campaign_file: Path) -> None:
    result = run_here(campaign_file, changes=DFT)
    assert result.lake_versions == {"emt-labels": lake.version("emt-labels")}
    near = next(stage for stage in result.funnel if stage.stage == "near_hull")
    without = [row for row in rows_of(home) if row["reason"] == "no reference energy: Ni"]
    assert near.rejected["no reference energy"] == len(without) > 0
    assert all("Ni" in row["chemical_system"] for row in without)
    manifest = CampaignFolder(home, "metals").manifest()
    assert manifest is not None
    assert any("no reference energy at emt/ase for Ni" in warning for warning in manifest.warnings)
    first, *_ = (CampaignFolder(home, "metals").root / LOG_NAME).read_text().splitlines()
    assert "no reference energy at emt/ase for Ni" in first
    aluminium = next(row for row in manifest.hull_entries if row.name == "Al")
    atoms = bulk("Al")
    atoms.calc = EMT()
    assert aluminium.energy_per_atom == pytest.approx(atoms.get_potential_energy())
    assert {row["chemical_system"] for row in rows_of(home) if row["hull_distance"] is not None} == {"Al-Cu"}


def test_the_lakes_version_is_pinned(run_here: Run, home: Home, lake: Lake, campaign_file: Path) -> None:
    first = run_here(campaign_file, changes=DFT)
    add_labelled(lake, bulk("Ni"))
    again = run_here(campaign_file, changes=DFT)
    assert again.lake_versions == first.lake_versions
    assert again.funnel == first.funnel


def test_a_data_set_of_candidates_is_pinned(run_here: Run, home: Home, lake: Lake, campaign_file: Path) -> None:
    changes = {"candidates": {"datasets": ["emt-labels"]}}
    first = run_here(campaign_file, changes=changes)
    version = lake.version("emt-labels")
    assert first.candidate_datasets == [f"emt-labels@{version}"]
    assert used_versions(home)["emt-labels"] == [version]
    add_labelled(lake, bulk("AlCu", "rocksalt", a=5.0))
    again = run_here(campaign_file, changes=changes)
    assert (again.candidate_datasets, again.funnel) == (first.candidate_datasets, first.funnel)


def test_known_crystals_are_flagged_and_may_be_dropped(
    run_here: Run, home: Home, lake: Lake, campaign_file: Path
) -> None:
    run_here(campaign_file, changes=DFT)
    flagged = [row for row in rows_of(home) if row["in_lake"] is not None]
    assert [(row["prototype"], row["formula"]) for row in flagged] == [("CsCl", "AlCu")]
    result = run_here(campaign_file, changes={**DFT, "name": "novel", "filters": {"novel_only": True}})
    assert next(stage for stage in result.funnel if stage.stage == "novel").rejected == {"already in the lake": 1}


def test_model_against_dft(run_here: Run, home: Home, lake: Lake, campaign_file: Path) -> None:
    run_here(campaign_file, changes=DFT)
    context = report_context(CampaignFolder(home, "metals"))
    compared = {item.formula: item for item in context.dft}
    assert set(compared) == {"AlCu"}
    assert compared["AlCu"].origin == "emt-labels"
    # the label is unrelaxed, the candidate relaxed by the same method: it can only be lower
    assert compared["AlCu"].model_formation_energy_per_atom <= compared["AlCu"].dft_formation_energy_per_atom
    assert not compared["AlCu"].in_training
    assert context.provenance.theory == "emt/ase"


def test_strained_crystals_are_not_the_lakes_where_nothing_relaxes(
    run_here: Run, home: Home, lake: Lake, campaign_file: Path
) -> None:
    strained = [bulk("Cu", a=factor * 3.61) for factor in (1.0, 1.1, 1.2)]
    write(campaign_file.with_name("a.xyz"), strained, format="extxyz")
    text = 'name = "strained"\nmodel = "foreign:emt"\n[candidates]\nfiles = ["a.xyz"]\n[relaxation]\nmode = "none"\n'
    campaign_file.write_text(text)
    run_here(campaign_file)
    flagged = [row["source"] for row in rows_of(home, "strained") if row["in_lake"] is not None]
    assert flagged == ["file:a.xyz#0"]
    (compared,) = report_context(CampaignFolder(home, "strained")).dft
    assert compared.model_formation_energy_per_atom == pytest.approx(compared.dft_formation_energy_per_atom, abs=1e-6)


def test_a_lake_without_references_is_refused_at_once(run_here: Run, home: Home, campaign_file: Path) -> None:
    with pytest.raises(InputError, match="no reference energy at emt/ase for Al, Cu, Ni; ingest or label"):
        run_here(campaign_file, changes=DFT)
    assert not CampaignFolder(home, "metals").exists()


def test_files_without_references_are_refused_before_anything_is_relaxed(
    run_here: Run, home: Home, lake: Lake, campaign_file: Path
) -> None:
    """What elements they hold is known only when they are read."""
    write(campaign_file.with_name("a.xyz"), [bulk("NiPd", "cesiumchloride", a=2.95)], format="extxyz")
    folder = CampaignFolder(home, "files")
    campaign_file.write_text('name = "files"\nmodel = "foreign:emt"\n[candidates]\nfiles = ["a.xyz"]\n')
    message = "no reference energy at emt/ase for Ni, Pd; ingest or label"
    for _ in range(2):
        with pytest.raises(InputError, match=message) as alone:
            compute_shard(str(campaign_file), 0, home)
        assert "--fresh" not in str(alone.value)  # nothing of it stays
        assert not folder.exists()
    with pytest.raises(InputError, match=f"{message}.*then start the campaign anew with --fresh"):
        run_here(campaign_file)
    assert result_of(folder).state == "FAILED"
    assert not journal_ids(home, "files")
    add_labelled(lake, bulk("Ni"), bulk("Pd"))
    assert run_here(campaign_file, fresh=True).state == "COMPLETED"


def test_novelty_that_nothing_is_looked_up_for_is_told(run_here: Run, campaign_file: Path) -> None:
    changes = {"filters": {"novel_only": True}, "relaxation": {"mode": "none"}}
    (warning,) = [note for note in run_here(campaign_file, changes=changes).warnings if "novel" in note]
    assert warning.startswith("filters.novel_only drops nothing: no data set of the lake holds emt/ase; name those to")


def test_a_hull_data_set_must_exist(run_here: Run, campaign_file: Path, lake: Lake) -> None:
    with pytest.raises(InputError, match="hull data set 'none' is not in the lake; there are emt-labels"):
        run_here(campaign_file, changes={"hull": {"reference": "dft", "datasets": ["none"]}})
