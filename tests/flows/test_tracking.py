"""MLflow as a tracker, on a real embedded store."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from flows.campaigns import CampaignFolder
from flows.lineage import note_campaign
from flows.settings import Home
from flows.tracking import (
    MlflowTracker,
    clean_name,
    code_version,
    connect,
    environment,
    experiment_id,
    flattened,
    store_exists,
    tracking_uri,
)
from gnn.errors import InputError, SluiceError


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """A home whose store is made once: the first use of a database takes seconds."""
    return Home(tmp_path_factory.mktemp("tracked"))


@pytest.fixture(autouse=True)
def _own_store(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


def test_names_and_tables_for_mlflow() -> None:
    assert clean_name("valid/E (eV)") == "valid/E _eV_"
    assert flattened({"a": {"b": 1, "c": None}, "d": [1, 2]}) == {"a.b": "1", "d": "[1, 2]"}
    assert len(flattened({"long": "x" * 10_000})["long"]) == 6000


def test_where_the_store_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = Home(tmp_path)
    assert tracking_uri(home) == f"sqlite:///{tmp_path / 'mlruns' / 'mlflow.db'}"
    assert not store_exists(home)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:5000")
    assert tracking_uri(home) == "http://127.0.0.1:5000"
    assert store_exists(home)


def test_environment_and_code() -> None:
    assert any(line.startswith("torch==") for line in environment().splitlines())
    assert code_version().startswith("0.")


@pytest.mark.slow
def test_a_run_keeps_everything(store: Home, tmp_path: Path) -> None:
    tracker = MlflowTracker.start(store, "sluice", "first", {"data": "a@1"})
    (tmp_path / "plots").mkdir()
    (tmp_path / "plots" / "p.txt").write_text("p")
    with tracker.running():
        tracker.params({"optimiser": {"lr": 0.1}, "many": {str(i): i for i in range(150)}})
        tracker.params({"optimiser": {"lr": 0.1}})
        for step in range(30):
            tracker.metrics({"train/loss": 1.0 / (step + 1), "lr": 0.1}, step)
        tracker.artifact(tmp_path / "plots", "parity")
        tracker.text("hello", "note.txt")
        tracker.tags({"kind": "test"})
    client = connect(store)
    run = client.get_run(tracker.run_id)
    assert run.info.status == "FINISHED"
    assert run.data.params["optimiser.lr"] == "0.1"
    assert run.data.params["many.149"] == "149"
    assert run.data.tags["data"] == "a@1"
    assert [m.step for m in client.get_metric_history(tracker.run_id, "train/loss")] == list(range(30))
    assert {f.path for f in client.list_artifacts(tracker.run_id)} == {"parity", "note.txt"}
    assert (store.mlruns / "artifacts").is_dir()


@pytest.mark.slow
def test_points_wait_while_the_server_is_away(
    store: Home, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from mlflow.exceptions import MlflowException

    def away(*_: Any, **__: Any) -> None:
        raise MlflowException("connection refused")

    tracker = MlflowTracker.start(store, "sluice", "patient", {})
    tracker.flush_s = 0.0
    with tracker.running():
        tracker.metrics({"loss": 3.0}, 0)
        with monkeypatch.context() as patched:
            patched.setattr(tracker.client, "log_batch", away)
            tracker.metrics({"loss": 2.0}, 1)
        assert "1 points wait" in caplog.text
        tracker.metrics({"loss": 1.0}, 2)
    history = connect(store).get_metric_history(tracker.run_id, "loss")
    assert [(point.step, point.value) for point in history] == [(0, 3.0), (1, 2.0), (2, 1.0)]


@pytest.mark.slow
@pytest.mark.timeout(60)
def test_points_wait_when_an_answer_never_comes(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As on a network that was cut: MLflow itself would wait for two minutes, and try again."""
    from mlflow import MlflowClient
    from mlflow.environment_variables import MLFLOW_HTTP_REQUEST_TIMEOUT

    monkeypatch.setattr("flows.tracking.SHORT_WAIT_S", 1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        tracker = MlflowTracker(MlflowClient(f"http://127.0.0.1:{silent.getsockname()[1]}"), "0" * 32, flush_s=0.0)
        tracker.metrics({"loss": 3.0}, 0)
        tracker.metrics({"loss": 2.0}, 1)
    assert "2 points wait" in caplog.text
    assert MLFLOW_HTTP_REQUEST_TIMEOUT.get_raw() is None


@pytest.mark.slow
def test_a_run_is_continued_and_its_end_is_told(store: Home) -> None:
    tracker = MlflowTracker.start(store, "sluice", "second", {})
    with pytest.raises(KeyboardInterrupt), tracker.running():
        tracker.metrics({"loss": 2.0}, 0)
        raise KeyboardInterrupt
    client = connect(store)
    assert client.get_run(tracker.run_id).info.status == "KILLED"
    again = MlflowTracker.start(store, "sluice", "second", {}, tracker.run_id)
    assert again.run_id == tracker.run_id
    with pytest.raises(SluiceError, match="nothing to keep"), again.running():
        again.artifact(Path("/nowhere"))
    assert client.get_run(tracker.run_id).info.status == "FAILED"
    assert client.get_metric_history(tracker.run_id, "loss")[0].value == 2.0
    other = MlflowTracker.start(store, "sluice", "third", {}, "0" * 32)
    assert other.run_id != tracker.run_id


FIRST_USE = """
import sys, time
from pathlib import Path
import mlflow
from flows.settings import Home
from flows.tracking import MlflowTracker

root, own = Path(sys.argv[1]), sys.argv[2]
(root / f"ready-{own}").touch()
while len(list(root.glob("ready-*"))) < 3:
    time.sleep(0.005)
MlflowTracker.start(Home(root / "home"), "sluice", own, {})
"""
"""The first use of a store when all are ready: importing MLflow takes seconds, making tables less than one."""


@pytest.mark.slow
def test_several_processes_make_one_store(tmp_path: Path) -> None:
    commands = [[sys.executable, "-c", FIRST_USE, str(tmp_path), name] for name in ("a", "b", "c")]
    processes = [subprocess.Popen(command) for command in commands]
    assert [process.wait(timeout=300) for process in processes] == [0, 0, 0]
    client = connect(Home(tmp_path / "home"))
    assert len(client.search_runs([experiment_id(client, "sluice")])) == 3


@pytest.mark.slow
def test_a_store_that_mlflow_refuses(store: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "nonsense://x")
    with pytest.raises(InputError, match="nonsense"):
        connect(store)


def test_it_is_a_tracker(store: Home) -> None:
    from gnn.training.tracker import NullTracker, Tracker

    def takes(tracker: Tracker) -> Any:
        return tracker

    assert takes(NullTracker())
    assert takes(MlflowTracker(None, "x"))  # type: ignore[arg-type]


def test_a_campaign_goes_on_without_its_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    def lost(_: Any) -> Any:
        raise InputError("this home keeps its runs and models on PostgreSQL")

    monkeypatch.setattr("flows.tracking.connect", lost)
    pinned = SimpleNamespace(model=SimpleNamespace(uri="models:/alloys@champion", version="3"))
    folder = SimpleNamespace(manifest=lambda: pinned, home=None, name="metals")
    assert note_campaign(cast(CampaignFolder, folder)) is False
