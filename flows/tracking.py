"""MLflow as a tracker: an embedded SQLite store under the home, or the server that MLFLOW_TRACKING_URI names."""

from __future__ import annotations

import importlib.metadata
import logging
import os
import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.artifacts import address_of
from flows.services.store import refuse_lost_store
from flows.settings import Home, apply_quiet_defaults
from gnn import __version__
from gnn.errors import InputError, SluiceError
from gnn.files import locked
from gnn.overlay import dotted

if TYPE_CHECKING:
    from mlflow import MlflowClient

logger = logging.getLogger(__name__)

DATABASE = "mlflow.db"
LONGEST_PARAM = 6000
SHORT_WAIT_S = 5
"""Seconds that a training waits for an answer to its points; they are sent again later."""
LONG_WAIT_S = 120
"""Seconds to wait for another process that makes the tables of a store."""
BATCH_OF_METRICS, BATCH_OF_PARAMS = 1000, 100
NAME_CHARACTERS = re.compile(r"[^\w\-. /:]")


def tracking_uri(home: Home) -> str:
    """Where runs and models are kept: MLFLOW_TRACKING_URI, else the home's own database."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{(home.mlruns / DATABASE).resolve()}"


def is_embedded() -> bool:
    """Whether the store is the home's own database."""
    return not os.environ.get("MLFLOW_TRACKING_URI")


def store_exists(home: Home) -> bool:
    """False only for an embedded store that nothing was ever written to; needs no MLflow.

    Raises:
        InputError: the store is on PostgreSQL and no server of it runs.
    """
    if not is_embedded():
        return True
    refuse_lost_store(home)
    return (home.mlruns / DATABASE).is_file()


def connect(home: Home) -> MlflowClient:
    """A client of the store; importing MLflow takes seconds, so call this only when it is needed.

    Raises:
        InputError: the URI is of a kind that MLflow does not take, or the store is on PostgreSQL and no server runs.
    """
    if is_embedded():
        refuse_lost_store(home)
    apply_quiet_defaults()
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)
    uri = tracking_uri(home)
    try:
        with _one_at_a_time(home):
            return MlflowClient(tracking_uri=uri, registry_uri=uri)
    except MlflowException as error:
        raise InputError(f"MLFLOW_TRACKING_URI {uri!r} cannot be used: {error}") from None


def _one_at_a_time(home: Home) -> AbstractContextManager[None]:
    """A client makes or upgrades the tables of an embedded store, which two at once would do over each other."""
    if not is_embedded():
        return nullcontext()
    return locked(home.mlruns / "lock", f"the MLflow store {home.mlruns / DATABASE}", timeout_s=LONG_WAIT_S)


def experiment_id(client: MlflowClient, name: str) -> str:
    """The experiment of that name, made if it is new; its files lie under one address, embedded or served."""
    from mlflow.exceptions import MlflowException

    if (found := client.get_experiment_by_name(name)) is not None:
        return str(found.experiment_id)
    location = address_of(clean_name(name)) if is_embedded() else None
    try:
        return str(client.create_experiment(name, artifact_location=location))
    except MlflowException:
        # another process made it between the two calls
        if (found := client.get_experiment_by_name(name)) is None:
            raise
        return str(found.experiment_id)


def clean_name(name: str) -> str:
    """A name with only the characters that MLflow takes in the names of metrics and parameters."""
    return NAME_CHARACTERS.sub("_", name)


def flattened(values: dict[str, Any]) -> dict[str, str]:
    """Nested tables as `a.b` names with short text values."""
    return {clean_name(name): str(value)[:LONGEST_PARAM] for name, value in dotted(values).items() if value is not None}


