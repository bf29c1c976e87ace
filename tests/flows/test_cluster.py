"""Dask clients: one start-up for several stages, on the loopback interface only."""

from __future__ import annotations

import os

import pytest

from flows import cluster
from flows.cluster import dask_client, slots
from flows.shard_bar import ShardBar
from flows.shards import ShardOutcome
from gnn.errors import InputError


def test_threads_work_in_this_process():
    with dask_client("threads", workers=3) as client:
        assert client.submit(os.getpid).result() == os.getpid()
        assert slots(client) == 3


def test_a_closed_client_is_forgotten():
    with dask_client("threads") as first:
        pass
    assert cluster._open_clients == {}
    with dask_client("threads") as second:
        assert second is not first


def test_a_failure_inside_closes_the_client():
    with pytest.raises(RuntimeError), dask_client("threads"):
        raise RuntimeError
    assert cluster._open_clients == {}


@pytest.mark.slow
def test_local_processes_have_one_thread_and_stay_on_the_loopback():
    with dask_client("local", workers=2) as client:
        workers = client.scheduler_info()["workers"]
        assert {client.submit(os.getpid, pure=False).result()} != {os.getpid()}
        assert slots(client) == 2
        assert all(address.startswith("tcp://127.0.0.1:") for address in workers)
        with dask_client(client.scheduler.address) as guest:
            assert guest.submit(os.getpid).result() != os.getpid()
        assert client.submit(os.getpid, pure=False).result()


def test_the_bar_counts_and_keeps_silent_when_told(capsys):
    with ShardBar("preprocess", 3, show=False) as bar:
        bar.update(ShardOutcome(0, {}, None, cached=True))
        bar.update(ShardOutcome(1, None, "ValueError: no", cached=False))
    assert bar.told() == "preprocess (1 reused, 1 failed)"
    assert capsys.readouterr().err == ""


def test_without_a_terminal_a_line_comes_now_and_then(capsys, monkeypatch):
    monkeypatch.setattr("flows.shard_bar.LINE_EVERY_S", -1.0)
    with ShardBar("preprocess", 1) as bar:
        bar.update(ShardOutcome(0, {}, None, cached=False))
    assert capsys.readouterr().err == "preprocess 1/1 shards\n"


def test_an_encrypted_scheduler_wants_a_certificate() -> None:
    with pytest.raises(InputError, match="wants a certificate"), dask_client("tls://127.0.0.1:9"):
        pass
