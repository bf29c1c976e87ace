"""One Prefect task a shard, computed on Dask; what preprocessing and screening share.

A shard is a pure function of digests, so Prefect's result cache knows which shards are done, in this run or an earlier
one. The disk is the truth: a cached manifest counts only while its output file is there and has the sha256 it names.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

from prefect import Task, task
from prefect.cache_policies import INPUTS
from prefect.futures import PrefectFuture, as_completed
from prefect.task_runners import ThreadPoolTaskRunner

from flows.cluster import slots
from flows.settings import Home
from flows.transient import Kind, delays, transient_kind
from gnn.errors import SluiceError, told
from gnn.files import file_sha256

if TYPE_CHECKING:
    from distributed import Client
    from distributed import Future as DaskFuture

Manifest = dict[str, Any]

RETRIES = 5
"""Tries of a shard after the first, with growing pauses, while its errors pass by themselves (flows.transient)."""
JITTER = 0.3
"""Pauses are lengthened at random by up to this share, so that shards do not come back all at once."""
REMOTE_IN_FLIGHT = 64
"""Shards handed to a scheduler of others at once; its workers may come later."""


@dataclass(frozen=True)
class ShardJob:
    """One shard: `function(*args)` runs on a worker and returns a JSON-able manifest.

    `inputs` are what decides the result: digests of spec, model and rows; never arrays. `index` names the task and is
    no input. Where `output` is given, the manifest's `sha256` is that file's. `resources` are what a worker must have
    to take it, as {"GPU": 1}.
    """

    index: int
    inputs: dict[str, Any]
    function: Callable[..., Manifest]
    args: tuple[Any, ...] = ()
    output: Path | None = None
    resources: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class ShardOutcome:
    """How a shard ended: its manifest, or why it failed; `cached` if nothing had to be computed."""

    index: int
    manifest: Manifest | None
    error: str | None
    cached: bool


@dataclass
class _Work:
    """What the task bodies share and Prefect must not see: jobs, the Dask client, futures in flight."""

    jobs: dict[int, ShardJob]
    client: Client
    executed: set[int] = field(default_factory=set)
    errors: dict[int, str] = field(default_factory=dict)
    kinds: dict[int, Kind | None] = field(default_factory=dict)
    cancelled: bool = False
    in_flight: dict[int, DaskFuture] = field(default_factory=dict)
    lock: Lock = field(default_factory=Lock)

    def compute(self, index: int) -> Manifest:
        """Run a shard's function on Dask and wait for its manifest."""
        job = self.jobs[index]
        try:
            with self.lock:
                self.executed.add(index)
                self.errors.pop(index, None)
                future = self.client.submit(job.function, *job.args, pure=False, resources=job.resources or None)
                self.in_flight[index] = future
            manifest: Manifest = future.result()
        except Exception as error:
            self.errors[index] = describe(error)
            self.kinds[index] = transient_kind(error)
            raise
        finally:
            with self.lock:
                self.in_flight.pop(index, None)
        return manifest

    def cancel(self) -> None:
        """Drop what is still queued or running, so that an interrupted flow ends at once."""
        self.cancelled = True
        with self.lock:
            futures = list(self.in_flight.values())
        if futures:
            self.client.cancel(futures, force=True)


def run_shards(
    stage: str,
    stage_version: int,
    jobs: Sequence[ShardJob],
    client: Client,
    home: Home,
    retries: int = RETRIES,
    on_outcome: Callable[[ShardOutcome], None] | None = None,
) -> list[ShardOutcome]:
    """Compute what is not computed yet, and say how every shard ended, in the order of `jobs`.

    A shard that fails does not stop the others: the caller writes what finished and then ends FAILED (see
    `raise_if_failed`). One whose error passes by itself is tried again up to `retries` times. `stage_version` is raised
    when the same inputs would give other results. `on_outcome` is called once for every shard as it ends.
    """
    work = _Work({job.index: job for job in jobs}, client)
    if len(work.jobs) != len(jobs):
        raise ValueError("two shards have the same index")
    shard_task = _shard_task(work, stage, home, retries)
    outcomes: dict[int, ShardOutcome] = {}

    def finish(outcome: ShardOutcome) -> None:
        outcomes[outcome.index] = outcome
        if on_outcome is not None:
            on_outcome(outcome)

    stale = _run(work, shard_task, stage, stage_version, jobs, finish)
    _run(work, shard_task.with_options(refresh_cache=True), stage, stage_version, stale, finish)
    return [outcomes[job.index] for job in jobs]


