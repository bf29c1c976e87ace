from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from ase.io import read
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gnn.screening.campaign import CampaignSpec
from gnn.screening.conclude import Conclusion, conclude
from gnn.screening.dedupe import Crystal
from gnn.screening.final import write_dft_inputs, write_tables
from gnn.screening.gather import Inputs
from gnn.screening.hull import HullEntry, ReferenceHull
from gnn.screening.preparation import Prepared
from gnn.screening.prepare import prepare
from gnn.screening.tables import CANDIDATE_SCHEMA

MakeSpec = Callable[..., CampaignSpec]
OUTCOMES = ("converged", "converged", "converged", "steps", "exploded", "error")


def hull(**more: float) -> ReferenceHull:
    energies = {"Al": -3.0, "Cu": -4.0, **more}
    return ReferenceHull([HullEntry(((s, 1.0),), e, s, "test", "t") for s, e in energies.items()])


def result(
    ready: Prepared, name: str, energy: float | None = -3.6, outcome: str = "converged", **more: Any
) -> dict[str, Any]:
    candidate = ready.candidates[name]
    return {
        "candidate_id": name,
        "energy_per_atom": energy,
        "uncertainty": 0.01,
        "converged": outcome == "converged",
        "outcome": outcome,
        "reason": None if outcome == "converged" else f"it {outcome}",
        "steps": 3,
        "fmax": 0.01,
        "cpu_s": 0.5,
        "positions": candidate.positions.ravel().tolist(),
        "cell": candidate.cell.ravel().tolist(),
        **more,
    }


@pytest.fixture
def ready(make_spec: MakeSpec, inputs: Inputs) -> Prepared:
    return prepare(make_spec(), inputs, 1)


def all_results(ready: Prepared, **more: Any) -> dict[str, dict[str, Any]]:
    return {name: result(ready, name, **more) for name in ready.ledger.alive}


def check(conclusion: Conclusion, ready: Prepared) -> None:
    """Every candidate once; the funnel and the table say the same."""
    assert [row["candidate_id"] for row in conclusion.rows] == list(ready.ledger.ids)
    n_in = len(conclusion.rows)
    for stage in conclusion.ledger.stages:
        assert stage.n_in == n_in == stage.n_out + sum(stage.rejected.values())
        assert sum(row["stage_dropped"] == stage.stage for row in conclusion.rows) == sum(stage.rejected.values())
        n_in = stage.n_out
    shortlisted = [row for row in conclusion.rows if row["shortlisted"]]
    assert n_in == len(shortlisted) == len(conclusion.shortlist)
    assert all(
        (row["stage_dropped"] is None) == row["shortlisted"] == (row["reason"] is None) for row in conclusion.rows
    )
    ranks = sorted(row["rank"] for row in conclusion.rows if row["rank"] is not None)
    assert ranks == list(range(1, len(ranks) + 1))


@given(st.data())
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_everyone_stands_once_whatever_happens(make_spec: MakeSpec, ready: Prepared, data: st.DataObject) -> None:
    results = {}
    for name in ready.ledger.alive:
        if data.draw(st.booleans()) or data.draw(st.booleans()):
            outcome = data.draw(st.sampled_from(OUTCOMES))
            energy = data.draw(st.sampled_from([-3.6, -3.5, -3.0, 9.0])) if outcome in ("converged", "steps") else None
            results[name] = result(
                ready, name, energy, outcome, uncertainty=data.draw(st.sampled_from([None, 0.01, 2.0]))
            )
    spec = make_spec(selection={"budget": 2}, filters={"require_convergence": data.draw(st.booleans())})
    check(conclude(spec, ready, results, hull(), "t"), ready)


def test_stages_and_reasons(make_spec: MakeSpec, ready: Prepared) -> None:
    names = ready.ledger.alive
    results = all_results(ready)
    results[names[0]] = result(ready, names[0], None, "exploded")
    results[names[1]] = result(ready, names[1], 90.0)
    results[names[2]] = result(ready, names[2], uncertainty=3.0)
    del results[names[3]]
    conclusion = conclude(make_spec(), ready, results, hull(), "t")
    check(conclusion, ready)
    rows = {row["candidate_id"]: row for row in conclusion.rows}
    assert rows[names[0]]["reason"] == "exploded: it exploded"
    assert rows[names[1]]["stage_dropped"] == "plausible"
    assert rows[names[2]]["reason"] == "uncertainty above 0.5 eV/atom: 3.000"
    assert rows[names[3]]["reason"] == "not computed: its shard failed"
    assert rows[names[3]]["energy_per_atom"] is None


