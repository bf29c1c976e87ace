"""The river closes: label elements, screen, label the shortlist, and the report shows the model against the labels."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from ase.build import bulk
from ase.io import write

CAMPAIGN = """
name = "metals"
model = "foreign:emt"
[candidates]
elements = ["Cu", "Au"]
prototypes = ["L1_0", "L1_2", "CsCl", "MoSi2"]
min_elements = 2
[selection]
budget = 4
"""


@pytest.mark.long
@pytest.mark.server
def test_labels_of_the_shortlist_appear_in_the_report(tmp_path):
    home = tmp_path / "home"
    write(tmp_path / "elements.extxyz", [bulk("Cu"), bulk("Au")])
    (tmp_path / "campaign.toml").write_text(CAMPAIGN)

    def sluice(*arguments: str) -> dict:
        command = [sys.executable, "-m", "flows.cli.main", *arguments, "--json"]
        environment = {**os.environ, "SLUICE_HOME": str(home)}
        done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=400)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    sluice("label", "elements.extxyz", "--engine", "emt", "--relax")
    campaign = sluice("screen", "campaign.toml", "--cluster", "threads")
    report = Path(home / campaign["paths"]["report"])
    report = report if report.is_file() else home / "datasets" / "campaigns" / "metals" / "report.html"
    assert campaign["n_shortlist"] == 4
    assert "No candidate has a DFT energy" in report.read_text()
    labelled = sluice("label", "metals", "--engine", "emt", "--rank", "1-3")
    assert (labelled["done"], labelled["theory"]) == (3, "emt/ase")
    sluice("campaigns", "report", "metals")
    page = report.read_text()
    assert "3 candidates not seen in training" in page
    assert "From labels-emt" in page
    assert "DFT is known for 3 of the shortlisted" in page
