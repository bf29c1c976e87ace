"""Keeping freed memory: it can be asked for, once, and the user's own settings win."""

from __future__ import annotations

import sys

import pytest

from flows.cluster import dask_client
from gnn.potentials.allocator import keep_freed_memory


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc only")
def test_the_users_own_settings_win(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MALLOC_ARENA_MAX", "2")
    assert keep_freed_memory.__wrapped__() is False


def test_elsewhere_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert keep_freed_memory.__wrapped__() is False


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc only")
def test_dask_workers_default_is_not_the_users_choice() -> None:
    """Found in trainings that took twice the CPU time on a worker: the nanny tells glibc to give memory back."""
    with dask_client("local", 1) as client:
        assert client.submit(keep_freed_memory.__wrapped__).result() is True