def test_unconverged_structures_may_stay(make_spec: MakeSpec, ready: Prepared) -> None:
    results = all_results(ready, outcome="steps")
    assert conclude(make_spec(), ready, results, hull(), "t").shortlist == []
    kept = conclude(make_spec(filters={"require_convergence": False}), ready, results, hull(), "t")
    assert kept.shortlist
    assert not any(row["converged"] for row in kept.rows if row["shortlisted"])


def test_energies_against_the_hull(make_spec: MakeSpec, ready: Prepared) -> None:
    conclusion = conclude(make_spec(), ready, all_results(ready, energy=-3.6), hull(), "t")
    for row in conclusion.rows:
        if row["energy_per_atom"] is not None:
            x = row["numbers"].count(13) / row["n_atoms"]
            assert row["formation_energy_per_atom"] == pytest.approx(-3.6 + 3.0 * x + 4.0 * (1 - x))
            assert row["hull_distance"] == pytest.approx(row["formation_energy_per_atom"])
            assert row["score"] is None or row["score"] == pytest.approx(row["hull_distance"] - 0.5 * 0.01)


def test_relaxing_into_another_candidate(make_spec: MakeSpec, ready: Prepared) -> None:
    """Two candidates that end in one crystal: the one of lower energy stays."""
    pair = [name for name in ready.ledger.alive if ready.candidates[name].formula == "AlCu"][:2]
    target = ready.candidates[pair[0]]
    results = all_results(ready)
    for name, energy in zip(pair, (-3.600, -3.601), strict=True):
        geometry = {"positions": target.positions.ravel().tolist(), "cell": target.cell.ravel().tolist()}
        results[name] = {**result(ready, name, energy), **geometry}
    conclusion = conclude(make_spec(), ready, results, hull(), "t")
    rows = {row["candidate_id"]: row for row in conclusion.rows}
    assert (rows[pair[0]]["stage_dropped"], rows[pair[0]]["duplicate_of"]) == ("distinct_relaxed", pair[1])
    assert rows[pair[1]]["stage_dropped"] != "distinct_relaxed"


@pytest.mark.parametrize("novel_only", [True, False])
def test_relaxing_into_a_crystal_of_the_lake(make_spec: MakeSpec, ready: Prepared, novel_only: bool) -> None:
    """A candidate that was new as it came need not be so as it relaxed."""
    first, other = [name for name in ready.ledger.alive if ready.candidates[name].formula == "AlCu"][:2]
    target = ready.candidates[other]
    known = Crystal("metals:0123", target.numbers, 1.03 * target.positions, 1.03 * target.cell)
    results = all_results(ready, energy=-3.55)
    del results[other]
    geometry = {"positions": target.positions.ravel().tolist(), "cell": target.cell.ravel().tolist()}
    results[first] = {**result(ready, first, -3.6), **geometry}
    spec = make_spec(filters={"novel_only": novel_only})
    conclusion = conclude(spec, ready, results, hull(), "t", lambda _: [known])
    check(conclusion, ready)
    row = conclusion.rows.by_id[first]
    assert row["in_lake"] == "metals:0123"
    assert [r["candidate_id"] for r in conclusion.rows if r["in_lake"] is not None] == [first]
    if novel_only:
        assert row["reason"] == "relaxed into a crystal of the lake: metals:0123"
    assert (row["stage_dropped"] == "novel_relaxed") is novel_only


@pytest.mark.parametrize(("mode", "dropped"), [("cell", 1), ("positions", 0), ("none", 0)])
def test_another_volume_is_another_crystal_where_cells_stay(
    make_spec: MakeSpec, ready: Prepared, mode: str, dropped: int
) -> None:
    pair = [name for name in ready.ledger.alive if ready.candidates[name].formula == "AlCu"][:2]
    target = ready.candidates[pair[0]]
    results = all_results(ready)
    for name, factor in zip(pair, (1.0, 1.02), strict=True):
        positions, cell = factor * target.positions, factor * target.cell
        geometry = {"positions": positions.ravel().tolist(), "cell": cell.ravel().tolist()}
        results[name] = {**result(ready, name, -3.6), **geometry}
    conclusion = conclude(make_spec(relaxation={"mode": mode}), ready, results, hull(), "t")
    stages = {stage.stage: stage.rejected for stage in conclusion.ledger.stages}
    assert sum(stages["distinct_relaxed"].values()) == dropped


