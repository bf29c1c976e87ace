"""The programs behind the services: command, environment, and how to tell that they are well."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from pydantic import SecretStr

from flows.services.accounts import accounts_environment, settle_administrator
from flows.services.config import LOOPBACK, ServiceSettings
from flows.services.database import Databases
from flows.services.probes import FAILURES, Http, listens
from flows.services.secrets import credentials, without_secrets
from flows.services.state import NAMES, Name, Started
from flows.services.tls import tls_environment
from flows.settings import CLUSTER_VARIABLE, QUIET_DEFAULTS, WORK_POOL, WORK_POOL_TYPE, Home

WORKER_NAME = "sluice-up"
DASK_CONFIG = {
    "DASK_DISTRIBUTED__WORKER__DAEMON": "False",  # engines inside a shard may start subprocesses
    "DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT": "30s",
}
NOT_INHERITED = ("MLFLOW_TRACKING_URI", "PREFECT_API_URL", "PREFECT_LOGGING_LEVEL", "PREFECT_PROFILE", CLUSTER_VARIABLE)


@dataclass(frozen=True)
class Setting:
    """What the programs of one home are made from."""

    home: Home
    settings: ServiceSettings
    auth: SecretStr | None = None
    databases: Databases | None = None

    @property
    def prefect(self) -> Http:
        """The Prefect server."""
        return Http(self.settings.prefect_url, self.auth)

    @property
    def mlflow(self) -> Http:
        """The MLflow server."""
        return Http(self.settings.mlflow_url, self.auth)

    @property
    def dashboard(self) -> Http:
        """The Dask scheduler's pages."""
        return Http(self.settings.dashboard_url)


def nothing() -> None:
    """Most programs need none."""


@dataclass(frozen=True)
class Program:
    """One service: how it is started, whom it needs first, and how it answers.

    `trouble` says what is not well with it yet, None when it is healthy; `version` asks it for its version. `ports` are
    those it listens on, each with the option that gives another. One that `dies_with` others is started anew with them.
    `prepare` is called before it starts.
    """

    name: Name
    url: str
    command: list[str]
    environment: dict[str, str]
    trouble: Callable[[Started], str | None]
    version: Callable[[], str | None]
    after: tuple[Name, ...] = ()
    dies_with: tuple[Name, ...] = ()
    ports: tuple[tuple[str, str, int], ...] = ()
    prepare: Callable[[], None] = nothing


def programs(setting: Setting) -> dict[Name, Program]:
    """All programs of a home, in the order they are started."""
    makers = {"prefect": prefect, "mlflow": mlflow, "dask": dask, "dask-workers": dask_workers, "worker": worker}
    return {name: makers[name](setting) for name in NAMES}


def client_environment(setting: Setting) -> dict[str, str]:
    """What makes Prefect, MLflow and Dask clients use the services."""
    found = {
        "PREFECT_API_URL": setting.settings.prefect_url,
        "MLFLOW_TRACKING_URI": setting.settings.mlflow_url,
        CLUSTER_VARIABLE: setting.settings.dask_address,
    }
    if setting.auth is not None:
        user, password = credentials(setting.auth)
        found["PREFECT_API_AUTH_STRING"] = setting.auth.get_secret_value()
        found |= {"MLFLOW_TRACKING_USERNAME": user, "MLFLOW_TRACKING_PASSWORD": password}
    if setting.settings.is_wide:
        found |= tls_environment(setting.home)
    return found | {name: _with_host(name, setting.settings.reached_at) for name in ("NO_PROXY", "no_proxy")}


def _with_host(variable: str, host: str) -> str:
    """A list of hosts that are reached without proxy, with this machine's among them."""
    known = [name for name in os.environ.get(variable, "").split(",") if name]
    return ",".join(dict.fromkeys([*known, LOOPBACK, "localhost", host]))