class MlflowTracker:
    """One MLflow run as a `gnn.training.tracker.Tracker`; points are buffered and sent in batches."""

    def __init__(self, client: MlflowClient, run_id: str, flush_s: float = 20.0) -> None:
        self.client = client
        self.run_id = run_id
        self.flush_s = flush_s
        self._points: list[tuple[str, float, int, int]] = []
        self._flushed_at = time.monotonic()

    @classmethod
    def start(
        cls, home: Home, experiment: str, run_name: str, tags: dict[str, str], run_id: str | None = None
    ) -> MlflowTracker:
        """Begin a run, or go on with `run_id` where the store still has it."""
        client = connect(home)
        if run_id is None or not _reopen(client, run_id):
            experiment_key = experiment_id(client, experiment)
            run_id = client.create_run(experiment_key, run_name=run_name, tags=tags).info.run_id
        return cls(client, run_id)

    def params(self, values: dict[str, Any]) -> None:
        """Log nested parameters under dotted names; those that the run has already are left alone."""
        from mlflow.entities import Param

        known = self.client.get_run(self.run_id).data.params
        fresh = [Param(key, value) for key, value in flattened(values).items() if key not in known]
        for start in range(0, len(fresh), BATCH_OF_PARAMS):
            self.client.log_batch(self.run_id, params=fresh[start : start + BATCH_OF_PARAMS])

    def metrics(self, values: dict[str, float], step: int) -> None:
        """Buffer one point a curve; a batch goes out when the last is older than `flush_s`.

        Where the server is away the points wait, not the training.
        """
        now = int(time.time() * 1000)
        self._points += [(clean_name(name), float(value), now, step) for name, value in values.items()]
        if time.monotonic() - self._flushed_at > self.flush_s:
            self._flush_if_it_answers()

    def flush(self) -> None:
        """Send what is buffered; a batch that is sent twice, its answer lost, is one batch in the store."""
        from mlflow.entities import Metric

        while self._points:
            batch = self._points[:BATCH_OF_METRICS]
            self.client.log_batch(self.run_id, metrics=[Metric(*point) for point in batch])
            del self._points[: len(batch)]

    def _flush_if_it_answers(self) -> None:
        from mlflow.exceptions import MlflowException

        try:
            with impatient():
                self.flush()
        except MlflowException as error:
            logger.warning("MLflow does not answer, %d points wait: %s", len(self._points), error)
        self._flushed_at = time.monotonic()

    def artifact(self, path: Path, folder: str = "") -> None:
        """Copy a file, or a folder's content, into the run's artifacts.

        Raises:
            SluiceError: there is no such path.
        """
        if path.is_dir():
            self.client.log_artifacts(self.run_id, str(path), folder or None)
        elif path.is_file():
            self.client.log_artifact(self.run_id, str(path), folder or None)
        else:
            raise SluiceError(f"nothing to keep at {path}")

    def text(self, content: str, name: str) -> None:
        """Keep a text as an artifact."""
        self.client.log_text(self.run_id, content, name)

    def tags(self, values: dict[str, str]) -> None:
        """Attach labels."""
        from mlflow.entities import RunTag

        self.client.log_batch(self.run_id, tags=[RunTag(key, value) for key, value in values.items()])

    @contextmanager
    def running(self) -> Iterator[MlflowTracker]:
        """Send what is left and close the run: finished, killed (Ctrl-C, SIGTERM) or failed."""
        status = "KILLED"
        try:
            yield self
            status = "FINISHED"
        except Exception:
            status = "FAILED"
            raise
        finally:
            self.flush()
            self.client.set_terminated(self.run_id, status)


@contextmanager
def impatient() -> Iterator[None]:
    """Let MLflow's requests fail soon: it would try for minutes, and wait two for an answer that never comes."""
    from mlflow import environment_variables as known

    wanted = {known.MLFLOW_HTTP_REQUEST_MAX_RETRIES: 0, known.MLFLOW_HTTP_REQUEST_TIMEOUT: SHORT_WAIT_S}
    before = {variable: variable.get_raw() for variable in wanted}
    for variable, value in wanted.items():
        variable.set(value)
    try:
        yield
    finally:
        for variable, value in before.items():
            variable.unset() if value is None else variable.set(value)


def _reopen(client: MlflowClient, run_id: str) -> bool:
    """Set an earlier run running again; False where the store does not know it."""
    from mlflow.exceptions import MlflowException

    try:
        client.update_run(run_id, status="RUNNING")
    except MlflowException:
        return False
    return True


def environment() -> str:
    """Installed distributions as `name==version` lines: what `pip freeze` prints."""
    found = {d.metadata["Name"]: d.version for d in importlib.metadata.distributions() if d.metadata["Name"]}
    return "".join(f"{name}=={version}\n" for name, version in sorted(found.items(), key=lambda item: item[0].lower()))


def code_version() -> str:
    """The package's version, and the commit where the source tree is a checkout of it (`+` = changed since)."""
    commit = _git("rev-parse", "--short=12", "HEAD")
    if commit is None:
        return __version__
    return f"{__version__} {commit}{'+' if _git('status', '--porcelain', '--untracked-files=no') else ''}"


def _git(*arguments: str) -> str | None:
    """Output of a git command on this package's own source tree; None where it is not one."""
    source = Path(__file__).resolve().parents[1]
    if not (source / ".git").exists():
        return None
    command = ["git", "-C", str(source), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)  # noqa: S603
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
