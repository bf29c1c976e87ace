"""A campaign killed with kill -9, under a real server."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from screened import journal_ids, journal_lines

from flows.campaigns import INTERRUPTED, CampaignFolder, result_of
from flows.settings import Home
from gnn.screening.manifest import CampaignManifest


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
@pytest.mark.long
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
    while (state := result_of(CampaignFolder(home, "metals")).state) != INTERRUPTED:
        assert state == "RUNNING" and time.monotonic() < deadline  # workers hold their shards until they are gone
        time.sleep(0.05)
    output, _ = start(file, home).communicate(timeout=400)
    result = json.loads(output)
    assert result["state"] == "COMPLETED", (tmp_path / "log").read_text()
    after = journal_lines(folder)
    assert len(before) < len(after)
    assert before <= after
    assert len(set(journal_ids(home))) == len(journal_ids(home)) == len(after)
    manifest = CampaignManifest.read(home.campaigns / "metals")
    assert manifest.computed == len(after) - len(before)
