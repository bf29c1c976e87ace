"""The record of what `sluice up` started under a home; `sluice down` stops exactly that."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from flows.services.config import ServiceSettings
from flows.settings import Home
from gnn.errors import SluiceError
from gnn.files import locked, write_text

STATE_NAME, LOCK_NAME = "state.json", "lock"
LOCK_TIMEOUT_S = 180.0
Name = Literal["prefect", "mlflow", "dask", "dask-workers", "worker"]
NAMES: tuple[Name, ...] = ("prefect", "mlflow", "dask", "dask-workers", "worker")


class Started(BaseModel):
    """One program that was started, with all its descendants: they carry `token` in their environment."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Name
    token: str
    pid: int | None = Field(description="null for the moment between the decision and the start")
    command: list[str]
    url: str
    started_at: str
    log: str


class ServicesState(BaseModel):
    """Everything that runs, or ran, for one home."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: Literal[1] = 1
    machine: str
    settings: ServiceSettings
    has_auth: bool = False
    on_postgres: bool = False
    services: dict[Name, Started] = {}

    @property
    def is_here(self) -> bool:
        """Whether it was written on this machine: homes may lie on a shared file system."""
        return self.machine == this_machine()

    def with_service(self, started: Started) -> ServicesState:
        """The state with one service more, or another in its place."""
        return self.model_copy(update={"services": {**self.services, started.name: started}})

    def without(self, name: Name) -> ServicesState:
        """The state with one service less."""
        return self.model_copy(update={"services": {n: s for n, s in self.services.items() if n != name}})


def this_machine() -> str:
    """The name by which a record knows its machine."""
    return socket.gethostname()


def state_path(home: Home) -> Path:
    """Where the record lies."""
    return home.services / STATE_NAME


def read_state(home: Home) -> ServicesState | None:
    """The record, if anything was started.

    Raises:
        SluiceError: it cannot be read.
    """
    path = state_path(home)
    try:
        return ServicesState.model_validate_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except PermissionError:
        raise SluiceError(f"the services of this home are another user's: {path} cannot be read") from None
    except (ValidationError, UnicodeDecodeError) as error:
        raise SluiceError(
            f"{path} is damaged ({type(error).__name__}); stop the services by hand and remove it"
        ) from None


def write_state(home: Home, state: ServicesState) -> None:
    """Keep the record; without services there is none."""
    if state.services:
        write_text(state_path(home), state.model_dump_json(indent=1))
    else:
        state_path(home).unlink(missing_ok=True)


@contextmanager
def changing(home: Home) -> Iterator[None]:
    """Let one process at a time start or stop services of a home.

    Raises:
        SluiceError: another one does so for minutes.
    """
    make_folder(home)
    with locked(home.services / LOCK_NAME, "the services of this home", LOCK_TIMEOUT_S):
        yield


def make_folder(home: Home) -> None:
    """The folder of records, logs and databases, for the user alone."""
    home.services.mkdir(parents=True, exist_ok=True)
    home.services.chmod(0o700)
