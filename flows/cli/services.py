"""`sluice up`, `sluice down`, `sluice status`: the standing services of a home."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flows.cli.output import JsonOption, say, show, speaks_plainly, table
from flows.cli.results import DownResult, ServiceRow, StatusResult, UpResult

Port = typer.Option(min=1, max=65535, metavar="PORT")


@speaks_plainly
def up(
    host: Annotated[str | None, typer.Option(help="Interface of the servers. [default: 127.0.0.1]")] = None,
    address: Annotated[str | None, typer.Option(help="Name under which others reach the host.")] = None,
    prefect_port: Annotated[int | None, Port] = None,
    mlflow_port: Annotated[int | None, Port] = None,
    dask_port: Annotated[int | None, Port] = None,
    dashboard_port: Annotated[int | None, Port] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Dask worker processes. [default: cores]")] = None,
    runs: Annotated[int | None, typer.Option(min=1, help="Flow runs at once. [default: 4]")] = None,
    database_file: Annotated[Path | None, typer.Option(help="File with a PostgreSQL URL for both servers.")] = None,
    auth_file: Annotated[Path | None, typer.Option(help="File with USER:PASSWORD for both servers.")] = None,
    timeout: Annotated[float, typer.Option(min=1, help="Seconds to wait until all are well.")] = 180.0,
    json: JsonOption = False,
) -> None:
    """Start Prefect, MLflow, Dask and a worker for this home, and wait until they answer.

    What runs already is left alone. Later commands under this home use them; `sluice down` stops them.
    """
    import time

    from flows.services.lifecycle import up as start
    from flows.services.report import rows
    from flows.settings import find_home

    given = {
        "host": host, "address": address, "prefect_port": prefect_port, "mlflow_port": mlflow_port,
        "dask_port": dask_port, "dashboard_port": dashboard_port, "workers": workers, "runs": runs,
        "database_file": database_file and database_file.absolute(), "auth_file": auth_file and auth_file.absolute(),
    }  # fmt: skip
    home, begun = find_home(), time.monotonic()
    state, started = start(home, given, timeout, say)
    services = rows(home, state)
    result = UpResult(
        home=str(home.root.resolve()),
        services=services,
        started=list(started),
        seconds=round(time.monotonic() - begun, 1),
    )
    show(result, json, _describe_up)


@speaks_plainly
def down(json: JsonOption = False) -> None:
    """Stop exactly what `sluice up` started under this home, with all that it started."""
    from flows.services.lifecycle import down as stop
    from flows.settings import find_home

    stopped, processes = stop(find_home(), say)
    show(DownResult(stopped=list(stopped), processes=processes), json, _describe_down)


@speaks_plainly
def status(
    runs: Annotated[int, typer.Option(min=0, max=200, help="Recent runs to list.")] = 10,
    json: JsonOption = False,
) -> None:
    """Show the services of this home: versions, health, queues and recent runs."""
    from flows.services.report import status as look
    from flows.settings import find_home

    show(look(find_home(), runs), json, _describe_status)


def _describe_services(services: list[ServiceRow]) -> None:
    rows: list[list[object]] = [[s.name, s.health, s.version, s.url] for s in services]
    table("Services", ["name", "health", "version", "address"], rows)
    for service in services:
        if service.detail is not None:
            say(f"{service.name}: {service.detail} (log {service.log})")


def _describe_up(result: UpResult) -> None:
    _describe_services(result.services)
    before = len(result.services) - len(result.started)
    say(f"{len(result.started)} started in {result.seconds:g} s, {before} ran before")
    say("commands under this home use them; `sluice status` shows them, `sluice down` stops them")


def _describe_down(result: DownResult) -> None:
    if result.stopped:
        say(f"stopped {', '.join(result.stopped)}: {result.processes} processes")
    else:
        say("nothing of this home was running")


def _describe_status(result: StatusResult) -> None:
    if not result.services:
        say("no services run for this home: `sluice up` starts them; commands work without them too")
        return
    _describe_services(result.services)
    for note in result.notes:
        say(f"note: {note}")
    table(
        "Queues",
        ["pool", "queue", "paused", "limit", "scheduled", "late", "running"],
        [[q.pool, q.queue, q.paused, q.limit, q.scheduled, q.late, q.running] for q in result.queues],
    )
    if result.dask is not None:
        d = result.dask
        say(f"Dask: {d.workers} workers, {d.threads} threads, {d.processing} tasks processing, {d.waiting} waiting")
    table(
        "Recent runs",
        ["flow", "run", "state", "created", "seconds", "id"],
        [[r.flow, r.name, r.state, r.created, r.seconds, r.id] for r in result.runs],
    )
