from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk
from ase.calculators.singlepoint import SinglePointCalculator

from gnn.errors import InputError
from gnn.lake.table import Lake
from gnn.screening.campaign import DedupeSpec, FilterSpec
from gnn.screening.candidates import Candidate
from gnn.screening.comparison import dft_comparisons
from gnn.screening.library import lake_library
from gnn.screening.prototypes import ELEMENTAL
from gnn.screening.references import (
    counts_of,
    dft_hull,
    entry_of_row,
    lake_entries,
    model_entries,
    pinned_versions,
    reference_candidates,
)
from gnn.screening.shelf import formula_hash
from gnn.screening.tables import CANDIDATE_SCHEMA
from gnn.structures.atoms import atoms_to_record
from gnn.structures.cards import generic_card


def labelled(atoms: Atoms, energy: float, free_energy: float | None = None, config_type: str | None = None) -> Atoms:
    atoms = atoms.copy()
    atoms.calc = SinglePointCalculator(atoms, energy=energy, free_energy=energy if free_energy is None else free_energy)
    if config_type is not None:
        atoms.info["config_type"] = config_type
    return atoms


def add(lake: Lake, dataset: str, theory: str, frames: list[Atoms]) -> None:
    lake.append(dataset, [atoms_to_record(frame, dataset, theory) for frame in frames], generic_card(dataset, theory))


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    """Two data sets at pbe, one at r2scan."""
    lake = Lake(tmp_path / "lake")
    molecule = labelled(Atoms("Al2", positions=[[0, 0, 0], [0, 0, 2.5]]), -99.0)
    add(
        lake,
        "metals",
        "pbe",
        [labelled(bulk("Al"), -3.7), labelled(bulk("Al", "fcc", a=4.4), -3.5), labelled(bulk("Cu"), -4.0), molecule],
    )
    add(
        lake,
        "compounds",
        "pbe",
        [labelled(bulk("CuAl", "cesiumchloride", a=2.9), -8.2), labelled(bulk("Cu", "bcc", a=2.9), -3.9)],
    )
    add(lake, "other", "r2scan", [labelled(bulk("Al"), -12.0)])
    return lake


def test_versions_of_all_sets_of_the_theory(lake: Lake) -> None:
    assert sorted(pinned_versions(lake, (), "pbe")) == ["compounds", "metals"]
    assert sorted(pinned_versions(lake, (), "r2scan")) == ["other"]
    assert pinned_versions(lake, (), "none") == {}
    assert pinned_versions(lake, ("metals@0",), "pbe") == {"metals": 0}
    with pytest.raises(InputError, match="hull data set 'none' is not in the lake; there are compounds, metals, other"):
        pinned_versions(lake, ("none",), "pbe")


def test_the_lowest_bulk_crystal_of_each_formula(lake: Lake) -> None:
    entries = lake_entries(lake, pinned_versions(lake, (), "pbe"), "pbe", ["Al", "Cu"])
    energies = {row["formula"]: row["energy"] / row["n_atoms"] for row in entries.rows}
    assert energies == {"Al": -3.7, "Cu": -4.0, "AlCu": -4.1}
    assert entries.notes == []
    only = lake_entries(lake, pinned_versions(lake, (), "pbe"), "pbe", ["Al"])
    assert [row["formula"] for row in only.rows] == ["Al"]


def test_flagged_rows_are_no_references(lake: Lake) -> None:
    """An energy that is too low by an electronic step that never ended would be the lowest of its formula."""
    record = atoms_to_record(labelled(bulk("Al", "fcc", a=4.1), -9.0), "metals", "pbe")
    lake.append("metals", [replace(record, flags=("scf-unconverged",))], generic_card("metals", "pbe"))
    entries = lake_entries(lake, pinned_versions(lake, (), "pbe"), "pbe", ["Al", "Cu"])
    assert [row["energy"] for row in entries.rows if row["formula"] == "Al"] == [-3.7]
    assert "1 flagged rows of the lake are no references of the hull" in entries.notes


def test_theories_never_meet(lake: Lake) -> None:
    versions = pinned_versions(lake, ("metals", "other"), "pbe")
    rows = lake_entries(lake, versions, "pbe", ["Al", "Cu"]).rows
    assert {row["theory"] for row in rows} == {"pbe"}


