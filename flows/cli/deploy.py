"""`sluice deploy`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flows.cli.output import DryRunOption, JsonOption, SetOption, overrides, say, show, speaks_plainly, table
from flows.cli.results import DeploymentRow, DeployResult

if TYPE_CHECKING:
    from flows.deployments import Deployment


@speaks_plainly
def deploy(assignments: SetOption = None, dry_run: DryRunOption = False, as_json: JsonOption = False) -> None:
    """Create or update the deployments of all flows, with their schedules and automations, in the Prefect server."""
    changes = overrides(assignments)
    from flows.deployments import planned
    from flows.settings import find_home

    home = find_home()
    deployments = planned(home, changes)
    if dry_run:
        show(result_of(deployments, {}, [], None), as_json, describe)
        return
    address = require_server()
    from flows import automations
    from flows.deployments import apply

    ids = apply(deployments, home)
    names = automations.apply(automations.wanted(deployments, ids))
    show(result_of(deployments, {name: str(key) for name, key in ids.items()}, names, address), as_json, describe)


def require_server() -> str:
    """The address of the Prefect server's API.

    Raises:
        InputError: none is configured.
    """
    from flows.events import server_address
    from gnn.errors import InputError

    address = server_address()
    if address is None:
        raise InputError("no Prefect server to deploy to: run `sluice up`, or set PREFECT_API_URL to a server's API")
    if not address.startswith(("http://", "https://")):
        raise InputError(f"PREFECT_API_URL is {address!r}, which is no address; it must be as http://HOST:4200/api")
    return address


def result_of(
    deployments: list[Deployment], ids: dict[str, str], names: list[str], address: str | None
) -> DeployResult:
    """What `sluice deploy` prints."""
    from flows.deployments import lacking
    from flows.settings import WORK_POOL

    rows = [
        DeploymentRow(
            name=f"{each.flow}/{each.name}",
            id=ids.get(each.name),
            entrypoint=each.entrypoint,
            tags=each.all_tags,
            cron=each.cron,
            timezone=each.timezone,
            scheduled=each.cron is not None and not lacking(each),
            lacking=lacking(each) if each.cron is not None or each.on_new_data or each.on_new_champion else [],
            parameters=each.parameters,
        )
        for each in deployments
    ]
    return DeployResult(server=address, work_pool=WORK_POOL, deployments=rows, automations=names)


def describe(result: DeployResult) -> None:
    """One row a deployment."""
    rows: list[list[object]] = [
        [row.name, f"{row.cron} {row.timezone}" if row.scheduled else "", ", ".join(row.tags)]
        for row in result.deployments
    ]
    table("Deployments", ["deployment", "schedule", "tags"], rows)
    for row in result.deployments:
        if row.lacking:
            say(f"{row.name} rests: set {', '.join(f'parameters.{name}' for name in row.lacking)} to switch it on")
    for name in result.automations:
        say(f"automation: {name.removeprefix('sluice: ')}")
    say("dry run: nothing was created" if result.server is None else f"deployed to {result.server}")
