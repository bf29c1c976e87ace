"""Where shards are computed: a Dask client on this machine, on a scheduler that runs, or with a batch system's jobs."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock
from typing import TYPE_CHECKING, Any

from flows.batch_cluster import BATCH_SYSTEMS, GPU, batch_cluster, coming, read_cluster_settings
from flows.gpus import VISIBLE, local_gpus
from gnn.errors import InputError, SluiceError

if TYPE_CHECKING:
    from distributed import Client

    from flows.batch_cluster import Batch

LOOPBACK = "127.0.0.1"
CONNECT_TIMEOUT_S = 10
WORKER_CONFIG = {
    "logging.distributed": "critical",  # a shard's failure is told by its outcome
    "distributed.worker.daemon": False,  # engines inside a shard may start subprocesses
    "distributed.comm.timeouts.connect": "30s",
    "distributed.admin.system-monitor.gil.enabled": False,
}

_open_clients: dict[str, Client] = {}
_lock = Lock()


@contextmanager
def dask_client(cluster: str = "local", workers: int | None = None) -> Iterator[Client]:
    """A Dask client; inside an open one of the same `cluster`, that one again, so that stages share the start-up.

    `cluster` is "local" (processes on this machine, one thread each, on the loopback interface, without dashboard),
    "threads" (everything inside this process: at once there, for tiny work and tests), "slurm" or "kubernetes" (workers
    as jobs or pods, see `flows.batch_cluster`) or the address of a scheduler. `workers` defaults to the cores this
    process may use; each GPU gets one of them to itself.

    Raises:
        InputError: `cluster` is none of these, or no scheduler answers at the address.
    """
    if (shared := _open_clients.get(cluster)) is not None:
        yield shared
        return
    client = _connect(cluster, workers)
    with _lock:
        _open_clients[cluster] = client
    try:
        yield client
    finally:
        with _lock:
            _open_clients.pop(cluster, None)
        _close(client)


def _connect(cluster: str, workers: int | None) -> Client:
    if workers is not None and workers < 1:
        raise InputError(f"a cluster of {workers} workers cannot compute; give at least 1")
    if cluster in ("local", "threads"):
        return _local_client(cluster == "local", workers)
    for kind in BATCH_SYSTEMS:
        if cluster == kind:
            return _batch_client(kind, workers)
    refuse_unknown_cluster(cluster)
    return _remote_client(cluster)


def refuse_unknown_cluster(cluster: str) -> None:
    """Do nothing if `cluster` is one that `dask_client` takes; whether a scheduler answers is not asked.

    Raises:
        InputError: it is none.
    """
    if cluster not in ("local", "threads", *BATCH_SYSTEMS) and ":" not in cluster:
        raise InputError(
            f"unknown cluster {cluster!r}: give local, threads, {', '.join(BATCH_SYSTEMS)} or the address of a Dask"
            " scheduler as tcp://HOST:8786"
        )


def _local_client(processes: bool, workers: int | None) -> Client:
    """A client that owns its cluster: processes with a nanny each, or one worker of several threads in this process."""
    import dask
    from dask.system import CPU_COUNT
    from distributed import Client, LocalCluster

    count = workers or CPU_COUNT
    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    dask.config.set(WORKER_CONFIG)
    if processes and (gpus := local_gpus()):
        return Client(_gpu_cluster(gpus, max(count, len(gpus))))
    local = LocalCluster(
        n_workers=count if processes else 1,
        threads_per_worker=1 if processes else count,
        processes=processes,
        host=LOOPBACK if processes else None,
        dashboard_address=f"{LOOPBACK}:0",  # None would open port 8787 to the network
        worker_dashboard_address=f"{LOOPBACK}:0",
        silence_logs=logging.CRITICAL,
    )
    return Client(local)


def _gpu_cluster(gpus: list[str], count: int) -> Any:
    """`count` worker processes, of which the first have a GPU each and the others none."""
    from distributed import Nanny, Scheduler, SpecCluster

    return SpecCluster(
        scheduler={"cls": Scheduler, "options": {"host": LOOPBACK, "dashboard_address": f"{LOOPBACK}:0"}},
        workers={k: {"cls": Nanny, "options": worker_options(gpus, k)} for k in range(count)},
        silence_logs=logging.CRITICAL,
    )


def worker_options(gpus: list[str], number: int) -> dict[str, Any]:
    """Options of the worker process of that number where there are GPUs."""
    has_one = number < len(gpus)
    return {
        "nthreads": 1,
        "host": LOOPBACK,
        "resources": {GPU: 1} if has_one else {},
        "env": {VISIBLE: gpus[number] if has_one else ""},
        "silence_logs": logging.CRITICAL,
    }


def _batch_client(kind: Batch, workers: int | None) -> Client:
    import dask
    from distributed import Client

    settings = read_cluster_settings()
    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    dask.config.set(WORKER_CONFIG)
    return Client(batch_cluster(kind, settings, workers))


def _remote_client(address: str) -> Client:
    from distributed import Client

    try:
        return Client(address, timeout=CONNECT_TIMEOUT_S)
    except (OSError, ValueError) as error:
        raise InputError(
            f"no Dask scheduler answers at {address} ({type(error).__name__}); start one with `dask scheduler`, or use"
            " --cluster local"
        ) from error
    except TypeError as error:
        # what distributed raises for an encrypted address without a certificate
        raise InputError(f"the Dask scheduler at {address} wants a certificate: see docs/guide/services.md") from error


def _close(client: Client) -> None:
    """Close the client, and the cluster if it is its own."""
    cluster = client.cluster
    try:
        client.close()
        if cluster is not None:
            cluster.close()
    except (OSError, TimeoutError) as error:
        raise SluiceError(f"the Dask cluster did not close: {error}") from error


def slots(client: Client) -> int:
    """How many shards the client's workers can compute at once, those that are yet to come included; at least 1."""
    return max(1, coming(client.cluster).workers, sum(client.nthreads().values()))
