"""Shards as Prefect tasks: what failed is run again, what is done is not, and the disk has the last word."""

from __future__ import annotations

import hashlib
import json
import time
from pathlib import Path

import pytest

from flows.settings import Home
from flows.shards import ShardJob, is_intact, raise_if_failed, run_shards
from gnn.errors import InputError, SluiceError

pytestmark = pytest.mark.server

N = 6


def square(folder: str, index: int) -> dict:
    """Write index² to a file, unless it is told to fail; leave a trace of every call."""
    root = Path(folder)
    with (root / "calls.txt").open("a") as stream:
        stream.write(f"{index}\n")
    if (root / f"fail-{index}").exists():
        raise ValueError(f"shard {index} is cursed")
    output = root / f"{index}.txt"
    output.write_text(str(index**2))
    return {"sha256": hashlib.sha256(output.read_bytes()).hexdigest(), "square": index**2}


def idle(folder: str, index: int) -> dict:
    time.sleep(0.2 * index)
    return {"index": index}


def unsteady(folder: str, index: int) -> dict:
    """Break `index` times as a network does, then succeed."""
    trace = Path(folder) / f"unsteady-{index}"
    tries = len(trace.read_text()) + 1 if trace.exists() else 1
    trace.write_text("x" * tries)
    if tries <= index:
        raise ConnectionResetError(f"try {tries}")
    return {"tries": tries}


@pytest.fixture
def client(prefect_server):
    from flows.cluster import dask_client

    with dask_client("threads", workers=2) as found:
        yield found


@pytest.fixture
def run(home: Home, client):
    """Run N shards in a flow; `failing` of them fail."""
    from prefect import flow

    def go(failing=(), version=1, indices=range(N), function=square, output=True, **options):
        for marker in home.root.glob("fail-*"):
            marker.unlink()
        for index in failing:
            (home.root / f"fail-{index}").touch()
        (home.root / "calls.txt").unlink(missing_ok=True)

        @flow(name="squares")
        def squares():
            jobs = [
                ShardJob(
                    index=position,
                    inputs={"rows": f"digest-{index}"},
                    function=function,
                    args=(str(home.root), index),
                    output=home.root / f"{index}.txt" if output else None,
                )
                for position, index in enumerate(indices)
            ]
            return run_shards("squares", version, jobs, client, home, **options)

        return squares()

    return go


@pytest.fixture
def calls(home: Home):
    def read() -> list[int]:
        path = home.root / "calls.txt"
        return sorted(int(line) for line in path.read_text().split()) if path.exists() else []

    return read


def test_a_rerun_computes_only_what_failed(run, calls):
    first = run(failing=(2, 4))
    assert [outcome.index for outcome in first] == list(range(N))
    assert [outcome.index for outcome in first if outcome.error] == [2, 4]
    assert first[2].error == "ValueError: shard 2 is cursed"
    assert first[3].manifest["square"] == 9
    assert calls() == list(range(N))
    second = run()
    assert calls() == [2, 4]
    assert [outcome.manifest["square"] for outcome in second] == [index**2 for index in range(N)]
    assert [outcome.cached for outcome in second] == [True, True, False, True, False, True]
    assert not any(outcome.cached is False for outcome in run())
    assert calls() == []


def test_a_missing_or_changed_file_is_computed_again(run, calls, home):
    run()
    (home.root / "1.txt").unlink()
    (home.root / "3.txt").write_text("tampered")
    again = run()
    assert calls() == [1, 3]
    assert (home.root / "3.txt").read_text() == "9"
    assert [outcome.cached for outcome in again] == [True, False, True, False, True, True]


def test_a_torn_result_is_computed_again(run, calls, home):
    run()
    stored = sorted((home.root / ".sluice" / "prefect-results").iterdir())
    stored[0].write_text('{"metadata": {"tor')
    again = run()
    assert len(calls()) == 1
    assert all(outcome.error is None for outcome in again)


def test_another_stage_version_computes_everything(run, calls):
    run()
    run(version=2)
    assert calls() == list(range(N))


def test_the_number_of_a_shard_is_no_input(run, calls):
    run()
    moved = run(indices=[5, 4, 3])
    assert calls() == []
    assert [outcome.manifest["square"] for outcome in moved] == [25, 16, 9]