def test_a_hull_of_the_lake(lake: Lake) -> None:
    hull, notes = dft_hull(lake, pinned_versions(lake, (), "pbe"), "pbe", ["Al", "Cu", "Ni"])
    assert hull.distance({"Al": 1, "Cu": 1}, -4.0) == pytest.approx(0.1)
    assert notes == ["no reference energy at pbe for Ni: candidates that hold them get no hull distance"]
    with pytest.raises(InputError, match="no reference energy at pbe for Fe, Ni"):
        dft_hull(lake, {}, "pbe", ["Ni", "Fe"])


def test_smearing_is_said_aloud(lake: Lake) -> None:
    add(lake, "smeared", "pbe", [labelled(bulk("Ni"), -5.0, free_energy=-5.02)])
    entries = lake_entries(lake, pinned_versions(lake, (), "pbe"), "pbe", ["Ni"])
    assert "differs by up to 20.0 meV/atom" in entries.notes[0]


def test_references_for_the_model(lake: Lake) -> None:
    rows = lake_entries(lake, pinned_versions(lake, (), "pbe"), "pbe", ["Al", "Cu"]).rows
    references = reference_candidates(rows, ["Al", "Cu"])
    assert len(references) == 3 + 2 * len(ELEMENTAL)
    assert len({reference.candidate_id for reference in references}) == len(references)
    sound = {"converged": True, "uncertainty": 0.01}
    results = {
        r.candidate_id: {**sound, "energy_per_atom": -1.0 - k, "positions": r.positions, "cell": r.cell}
        for k, r in enumerate(references)
    }
    results[references[0].candidate_id]["converged"] = False
    results[references[1].candidate_id] |= {"energy_per_atom": -60.0, "uncertainty": 25.0}  # in a hole of the model
    results[references[2].candidate_id]["cell"] = 0.5 * references[2].cell
    entries, left_out = model_entries(references, results, "pbe", FilterSpec())
    assert len(entries) == len(references) - 3
    assert {entry.theory for entry in entries} == {"model of pbe"}
    assert list(left_out.values()) == ["not converged", "uncertainty above 0.5 eV/atom", "too dense"]
    assert set(model_entries(references, {}, "pbe", FilterSpec())[1].values()) == {"not computed"}


def test_entries_keep_volume_and_origin(lake: Lake) -> None:
    row = lake_entries(lake, pinned_versions(lake, (), "pbe"), "pbe", ["Al"]).rows[0]
    entry = entry_of_row(row)
    assert entry.volume_per_atom == pytest.approx(bulk("Al").get_volume())
    assert entry.source.startswith("metals:")
    assert counts_of([13, 13, 29]) == {"Al": 2.0, "Cu": 1.0}


def test_crystals_of_some_formulas(lake: Lake) -> None:
    library = lake_library(lake, pinned_versions(lake, (), "pbe"))
    found = library(np.array([formula_hash("AlCu"), formula_hash("Al"), formula_hash("Xe")]))
    assert sorted(crystal.formula for crystal in found) == ["Al", "Al", "AlCu"]
    assert library(np.array([formula_hash("Xe")])) == []


def final_row(atoms: Atoms, formation: float, **more: object) -> dict:
    candidate = Candidate.of(atoms, "CsCl", "x")
    return {
        **dict.fromkeys(CANDIDATE_SCHEMA.names), "candidate_id": "c", "formula": candidate.formula, "prototype": "CsCl",
        "chemical_system": candidate.system, "energy_per_atom": -4.0, "formation_energy_per_atom": formation, "rank": 1,
        "shortlisted": True, "numbers": candidate.numbers.tolist(), "positions": candidate.positions.ravel().tolist(),
        "cell": np.ravel(candidate.cell).tolist(), **more,
    }  # fmt: skip


def test_model_against_dft(lake: Lake) -> None:
    row = final_row(bulk("CuAl", "cesiumchloride", a=3.0), -0.2)
    (found,) = dft_comparisons([row], lake, "pbe", {"compounds": 0}, DedupeSpec())
    assert found.dft_formation_energy_per_atom == pytest.approx(-4.1 + (3.7 + 4.0) / 2)
    assert found.dft_hull_distance == pytest.approx(0)
    assert (found.origin, found.in_training, found.rank) == ("compounds", True, 1)
    assert dft_comparisons([row], lake, "r2scan", {}, DedupeSpec()) == []
    assert dft_comparisons([final_row(bulk("CuAl", "rocksalt", a=5.0), 0.3)], lake, "pbe", {}, DedupeSpec()) == []


