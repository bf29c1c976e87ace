"""What `sluice up` starts, and where: from `[services]` in sluice.toml, the environment and the command line."""

from __future__ import annotations

import ipaddress
import os
import socket
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator, model_validator

from flows.services.secrets import AUTH, DATABASE, FILE_SUFFIX, credentials, secret
from flows.settings import Home, home_table
from gnn.errors import InputError

LOOPBACK = "127.0.0.1"
PREFIX = "SLUICE_SERVICES_"
TABLE = "services"
PORTS = ("prefect_port", "mlflow_port", "dask_port", "dashboard_port")


class ServiceSettings(BaseModel):
    """Hosts, ports and sizes of the services; names of files with secrets, never a secret."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    host: str = Field(default=LOOPBACK, description="the interface that the servers listen on")
    address: str | None = Field(default=None, description="the name under which others reach `host`")
    prefect_port: int = Field(default=4200, gt=0, lt=65536)
    mlflow_port: int = Field(default=5000, gt=0, lt=65536)
    dask_port: int = Field(default=8786, gt=0, lt=65536)
    dashboard_port: int = Field(default=8787, gt=0, lt=65536, description="of the Dask scheduler; always on loopback")
    workers: int | None = Field(default=None, ge=1, description="Dask worker processes; as many as cores if not given")
    runs: int = Field(default=4, ge=1, description="flow runs that the Prefect worker executes at once")
    database_file: Path | None = Field(default=None, description="file with a PostgreSQL URL for both servers")
    auth_file: Path | None = Field(default=None, description="file with USER:PASSWORD for both servers")

    @model_validator(mode="after")
    def _ports_differ(self) -> ServiceSettings:
        ports = [getattr(self, name) for name in PORTS]
        if len(set(ports)) < len(ports):
            raise ValueError(f"the ports {', '.join(PORTS)} must differ")
        return self

    @field_validator("host", "address")
    @classmethod
    def _is_no_ipv6(cls, name: str | None) -> str | None:
        if name is not None and ":" in name:
            raise ValueError(f"{name} is an IPv6 address, which the services do not take; give an IPv4 one or a name")
        return name

    @property
    def is_wide(self) -> bool:
        """Whether others than this machine can reach the servers."""
        return not is_loopback(self.host)

    @property
    def reached_at(self) -> str:
        """The name that clients use."""
        if self.address:
            return self.address
        return socket.getfqdn() if self.host == "0.0.0.0" else self.host  # noqa: S104

    @property
    def dask_workers(self) -> int:
        """Dask worker processes."""
        return self.workers or len(os.sched_getaffinity(0))

    @property
    def prefect_url(self) -> str:
        """Prefect's API."""
        return f"http://{self.reached_at}:{self.prefect_port}/api"

    @property
    def mlflow_url(self) -> str:
        """MLflow's tracking URI."""
        return f"http://{self.reached_at}:{self.mlflow_port}"

    @property
    def dask_address(self) -> str:
        """The Dask scheduler; encrypted where others can reach it."""
        return f"{'tls' if self.is_wide else 'tcp'}://{self.reached_at}:{self.dask_port}"

    @property
    def dashboard_url(self) -> str:
        """The Dask scheduler's pages."""
        return f"http://{LOOPBACK}:{self.dashboard_port}"

    def database(self) -> SecretStr | None:
        """The URL of a PostgreSQL server, if one is set."""
        return secret(DATABASE, self.database_file)

    def auth(self) -> SecretStr | None:
        """USER:PASSWORD of both servers, if set.

        Raises:
            InputError: others can reach the servers, and there is none, or it is malformed.
        """
        found = secret(AUTH, self.auth_file)
        if found is not None:
            credentials(found)
        elif self.is_wide:
            raise InputError(
                f"host {self.host} can be reached by others, so a password is needed: set {AUTH}=USER:PASSWORD, or "
                f"{AUTH}{FILE_SUFFIX} or services.auth_file to a file with it"
            )
        return found


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches `host`."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def read_settings(home: Home, changes: dict[str, Any], base: ServiceSettings | None = None) -> ServiceSettings:
    """The settings: `base` (else the defaults), laid over by sluice.toml, environment and `changes`.

    Raises:
        InputError: an unknown name or an impossible value; the message says which and where.
    """
    values = base.model_dump() if base is not None else {}
    given = {name: value for name, value in changes.items() if value is not None}
    try:
        settings = ServiceSettings.model_validate({**values, **home_table(home, TABLE), **_from_environment(), **given})
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or TABLE
        raise InputError(f"services: {where}: {first['msg']} (got {first['input']!r})") from None
    return settings.model_copy(update=_remembered_files(settings, home))


def _from_environment() -> dict[str, str]:
    names = {f"{PREFIX}{name.upper()}": name for name in ServiceSettings.model_fields}
    return {field: os.environ[name] for name, field in names.items() if os.environ.get(name)}


def _remembered_files(settings: ServiceSettings, home: Home) -> dict[str, Path]:
    """Files with secrets by absolute path, so that later commands find them from anywhere."""
    found = {}
    for field, variable in (("database_file", DATABASE), ("auth_file", AUTH)):
        named = os.environ.get(variable + FILE_SUFFIX)
        if named:
            found[field] = Path(named).expanduser().absolute()
        elif (path := getattr(settings, field)) is not None:
            found[field] = (home.root / path.expanduser()).absolute()
    return found
