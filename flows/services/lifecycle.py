"""Start what is not running, wait until it is well, stop exactly what was started."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterable
from typing import Any

from pydantic import SecretStr

from flows.services import processes
from flows.services.config import ServiceSettings, read_settings
from flows.services.database import databases, make_databases
from flows.services.probes import is_free
from flows.services.programs import Program, Setting, describe_start, log_of, programs
from flows.services.secrets import credentials, redacted
from flows.services.state import (
    NAMES,
    Name,
    ServicesState,
    Started,
    changing,
    make_folder,
    read_state,
    this_machine,
    write_state,
)
from flows.services.store import postgres_mark, refuse_lost_store
from flows.services.tls import make_certificate
from flows.settings import Home
from gnn.errors import InputError, SluiceError

START_TIMEOUT_S = 180.0
POLL_S = 0.25
STOP_ORDER: tuple[tuple[Name, ...], ...] = (("worker",), ("dask-workers",), ("dask", "mlflow", "prefect"))
"""Who works for others ends before them, so that runs can still say how they ended."""

Tell = Callable[[str], None]


def silent(_: str) -> None:
    """Tell nobody."""


def up(
    home: Home, changes: dict[str, Any], timeout_s: float = START_TIMEOUT_S, tell: Tell = silent
) -> tuple[ServicesState, list[Name]]:
    """Start the services that do not run yet and wait until all are well; the record, and which were started.

    Raises:
        InputError: impossible settings, a port that others use, a missing password, or other settings than those of
            services that run.
        SluiceError: a service ended, or is not well in time; what is well goes on running.
    """
    make_folder(home)
    with changing(home):
        state, setting = _prepared(home, changes)
        wanted = programs(setting)
        missing = _missing(state, wanted)
        for name in missing:
            if (stale := state.services.get(name)) is not None:
                processes.stop(stale.pid, stale.token)  # or what outlived it
                state = state.without(name)
        _refuse_taken_ports(wanted[name] for name in missing)
        state = _start_all(home, state, [wanted[name] for name in missing], setting, timeout_s, tell)
        return state, missing


def _prepared(home: Home, changes: dict[str, Any]) -> tuple[ServicesState, Setting]:
    """The record so far, and what the programs are made from."""
    known = state_here(home)
    running = known is not None and any(is_running(started) for started in known.services.values())
    settings = read_settings(home, changes, known.settings if known is not None and running else None)
    if known is not None and running and settings != known.settings:
        raise InputError(
            f"the services run with other settings ({differences(known.settings, settings)}); first `sluice down`"
        )
    auth, url = settings.auth(), settings.database()
    if known is not None and running and known.has_auth != (auth is not None):
        want, given = ("a password", "none is") if known.has_auth else ("no password", "one is")
        raise InputError(f"the services run with {want}, and {given} given (SLUICE_AUTH); first `sluice down`")
    choose_store(home, url)
    if settings.is_wide:
        make_certificate(home)
    home.mlruns.mkdir(parents=True, exist_ok=True)
    setting = Setting(home, settings, auth, None if url is None else databases(url))
    state = ServicesState(
        machine=this_machine(),
        settings=settings,
        has_auth=auth is not None,
        on_postgres=url is not None,
        services=known.services if known is not None else {},
    )
    return state, setting


def choose_store(home: Home, url: SecretStr | None) -> None:
    """Make the databases on PostgreSQL where they are wanted; once there, a home does not fall back to SQLite unasked.

    Raises:
        InputError: this home's runs are on PostgreSQL and no URL is given, or the server cannot be used.
    """
    if url is None:
        refuse_lost_store(home)
    else:
        make_databases(url)
        postgres_mark(home).touch()


def state_here(home: Home) -> ServicesState | None:
    """The record, if it is of this machine.

    Raises:
        SluiceError: the services of this home were started on another machine.
    """
    state = read_state(home)
    if state is not None and not state.is_here:
        raise SluiceError(f"the services of this home were started on {state.machine}; stop them there first")
    return state


def differences(before: ServiceSettings, after: ServiceSettings) -> str:
    """The settings that differ."""
    old, new = before.model_dump(), after.model_dump()
    return ", ".join(f"{name} {old[name]}, not {new[name]}" for name in old if old[name] != new[name])


def is_running(started: Started) -> bool:
    """Whether the program itself still runs."""
    return processes.is_alive(started.pid, started.token)


def _missing(state: ServicesState, wanted: dict[Name, Program]) -> list[Name]:
    """Which are to be started: those that do not run, and those that die with one of them."""
    gone = {name for name in NAMES if name not in state.services or not is_running(state.services[name])}
    return [name for name in NAMES if name in gone or gone & set(wanted[name].dies_with)]


def _refuse_taken_ports(wanted: Iterable[Program]) -> None:
    for program in wanted:
        for option, host, port in program.ports:
            try:
                free = is_free(host, port)
            except OSError as error:
                where = f"{program.name} cannot listen at {host}:{port}"
                raise InputError(f"{where} ({error}); give another --host or {option}") from None
            if not free:
                raise InputError(f"port {port} for {program.name} is in use by another program; give {option} another")


def _start_all(
    home: Home, state: ServicesState, wanted: list[Program], setting: Setting, timeout_s: float, tell: Tell
) -> ServicesState:
    """Start each program as soon as those it needs are well; wait until all services are."""
    deadline = time.monotonic() + timeout_s
    every = programs(setting)
    waiting, troubled = list(wanted), dict.fromkeys(NAMES, "not started")
    while troubled:
        for program in [p for p in waiting if not any(name in troubled for name in p.after)]:
            state = _start(home, state, program)
            waiting.remove(program)
        for name in [name for name in troubled if name in state.services]:
            started = state.services[name]
            found = _trouble(home, every[name], started, setting)
            if found is None:
                del troubled[name]
                tell(f"{name}: well at {started.url}")
            else:
                troubled[name] = found
        if troubled and time.monotonic() > deadline:
            _give_up(home, state, troubled, timeout_s)
        time.sleep(POLL_S if troubled else 0)
    return state


def _start(home: Home, state: ServicesState, program: Program) -> ServicesState:
    """Start a program; it is on record before it runs, so that `down` finds it whatever happens here."""
    program.prepare()
    token = uuid.uuid4().hex
    write_state(home, state.with_service(describe_start(program, token, None, home)))
    log = log_of(home, program.name)
    pid = processes.start_detached(program.command, program.environment, token, log, home.root)
    state = state.with_service(describe_start(program, token, pid, home))
    write_state(home, state)
    return state


def _trouble(home: Home, program: Program, started: Started, setting: Setting) -> str | None:
    """What is not well yet.

    Raises:
        SluiceError: the program ended.
    """
    if not is_running(started):
        log = log_of(home, program.name)
        said = redacted(processes.last_lines(log), secret_words(setting))
        raise SluiceError(f"{program.name} ended while it started; {log} ends with: {said or 'nothing'}")
    return program.trouble(started)


def _give_up(home: Home, state: ServicesState, troubled: dict[Name, str], timeout_s: float) -> None:
    told = "; ".join(f"{name}: {trouble}" for name, trouble in troubled.items())
    running = ", ".join(name for name in state.services if name not in troubled) or "none"
    raise SluiceError(
        f"not well after {timeout_s:g} s: {told} (logs in {home.services}; well: {running}). `sluice up` waits on, "
        "`sluice down` stops all"
    )


def secret_words(setting: Setting) -> list[str]:
    """Every text that must not be shown."""
    words = []
    if setting.auth is not None:
        words += [setting.auth.get_secret_value(), credentials(setting.auth)[1]]
    if setting.databases is not None:
        for url in (setting.databases.prefect.get_secret_value(), setting.databases.mlflow.get_secret_value()):
            words += [url, url.partition("://")[2].partition("@")[0].partition(":")[2]]
    return words


def down(home: Home, tell: Tell = silent) -> tuple[list[Name], int]:
    """Stop what was started, with all descendants; the names, and how many processes there were.

    Raises:
        SluiceError: the services were started on another machine, or do not end.
    """
    if read_state(home) is None:
        return [], 0
    with changing(home):
        state = state_here(home)
        if state is None:
            return [], 0
        stopped, count = [], 0
        for name in [name for group in STOP_ORDER for name in group if name in state.services]:
            started = state.services[name]
            ended = processes.stop(started.pid, started.token)
            if processes.family(started.token):
                raise SluiceError(f"{name} (process {started.pid}) does not end; stop it by hand")
            if ended:
                tell(f"{name}: stopped")
                stopped.append(name)
            count += ended
            state = state.without(name)
            write_state(home, state)
        return stopped, count
