import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.io import read
from typer.testing import CliRunner

from flows import campaigns as campaign_folders
from flows.campaign_bar import JournalCounter
from flows.campaign_outputs import report_context, rows_to_draw
from flows.campaign_plan import check_campaign, describe_campaign
from flows.campaign_shard import compute_shard
from flows.campaigns import (
    INTERRUPTED,
    CampaignFolder,
    flat,
    folder_of,
    pin_model,
    potential_of,
    refuse_another_spec,
    request_cancel,
    result_of,
)
from flows.cli.main import app
from flows.screen import screen
from flows.settings import Home
from gnn.errors import InputError, SluiceError
from gnn.files import locked
from gnn.lake.table import Lake
from gnn.screening.campaign import parse_campaign, read_campaign
from gnn.screening.manifest import CampaignManifest
from gnn.structures.atoms import atoms_to_record
from gnn.structures.cards import generic_card

Run = Callable[..., Any]


@pytest.fixture
def run(run_here: Run) -> Run:
    return run_here


def rows_of(home: Home, name: str = "metals") -> list[dict[str, Any]]:
    return pq.read_table(home.campaigns / name / "candidates.parquet").to_pylist()


def journal_ids(home: Home, name: str = "metals") -> list[str]:
    ids = []
    for path in sorted((home.campaigns / name / "shards").glob("*.part.jsonl")):
        ids += [json.loads(line)["candidate_id"] for line in path.read_text().splitlines()[1:]]
    return ids


def test_a_campaign_from_file_to_shortlist(run: Run, home: Home, campaign_file: Path) -> None:
    result = run(campaign_file)
    assert (result.state, result.model, result.n_shortlist) == ("COMPLETED", "foreign:emt", 4)
    assert result.shards.done == result.shards.total > 1
    rows = rows_of(home)
    assert len({row["candidate_id"] for row in rows}) == len(rows) == result.n_candidates
    shortlisted = sorted((row for row in rows if row["shortlisted"]), key=lambda row: row["rank"])
    assert [row["stage_dropped"] for row in shortlisted] == [None] * 4
    assert all((row["stage_dropped"] is None) == row["shortlisted"] for row in rows)
    assert {name: (home.root / path).exists() for name, path in result.paths.items()} == dict.fromkeys(
        result.paths, True
    )
    frames = read(home.root / result.paths["shortlist_xyz"], ":")
    assert [frame.info["candidate_id"] for frame in frames] == [row["candidate_id"] for row in shortlisted]
    assert result.cost["cpu_s"] > 0


