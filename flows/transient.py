"""Which errors pass by themselves, so that a shard is worth another try: the one rule for all of Sluice.

Transient is what says nothing about the work: a worker or scheduler that is gone, a connection that broke, a file
system that does not answer for a moment, a lock that another process still holds. Everything else is told at once: a
mistake in the input, a failure of the potential, a full disk, a cancelled campaign.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from typing import Literal

from gnn.errors import BusyError, SluiceError

Kind = Literal["busy", "worker", "connection", "files"]

CONNECTION = frozenset(
    {
        errno.ECONNABORTED, errno.ECONNREFUSED, errno.ECONNRESET, errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENETDOWN,
        errno.ENETRESET, errno.ENETUNREACH, errno.EPIPE, errno.ETIMEDOUT,
    }
)  # fmt: skip
FILES = frozenset({errno.EAGAIN, errno.EBUSY, errno.EINTR, errno.EIO, errno.ENOLCK, errno.EREMOTEIO, errno.ESTALE})
WORKER_ERRORS = frozenset({"KilledWorker", "FutureCancelledError", "CancelledError", "NoValidWorkerError"})
CONNECTION_ERRORS = frozenset({"CommClosedError", "FatalCommClosedError", "ClosedClientError"})
"""Of Dask, by name: the rule is used where Dask is not imported."""


def transient_kind(error: BaseException) -> Kind | None:
    """What kind of passing trouble an error, or the one that caused it, is; None where trying again is of no use."""
    for link in _chain(error):
        if (kind := _kind(link)) is not None:
            return kind
        if isinstance(link, SluiceError):
            return None
    return None


def _chain(error: BaseException) -> Iterator[BaseException]:
    link: BaseException | None = error
    while link is not None:
        yield link
        link = link.__cause__


def _kind(error: BaseException) -> Kind | None:
    names = {kind.__name__ for kind in type(error).__mro__}
    if isinstance(error, BusyError):
        return "busy"
    if names & WORKER_ERRORS:
        return "worker"
    if names & CONNECTION_ERRORS or isinstance(error, ConnectionError | TimeoutError):
        return "connection"
    if isinstance(error, OSError):
        return "connection" if error.errno in CONNECTION else "files" if error.errno in FILES else None
    return None


def delays(tries: int, first_s: float = 2.0, factor: float = 2.0, longest_s: float = 60.0) -> list[float]:
    """Seconds to wait before each further try: `first_s`, then `factor` times as long, up to `longest_s`."""
    return [min(longest_s, first_s * factor**k) for k in range(tries)]
