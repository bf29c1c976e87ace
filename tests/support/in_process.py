"""Campaigns without any server: shards are computed here, one after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import pytest

from flows.settings import Home
from flows.shards import ShardJob, ShardOutcome, describe


@dataclass
class OneWorker:
    """Stands for a Dask client whose one worker is this process."""

    cluster: object = "here"

    def nthreads(self) -> dict[str, int]:
        return {"here": 1}

    def scheduler_info(self, n_workers: int = 5) -> dict[str, Any]:
        return {"workers": {"here": {"resources": {}}}}


def run_in_process(_: str, __: int, jobs: list[ShardJob], *___: object, **____: object) -> list[ShardOutcome]:
    """As `flows.shards.run_shards`, without Prefect and Dask."""
    outcomes = []
    for job in jobs:
        try:
            outcomes.append(ShardOutcome(job.index, job.function(*job.args), None, cached=False))
        except Exception as error:  # noqa: BLE001 (as the real one does)
            outcomes.append(ShardOutcome(job.index, None, describe(error), cached=False))
    return outcomes


@contextmanager
def without_servers() -> Iterator[Callable[..., Any]]:
    """The body of the flow `screen`, as a function of a campaign and a home."""
    from flows.screen import screen

    def run(campaign: Any, home: Home, **options: Any) -> Any:
        return screen.fn(campaign, home, show=False, **options)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("flows.cluster.dask_client", lambda *_: nullcontext(OneWorker()))
        patched.setattr("flows.shards.run_shards", run_in_process)
        yield run
