"""`sluice label` and its flow: structures through an engine into the lake, each at most once."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from ase import Atoms
from ase.build import bulk
from ase.io import write
from typer.testing import CliRunner

from flows.cli.label import ranks
from flows.cli.main import app
from flows.cli.results import LabelPlanResult, LabelResult
from flows.label import (
    LabelRequest,
    append_labels,
    find_source,
    journal_path,
    label,
    make_plan,
    relax_settings,
    run_engine,
    with_campaign_theory,
)
from flows.settings import Home
from gnn.dft.engine import RelaxSettings
from gnn.errors import InputError
from gnn.lake.table import Lake
from gnn.screening.manifest import CampaignManifest, ModelPin


@pytest.fixture
def structures(tmp_path: Path) -> Path:
    """Three metals that EMT knows and one that it does not."""
    path = tmp_path / "structures.extxyz"
    write(path, [bulk("Cu"), bulk("Al"), bulk("Ni"), bulk("Si")])
    return path


@pytest.fixture
def campaign(home) -> Path:
    folder = home.campaigns / "metals"
    folder.mkdir(parents=True)
    rows = [
        {"numbers": atoms.numbers.tolist(), "positions": atoms.positions.ravel().tolist(),
         "cell": atoms.cell[:].ravel().tolist(), "rank": rank, "prototype": "fcc", "shortlisted": True}
        for rank, atoms in ((2, bulk("Cu")), (1, bulk("Al")))
    ]  # fmt: skip
    pq.write_table(pa.Table.from_pylist(rows), folder / "shortlist.parquet")
    return folder


def steps(request: LabelRequest, home):
    """The flow's tasks without a server."""
    plan = make_plan(request, home)
    summary = run_engine.fn(plan, request.workers, lambda _: None)
    return plan, summary, append_labels.fn(plan, request, home)


def test_results_land_in_the_lake_under_the_engines_theory(structures, home):
    plan, summary, appended = steps(LabelRequest(str(structures), "emt"), home)
    table = Lake(home.lake).read("labels-emt")
    assert (summary.done, summary.failed, appended.kept) == (3, 1, 3)
    assert set(table["theory"].to_pylist()) == {"emt/ase"} == {plan.theory}
    assert sorted(table["formula"].to_pylist()) == ["Al", "Cu", "Ni"]
    assert table["energy"].null_count == table["stress"].null_count == 0


def test_a_second_run_computes_and_appends_nothing(structures, home):
    steps(LabelRequest(str(structures), "emt"), home)
    _, summary, appended = steps(LabelRequest(str(structures), "emt"), home)
    assert (summary.reused, appended.kept, appended.duplicates, appended.version) == (4, 0, 3, 0)


def test_results_of_a_run_that_died_before_the_lake_are_appended_later(structures, home):
    plan = make_plan(LabelRequest(str(structures), "emt"), home)
    run_engine.fn(plan, 1, lambda _: None)
    _, summary, appended = steps(LabelRequest(str(structures), "emt"), home)
    assert (summary.reused, appended.kept) == (4, 3)


def test_another_data_set_has_its_own_journal(structures, home):
    steps(LabelRequest(str(structures), "emt", dataset="mine"), home)
    assert Lake(home.lake).datasets() == ["mine"]
    assert [path.name for path in home.labels.glob("*.jsonl")] == ["mine--emt_ase.jsonl"]


