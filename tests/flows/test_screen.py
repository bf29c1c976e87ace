"""Campaigns from their file to their shortlist, interrupted, cancelled, failed and run again."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.calculators.emt import EMT
from ase.io import read
from screened import journal_ids, rows_of

from flows import campaigns as campaign_folders
from flows.campaign_outputs import report_context, rows_to_draw
from flows.campaign_plan import check_campaign, describe_campaign
from flows.campaign_shard import compute_shard
from flows.campaigns import INTERRUPTED, CampaignFolder, pin_model, request_cancel, result_of
from flows.rerun import parse_choice
from flows.settings import Home
from gnn.errors import InputError, SluiceError
from gnn.files import locked
from gnn.screening.campaign import parse_campaign, read_campaign
from gnn.screening.shard import shard_name
from gnn.screening.strikes import ENDING

Run = Callable[..., Any]


def test_a_campaign_from_file_to_shortlist(run_here: Run, home: Home, campaign_file: Path) -> None:
    result = run_here(campaign_file)
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
    run_here: Run, home: Home, campaign_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The shortlist and what was compared with DFT is always drawn, and the page says how many it leaves out."""
    result = run_here(campaign_file)
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


def test_a_known_compound_of_another_structure_is_not_found(
    run_here: Run, home: Home, campaign_file: Path, tmp_path: Path
) -> None:
    known = tmp_path / "known.toml"
    compounds = ['structure_type = "CsCl"\nprototype = "CsCl"\nelements = ["Al", "Ni"]', 'structure_type = "X"']
    known.write_text("".join(f'[[compound]]\nformula = "AlNi"\ncitation = "c"\n{more}\n' for more in compounds))
    run_here(campaign_file, changes={"known_compounds": str(known)})
    context = report_context(CampaignFolder(home, "metals"))
    assert [(compound.rank is None, compound.found) for compound in context.known] == [(False, True), (False, False)]


def test_the_funnel_adds_up(run_here: Run, home: Home, campaign_file: Path) -> None:
    result = run_here(campaign_file)
    rows = rows_of(home)
    n_in = result.n_candidates
    for stage in result.funnel:
        assert stage.n_in == n_in == stage.n_out + sum(stage.rejected.values())
        assert sum(row["stage_dropped"] == stage.stage for row in rows) == sum(stage.rejected.values())
        n_in = stage.n_out
    assert n_in == result.n_shortlist == sum(row["shortlisted"] for row in rows)


def test_torch_has_its_threads_back(run_here: Run, campaign_file: Path) -> None:
    before = torch.get_num_threads()
    run_here(campaign_file)
    assert torch.get_num_threads() == before


def test_energies_in_the_table_are_the_models(run_here: Run, home: Home, campaign_file: Path) -> None:
    run_here(campaign_file)
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


def test_a_second_run_repeats_nothing(run_here: Run, home: Home, campaign_file: Path) -> None:
    first = run_here(campaign_file)
    before, ids = rows_of(home), journal_ids(home)
    again = run_here(campaign_file)
    manifest = CampaignFolder(home, "metals").manifest()
    assert manifest is not None
    assert (manifest.computed, manifest.reused) == (0, len(ids))
    assert journal_ids(home) == ids
    assert rows_of(home) == before
    assert again.funnel == first.funnel
    assert again.cost["cpu_s"] == first.cost["cpu_s"]
    assert again.cost["wall_s"] >= first.cost["wall_s"]


