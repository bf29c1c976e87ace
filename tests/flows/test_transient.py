"""The rule of what is worth another try."""

from __future__ import annotations

import errno

import pytest

from flows.transient import delays, transient_kind
from gnn.errors import BusyError, InputError, SluiceError


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (BusyError("shard 3 is in use"), "busy"),
        (ConnectionResetError("peer"), "connection"),
        (TimeoutError("no answer"), "connection"),
        (OSError(errno.EHOSTUNREACH, "no route"), "connection"),
        (OSError(errno.EIO, "input/output error"), "files"),
        (OSError(errno.ESTALE, "stale handle"), "files"),
        (OSError(errno.ENOSPC, "disk full"), None),
        (FileNotFoundError(errno.ENOENT, "gone"), None),
        (PermissionError(errno.EACCES, "no"), None),
        (InputError("your mistake"), None),
        (SluiceError("ours"), None),
        (ValueError("a number"), None),
        (MemoryError(), None),
        (KeyboardInterrupt(), None),
    ],
)
def test_the_rule(error: BaseException, kind: str | None) -> None:
    assert transient_kind(error) == kind


def test_errors_of_dask() -> None:
    from distributed import KilledWorker
    from distributed.client import FutureCancelledError
    from distributed.comm.core import CommClosedError

    assert transient_kind(KilledWorker("task", None, 4)) == "worker"
    assert transient_kind(FutureCancelledError("key", "lost")) == "worker"
    assert transient_kind(CommClosedError("closed")) == "connection"


def chained(error: BaseException, cause: BaseException) -> BaseException:
    error.__cause__ = cause
    return error


def test_a_cause_counts_unless_someone_has_judged_it() -> None:
    assert transient_kind(chained(RuntimeError("reading"), ConnectionResetError())) == "connection"
    assert transient_kind(chained(InputError("no scheduler there"), ConnectionRefusedError())) is None


def test_pauses_grow_to_a_limit() -> None:
    assert delays(7) == [2, 4, 8, 16, 32, 60, 60]
    assert delays(0) == []
