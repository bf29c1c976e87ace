"""Where things lie: the home of all that Sluice makes, and the settings that the environment may change."""

from __future__ import annotations

import os
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gnn.errors import InputError

MARKER = "sluice.toml"
WORK_POOL, WORK_POOL_TYPE = "sluice", "process"
"""The Prefect work pool that `sluice up` serves and deployments run in."""
CLUSTER_VARIABLE = "SLUICE_CLUSTER"
"""Where shards are computed unless `--cluster` says otherwise; `sluice up`'s Dask scheduler while it runs."""
QUIET_DEFAULTS = {
    # nothing phones home: MLflow takes only the word "true"
    "DO_NOT_TRACK": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    # stdout belongs to results
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    # the first flow without a server starts one, which takes longer than Prefect's default allows
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
    "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
    # how often a run says that it lives; the automation of `sluice deploy` marks those as crashed that stop
    "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",
    "GIT_PYTHON_REFRESH": "quiet",
}


def apply_quiet_defaults() -> None:
    """Set `QUIET_DEFAULTS` where the user has set nothing else; before Prefect or MLflow is imported."""
    for name, value in QUIET_DEFAULTS.items():
        os.environ.setdefault(name, value)


@dataclass(frozen=True)
class Home:
    """The folder that holds datasets/ and mlruns/."""

    root: Path

    @property
    def lake(self) -> Path:
        """Delta tables, one a data set."""
        return self.root / "datasets" / "lake"

    @property
    def graphs(self) -> Path:
        """Graph shards and graph sets."""
        return self.root / "datasets" / "graphs"

    @property
    def campaigns(self) -> Path:
        """Screening campaigns."""
        return self.root / "datasets" / "campaigns"

    @property
    def labels(self) -> Path:
        """Journals of labelling."""
        return self.root / "datasets" / "labels"

    @property
    def models(self) -> Path:
        """Checkpoint folders and the state of trainings."""
        return self.root / "datasets" / "models"

    @property
    def cards(self) -> Path:
        """The user's data-set cards."""
        return self.root / "datasets" / "cards"

    @property
    def mlruns(self) -> Path:
        """MLflow's embedded store."""
        return self.root / "mlruns"

    @property
    def services(self) -> Path:
        """What `sluice up` started: its record, logs and databases."""
        return self.root / ".sluice" / "services"

    def relative(self, path: Path) -> str:
        """`path` relative to the home, as manifests hold it; absolute where it lies elsewhere."""
        resolved = path.resolve()
        root = self.root.resolve()
        return str(resolved.relative_to(root)) if resolved.is_relative_to(root) else str(resolved)

    def absolute(self, path: str) -> Path:
        """The path that `relative` gave."""
        return self.root / path


def find_home(start: Path | None = None) -> Home:
    """The home: SLUICE_HOME, else the nearest parent with a sluice.toml, else the current folder."""
    if configured := os.environ.get("SLUICE_HOME"):
        return Home(Path(configured).expanduser())
    here = (start or Path.cwd()).resolve()
    for folder in (here, *here.parents):
        if (folder / MARKER).is_file():
            return Home(folder)
    return Home(here)


def home_table(home: Home, name: str) -> dict[str, Any]:
    """The table `name` of the home's sluice.toml; empty where there is none.

    Raises:
        InputError: the file is not TOML, or the name is no table in it.
    """
    path = home.root / MARKER
    if not path.is_file():
        return {}
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8")).get(name, {})
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not TOML: {error}") from None
    if not isinstance(table, dict):
        raise InputError(f"{path}: {name} = {table!r} is no table; write [{name}]")
    return table