@pytest.mark.parametrize(("mode", "known"), [("cell", 2), ("positions", 1), ("none", 1)])
def test_a_strained_crystal_is_not_the_lakes_where_cells_stay(
    make_spec: MakeSpec, ready: Prepared, mode: str, known: int
) -> None:
    pair = [name for name in ready.ledger.alive if ready.candidates[name].formula == "AlCu"][:2]
    target = ready.candidates[pair[0]]
    results = all_results(ready)
    for name, factor in zip(pair, (1.0, 1.1), strict=True):
        positions, cell = factor * target.positions, factor * target.cell
        geometry = {"positions": positions.ravel().tolist(), "cell": cell.ravel().tolist()}
        results[name] = {**result(ready, name, -3.6 + factor), **geometry}
    spec = make_spec(relaxation={"mode": mode}, filters={"max_hull_distance": False})
    held = Crystal("metals:0123", target.numbers, target.positions, target.cell)
    conclusion = conclude(spec, ready, results, hull(), "t", lambda _: [held])
    assert sum(row["in_lake"] is not None for row in conclusion.rows) == known


def test_without_references_there_is_no_distance(make_spec: MakeSpec, ready: Prepared) -> None:
    only_al = ReferenceHull([HullEntry((("Al", 1.0),), -3.0, "Al", "test", "t")])
    conclusion = conclude(make_spec(), ready, all_results(ready), only_al, "t")
    check(conclusion, ready)
    assert {row["reason"] for row in conclusion.rows if row["stage_dropped"] == "near_hull"} == {
        "no reference energy: Cu"
    }


def test_the_preparation_is_left_as_it_was(make_spec: MakeSpec, ready: Prepared) -> None:
    before = (dict(ready.ledger.drops), list(ready.ledger.stages))
    conclude(make_spec(), ready, all_results(ready), hull(), "t")
    assert (ready.ledger.drops, ready.ledger.stages) == before


def test_tables_on_disk(make_spec: MakeSpec, ready: Prepared, tmp_path: Path) -> None:
    conclusion = conclude(make_spec(), ready, all_results(ready, energy=-3.55), hull(), "t")
    paths = write_tables(tmp_path, conclusion.rows, conclusion.shortlist)
    table = pq.read_table(tmp_path / paths["candidates"])
    assert table.schema.equals(CANDIDATE_SCHEMA)
    assert table.num_rows == len(ready.ledger.ids)
    assert pq.read_table(tmp_path / paths["shortlist"])["candidate_id"].to_pylist() == conclusion.shortlist
    frames = read(tmp_path / paths["relaxed"], ":")
    assert len(frames) == table["energy_per_atom"].drop_null().length()
    rows = {row["candidate_id"]: row for row in conclusion.rows}
    for frame in frames:
        row = rows[frame.info["candidate_id"]]
        assert frame.info["hull_distance"] == pytest.approx(row["hull_distance"])
        assert np.allclose(frame.positions.ravel(), row["positions"])
        assert frame.calc is None or "energy" not in frame.calc.results


def test_an_empty_shortlist_is_no_accident(make_spec: MakeSpec, ready: Prepared, tmp_path: Path) -> None:
    conclusion = conclude(make_spec(), ready, {}, hull(), "t")
    paths = write_tables(tmp_path, conclusion.rows, conclusion.shortlist)
    assert pq.read_table(tmp_path / paths["shortlist"]).num_rows == 0
    assert (tmp_path / paths["shortlist_xyz"]).read_text() == ""


def test_inputs_for_dft(make_spec: MakeSpec, ready: Prepared, tmp_path: Path) -> None:
    conclusion = conclude(make_spec(), ready, all_results(ready, energy=-3.55), hull(), "t")
    manifest = write_dft_inputs(tmp_path, conclusion.rows, conclusion.shortlist, ["qe"], "t")
    assert len(manifest.structures) == len(conclusion.shortlist) > 0
    assert manifest.structures[0].name.startswith("001-")
    inputs = sorted((tmp_path / "dft" / "qe").glob("*/*.pwi"))
    assert len(inputs) == len(conclusion.shortlist)
    first = next(row for row in conclusion.rows if row["candidate_id"] == conclusion.shortlist[0])
    atoms = read(inputs[0], format="espresso-in")
    assert len(atoms) == first["n_atoms"]


def test_folders_of_inputs_are_named_by_rank(make_spec: MakeSpec, ready: Prepared, tmp_path: Path) -> None:
    conclusion = conclude(make_spec(), ready, all_results(ready, energy=-3.55), hull(), "t")
    some = conclusion.shortlist[1::2]
    manifest = write_dft_inputs(tmp_path, conclusion.rows, some, ["qe"], "t")
    ranks = [conclusion.rows.by_id[name]["rank"] for name in some]
    assert [int(entry.name.split("-")[0]) for entry in manifest.structures] == ranks
    assert ranks[0] == 2
