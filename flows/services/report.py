"""What `sluice status` shows: services, queues, recent runs."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from flows.cli.results import DaskRow, FlowRunRow, QueueRow, ServiceRow, StatusResult
from flows.services import processes
from flows.services.discover import reachable, setting_of, trouble_from
from flows.services.lifecycle import is_running
from flows.services.probes import FAILURES
from flows.services.programs import Program, Setting, programs
from flows.services.state import ServicesState, Started, read_state
from flows.settings import Home
from gnn.errors import SluiceError

LATE, SCHEDULED, RUNNING = "Late", "SCHEDULED", "RUNNING"


def status(home: Home, runs: int) -> StatusResult:
    """Services of a home with versions, health, queues and the last `runs` flow runs.

    Raises:
        SluiceError: they run where this machine cannot look.
    """
    root = str(home.root.resolve())
    state = read_state(home)
    if state is None:
        return StatusResult(home=root, services=[])
    if not reachable(state):
        raise SluiceError(f"the services of this home run on {state.machine}, on its loopback interface; look there")
    setting = setting_of(home, state)
    services = rows(home, state)
    result = StatusResult(home=root, services=services)
    healthy = {row.name for row in services if row.health == "healthy"}
    questions: list[tuple[str, str, Callable[[], Any]]] = [
        ("queues", "prefect", lambda: queues(setting)),
        ("dask", "dask", lambda: dask_row(setting) if state.is_here else None),
        ("runs", "prefect", lambda: recent_runs(setting, runs) if runs else []),
    ]
    for field, server, ask in questions:
        if server in healthy:
            _fill(result, field, ask)
    return result


def _fill(result: StatusResult, field: str, ask: Callable[[], Any]) -> None:
    """Set a field to what a server says; a server that fails in the middle spoils nothing but its own part."""
    try:
        setattr(result, field, ask())
    except (*FAILURES, KeyError, TypeError) as error:
        result.notes.append(f"{field}: {type(error).__name__}: {error}")


def rows(home: Home, state: ServicesState) -> list[ServiceRow]:
    """One row a service of the record."""
    every = programs(setting_of(home, state))
    return [_row(every[name], started, state) for name, started in state.services.items()]


def _row(program: Program, started: Started, state: ServicesState) -> ServiceRow:
    runs = is_running(started) if state.is_here else True
    trouble = trouble_from(state, program) if runs else "ended; `sluice up` starts it again"
    count, memory = processes.memory_mb(started.token) if state.is_here else (0, 0.0)
    return ServiceRow(
        name=started.name,
        health=("healthy" if trouble is None else "unhealthy") if runs else "ended",
        url=started.url,
        version=_version(program) if trouble is None else None,
        pid=started.pid,
        processes=count,
        memory_mb=memory,
        started_at=started.started_at,
        log=started.log,
        detail=trouble,
    )


def _version(program: Program) -> str | None:
    try:
        return program.version()
    except FAILURES:
        return None


def queues(setting: Setting) -> list[QueueRow]:
    """Queues of every work pool, with what waits in them."""
    found = []
    for pool in setting.prefect.post("/work_pools/filter", {}):
        for queue in setting.prefect.post(f"/work_pools/{pool['name']}/queues/filter", {}):
            counts = {
                name: _count(setting, queue["id"], condition)
                for name, condition in (
                    ("scheduled", {"type": {"any_": [SCHEDULED]}}),
                    ("late", {"name": {"any_": [LATE]}}),
                    ("running", {"type": {"any_": [RUNNING]}}),
                )
            }
            limit = queue["concurrency_limit"] or pool["concurrency_limit"]
            paused = bool(queue["is_paused"] or pool["is_paused"])
            found.append(QueueRow(pool=pool["name"], queue=queue["name"], paused=paused, limit=limit, **counts))
    return found


def _count(setting: Setting, queue_id: str, state: dict[str, Any]) -> int:
    body = {"flow_runs": {"state": state}, "work_pool_queues": {"id": {"any_": [queue_id]}}}
    return int(setting.prefect.post("/flow_runs/count", body))


def dask_row(setting: Setting) -> DaskRow:
    """What the Dask scheduler is busy with."""
    counts = json.loads(setting.dashboard.get("/json/counts.json"))
    return DaskRow(
        workers=counts["workers"],
        threads=counts["cores"],
        processing=counts["processing"],
        waiting=counts["waiting"],
        clients=counts["clients"],
    )


def recent_runs(setting: Setting, limit: int) -> list[FlowRunRow]:
    """The newest flow runs that have begun, newest first."""
    begun = {"flow_runs": {"start_time": {"is_null_": False}}, "limit": limit, "sort": "START_TIME_DESC"}
    found = setting.prefect.post("/flow_runs/filter", begun)
    names = _flow_names(setting, {row["flow_id"] for row in found})
    return [
        FlowRunRow(
            id=row["id"],
            flow=names.get(row["flow_id"], ""),
            name=row["name"],
            state=row["state_name"] or "",
            created=str(row["start_time"])[:19],
            seconds=round(float(row["total_run_time"] or 0.0), 1),
            deployment_id=row["deployment_id"],
        )
        for row in found
    ]


def _flow_names(setting: Setting, ids: set[str]) -> dict[str, str]:
    if not ids:
        return {}
    found = setting.prefect.post("/flows/filter", {"flows": {"id": {"any_": sorted(ids)}}})
    return {row["id"]: row["name"] for row in found}
