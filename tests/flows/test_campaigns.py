"""Campaign folders and the models that they pin."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from flows.campaign_bar import JournalCounter
from flows.campaigns import (
    MANIFEST,
    SPEC_NAME,
    CampaignFolder,
    folder_of,
    pin_model,
    potential_of,
    refuse_another_spec,
    result_of,
    results,
    shard_counts,
)
from flows.cli.main import app
from flows.cli.results import ShardCounts
from flows.settings import Home
from gnn.errors import InputError
from gnn.files import file_sha256, write_text
from gnn.screening.campaign import read_campaign
from gnn.screening.manifest import CampaignManifest
from gnn.screening.preparation import PLAN_NAME
from gnn.screening.shard import ShardManifest, shard_name
from gnn.screening.strikes import ENDING


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


@pytest.fixture
def begun(home: Home, campaign_file: Path) -> list[CampaignFolder]:
    """Two campaigns that have begun, the second untouched by the tests."""
    folders = []
    for name in ("metals", "sound"):
        spec = read_campaign(campaign_file, {"name": name})
        folder = CampaignFolder(home, name)
        folder.keep_spec(spec, None)
        pin = pin_model(spec, home)
        CampaignManifest(name=name, state="COMPLETED", spec_digest="", model=pin, code_version="").write(folder.root)
        folders.append(folder)
    return folders


@pytest.mark.parametrize("text", [b"{", b"{}", b"[]", b"\xff"])
@pytest.mark.parametrize("name", [SPEC_NAME, MANIFEST])
def test_a_damaged_campaign_is_named_and_hides_no_other(begun: list[CampaignFolder], name: str, text: bytes) -> None:
    folder, sound = begun
    (folder.root / name).write_bytes(text)
    with pytest.raises(InputError, match=rf"metals/{name} is damaged \(.*--fresh"):
        result_of(folder)
    damaged, other = results(folder.home)
    assert (damaged.campaign, damaged.state) == ("metals", "DAMAGED")
    assert other == result_of(sound)
    listed = CliRunner().invoke(app, ["campaigns", "ls"])
    assert listed.exit_code == 0
    assert "DAMAGED" in listed.stdout and "sound" in listed.stdout
    assert listed.stderr == f"metals: {damaged.warnings[0]}\n"


def test_counting_shards(home: Home) -> None:
    """Neither a shard at work nor one that was killed is done; one that was finished since has not failed."""
    folder = CampaignFolder(home, "metals")
    write_text(folder.shards / PLAN_NAME, '{"key": "", "sha256": "", "stages": [], "n_shards": 3}')
    table = write_text(folder.shards / f"{shard_name(0)}.parquet", "a table")
    counts = dict.fromkeys(("structures", "computed", "reused", "failed", "cpu_s", "wall_s"), 0)
    sealed = ShardManifest(index=0, work_digest="", ids_digest="", path=table.name, sha256=file_sha256(table), **counts)
    write_text(folder.shards / f"{shard_name(0)}.json", sealed.model_dump_json())
    write_text(folder.shards / f"{shard_name(1)}{ENDING}", "{}")
    manifest = CampaignManifest.model_construct(shard_errors={"0": "boom", "1": "boom"})
    assert shard_counts(folder, manifest) == ShardCounts(total=3, done=1, failed=1)


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
