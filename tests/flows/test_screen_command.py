"""`sluice screen` and `sluice rerun` as people and programs use them."""

import json
import os
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ase.build import molecule
from ase.io import write
from typer.testing import CliRunner

from flows.campaigns import CampaignFolder
from flows.cli.main import app
from flows.screen import screen
from flows.settings import Home

Run = Callable[..., Any]


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
        (["screen", str(campaign_file), "--dry-run", "--set", 'known_compounds="none.toml"'], "no table of known"),
        (["screen", str(campaign_file), "--set", 'known_compounds="none.toml"'], "no table of known"),
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


def test_a_batch_system_stops_a_shard_like_ctrl_c(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that the shard takes its note away: none of its structures killed it."""
    monkeypatch.setattr("flows.campaign_shard.compute_shard", lambda *_: os.kill(os.getpid(), signal.SIGTERM))
    result = sluice("shard", "metals", "0")
    assert (result.exit_code, result.stderr) == (130, "stopped; the same command goes on from here\n")


@pytest.mark.parametrize(
    ("pattern", "mistake", "message"),
    [
        ("^", 'known_compounds = "none.toml"\n', "no table of known compounds"),
        (r"(?s)elements = .*\[relaxation\]", 'files = ["water.xyz"]\n[relaxation]', "no candidate is left"),
    ],
)
def test_a_campaign_refused_before_it_is_cut_leaves_nothing(
    home: Home, campaign_file: Path, pattern: str, mistake: str, message: str
) -> None:
    good = campaign_file.read_text()
    write(campaign_file.with_name("water.xyz"), molecule("H2O"), format="extxyz")
    campaign_file.write_text(re.sub(pattern, mistake, good, count=1))
    refused = sluice("shard", str(campaign_file), "0")
    assert (refused.exit_code, len(refused.stderr.splitlines())) == (2, 1), refused.output
    assert message in refused.stderr
    assert not [path for path in home.campaigns.rglob("*") if path.is_file() and path.suffix != ".lock"]
    campaign_file.write_text(good)
    assert sluice("shard", str(campaign_file), "0").exit_code == 0


def test_json_is_one_object(run_here: Run, home: Home, campaign_file: Path) -> None:
    run_here(campaign_file)
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


def test_people_get_a_funnel(run_here: Run, home: Home, campaign_file: Path) -> None:
    run_here(campaign_file)
    shown = sluice("campaigns", "show", "metals")
    assert "shortlist" in shown.stdout
    assert "metals" in sluice("campaigns", "ls").stdout
    assert "report.html" in sluice("campaigns", "report", "metals").stderr
    assert "would relax" in sluice("screen", str(campaign_file), "--dry-run").stderr


def test_a_report_of_a_damaged_table_is_refused_in_one_line(run_here: Run, home: Home, campaign_file: Path) -> None:
    run_here(campaign_file)
    table = CampaignFolder(home, "metals").root / "candidates.parquet"
    table.write_bytes(b"damaged")
    refused = sluice("campaigns", "report", "metals")
    assert (refused.exit_code, len(refused.stderr.splitlines())) == (2, 1), refused.output
    assert f"{table} cannot be read" in refused.stderr


def test_reruns_from_the_folder(
    run_here: Run, home: Home, campaign_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_here(campaign_file)
    campaign_file.unlink()
    monkeypatch.setattr(
        "flows.screen.screen", lambda spec, home, **options: screen.fn(spec, home, show=False, **options)
    )
    again = sluice("campaigns", "rerun", "metals", "--json")
    assert again.exit_code == 0, again.output
    assert json.loads(again.stdout)["state"] == "COMPLETED"