def _base(setting: Setting) -> dict[str, str]:
    """The environment that every program gets: no secret, nobody else's servers."""
    inherited = {name: value for name, value in without_secrets(dict(os.environ)).items() if name not in NOT_INHERITED}
    # setproctitle, which Dask uses where it is installed, would write over the token that a process is known by
    return {**QUIET_DEFAULTS, **inherited, "SPT_NOENV": "1", "SLUICE_HOME": str(setting.home.root.resolve())}


def _module(*arguments: object) -> list[str]:
    return [sys.executable, "-m", *map(str, arguments)]


# ---- Prefect


def prefect(setting: Setting) -> Program:
    """The Prefect server: API, pages, schedules, events."""
    settings = setting.settings
    database = f"sqlite+aiosqlite:///{(setting.home.services / 'prefect.db').resolve()}"
    if setting.databases is not None:
        database = setting.databases.prefect.get_secret_value()
    environment = {
        **_base(setting),
        "PREFECT_API_URL": settings.prefect_url,
        "PREFECT_SERVER_UI_API_URL": settings.prefect_url,
        "PREFECT_SERVER_DATABASE_CONNECTION_URL": database,
    }
    if setting.auth is not None:
        for name in ("PREFECT_SERVER_API_AUTH_STRING", "PREFECT_API_AUTH_STRING"):
            environment[name] = setting.auth.get_secret_value()
    return Program(
        name="prefect",
        url=settings.prefect_url.removesuffix("/api"),
        command=_module("prefect", "server", "start", "--host", settings.host, "--port", settings.prefect_port),
        environment=environment,
        trouble=lambda _: _answers(setting.prefect, "/health"),
        version=lambda: json.loads(setting.prefect.get("/admin/version")),
        ports=(("--prefect-port", settings.host, settings.prefect_port),),
    )


def _answers(server: Http, path: str) -> str | None:
    try:
        server.get(path)
    except FAILURES as error:
        return f"no answer at {server.url}{path} ({error})"
    return None


# ---- MLflow


def mlflow(setting: Setting) -> Program:
    """The MLflow server over the home's own store; it hands out the artifacts."""
    settings, store = setting.settings, setting.home.mlruns.resolve()
    command = ["mlflow", "server", "--host", settings.host, "--port", settings.mlflow_port, "--workers", 1]
    command += ["--artifacts-destination", store / "artifacts"]
    environment = {
        **_base(setting),
        "MLFLOW_BACKEND_STORE_URI": f"sqlite:///{store / 'mlflow.db'}",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    }
    if setting.databases is not None:
        environment["MLFLOW_BACKEND_STORE_URI"] = setting.databases.mlflow.get_secret_value()
    if settings.is_wide:
        hosts = allowed_hosts(settings)
        origins = [f"{scheme}://{host}" for host in hosts for scheme in ("http", "https")]
        command += ["--allowed-hosts", ",".join(hosts), "--cors-allowed-origins", ",".join(origins)]
    if setting.auth is not None:
        command += ["--app-name", "basic-auth"]
        environment |= accounts_environment(setting.home, setting.auth)
    return Program(
        name="mlflow",
        url=settings.mlflow_url,
        command=_module(*command),
        environment=environment,
        trouble=lambda _: _answers(setting.mlflow, "/health"),
        version=lambda: setting.mlflow.get("/version"),
        ports=(("--mlflow-port", settings.host, settings.mlflow_port),),
        prepare=nothing if setting.auth is None else partial(settle_administrator, setting.home, setting.auth),
    )


def allowed_hosts(settings: ServiceSettings) -> list[str]:
    """The names under which browsers may ask MLflow; others are refused, against DNS rebinding."""
    names = [settings.reached_at, LOOPBACK, "localhost"]
    return [spelt for name in names for spelt in (name, f"{name}:{settings.mlflow_port}")]


# ---- Dask


