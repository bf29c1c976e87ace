"""The flow and the verb `preprocess`: reuse, restart after a kill, what people are told."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from flows.cli.results import PreprocessPlanResult
from flows.settings import Home
from gnn.errors import InputError, SluiceError
from gnn.files import file_sha256
from gnn.graphs.graph_set import GraphSet
from gnn.graphs.loader import GraphData
from gnn.graphs.plan import shard_plans
from gnn.lake.table import Lake
from gnn.structures.cards import Card
from gnn.structures.record import Record, Source

pytestmark = pytest.mark.server

SCRIPT = """
import sys, time
from pathlib import Path
from flows.settings import Home, apply_quiet_defaults
apply_quiet_defaults()
from gnn.graphs import plan, preprocess as pure
plan.TARGET_ATOMS, plan.LEAST_ATOMS = 60, 20
import flows.preprocess as module
home, pause = Path(sys.argv[1]), float(sys.argv[2])
whole = module.build_lake_shard

def slow(plan_, *rest):
    with (home / "calls.txt").open("a") as stream:
        stream.write(plan_.key + "\\n")
    time.sleep(pause)
    return whole(plan_, *rest)

module.build_lake_shard = slow
result = module.preprocess(["toy"], Home(home), cutoff=4.0, cluster="threads", show=False)
sys.stdout.write(result.model_dump_json())
"""


def toy_record(seed: int) -> Record:
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 5))
    length = 3.0 + n
    grid = np.stack(np.meshgrid(*[np.arange(2)] * 3), axis=-1).reshape(-1, 3)[:n] / 2.0
    return Record(
        dataset="toy",
        theory="pbe/toy",
        numbers=rng.choice([3, 13, 14], n),
        positions=grid * length + rng.uniform(-0.2, 0.2, (n, 3)),
        cell=np.eye(3) * length,
        pbc=np.ones(3, dtype=bool),
        energy=float(-n),
        forces=rng.normal(size=(n, 3)),
        group=f"g{seed % 11}",
        source=Source("toy.xyz", seed, "00"),
    )


def fill(home: Home, seeds) -> int:
    return Lake(home.lake).append("toy", [toy_record(seed) for seed in seeds], Card(name="toy")).version


@pytest.fixture
def filled(home: Home) -> Home:
    fill(home, range(120))
    return home


@pytest.fixture
def small_shards(monkeypatch):
    from gnn.graphs import plan

    monkeypatch.setattr(plan, "TARGET_ATOMS", 60)
    monkeypatch.setattr(plan, "LEAST_ATOMS", 20)


@pytest.fixture
def go(prefect_server):
    from flows.preprocess import preprocess

    def run(home: Home, *datasets: str, **options):
        return preprocess(list(datasets) or ["toy"], home, cutoff=4.0, show=False, **{"cluster": "threads", **options})

    return run


def test_the_rows_add_up_and_the_set_can_be_read(filled, go):
    result = go(filled)
    assert result.rows_in == 120
    assert result.rows_in == result.structures + result.reference_rows + sum(result.dropped.values())
    assert result.structures == sum(result.splits.values())
    data = GraphData(filled.graphs, filled.absolute(result.graph_set))
    assert data.graph_set.graph_set_id == result.graph_set_id
    assert sum(batch.n_structures for batch in data.batches("train", 100)) == result.splits["train"]


def test_a_second_run_reuses_everything(filled, go, small_shards):
    first = go(filled)
    second = go(filled)
    assert first.shards_built == first.shards > 3
    assert (second.shards_built, second.shards_reused) == (0, first.shards)
    assert second.graph_set_id == first.graph_set_id


def test_another_split_reuses_the_shards(filled, go, small_shards):
    first = go(filled)
    second = go(filled, split={"train": 60, "valid": 20}, split_by="structure", seed=4)
    assert second.shards_built == 0
    assert second.graph_set_id != first.graph_set_id
    assert second.splits == {"train": 60, "valid": 20, "test": 0}


def test_more_data_build_only_what_is_new(filled, go, small_shards):
    first = go(filled)
    fill(filled, range(122))
    second = go(filled)
    assert second.rows_in == 122
    assert second.shards_built <= 2
    assert second.shards_reused >= first.shards - 1


def test_an_old_version_can_be_asked_for(filled, go):
    fill(filled, range(130))
    assert go(filled, "toy@0").rows_in == 120
    assert go(filled, "toy").rows_in == 130


def test_a_lost_shard_is_built_again(filled, go, small_shards):
    first = go(filled)
    folder = filled.absolute(first.graph_set)
    lost = filled.graphs / GraphSet.read(folder).shards[1].path
    digest = file_sha256(lost)
    lost.unlink()
    assert go(filled).shards_built == 1
    assert file_sha256(lost) == digest


def test_a_failed_shard_fails_the_flow_and_keeps_the_others(filled, go, small_shards, monkeypatch):
    import flows.preprocess as module

    plans = shard_plans(Lake(filled.lake), "toy", 0, 4.0)
    whole = module.build_lake_shard

    def cursed(plan, *rest):
        if plan.key == plans[2].key:
            raise ValueError("cursed")
        return whole(plan, *rest)

    monkeypatch.setattr(module, "build_lake_shard", cursed)
    with pytest.raises(SluiceError, match=rf"1 of {len(plans)} shards failed.*cursed"):
        go(filled)
    assert not list(filled.graphs.glob("*/graph_set.json"))
    monkeypatch.setattr(module, "build_lake_shard", whole)
    assert go(filled).shards_built == 1


@pytest.mark.slow
def test_local_processes_give_the_same_set(filled, go, small_shards):
    threads = go(filled)
    for path in (filled.graphs / "shards").iterdir():
        path.unlink()
    assert go(filled, cluster="local").graph_set_id == threads.graph_set_id


def run_script(home: Path, server: str, pause: float) -> subprocess.Popen[str]:
    script = home.parent / "go.py"
    script.write_text(SCRIPT)
    return subprocess.Popen(
        [sys.executable, str(script), str(home), str(pause)],
        env={**os.environ, "PREFECT_API_URL": server, "SLUICE_HOME": str(home)},
        stdout=subprocess.PIPE,
        text=True,
    )


@pytest.mark.slow
def test_after_a_kill_only_unfinished_shards_are_built(tmp_path, prefect_server):
    homes = [Home(tmp_path / name / "home") for name in ("killed", "calm")]
    for home in homes:
        fill(home, range(120))
    killed, calm = homes
    victim = run_script(killed.root, prefect_server, 0.4)
    results = killed.root / ".sluice" / "prefect-results"
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and (not results.is_dir() or len(list(results.iterdir())) < 3):
        time.sleep(0.05)
    os.kill(victim.pid, signal.SIGKILL)
    victim.wait()
    finished = len(list(results.iterdir()))
    (killed.root / "calls.txt").unlink()
    again = json.loads(run_script(killed.root, prefect_server, 0.0).communicate(timeout=300)[0])
    whole = json.loads(run_script(calm.root, prefect_server, 0.0).communicate(timeout=300)[0])
    calls = (killed.root / "calls.txt").read_text().split()
    assert 3 <= finished < whole["shards"]
    assert len(calls) == again["shards_built"] == whole["shards"] - finished
    assert again["graph_set_id"] == whole["graph_set_id"]
    names = sorted(path.name for path in (killed.graphs / "shards").glob("*.arrow"))
    for name in names:
        assert file_sha256(killed.graphs / "shards" / name) == file_sha256(calm.graphs / "shards" / name)
    assert len(names) == whole["shards"]


@pytest.fixture
def sluice(prefect_server):
    from flows.cli.main import app

    def call(*arguments: str):
        return CliRunner().invoke(app, ["preprocess", *arguments])

    return call


def test_the_verb_prints_one_object(filled, sluice):
    answer = sluice("toy", "--cutoff", "4", "--cluster", "threads", "--split", "train=90,valid=20", "--json")
    assert answer.exit_code == 0, answer.stderr
    result = json.loads(answer.stdout)
    assert result["rows_in"] == 120
    assert result["cutoff"] == 4.0


def test_the_verb_tells_people_a_sum(filled, sluice):
    answer = sluice("toy", "--cutoff", "4", "--cluster", "threads")
    assert answer.exit_code == 0, answer.stderr
    assert "120 rows in = " in answer.stdout
    assert "0 references + 0 dropped" in answer.stdout


def test_a_dry_run_says_what_would_be_and_does_nothing(filled, sluice):
    answer = sluice("toy", "--dry-run")
    assert answer.exit_code == 0
    assert "120 rows of toy@0 make 1 shards" in answer.stderr
    found = PreprocessPlanResult.model_validate_json(sluice("toy", "--dry-run", "--json").stdout)
    assert (found.lake_versions, found.rows, found.shards, found.shards_to_build) == ({"toy": 0}, 120, 1, 1)
    assert found.atoms > 120
    assert not filled.graphs.exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nothing"], "there is no data set 'nothing'"),
        (["toy@7"], "toy@7"),
        (["toy", "toy@0"], "named twice"),
        (["toy", "--helper", "toy"], "named twice"),
        (["toy", "--helper", "nothing"], "there is no data set 'nothing'"),
        (["toy", "--cutoff", "0"], "cutoff of 0"),
        (["toy", "--split", "train=1000"], "asks for 1000 structures"),
        (["toy", "--split", "half"], "--split 'half'"),
        (["toy", "--split-by", "mood"], "--split-by 'mood'"),
        (["toy", "--max-force", "-1"], "--max-force"),
        (["toy", "--max-force", "inf"], "--max-force"),
        (["toy", "--cluster", "moon"], "unknown cluster 'moon'"),
    ],
)
def test_mistakes_are_one_line_and_exit_code_2(filled, sluice, arguments, words):
    answer = sluice(*arguments)
    assert answer.exit_code == 2
    assert words in answer.stderr
    assert "Traceback" not in answer.output


def test_no_data_sets_are_refused():
    from flows.preprocess import make_spec

    with pytest.raises(InputError, match="no data set"):
        make_spec([])


def test_what_is_read_is_kept_from_collection(filled, monkeypatch):
    import flows.preprocess as module
    from flows.used_versions import used_versions

    seen = []

    def build(*_):
        seen.append(used_versions(filled))
        raise SluiceError("killed")

    monkeypatch.setattr(module, "build", build)
    with pytest.raises(SluiceError, match="killed"):
        module.preprocess.fn(["toy"], filled, show=False)
    assert seen == [{"toy": [0]}] and used_versions(filled) == {}
