"""Disks that are full, and disks that change what was written."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gnn.errors import SluiceError
from gnn.files import file_sha256
from gnn.lake.table import Lake

pytestmark = pytest.mark.faults


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """A file system of so many kB in memory; called again, it has that size from then on."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = []

    def size(kilobytes: int) -> Path:
        options = f"size={kilobytes}k" + (",remount" if mounted else "")
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], check=False)
        if done.returncode != 0:
            pytest.skip("needs the right to mount")
        mounted.append(folder)
        return folder

    yield size
    if mounted:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def full(error: BaseException | None) -> bool:
    """Whether a full disk is behind an error."""
    while error is not None:
        if "No space left" in str(error) or "StorageFull" in str(error) or "os error 28" in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False


# ---- full


def test_disk_full_during_a_shard(
    campaign: Any, calm: Any, small_disk: Callable[[int], Path], same: Callable[[Any], None], noted: Callable[..., None]
) -> None:
    """Disk full while a shard's journal grows."""
    from flows.campaign_shard import _start, compute_shard
    from flows.campaigns import folder_of
    from flows.settings import Home

    disk = small_disk(8000)
    home = Home(disk)
    text = campaign.file.read_text().replace("foreign:patient", "foreign:emt").replace("atoms = 16", "atoms = 4000")
    campaign.file.write_text(text)
    _start(folder_of(str(campaign.file), home), campaign.file, None)
    usage = os.statvfs(disk)
    small_disk((usage.f_blocks - usage.f_bfree) * usage.f_frsize // 1024 + 12)
    with pytest.raises(OSError, match="No space left") as caught:
        compute_shard(str(campaign.file), 0, home)
    assert full(caught.value)
    shards = home.campaigns / "metals" / "shards"
    before = whole_records(shards)
    small_disk(8000)
    done = compute_shard("metals", 0, home)
    after = whole_records(shards)
    ids = [record["candidate_id"] for record in after]
    assert done.structures == len(ids) == len(set(ids)) == len(calm.records())
    assert done.reused == len(before) > 0
    assert all(record in after for record in before)
    expected = {record["candidate_id"]: record for record in calm.records()}
    for record in after:
        assert abs(record["energy_per_atom"] - expected[record["candidate_id"]]["energy_per_atom"]) < 1e-4
        assert record["outcome"] == expected[record["candidate_id"]]["outcome"]
    noted("the shard ends with the reason; the same command goes on", structures=len(ids), before=len(before),
          lost=0, twice=0, missing=0)  # fmt: skip


def whole_records(shards: Path) -> list[dict[str, Any]]:
    found = []
    for path in sorted(shards.glob("*.part.jsonl")):
        content = path.read_bytes()
        found += [json.loads(line) for line in content[: content.rfind(b"\n") + 1].splitlines()[1:]]
    return found


def append(root: Path, cells: Path) -> Any:
    from gnn.structures.cards import generic_card
    from gnn.structures.readers import read_records

    card = generic_card("cells", "emt/ase")
    return Lake(root).append("cells", read_records(cells, card), card)


@pytest.mark.parametrize("kilobytes", [8, 40, 90])
def test_disk_full_during_a_commit(
    cells: Path, tmp_path: Path, small_disk: Callable[[int], Path], noted: Callable[..., None], kilobytes: int
) -> None:
    """Disk full while the lake commits."""
    expected = append(tmp_path / "calm", cells)
    disk = small_disk(kilobytes)
    with pytest.raises((OSError, SluiceError, Exception)) as caught:
        append(disk / "lake", cells)
    assert full(caught.value), caught.value
    lake = Lake(disk / "lake")
    committed = lake.rows("cells") if lake.has("cells") else 0
    small_disk(20_000)
    again = append(disk / "lake", cells)
    assert again.content_digest == expected.content_digest
    assert lake.rows("cells") == expected.kept == 300
    assert again.duplicates == committed
    ids = lake.read("cells", columns=["structure_id"]).column(0).to_pylist()
    assert len(set(ids)) == len(ids)
    noted("`ingest` ends with the reason; the same command ends in the same content digest", structures=300,
          before=committed, lost=0, twice=0, missing=0)  # fmt: skip


# ---- damaged


def flip(path: Path, place: float = 0.5) -> bytes:
    """Change one byte in the file; what it held before."""
    before = path.read_bytes()
    at = int(len(before) * place)
    path.write_bytes(before[:at] + bytes([before[at] ^ 0x20]) + before[at + 1 :])
    return before


@pytest.mark.server
@pytest.mark.parametrize("what", ["parquet", "json", "part.jsonl"])
def test_a_damaged_shard(campaign: Any, calm: Any, judge: Callable[..., Any], standing_server: str, what: str) -> None:
    """A finished shard's file damaged on disk."""
    import shutil

    shutil.copytree(calm.home.root, campaign.home.root)
    shards = campaign.folder / "shards"
    victim = shards / f"shard-0000.{what}"
    if what == "json":
        victim.write_text(victim.read_text().replace('"sha256": "', '"sha256": "0'))
    else:
        flip(victim, 0.4)
    if what == "part.jsonl":
        lines = victim.read_bytes().splitlines(keepends=True)
        victim.write_bytes(b"".join([lines[0], b"\xff\xfe" + lines[1], *lines[2:]]))
        (shards / "shard-0000.parquet").unlink()
    before = [r for r in calm.records() if r in campaign.records()] if what != "part.jsonl" else []
    result = campaign.run(PREFECT_API_URL=standing_server)
    assert result["state"] == "COMPLETED"
    judge(campaign, before, "the same command finds it by its sha256 and makes it again from the journal")


def preprocessed(root: Path) -> tuple[Any, list[Any], list[Any]]:
    """The graph set of the data set `cells`, by the pure functions, with its plans and shards."""
    from gnn.graphs.assembly import assemble
    from gnn.graphs.graph_set import LakeInput
    from gnn.graphs.plan import shard_plans
    from gnn.graphs.preprocess import PreprocessSpec, ShardManifest, build_lake_shard

    lake, spec = Lake(root / "lake"), PreprocessSpec(datasets=("cells",), cutoff=4.0)
    plans = shard_plans(lake, "cells", lake.version("cells"), 4.0)
    built = [build_lake_shard(plan, 4.0, root / "lake", root / "graphs") for plan in plans]
    shards = [ShardManifest.model_validate(item).info() for item in built]
    inputs = [LakeInput(dataset="cells", version=0, content_digest=lake.content_digest("cells"))]
    graph_set, _ = assemble(spec, inputs, lake.card("cells").property_specs, plans, shards, root / "graphs")
    return graph_set, plans, shards


def labels(root: Path, shards: list[Any]) -> dict[str, Any]:
    """What is learned from, by id: structures and labels, rounded as the digests of the lake round them."""
    from gnn.graphs.shards import read_shard

    graphs = [graph for shard in shards for graph in read_shard(root / "graphs" / shard.path)]
    return {
        graph.structure_id: (
            graph.numbers.tolist(),
            np.round(graph.positions, 6).tolist(),
            round(float(graph.energy), 9),
            np.round(graph.forces, 9).tolist(),
        )
        for graph in graphs
    }


def test_a_damaged_lake_file(cells: Path, tmp_path: Path, noted: Callable[..., None]) -> None:
    """A Parquet file of the lake damaged on disk, at thirteen places over the whole file."""
    append(tmp_path / "lake", cells)
    expected, _, shards = preprocessed(tmp_path)
    content_before = labels(tmp_path, shards)
    victim = max((tmp_path / "lake" / "cells").glob("*.parquet"), key=lambda path: path.stat().st_size)
    told = harmless = 0
    for place in np.linspace(0.02, 0.98, 13):
        content = flip(victim, float(place))
        try:
            _, _, found = preprocessed(tmp_path)
        except Exception as error:  # noqa: BLE001 (whatever reads a damaged file says so in its own way)
            told += 1
            assert str(error)
        else:
            # no digest covers groups, flags, sources and times: they may differ, structures and labels may not
            harmless += 1
            assert labels(tmp_path, found) == content_before
        victim.write_bytes(content)
    assert told >= 6
    assert preprocessed(tmp_path)[0].graph_set_id == expected.graph_set_id
    how = (
        f"{told} of 13 changed bytes stop the shard with the reason, {harmless} leave structures and labels as they are"
    )
    noted(f"{how}; restored, the same graph set", structures=300, before=300, lost=0, twice=0, missing=0)


def test_a_damaged_graph_shard(cells: Path, tmp_path: Path, noted: Callable[..., None]) -> None:
    """A shard of graphs damaged on disk."""
    from flows.shards import is_intact

    append(tmp_path / "lake", cells)
    expected, _, shards = preprocessed(tmp_path)
    path = tmp_path / "graphs" / shards[0].path
    digest = file_sha256(path)
    flip(path)
    assert not is_intact(path, {"sha256": digest})
    assert preprocessed(tmp_path)[0].graph_set_id == expected.graph_set_id
    assert file_sha256(path) == digest
    noted("found by its sha256 and built again, bit for bit", structures=300, before=300, lost=0, twice=0, missing=0)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A small network with random weights."""
    from gnn.graphs.graph_set import GraphSet, Statistics
    from gnn.models.config import ModelConfig
    from gnn.models.model import build_model
    from gnn.training.checkpoint import write_checkpoint

    elements = ["Al", "Cu"]
    statistics = Statistics(
        n_structures=1, n_atoms=1, n_edges=1, mean_neighbours=20.0, energy_rms=1.0, force_rms=1.0, stress_rms=None
    )
    graph_set = GraphSet(
        graph_set_id="0" * 64, builder_version=1, cutoff=4.0, inputs=[], theories=["pbe"], elements=elements, shards=[],
        split_seed=0, split_counts={"train": 1, "valid": 0, "test": 0}, splits_path="", statistics=statistics,
        references={}, rows_in=1, reference_rows=0, dropped={},
    )  # fmt: skip
    config = ModelConfig(
        elements=elements, cutoff=4.0, channels=4, layers=1, correlation=1, edge_l_max=1, radial_hidden=[8],
        theories=["pbe"], references={"pbe": {"Al": -3.0, "Cu": -4.0}},
    )  # fmt: skip
    folder = tmp_path / "model"
    write_checkpoint(folder, [build_model(config)], name="test", graph_set=graph_set)
    return folder


def test_a_damaged_checkpoint(checkpoint: Path, campaign: Any, noted: Callable[..., None]) -> None:
    """The checkpoint of a running campaign damaged on disk."""
    from flows.campaign_shard import compute_shard
    from flows.campaigns import _potentials

    text = (
        campaign.file.read_text().replace("foreign:patient", str(checkpoint)).replace('"Al", "Cu", "Ni"', '"Al", "Cu"')
    )
    campaign.file.write_text(text.replace("max_steps = 40", "max_steps = 2"))
    weights = checkpoint / "model.safetensors"
    compute_shard(str(campaign.file), 0, campaign.home, n_shards=2)
    content = flip(weights)
    _potentials.clear()
    with pytest.raises(SluiceError, match=r"sha256|model.safetensors"):
        compute_shard("metals", 1, campaign.home)
    assert not list((campaign.folder / "shards").glob("shard-0001*.parquet"))
    weights.write_bytes(content)
    _potentials.clear()
    done = compute_shard("metals", 1, campaign.home)
    assert done.failed == 0
    noted("refused before anything is computed; restored, the same command goes on", structures=done.structures,
          before=0, lost=0, twice=0, missing=0)  # fmt: skip