def test_an_interrupted_run_goes_on(
    run_here: Run, home: Home, campaign_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reference = run_here(parse_campaign({**read_campaign(campaign_file).model_dump(), "name": "reference"}, "x"))
    left = [5]
    real = campaign_folders.potential_of

    def failing(*args: Any) -> Any:
        left[0] -= 1
        if left[0] < 3:
            raise KeyboardInterrupt
        return real(*args)

    monkeypatch.setattr("flows.screen.potential_of", failing)
    with pytest.raises(KeyboardInterrupt):
        run_here(campaign_file)
    done = journal_ids(home)
    assert done
    assert result_of(CampaignFolder(home, "metals")).state == "CANCELLED"
    monkeypatch.setattr("flows.screen.potential_of", real)
    result = run_here(campaign_file)
    assert journal_ids(home)[: len(done)] == done
    assert len(set(journal_ids(home))) == len(journal_ids(home))
    assert [stage.model_dump() for stage in result.funnel] == [stage.model_dump() for stage in reference.funnel]
    assert [r["candidate_id"] for r in rows_of(home) if r["shortlisted"]] == [
        r["candidate_id"] for r in rows_of(home, "reference") if r["shortlisted"]
    ]


def test_a_campaign_stopped_on_purpose_suspects_no_structure(
    run_here: Run, home: Home, campaign_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that is taken down with the flow leaves the note of a death."""
    note = CampaignFolder(home, "metals").shards / f"{shard_name(0)}{ENDING}"

    def stopped(*_: Any) -> dict[str, Any]:
        note.write_text("{}")
        raise KeyboardInterrupt

    monkeypatch.setattr("flows.screen.screen_shard", stopped)
    with pytest.raises(KeyboardInterrupt):
        run_here(campaign_file)
    assert not note.exists()


def test_failed_shards_fail_the_campaign_after_the_rest_is_written(
    run_here: Run, home: Home, campaign_file: Path, monkeypatch: pytest.MonkeyPatch
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
        run_here(campaign_file)
    result = result_of(CampaignFolder(home, "metals"))
    assert (result.state, result.shards.failed) == ("FAILED", 1)
    relaxed = next(stage for stage in result.funnel if stage.stage == "relaxed")
    lost = relaxed.rejected["not computed: its shard failed"]
    assert lost == sum(row["reason"] == "not computed: its shard failed" for row in rows_of(home))
    computed = len(journal_ids(home))
    monkeypatch.setattr("flows.screen.screen_shard", real)
    again = run_here(campaign_file)
    manifest = CampaignFolder(home, "metals").manifest()
    assert manifest is not None
    assert (again.state, again.shards.failed, manifest.reused) == ("COMPLETED", 0, computed)


def test_two_launches_at_once(run_here: Run, home: Home, campaign_file: Path) -> None:
    folder = CampaignFolder(home, "metals")
    with locked(folder.lock, "test"), pytest.raises(SluiceError, match="campaign metals is in use by another process"):
        run_here(campaign_file)
    with locked(folder.lock, "test"), pytest.raises(SluiceError, match="in use"):
        check_campaign(campaign_file, home, {}, fresh=False)


def test_a_changed_specification_needs_fresh(run_here: Run, home: Home, campaign_file: Path) -> None:
    run_here(campaign_file)
    changes = {"selection": {"budget": 2}}
    with pytest.raises(InputError, match=r"another specification \(selection.budget was 4, now 2\).*--fresh"):
        run_here(campaign_file, changes=changes)
    with pytest.raises(InputError, match="another specification"):
        check_campaign(campaign_file, home, changes, fresh=False)
    assert run_here(campaign_file, changes=changes, fresh=True).n_shortlist == 2
    text = CampaignFolder(home, "metals").spec_text() or ""
    assert text == campaign_file.read_text() + "\n# in place of what stands above:\n# selection.budget = 2\n"


def test_a_fresh_start_that_cannot_begin_discards_nothing(run_here: Run, home: Home, campaign_file: Path) -> None:
    run_here(campaign_file)
    folder = CampaignFolder(home, "metals")
    before = {path: path.read_bytes() for path in folder.root.rglob("*") if path.is_file()}
    with pytest.raises(InputError, match="no foreign potential 'gone'"):
        run_here(folder.spec().model_copy(update={"model": "foreign:gone"}), fresh=True)
    with pytest.raises(InputError, match="leave out the choice, or fresh"):
        run_here(folder.spec(), fresh=True, only=parse_choice("0", None))
    assert {path: path.read_bytes() for path in folder.root.rglob("*") if path.is_file()} == before


def test_a_fresh_start_from_the_folder_keeps_the_text_of_the_file(
    run_here: Run, home: Home, campaign_file: Path
) -> None:
    run_here(campaign_file)
    folder = CampaignFolder(home, "metals")
    assert run_here(folder.spec(), fresh=True).state == "COMPLETED"
    assert folder.spec_text() == campaign_file.read_text()


def test_cancelling(run_here: Run, home: Home, campaign_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = CampaignFolder(home, "metals")
    real = campaign_folders.potential_of

    def cancelling(*args: Any) -> Any:
        request_cancel(folder)
        return real(*args)

    monkeypatch.setattr("flows.screen.potential_of", cancelling)
    with pytest.raises(SluiceError, match="was cancelled; the same command goes on"):
        run_here(campaign_file)
    assert result_of(folder).state == "CANCELLED"
    assert not folder.cancel_mark.exists()
    kept = len(journal_ids(home))
    assert kept >= 1
    monkeypatch.setattr("flows.screen.potential_of", real)
    assert run_here(campaign_file).state == "COMPLETED"
    manifest = folder.manifest()
    assert manifest is not None
    assert manifest.reused == kept
    with pytest.raises(InputError, match="is not running"):
        request_cancel(folder)


def test_a_killed_campaign_is_seen_as_interrupted(run_here: Run, home: Home, campaign_file: Path) -> None:
    run_here(campaign_file)
    folder = CampaignFolder(home, "metals")
    manifest = folder.manifest()
    assert manifest is not None
    manifest.model_copy(update={"state": "RUNNING"}).write(folder.root)
    assert result_of(folder).state == INTERRUPTED
    with locked(folder.lock, "test"):
        assert result_of(folder).state == "RUNNING"
    with locked(folder.shards / f"{shard_name(99)}.lock", "test"):  # by `sluice shard`
        assert result_of(folder).state == "RUNNING"
        with pytest.raises(InputError, match="is not running; stop its processes of `sluice shard`"):
            request_cancel(folder)


def test_shards_without_a_server(run_here: Run, home: Home, campaign_file: Path) -> None:
    first = compute_shard(str(campaign_file), 0, home)
    assert first.computed == first.structures > 0
    again = compute_shard("metals", 0, home)
    assert (again.computed, again.reused) == (0, first.structures)
    CampaignFolder(home, "metals").cancel_mark.touch()  # of a flow that was killed
    second = compute_shard("metals", 1, home)
    assert second.computed == second.structures > 0
    with pytest.raises(InputError, match=r"there is no shard 99; the campaign has 0 to \d"):
        compute_shard("metals", 99, home)
    result = run_here(campaign_file)
    manifest = CampaignFolder(home, "metals").manifest()
    assert manifest is not None
    assert result.state == "COMPLETED"
    assert manifest.reused == first.structures + second.structures


def test_a_dry_run_writes_nothing(home: Home, campaign_file: Path) -> None:
    plan = describe_campaign(campaign_file, home, {}, workers=2)
    assert plan.structures > plan.funnel[-1].n_out > 0
    assert plan.n_candidates == plan.funnel[0].n_in
    assert not home.campaigns.exists()


def test_a_dry_run_says_what_the_run_would_use(
    run_here: Run, home: Home, campaign_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_here(campaign_file)
    pinned = pin_model(CampaignFolder(home, "metals").spec(), home)
    newer = pinned.model_copy(update={"sha256": "f" * 64, "version": "9"})
    monkeypatch.setattr("flows.campaigns.pin_model", lambda *_: newer)
    assert describe_campaign(campaign_file, home, {}, workers=2).model_sha256 == pinned.sha256
    assert describe_campaign(campaign_file, home, {}, workers=2, fresh=True).model_sha256 == newer.sha256
    changes = {"selection": {"budget": 2}}
    assert describe_campaign(campaign_file, home, changes, workers=2, fresh=True).model_version == "9"
