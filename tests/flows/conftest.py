"""What tests of flows share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from in_process import without_servers
from metals import metals_campaign

from flows.settings import Home


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
    path.write_text(metals_campaign(), encoding="utf-8")
    return path


@pytest.fixture
def run_here(home: Home) -> Iterator[Callable[..., Any]]:
    """The flow's body with shards computed here, one after the other: no server, no Dask."""
    with without_servers() as run:
        yield lambda campaign, **options: run(campaign, home, **options)
