"""How commands find the services of their home and use them; and how they go on where there are none."""

from __future__ import annotations

import os
from collections.abc import Callable

from flows.services.config import is_loopback
from flows.services.lifecycle import is_running, silent
from flows.services.probes import listens
from flows.services.programs import Program, Setting, client_environment, programs
from flows.services.state import Name, ServicesState, read_state
from flows.settings import CLUSTER_VARIABLE, Home
from gnn.errors import InputError, SluiceError

SERVED_BY: dict[str, Name] = {
    "PREFECT_API_URL": "prefect",
    "MLFLOW_TRACKING_URI": "mlflow",
    CLUSTER_VARIABLE: "dask",
}
"""Which service a variable names."""
GOES_WITH = {
    "PREFECT_API_AUTH_STRING": "PREFECT_API_URL",
    "MLFLOW_TRACKING_USERNAME": "MLFLOW_TRACKING_URI",
    "MLFLOW_TRACKING_PASSWORD": "MLFLOW_TRACKING_URI",
}
"""The address to which alone a secret is sent. What begins with DASK_ goes with the cluster, the rest with all."""


def use_running(home: Home, tell: Callable[[str], None] = silent) -> dict[str, str]:
    """Point Prefect, MLflow and Dask clients of this process to the running services of `home`.

    What the user has set stays, and whose server that is gets no secret of this home. A service that does not answer is
    told and left out: its embedded kin serves instead.

    Returns:
        The variables that were set.

    Raises:
        InputError: the services want a password and none is set.
    """
    try:
        state = read_state(home)
    except SluiceError as error:
        tell(f"note: {error}")
        return {}
    if state is None or not reachable(state):
        return {}
    setting = setting_of(home, state)
    every = programs(setting)
    well = {name for name in set(SERVED_BY.values()) if answers(state, every[name], tell)}
    if not well:
        return {}
    found = client_environment(setting)
    chosen_addresses = {name for name, service in SERVED_BY.items() if service in well and not elsewhere(name, found)}
    chosen = {
        name: value
        for name, value in found.items()
        if address_of(name) in {None, *chosen_addresses} and (name not in os.environ or name.lower() == "no_proxy")
    }
    os.environ.update(chosen)
    return chosen


def elsewhere(variable: str, found: dict[str, str]) -> bool:
    """Whether the user has set another address than the home's."""
    return os.environ.get(variable, found[variable]) != found[variable]


def address_of(variable: str) -> str | None:
    """The address that a variable is or goes with; None of what goes with all."""
    if variable.startswith("DASK_"):
        return CLUSTER_VARIABLE
    return variable if variable in SERVED_BY else GOES_WITH.get(variable)


def reachable(state: ServicesState) -> bool:
    """Whether this machine could reach the services: those on another's loopback it cannot."""
    return state.is_here or not is_loopback(state.settings.host)


def setting_of(home: Home, state: ServicesState) -> Setting:
    """What the programs of a record are made from; without the databases, which only servers need.

    Raises:
        InputError: the services want a password and none is set.
    """
    auth = state.settings.auth() if state.has_auth else None
    if state.has_auth and auth is None:
        raise InputError("the services of this home want a password: set SLUICE_AUTH or SLUICE_AUTH_FILE")
    return Setting(home, state.settings, auth)


def answers(state: ServicesState, program: Program, tell: Callable[[str], None] = silent) -> bool:
    """Whether a service of the record runs and answers; `tell` hears why not, if it should."""
    started = state.services.get(program.name)
    if started is None:
        return False
    if state.is_here and not is_running(started):
        tell(f"note: {program.name} of this home does not run any more; going on without it (`sluice up` starts it)")
        return False
    trouble = trouble_from(state, program)
    if trouble is not None:
        tell(f"note: {program.name} of this home: {trouble}; going on without it")
    return trouble is None


def trouble_from(state: ServicesState, program: Program) -> str | None:
    """What is not well with a service, as far as this machine can see: Dask's pages are on its own loopback."""
    if program.name.startswith("dask") and not state.is_here:
        return None if listens(program.url) else f"nothing listens at {program.url}"
    return program.trouble(state.services[program.name])
