"""The whole river, short: the demo on the sample set that ships."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from flows.campaigns import CampaignFolder
from flows.demo import describe, run_campaign, sample_file
from flows.settings import Home
from gnn.errors import InputError

LEAST_TRUTH = 100
"""Crystals that a screening is scored against; relaxations that go on may add some or find two the same."""


def test_the_sample_set_ships() -> None:
    for name in ("sample.parquet", "sample-truth.parquet", "campaign.toml", "known_compounds.toml"):
        assert sample_file(name).stat().st_size < 10_000_000


def test_a_missing_sample_file_is_named() -> None:
    with pytest.raises(InputError, match=r"nothing\.parquet is missing"):
        sample_file("nothing.parquet")


@pytest.mark.long
@pytest.mark.server
def test_from_labels_to_a_report(home: Home) -> None:
    command = [Path(sys.executable).with_name("sluice"), "demo", "--minutes", "0.3", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    ingested, campaign = result["ingest"], result["campaign"]
    assert ingested["rows_in"] == ingested["kept"] + ingested["duplicates"] + ingested["quarantined"]
    assert ingested["quarantined"] == 0
    assert campaign["state"] == "COMPLETED"
    assert campaign["shards"]["done"] == campaign["shards"]["total"]
    distinct = next(stage for stage in campaign["funnel"] if stage["stage"] == "distinct")
    assert distinct["n_out"] >= 1000
    for stage in campaign["funnel"]:
        assert stage["n_in"] == stage["n_out"] + sum(stage["rejected"].values())
    assert campaign["n_shortlist"] > 0
    assert np.isfinite(result["evaluate"]["energy_mae_mev_per_atom"])
    assert (home.root / result["report"]).is_file()
    compared = {found["n"] for found in result["truth"].values()}
    assert len(compared) == 1
    assert min(compared) >= LEAST_TRUTH


@pytest.mark.server
def test_another_model_is_screened_with_anew(home: Home, campaign_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flows.demo.sample_file", lambda _: campaign_file)
    first, again = run_campaign(home, "threads"), run_campaign(home, "threads")
    assert first.computed > 0 == again.computed
    folder = CampaignFolder(home, first.campaign)
    manifest = folder.manifest()
    assert manifest is not None
    older = manifest.model.model_copy(update={"sha256": "0" * 64})
    manifest.model_copy(update={"model": older}).write(folder.root)
    third = run_campaign(home, "threads")
    assert (third.computed, third.model_sha256) == (first.computed, first.model_sha256)


def test_the_first_figures_are_rounded() -> None:
    from flows.cli.results import DemoResult

    result = DemoResult.model_construct(
        seconds={"a": 1.23, "b": 2.0},
        ingest=type("I", (), {"kept": 3, "duplicates": 1})(),
        evaluate=type("E", (), {"energy_mae_mev_per_atom": 1.2345, "force_mae_mev_per_angstrom": None})(),
        campaign=type("C", (), {"funnel": [], "n_candidates": 7, "n_shortlist": 2})(),
        truth={
            "relaxed": {"n": 2, "spearman": 0.91234, "best_decile_recall": 0.8, "mae": 0.0356},
            "at_dft_geometry": {"n": 2, "spearman": 0.95, "best_decile_recall": 0.9, "mae": None},
        },
        report="report.html",
    )
    figures = describe(result)
    assert figures["structures in the lake"] == 4
    assert figures["test energy MAE, meV/atom"] == 1.2
    assert figures["test force MAE, meV/Å"] is None
    assert figures["distinct candidates"] == 7
    assert figures["Spearman against DFT"] == 0.912
    assert figures["best decile found, at DFT's geometry"] == "0.8, 0.9"
    assert figures["formation energy MAE, at DFT's geometry, meV/atom"] == "35.6, –"
    assert figures["seconds"] == 3.2