def dask(setting: Setting) -> Program:
    """The Dask scheduler; its pages on loopback only."""
    settings = setting.settings
    command: list[object] = ["distributed.cli.dask_scheduler", "--host", settings.host, "--port", settings.dask_port]
    command += ["--dashboard-address", f"{LOOPBACK}:{settings.dashboard_port}"]
    command += ["--protocol", "tls"] if settings.is_wide else []
    return Program(
        name="dask",
        url=settings.dask_address,
        command=_module(*command),
        environment=_dask_environment(setting),
        trouble=lambda _: _scheduler_trouble(setting),
        version=lambda: _installed("distributed"),
        ports=(
            ("--dask-port", settings.host, settings.dask_port),
            ("--dashboard-port", LOOPBACK, settings.dashboard_port),
        ),
    )


def _dask_environment(setting: Setting) -> dict[str, str]:
    tls = tls_environment(setting.home) if setting.settings.is_wide else {}
    return {**_base(setting), **DASK_CONFIG, **tls}


def _scheduler_trouble(setting: Setting) -> str | None:
    if not listens(setting.settings.dask_address):
        return f"nothing listens at {setting.settings.dask_address}"
    return _answers(setting.dashboard, "/json/counts.json")


def dask_workers(setting: Setting) -> Program:
    """The Dask workers: processes of one thread, each under a nanny that replaces it when it dies."""
    settings = setting.settings
    scratch = setting.home.services.resolve() / "dask-scratch"
    command: list[object] = ["distributed.cli.dask_worker", settings.dask_address, "--nthreads", 1]
    command += ["--nworkers", settings.dask_workers, "--local-directory", scratch]
    command += ["--dashboard-address", f"{LOOPBACK}:0"]  # none would be one on all interfaces
    command += [] if settings.is_wide else ["--host", LOOPBACK]
    return Program(
        name="dask-workers",
        url=settings.dask_address,
        command=_module(*command),
        environment=_dask_environment(setting),
        trouble=lambda _: _workers_trouble(setting),
        version=lambda: _installed("distributed"),
        after=("dask",),
        dies_with=("dask",),
    )


def _workers_trouble(setting: Setting) -> str | None:
    try:
        found = json.loads(setting.dashboard.get("/json/counts.json"))["workers"]
    except (*FAILURES, KeyError) as error:
        return f"the scheduler does not tell its workers ({error})"
    wanted = setting.settings.dask_workers
    return None if found >= wanted else f"{found} of {wanted} workers"


def _installed(distribution: str) -> str | None:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


# ---- the Prefect worker


def worker(setting: Setting) -> Program:
    """The worker that executes deployed flows, each in a process of its own."""
    settings = setting.settings
    command = ["prefect", "worker", "start", "--pool", WORK_POOL, "--type", WORK_POOL_TYPE, "--name", WORKER_NAME]
    command += ["--limit", str(settings.runs)]
    return Program(
        name="worker",
        url=f"{settings.prefect_url.removesuffix('/api')}/work-pools",
        command=_module(*command),
        environment={**_base(setting), **client_environment(setting)},
        trouble=lambda started: _worker_trouble(setting, started),
        version=lambda: _installed("prefect"),
        after=("prefect",),
    )


def _worker_trouble(setting: Setting, started: Started) -> str | None:
    try:
        found = setting.prefect.post(f"/work_pools/{WORK_POOL}/workers/filter", {})
    except FAILURES as error:
        return f"the Prefect server does not tell its workers ({error})"
    since = datetime.fromisoformat(started.started_at)
    for row in found:
        if row["name"] == WORKER_NAME and row["status"] == "ONLINE" and _moment(row["last_heartbeat_time"]) >= since:
            return None
    return f"no heartbeat of the worker in pool {WORK_POOL}"


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text.replace("Z", "+00:00"))


def log_of(home: Home, name: Name) -> Path:
    """Where a service's output goes."""
    return home.services / f"{name}.log"


def describe_start(program: Program, token: str, pid: int | None, home: Home) -> Started:
    """The record of a start."""
    return Started(
        name=program.name,
        token=token,
        pid=pid,
        command=program.command,
        url=program.url,
        started_at=datetime.now(UTC).isoformat(timespec="seconds"),
        log=home.relative(log_of(home, program.name)),
    )