def test_labels_that_the_lake_refuses_are_told(home, tmp_path, monkeypatch):
    overlapping = Atoms("Cu2", positions=[[0, 0, 0], [0, 0, 0.2]], cell=[6, 6, 6], pbc=True)
    write(tmp_path / "s.extxyz", [bulk("Cu"), overlapping])
    monkeypatch.setattr("flows.label.run_engine", run_engine.fn)
    monkeypatch.setattr("flows.label.append_labels", append_labels.fn)
    monkeypatch.setattr("flows.label.label", label.fn)
    done = CliRunner().invoke(app, ["label", str(tmp_path / "s.extxyz"), "--engine", "emt", "--json"])
    result = LabelResult.model_validate_json(done.stdout)
    assert (result.done, result.kept, result.duplicates, result.quarantined) == (2, 1, 0, 1)
    assert result.quarantine_reasons == {"overlapping-atoms": 1}
    done = CliRunner().invoke(app, ["label", str(tmp_path / "s.extxyz"), "--engine", "emt"])
    assert "0 frames (1 known before, 1 quarantined)" in done.stdout
    assert "quarantined: 1 overlapping-atoms" in done.stderr


def test_relaxations_keep_every_step(structures, home):
    request = LabelRequest(str(structures), "emt", kind="relax", ranks=((2, 2),), settings={"relax": {"fmax": 0.01}})
    _, summary, appended = steps(request, home)
    types = Lake(home.lake).read("labels-emt")["config_type"].to_pylist()
    assert summary.frames == appended.kept == len(types) > 1
    assert types.count("labelled-relaxed") == 1


def test_a_campaign_by_name_or_folder(campaign, home):
    assert find_source("metals", home) == campaign
    assert find_source(str(campaign), home) == campaign
    plan = make_plan(LabelRequest("metals", "emt", limit=1), home)
    assert [job.numbers for job in plan.jobs] == [[13]]


def test_an_unknown_campaign_lists_the_known(campaign, home):
    with pytest.raises(InputError, match="no campaign 'mettals'; campaigns here: metals"):
        find_source("mettals", home)


def test_gpaw_starts_from_the_theory_of_the_campaigns_model(campaign, home, monkeypatch):
    pytest.importorskip("gpaw")
    key = "pbe/gpaw-pw450-k3-fd0.1"
    pin = ModelPin(uri="m", version="1", sha256="0", path=None, theory=key, elements=["Al"])
    CampaignManifest(name="metals", state="COMPLETED", spec_digest="0", model=pin, code_version="0").write(campaign)
    assert make_plan(LabelRequest("metals", "gpaw"), home).theory == key
    changed = LabelRequest("metals", "gpaw", settings={"cutoff_ev": 500})
    assert make_plan(changed, home).theory == "pbe/gpaw-pw500-k3-fd0.1"


@pytest.mark.parametrize("theory", ["pbe/vasp-matpes", "pbe/gpaw-pw600-k4"])
def test_a_models_theory_that_gpaw_cannot_take_leaves_the_users_settings(theory, campaign):
    pin = ModelPin(uri="m", version="1", sha256="0", path=None, theory=theory, elements=["Al"])
    CampaignManifest(name="metals", state="COMPLETED", spec_digest="0", model=pin, code_version="0").write(campaign)
    assert with_campaign_theory("gpaw", {"cutoff_ev": 500}, campaign) == {"cutoff_ev": 500}


def test_other_settings_of_a_relaxation_have_another_journal(home):
    request = LabelRequest("x", "emt", kind="relax")
    paths = {journal_path(request, "emt/ase", RelaxSettings(fmax=fmax), home) for fmax in (0.01, 0.05)}
    assert len(paths) == 2


@pytest.mark.parametrize("values", [
        {"fmaxx": 1}, {"fmax": -1}, {"fmax": math.nan}, {"fmax": True}, {"max_steps": "many"}, {"max_steps": 0.5},
        {"max_steps": math.inf}, 3,
    ],
)  # fmt: skip
def test_wrong_relaxation_settings(values):
    with pytest.raises(InputError, match="relax"):
        relax_settings(values)


@pytest.mark.parametrize(
    ("text", "expected"), [(None, ()), ("1", ((1, 1),)), ("1, 3-5", ((1, 1), (3, 5))), ("2,", ((2, 2),))]
)
def test_ranks(text, expected):
    assert ranks(text) == expected