def test_a_shard_that_writes_nothing_has_failed(run):
    outcomes = run(function=idle, indices=[0])
    assert "was not written" in outcomes[0].error


def test_a_shard_without_a_file_is_cached_by_its_inputs(run):
    assert [outcome.cached for outcome in run(function=idle, indices=[0, 1], output=False)] == [False, False]
    assert [outcome.cached for outcome in run(function=idle, indices=[0, 1], output=False)] == [True, True]


def test_every_outcome_is_told_once(run):
    told = []
    run(failing=(1,), on_outcome=lambda outcome: told.append(outcome.index))
    assert sorted(told) == list(range(N))


def test_an_interrupted_flow_ends_soon(run):
    def interrupt(_):
        raise KeyboardInterrupt

    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        run(function=idle, indices=[0, *range(40, 50)], output=False, on_outcome=interrupt)
    assert time.monotonic() - started < 30


def test_an_error_that_says_something_is_not_tried_again(run, calls):
    outcomes = run(failing=(0,), indices=[0], retries=2)
    assert calls() == [0]
    assert outcomes[0].error == "ValueError: shard 0 is cursed"


def test_passing_errors_are_tried_again_with_growing_pauses(run, home, monkeypatch):
    monkeypatch.setattr("flows.shards.delays", lambda tries: [0.1] * tries)
    outcomes = run(function=unsteady, indices=[3], output=False, retries=4)
    assert outcomes[0].error is None
    assert outcomes[0].manifest == {"tries": 4}
    endless = run(function=unsteady, indices=[9], output=False, retries=1)
    assert endless[0].error == "ConnectionResetError: try 2"


def test_tasks_are_named_by_shard_in_the_server(run):
    from prefect import tags
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterTags

    with tags("this-very-run"):
        run(failing=(1,))
    ours = FlowRunFilter(tags=FlowRunFilterTags(all_=["this-very-run"]))
    expected = {f"shard-{index:04d}" for index in range(N)}
    names: set[str] = set()
    deadline = time.monotonic() + 60
    with get_client(sync_client=True) as server:
        while names != expected and time.monotonic() < deadline:
            names = {task.name for task in server.read_task_runs(flow_run_filter=ours)}
            time.sleep(0.2)
    assert names == expected


def test_results_are_json_under_the_home(run, home):
    run()
    stored = list((home.root / ".sluice" / "prefect-results").iterdir())
    assert len(stored) == N
    assert all(isinstance(json.loads(path.read_text()), dict) for path in stored)


def test_two_shards_of_one_number_are_a_mistake(home, client):
    job = ShardJob(0, {}, square)
    with pytest.raises(ValueError, match="same index"):
        run_shards("squares", 1, [job, job], client, home)


def test_a_flow_with_failed_shards_fails_with_their_number(run):
    with pytest.raises(SluiceError, match=r"2 of 6 shards failed.*shard 2.*cursed"):
        raise_if_failed("squares", run(failing=(2, 4)))
    raise_if_failed("squares", run())


def test_a_file_is_intact_if_it_has_its_digest(tmp_path):
    path = tmp_path / "a"
    assert is_intact(None, {})
    assert not is_intact(path, {})
    path.write_text("a")
    assert is_intact(path, {})
    assert is_intact(path, {"sha256": hashlib.sha256(b"a").hexdigest()})
    assert not is_intact(path, {"sha256": "0"})


def test_an_open_client_is_shared(client):
    from flows.cluster import dask_client, slots

    with dask_client("threads") as again:
        assert again is client
    assert client.status == "running"
    assert slots(client) == 2


@pytest.mark.parametrize(
    ("cluster", "words"), [("slurmy", "unknown cluster"), ("tcp://127.0.0.1:9", "no Dask scheduler")]
)
def test_a_cluster_that_is_not_there_is_named(cluster, words, monkeypatch):
    from flows import cluster as module

    monkeypatch.setattr(module, "CONNECT_TIMEOUT_S", 1)
    with pytest.raises(InputError, match=words), module.dask_client(cluster):
        pass


def test_no_workers_are_refused():
    from flows.cluster import dask_client

    with pytest.raises(InputError, match="at least 1"), dask_client("local", workers=0):
        pass