def test_a_page_draws_the_best_of_very_many(
    run: Run, home: Home, campaign_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The shortlist and what was compared with DFT is always drawn, and the page says how many it leaves out."""
    result = run(campaign_file)
    table = home.root / result.paths["candidates"]
    rows = rows_of(home)
    assert rows_to_draw(table, set())[1] == 0
    monkeypatch.setattr("flows.campaign_outputs.MOST_DRAWN", 2)
    unranked = next(row["candidate_id"] for row in rows if row["rank"] is None)
    drawn, left_out = rows_to_draw(table, {unranked})
    wanted = {row["candidate_id"] for row in rows if row["shortlisted"] or (row["rank"] or 99) <= 2} | {unranked}
    assert set(drawn["candidate_id"].to_pylist()) == wanted
    assert left_out == len(rows) - len(wanted) > 0
    context = report_context(CampaignFolder(home, "metals"))
    assert context.facts.notes[-1].startswith("the pictures leave out ")
    assert [(row.stage, row.n) for row in context.cost if row.stage == "prepare"] == [("prepare", len(rows))]


def test_the_funnel_adds_up(run: Run, home: Home, campaign_file: Path) -> None:
    result = run(campaign_file)
    rows = rows_of(home)
    n_in = result.n_candidates
    for stage in result.funnel:
        assert stage.n_in == n_in == stage.n_out + sum(stage.rejected.values())
        assert sum(row["stage_dropped"] == stage.stage for row in rows) == sum(stage.rejected.values())
        n_in = stage.n_out
    assert n_in == result.n_shortlist == sum(row["shortlisted"] for row in rows)


def test_energies_in_the_table_are_the_models(run: Run, home: Home, campaign_file: Path) -> None:
    run(campaign_file)
    for row in rows_of(home):
        if row["energy_per_atom"] is None:
            assert row["stage_dropped"] == "distinct"
            continue
        atoms = Atoms(
            row["numbers"], np.reshape(row["positions"], (-1, 3)), cell=np.reshape(row["cell"], (3, 3)), pbc=True
        )
        atoms.calc = EMT()
        assert atoms.get_potential_energy(force_consistent=True) / len(atoms) == pytest.approx(row["energy_per_atom"])
        assert row["hull_distance"] >= row["formation_energy_per_atom"] - 1e-9 or row["formation_energy_per_atom"] > 0


def test_a_second_run_repeats_nothing(run: Run, home: Home, campaign_file: Path) -> None:
    first = run(campaign_file)
    before, ids = rows_of(home), journal_ids(home)
    again = run(campaign_file)
    manifest = CampaignFolder(home, "metals").manifest()
    assert manifest is not None
    assert (manifest.computed, manifest.reused) == (0, len(ids))
    assert journal_ids(home) == ids
    assert rows_of(home) == before
    assert again.funnel == first.funnel
    assert again.cost["cpu_s"] == first.cost["cpu_s"]
    assert again.cost["wall_s"] >= first.cost["wall_s"]


def test_an_interrupted_run_goes_on(run: Run, home: Home, campaign_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reference = run(parse_campaign({**read_campaign(campaign_file).model_dump(), "name": "reference"}, "x"))
    left = [5]
    real = campaign_folders.potential_of

    def failing(*args: Any) -> Any:
        left[0] -= 1
        if left[0] < 3:
            raise KeyboardInterrupt
        return real(*args)

    monkeypatch.setattr("flows.screen.potential_of", failing)
    with pytest.raises(KeyboardInterrupt):
        run(campaign_file)
    done = journal_ids(home)
    assert done
    assert result_of(CampaignFolder(home, "metals")).state == "CANCELLED"
    monkeypatch.setattr("flows.screen.potential_of", real)
    result = run(campaign_file)
    assert journal_ids(home)[: len(done)] == done
    assert len(set(journal_ids(home))) == len(journal_ids(home))
    assert [stage.model_dump() for stage in result.funnel] == [stage.model_dump() for stage in reference.funnel]
    assert [r["candidate_id"] for r in rows_of(home) if r["shortlisted"]] == [
        r["candidate_id"] for r in rows_of(home, "reference") if r["shortlisted"]
    ]


def test_failed_shards_fail_the_campaign_after_the_rest_is_written(
    run: Run, home: Home, campaign_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import flows.screen

    real = flows.screen.screen_shard

    def breaking(root: str, name: str, index: int, threads: int = 1) -> dict[str, Any]:
        if index == 1:
            raise RuntimeError("the node went away")
        return real(root, name, index, threads)

    monkeypatch.setattr("flows.screen.screen_shard", breaking)
    with pytest.raises(
        SluiceError, match=r"1 of \d+ shards failed, the first \(shard 1\) with RuntimeError: the node went"
    ):
        run(campaign_file)
    result = result_of(CampaignFolder(home, "metals"))
    assert (result.state, result.shards.failed) == ("FAILED", 1)
    relaxed = next(stage for stage in result.funnel if stage.stage == "relaxed")
    lost = relaxed.rejected["not computed: its shard failed"]
    assert lost == sum(row["reason"] == "not computed: its shard failed" for row in rows_of(home))
    computed = len(journal_ids(home))
    monkeypatch.setattr("flows.screen.screen_shard", real)
    again = run(campaign_file)
    manifest = CampaignFolder(home, "metals").manifest()
    assert manifest is not None
    assert (again.state, again.shards.failed, manifest.reused) == ("COMPLETED", 0, computed)


def test_two_launches_at_once(run: Run, home: Home, campaign_file: Path) -> None:
    folder = CampaignFolder(home, "metals")
    with locked(folder.lock, "test"), pytest.raises(SluiceError, match="campaign metals is in use by another process"):
        run(campaign_file)
    with locked(folder.lock, "test"), pytest.raises(SluiceError, match="in use"):
        check_campaign(campaign_file, home, {}, fresh=False)


def test_a_changed_specification_needs_fresh(run: Run, home: Home, campaign_file: Path) -> None:
    run(campaign_file)
    changes = {"selection": {"budget": 2}}
    with pytest.raises(InputError, match=r"another specification \(selection.budget was 4, now 2\).*--fresh"):
        run(campaign_file, changes=changes)
    with pytest.raises(InputError, match="another specification"):
        check_campaign(campaign_file, home, changes, fresh=False)
    assert run(campaign_file, changes=changes, fresh=True).n_shortlist == 2


def test_cancelling(run: Run, home: Home, campaign_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = CampaignFolder(home, "metals")
    real = campaign_folders.potential_of

    def cancelling(*args: Any) -> Any:
        request_cancel(folder)
        return real(*args)

    monkeypatch.setattr("flows.screen.potential_of", cancelling)
    with pytest.raises(SluiceError, match="was cancelled; the same command goes on"):
        run(campaign_file)
    assert result_of(folder).state == "CANCELLED"
    kept = len(journal_ids(home))
    assert kept >= 1
    monkeypatch.setattr("flows.screen.potential_of", real)
    assert run(campaign_file).state == "COMPLETED"
    manifest = folder.manifest()
    assert manifest is not None
    assert manifest.reused == kept
    with pytest.raises(InputError, match="is not running"):
        request_cancel(folder)


def test_a_killed_campaign_is_seen_as_interrupted(run: Run, home: Home, campaign_file: Path) -> None:
    run(campaign_file)
    folder = CampaignFolder(home, "metals")
    manifest = folder.manifest()
    assert manifest is not None
    manifest.model_copy(update={"state": "RUNNING"}).write(folder.root)
    assert result_of(folder).state == INTERRUPTED
    with locked(folder.lock, "test"):
        assert result_of(folder).state == "RUNNING"


def test_shards_without_a_server(run: Run, home: Home, campaign_file: Path) -> None:
    first = compute_shard(str(campaign_file), 0, home)
    assert first.computed == first.structures > 0
    again = compute_shard("metals", 0, home)
    assert (again.computed, again.reused) == (0, first.structures)
    with pytest.raises(InputError, match=r"there is no shard 99; the campaign has 0 to \d"):
        compute_shard("metals", 99, home)
    result = run(campaign_file)
    manifest = CampaignFolder(home, "metals").manifest()
    assert manifest is not None
    assert result.state == "COMPLETED"
    assert manifest.reused == first.structures


def test_a_dry_run_writes_nothing(home: Home, campaign_file: Path) -> None:
    plan = describe_campaign(campaign_file, home, {}, workers=2)
    assert plan.structures > plan.funnel[-1].n_out > 0
    assert plan.n_candidates == plan.funnel[0].n_in
    assert not home.campaigns.exists()


# ---- the hull of the lake


@pytest.fixture
def lake(home: Home) -> Lake:
    """Al and Cu, and one compound, labelled by EMT; Ni is missing."""
    table = Lake(home.lake)
    records = []
    for atoms in (bulk("Al"), bulk("Cu"), bulk("Al", "fcc", a=4.3), bulk("CuAl", "cesiumchloride", a=3.03)):
        atoms.calc = EMT()
        atoms.get_potential_energy()
        atoms.get_forces()
        atoms.get_stress()
        records.append(atoms_to_record(atoms, "emt-labels", "emt/ase"))
    table.append("emt-labels", records, generic_card("emt-labels", "emt/ase"))
    return table


DFT = {"hull": {"reference": "dft"}}


def test_a_fixed_hull_from_the_lake(run: Run, home: Home, lake: Lake, campaign_file: Path) -> None:
    result = run(campaign_file, changes=DFT)
    assert result.lake_versions == {"emt-labels": lake.version("emt-labels")}
    near = next(stage for stage in result.funnel if stage.stage == "near_hull")
    without = [row for row in rows_of(home) if row["reason"] == "no reference energy: Ni"]
    assert near.rejected["no reference energy"] == len(without) > 0
    assert all("Ni" in row["chemical_system"] for row in without)
    manifest = CampaignFolder(home, "metals").manifest()
    assert manifest is not None
    assert any("no reference energy at emt/ase for Ni" in warning for warning in manifest.warnings)
    aluminium = next(row for row in manifest.hull_entries if row.name == "Al")
    atoms = bulk("Al")
    atoms.calc = EMT()
    assert aluminium.energy_per_atom == pytest.approx(atoms.get_potential_energy())
    assert {row["chemical_system"] for row in rows_of(home) if row["hull_distance"] is not None} == {"Al-Cu"}


def test_the_lakes_version_is_pinned(run: Run, home: Home, lake: Lake, campaign_file: Path) -> None:
    first = run(campaign_file, changes=DFT)
    atoms = bulk("Ni")
    atoms.calc = EMT()
    atoms.get_potential_energy()
    lake.append("emt-labels", [atoms_to_record(atoms, "emt-labels", "emt/ase")], generic_card("emt-labels", "emt/ase"))
    again = run(campaign_file, changes=DFT)
    assert again.lake_versions == first.lake_versions
    assert again.funnel == first.funnel


def test_known_crystals_are_flagged_and_may_be_dropped(run: Run, home: Home, lake: Lake, campaign_file: Path) -> None:
    run(campaign_file, changes=DFT)
    flagged = [row for row in rows_of(home) if row["in_lake"] is not None]
    assert [(row["prototype"], row["formula"]) for row in flagged] == [("CsCl", "AlCu")]
    result = run(campaign_file, changes={**DFT, "name": "novel", "filters": {"novel_only": True}})
    assert next(stage for stage in result.funnel if stage.stage == "novel").rejected == {"already in the lake": 1}


def test_model_against_dft(run: Run, home: Home, lake: Lake, campaign_file: Path) -> None:
    run(campaign_file, changes=DFT)
    context = report_context(CampaignFolder(home, "metals"))
    compared = {item.formula: item for item in context.dft}
    assert set(compared) == {"AlCu"}
    assert compared["AlCu"].origin == "emt-labels"
    # the label is unrelaxed, the candidate relaxed by the same method: it can only be lower
    assert compared["AlCu"].model_formation_energy_per_atom <= compared["AlCu"].dft_formation_energy_per_atom
    assert not compared["AlCu"].in_training
    assert context.provenance.theory == "emt/ase"


def test_a_lake_without_references_is_refused_at_once(run: Run, home: Home, campaign_file: Path) -> None:
    with pytest.raises(InputError, match="no reference energy at emt/ase for Al, Cu, Ni; ingest or label"):
        run(campaign_file, changes=DFT)
    assert not CampaignFolder(home, "metals").exists()


def test_a_hull_data_set_must_exist(run: Run, campaign_file: Path, lake: Lake) -> None:
    with pytest.raises(InputError, match="hull data set 'none' is not in the lake; there are emt-labels"):
        run(campaign_file, changes={"hull": {"reference": "dft", "datasets": ["none"]}})


# ---- models and folders


def test_pins(home: Home, campaign_file: Path) -> None:
    spec = read_campaign(campaign_file)
    pin = pin_model(spec, home)
    assert (pin.theory, pin.foreign, len(pin.sha256)) == ("emt/ase", "emt", 64)
    assert potential_of(pin, home) is potential_of(pin, home)
    with pytest.raises(InputError, match="no foreign potential 'none'"):
        pin_model(spec.model_copy(update={"model": "foreign:none"}), home)
    with pytest.raises(InputError, match="has the theory emt/ase, not 'pbe'"):
        pin_model(spec.model_copy(update={"theory": "pbe"}), home)
    with pytest.raises(InputError, match="no model 'none'"):
        pin_model(spec.model_copy(update={"model": "none"}), home)


def test_folders(home: Home, campaign_file: Path) -> None:
    assert folder_of(str(campaign_file), home).name == "metals"
    assert folder_of("metals", home).root == home.campaigns / "metals"
    with pytest.raises(InputError, match="is no campaign's name"):
        folder_of("../x", home)
    with pytest.raises(InputError, match=r"no campaign 'metals' in .*; there are: none"):
        folder_of("metals", home).spec()
    refuse_another_spec(folder_of("metals", home), read_campaign(campaign_file))


def test_counting_journals(tmp_path: Path) -> None:
    counter = JournalCounter(tmp_path)
    assert counter.count() == 0
    journal = tmp_path / "shard-0000.part.jsonl"
    journal.write_bytes(b"header\n")
    assert counter.count() == 0
    with journal.open("ab") as stream:
        stream.write(b"one\ntwo\nthr")
    assert counter.count() == 2
    with journal.open("ab") as stream:
        stream.write(b"ee\n")
    (tmp_path / "shard-0001.part.jsonl").write_bytes(b"header\none\n")
    assert counter.count() == 4
    journal.write_bytes(b"header\none\n")
    assert counter.count() == 2


def test_flat_tables() -> None:
    assert flat({"a": {"b": 1, "c": {"d": 2}}, "e": [3]}) == {"a.b": 1, "a.c.d": 2, "e": [3]}


# ---- the command line


def sluice(*arguments: str) -> Any:
    return CliRunner().invoke(app, list(arguments))


def test_mistakes_exit_2_in_one_line(home: Home, campaign_file: Path) -> None:
    bad = campaign_file.with_name("bad.toml")
    bad.write_text(campaign_file.read_text().replace('"CsCl"', '"CsI"'))
    for arguments, message in (
        (["screen", "none.toml"], "no campaign file none.toml"),
        (["screen", str(bad)], "unknown prototype 'CsI'"),
        (["screen", str(campaign_file), "--set", "selection.budget=0"], "selection.budget"),
        (["screen", str(campaign_file), "--set", "model=foreign:none"], "no foreign potential 'none'"),
        (["screen", str(campaign_file), "--set", 'candidates.files=["none.cif"]'], "there is no"),
        (["campaigns", "show", "none"], "no campaign 'none'"),
        (["campaigns", "rerun", "none"], "no campaign 'none'"),
        (["campaigns", "report", "none"], "no campaign 'none'"),
        (["campaigns", "cancel", "none"], "no campaign 'none'"),
        (["shard", "none", "0"], "no campaign 'none'"),
    ):
        result = sluice(*arguments)
        assert result.exit_code == 2, (arguments, result.output)
        assert message in result.stderr
        assert result.stdout == ""
        assert len(result.stderr.splitlines()) == 1


def test_json_is_one_object(run: Run, home: Home, campaign_file: Path) -> None:
    run(campaign_file)
    shown = sluice("campaigns", "show", "metals", "--json")
    assert shown.exit_code == 0
    content = json.loads(shown.stdout)
    wanted = (
        "n_candidates",
        "funnel",
        "n_shortlist",
        "model",
        "model_version",
        "model_sha256",
        "lake_versions",
        "state",
        "shards",
        "cost",
        "paths",
    )
    assert set(wanted) <= set(content)
    assert set(content["shards"]) >= {"total", "done", "failed"}
    assert json.loads(sluice("campaigns", "ls", "--json").stdout)["campaigns"][0]["campaign"] == "metals"
    assert json.loads(sluice("shard", "metals", "0", "--json").stdout)["computed"] == 0
    assert json.loads(sluice("screen", str(campaign_file), "--dry-run", "--json").stdout)["shards"] > 1


def test_people_get_a_funnel(run: Run, home: Home, campaign_file: Path) -> None:
    run(campaign_file)
    shown = sluice("campaigns", "show", "metals")
    assert "shortlist" in shown.stdout
    assert "metals" in sluice("campaigns", "ls").stdout
    assert "report.html" in sluice("campaigns", "report", "metals").stderr
    assert "would relax" in sluice("screen", str(campaign_file), "--dry-run").stderr


def test_reruns_from_the_folder(run: Run, home: Home, campaign_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(campaign_file)
    campaign_file.unlink()
    monkeypatch.setattr(
        "flows.screen.screen", lambda spec, home, **options: screen.fn(spec, home, show=False, **options)
    )
    again = sluice("campaigns", "rerun", "metals", "--json")
    assert again.exit_code == 0, again.output
    assert json.loads(again.stdout)["state"] == "COMPLETED"


# ---- under a real server


@pytest.fixture
def larger(campaign_file: Path) -> str:
    text = campaign_file.read_text().replace("atoms = 20", "atoms = 60")
    return text.replace("[relaxation]", "derivatives = [{max_sites = 3}]\n[relaxation]\nfmax = 0.001")


def start(file: Path, home: Home) -> subprocess.Popen[bytes]:
    command = [str(Path(sys.executable).with_name("sluice")), "screen", str(file), "--json", "--workers", "2"]
    log = (file.parent / "log").open("ab")
    environment = {**os.environ, "SLUICE_HOME": str(home.root), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, env=environment, start_new_session=True)


@pytest.mark.server
@pytest.mark.slow
def test_kill_9_in_the_middle_of_a_campaign(home: Home, larger: str, tmp_path: Path) -> None:
    """The whole command, killed with its workers; the same command again repeats no record and ends the same."""
    file = tmp_path / "larger.toml"
    file.write_text(larger)
    process = start(file, home)
    deadline = time.monotonic() + 300
    folder = home.campaigns / "metals" / "shards"
    while not (folder.is_dir() and len(journal_ids(home)) >= 10):
        assert time.monotonic() < deadline, (tmp_path / "log").read_text()
        assert process.poll() is None, (tmp_path / "log").read_text()
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    before = journal_lines(folder)
    assert result_of(CampaignFolder(home, "metals")).state == INTERRUPTED
    output, _ = start(file, home).communicate(timeout=400)
    result = json.loads(output)
    assert result["state"] == "COMPLETED", (tmp_path / "log").read_text()
    after = journal_lines(folder)
    assert len(before) < len(after)
    assert before <= after
    assert len(set(journal_ids(home))) == len(journal_ids(home)) == len(after)
    manifest = CampaignManifest.read(home.campaigns / "metals")
    assert manifest.computed == len(after) - len(before)


def journal_lines(folder: Path) -> set[str]:
    """Whole records of all journals."""
    lines: set[str] = set()
    for path in folder.glob("*.part.jsonl"):
        content = path.read_text()
        lines |= set(content[: content.rfind("\n") + 1].splitlines()[1:])
    return lines