@pytest.mark.parametrize(("stage", "compared"), [("relaxed", 0), ("plausible", 0), ("stable", 1)])
def test_candidates_that_did_not_relax_are_not_compared(stage: str, compared: int, lake: Lake) -> None:
    row = final_row(bulk("CuAl", "cesiumchloride", a=3.9), 4.2, rank=None, shortlisted=False, stage_dropped=stage)
    assert len(dft_comparisons([row], lake, "pbe", {}, DedupeSpec())) == compared


def test_only_what_the_trained_version_holds_was_seen_in_training(lake: Lake) -> None:
    add(lake, "compounds", "pbe", [labelled(bulk("CuAl", "zincblende", a=5.5), -7.0)])
    rows = [
        final_row(bulk("CuAl", structure, a=a), -0.1, candidate_id=structure)
        for structure, a in (("cesiumchloride", 2.9), ("zincblende", 5.5))
    ]

    def seen(trained_on: dict[str, int]) -> set[str]:
        found = dft_comparisons(rows, lake, "pbe", trained_on, DedupeSpec())
        assert len(found) == 2
        return {point.candidate_id for point in found if point.in_training}

    assert seen({"compounds": 0}) == {"cesiumchloride"}
    assert seen({"compounds": 1}) == seen({"compounds": 99}) == {"cesiumchloride", "zincblende"}
    assert seen({"metals": 0}) == seen({"gone": 0}) == set()


def test_a_strained_crystal_is_not_compared_where_cells_stay(lake: Lake) -> None:
    rows = [
        final_row(bulk("CuAl", "cesiumchloride", a=a), -0.2, candidate_id=str(a), rank=k)
        for k, a in enumerate((2.9, 3.2), start=1)
    ]

    def compared(window: float | None) -> list[str]:
        found = dft_comparisons(rows, lake, "pbe", {}, DedupeSpec(), volume_window=window)
        return [point.candidate_id for point in found]

    assert (compared(None), compared(0.01)) == (["2.9", "3.2"], ["2.9"])


@pytest.mark.parametrize("refused", [{"flags": ("scf-unconverged",)}, {"total_charge": 1}])
def test_what_is_no_reference_is_no_comparison_either(refused: dict, lake: Lake) -> None:
    atoms = bulk("CuAl", "cesiumchloride", a=2.92)
    record = atoms_to_record(labelled(atoms, -12.0), "broken", "pbe")
    lake.append("broken", [replace(record, **refused)], generic_card("broken", "pbe"))
    (found,) = dft_comparisons([final_row(atoms, -0.2)], lake, "pbe", {}, DedupeSpec())
    assert found.origin == "compounds"
    assert found.dft_formation_energy_per_atom == pytest.approx(-4.1 + (3.7 + 4.0) / 2)


def test_squeezed_crystals_prove_nothing(lake: Lake) -> None:
    atoms = bulk("CuAl", "zincblende", a=5.5)
    for dataset, pressure_gpa in (("squeezed", -8.0), ("sheared", 0.0)):
        frame = labelled(atoms, -7.0)
        frame.calc.results["stress"] = np.array([pressure_gpa] * 3 + [5.0, 0.0, 0.0]) * units.GPa
        add(lake, dataset, "pbe", [frame])
    (found,) = dft_comparisons([final_row(atoms, 0.3)], lake, "pbe", {}, DedupeSpec())
    assert found.origin == "sheared"


def test_steps_of_a_relaxation_prove_nothing(lake: Lake) -> None:
    atoms = bulk("CuAl", "zincblende", a=5.5)
    add(lake, "steps", "pbe", [labelled(atoms, -7.0, config_type="truth-relaxing")])
    assert dft_comparisons([final_row(atoms, 0.3)], lake, "pbe", {}, DedupeSpec()) == []
    add(lake, "ends", "pbe", [labelled(atoms, -7.1, config_type="truth-relaxed")])
    (found,) = dft_comparisons([final_row(atoms, 0.3)], lake, "pbe", {}, DedupeSpec())
    assert (found.origin, found.in_training) == ("ends", False)