@pytest.mark.parametrize("text", ["a", "1-", "-1", "1;2", "7-5", ",", ""])
def test_what_is_no_rank(text):
    with pytest.raises(InputError, match=r"is no rank|names no rank"):
        ranks(text)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nope.cif", "--engine", "emt"], "there is no file and no campaign 'nope.cif'"),
        (["FILE", "--engine", "vasp"], "there is no engine 'vasp'; known: emt, gpaw"),
        (["FILE", "--engine", "emt", "--rank", "9"], "no structure of rank 9; there are 1, 2, 3, 4"),
        (["FILE", "--engine", "emt", "--dataset", "my labels"], "'my labels' cannot name a data set"),
        (["FILE", "--engine", "emt", "--set", "x=1"], "engine 'emt' takes no settings, got x"),
        (["FILE", "--engine", "emt", "--set", "x"], "--set 'x' is not of the form"),
    ],
)
def test_mistakes_are_one_line_and_exit_2(arguments, said, structures, home):
    arguments = [str(structures) if argument == "FILE" else argument for argument in arguments]
    result = CliRunner().invoke(app, ["label", *arguments])
    assert result.exit_code == 2
    assert result.stderr.splitlines()[-1].startswith("error: ")
    assert said in result.stderr


def test_a_dry_run_does_nothing(structures, home):
    result = CliRunner().invoke(app, ["label", str(structures), "--engine", "emt", "--dry-run"])
    assert result.exit_code == 0
    assert "4 structures at emt/ase, 4 to do" in result.stderr
    result = CliRunner().invoke(app, ["label", str(structures), "--engine", "emt", "--dry-run", "--json"])
    found = LabelPlanResult.model_validate_json(result.stdout)
    assert (found.theory, found.structures, found.to_do) == ("emt/ase", 4, 4)
    assert not home.labels.exists()


def test_lines_of_a_journal_that_a_disk_damaged_are_to_do_again(structures, home):
    plan, *_ = steps(LabelRequest(str(structures), "emt"), home)
    header, first, *rest = plan.journal.path.read_text().splitlines(keepends=True)
    damaged = "".join([header, first[:50] + "\n", *rest])
    plan.journal.path.write_text(damaged)
    assert plan.to_do == 1
    assert plan.journal.path.read_text() == damaged
    plan.journal.path.write_text(damaged.replace(header, "{\n"))
    assert plan.to_do == 4


@pytest.mark.server
def test_the_command_prints_one_json_object(structures, tmp_path):
    environment = {**os.environ, "SLUICE_HOME": str(tmp_path / "home")}
    command = [sys.executable, "-m", "flows.cli.main", "label", str(structures), "--engine", "emt", "--json"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0
    result = json.loads(done.stdout)
    assert (result["jobs"], result["done"], result["failed"], result["reused"]) == (4, 3, 1, 0)
    assert result["reasons"] == {"EMT has no parameters for Si": 1}
    assert (result["dataset"], result["version"]) == ("labels-emt", 0)
    assert "4/4 Si (2 atoms, labelled): failed: EMT has no parameters for Si" in done.stderr
    _, again, appended = steps(LabelRequest(str(structures), "emt"), Home(tmp_path / "home"))
    assert (again.reused, appended.version) == (4, 0)


@pytest.mark.parametrize(("done", "code"), [(0, 1), (1, 0)])
def test_nothing_but_failures_exits_1(done, code, structures, home, monkeypatch):
    def failing(request, home, on_result):
        return LabelResult(
            engine="emt", theory="emt/ase", jobs=4, done=done, failed=4 - done, reused=0, frames=done,
            reasons={"no": 4 - done}, cpu_s=0.0, dataset=None, version=None,
            kept=0, duplicates=0, quarantined=0, quarantine_reasons={},
        )  # fmt: skip

    monkeypatch.setattr("flows.label.label", failing)
    result = CliRunner().invoke(app, ["label", str(structures), "--engine", "emt"])
    assert result.exit_code == code
    assert f"{4 - done} × no" in result.stderr
