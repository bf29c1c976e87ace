"""What tests of flows share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from flows.settings import Home

CAMPAIGN = """
name = "metals"
model = "foreign:emt"
[candidates]
elements = ["Al", "Cu", "Ni"]
min_elements = 2
prototypes = ["CsCl", "L1_0", "L1_2"]
[relaxation]
max_steps = 100
[filters]
max_hull_distance = 0.5
[hull]
reference = "model"
[selection]
budget = 4
[handoff]
formats = ["qe"]
[shards]
atoms = 20
"""


@pytest.fixture(scope="session")
def prefect_server() -> Iterator[str]:
    """A Prefect server with its own database in a temporary folder; its API address."""
    from prefect.settings import PREFECT_API_URL
    from prefect.testing.utilities import prefect_test_harness

    with prefect_test_harness(server_startup_timeout=180):
        yield str(PREFECT_API_URL.value())


@pytest.fixture
def campaign_file(tmp_path: Path) -> Path:
    """A campaign of a few metals that takes seconds."""
    path = tmp_path / "metals.toml"
    path.write_text(CAMPAIGN, encoding="utf-8")
    return path


@dataclass
class FakeClient:
    """One worker, in this process."""

    cluster: object = "here"

    def nthreads(self) -> dict[str, int]:
        return {"here": 1}

    def scheduler_info(self, n_workers: int = 5) -> dict[str, Any]:
        return {"workers": {"here": {"resources": {}}}}


@pytest.fixture
def run_here(monkeypatch: pytest.MonkeyPatch, home: Home) -> Callable[..., Any]:
    """The flow's body with shards computed here, one after the other: no server, no Dask. `calls` holds what ran."""
    from flows.screen import screen
    from flows.shards import ShardJob, ShardOutcome, describe

    @contextmanager
    def client(*_: object) -> Iterator[FakeClient]:
        yield FakeClient()

    def run_shards(stage: str, version: int, jobs: list[ShardJob], *_: object, **__: object) -> list[ShardOutcome]:
        outcomes = []
        for job in jobs:
            try:
                outcomes.append(ShardOutcome(job.index, job.function(*job.args), None, cached=False))
            except Exception as error:  # noqa: BLE001 (as the real one does)
                outcomes.append(ShardOutcome(job.index, None, describe(error), cached=False))
        return outcomes

    monkeypatch.setattr("flows.cluster.dask_client", client)
    monkeypatch.setattr("flows.shards.run_shards", run_shards)

    def go(campaign: Any, **options: Any) -> Any:
        return screen.fn(campaign, home, show=False, **options)

    return go
