"""What all tests share."""

from __future__ import annotations

import os
import runpy
from pathlib import Path

import pytest
from hypothesis import settings

from flows.settings import Home, apply_quiet_defaults

apply_quiet_defaults()
settings.register_profile("shared-machine", deadline=None)
settings.load_profile("shared-machine")
os.environ.setdefault("PREFECT_LOGGING_LEVEL", "WARNING")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # the suite runs on all cores already; CPU clocks count every thread

REPOSITORY = Path(__file__).resolve().parents[1]
REAL_DATA = REPOSITORY.parent / "shared" / "data"


@pytest.fixture(scope="session")
def repository() -> Path:
    return REPOSITORY


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real DFT data sets; tests that need it skip where it is absent."""
    if not REAL_DATA.is_dir():
        pytest.skip("the real data sets are not here")
    return REAL_DATA


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    """An empty home in a temporary folder."""
    monkeypatch.setenv("SLUICE_HOME", str(tmp_path))
    return Home(tmp_path)


@pytest.fixture(scope="session")
def report_context() -> object:
    """The context of an invented campaign, every part of a report filled."""
    return runpy.run_path(str(REPOSITORY / "tests" / "synthetic_campaign.py"))["report_context"]()