def raise_if_failed(stage: str, outcomes: Sequence[ShardOutcome]) -> None:
    """End a flow whose shards did not all finish.

    Raises:
        SluiceError: some failed; the message has their number and the first reason.
    """
    failed = [outcome for outcome in outcomes if outcome.error is not None]
    if failed:
        raise SluiceError(
            f"{stage}: {len(failed)} of {len(outcomes)} shards failed, the first (shard {failed[0].index}) with"
            f" {failed[0].error}; the others are kept, run the same command again to compute only these"
        )


def describe(error: BaseException) -> str:
    """An error's type and message in one line."""
    return told(error)


def _shard_task(work: _Work, stage: str, home: Home, retries: int) -> Task[..., Manifest]:
    """The Prefect task: named by its shard, cached by its inputs, its result JSON under the home."""

    def worth_another_try(_: Any, task_run: Any, __: Any) -> bool:
        index = int(task_run.name.rpartition("-")[2])
        return not work.cancelled and work.kinds.get(index) is not None

    @task(
        name=stage,
        task_run_name="shard-{index:04d}",
        cache_policy=INPUTS - "index",
        persist_result=True,
        result_storage=home.root.resolve() / ".sluice" / "prefect-results",
        result_serializer="json",
        cache_result_in_memory=False,
        retries=retries,
        retry_delay_seconds=delays(retries) or None,
        retry_jitter_factor=JITTER,
        retry_condition_fn=worth_another_try,
    )
    def shard(index: int, stage: str, stage_version: int, inputs: dict[str, Any]) -> Manifest:  # noqa: ARG001
        return work.compute(index)

    return shard


def _run(
    work: _Work,
    shard_task: Task[..., Manifest],
    stage: str,
    stage_version: int,
    jobs: Sequence[ShardJob],
    finish: Callable[[ShardOutcome], None],
) -> list[ShardJob]:
    """Run `jobs` as tasks on threads; return those whose cached result the disk does not bear out."""
    if not jobs:
        return []
    stale = []
    threads: ThreadPoolTaskRunner[Manifest] = ThreadPoolTaskRunner(max_workers=_in_flight(work.client, len(jobs)))
    with threads as runner:
        try:
            futures: dict[PrefectFuture[Any], ShardJob] = {
                runner.submit(
                    shard_task,
                    {"index": job.index, "stage": stage, "stage_version": stage_version, "inputs": job.inputs},
                ): job
                for job in jobs
            }
            for future in as_completed(list(futures)):
                job = futures[future]
                outcome = _outcome(work, job, future)
                if outcome is None:
                    stale.append(job)
                else:
                    finish(outcome)
        except BaseException:
            work.cancel()
            raise
    return stale


def _in_flight(client: Client, n_jobs: int) -> int:
    """Threads that wait for Dask: enough to keep its workers busy."""
    wanted = 2 * slots(client)
    if client.cluster is None:
        wanted = max(wanted, REMOTE_IN_FLIGHT)
    return max(1, min(n_jobs, wanted))


def _outcome(work: _Work, job: ShardJob, future: PrefectFuture[Any]) -> ShardOutcome | None:
    """How a task ended; None where a cached result cannot be read or its file is not what it names."""
    cached = job.index not in work.executed
    result = future.result(raise_on_failure=False)
    if isinstance(result, BaseException) or not isinstance(result, dict):
        if cached:
            return None
        return ShardOutcome(job.index, None, work.errors.get(job.index, describe_result(result)), cached=False)
    if is_intact(job.output, result, with_digest=cached):
        return ShardOutcome(job.index, result, None, cached)
    if cached:
        return None
    return ShardOutcome(job.index, None, f"{job.output} was not written", cached=False)


def describe_result(result: object) -> str:
    """Why a result is no manifest, in one line."""
    return (
        describe(result)
        if isinstance(result, BaseException)
        else f"the shard gave {type(result).__name__}, no manifest"
    )


def is_intact(output: Path | None, manifest: Manifest, with_digest: bool = True) -> bool:
    """Whether `output` exists and, where the manifest names its sha256, has it."""
    if output is None:
        return True
    if not output.is_file():
        return False
    expected = manifest.get("sha256")
    return not with_digest or expected is None or file_sha256(output) == expected
