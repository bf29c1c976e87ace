"""What the Prefect server does by itself: follow new data and new champions, and mark dead runs as crashed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, get_args

from flows.deployments import Deployment, FlowName, runs_by_itself
from flows.events import LAKE_GREW, NEW_CHAMPION, lake_resource, model_resource

if TYPE_CHECKING:
    from uuid import UUID

    from prefect.events.schemas.automations import AutomationCore

PREFIX = "sluice: "
ZOMBIES = f"{PREFIX}mark dead runs as crashed"
HEARTBEAT = "prefect.flow-run.heartbeat"
ENDS = ("Completed", "Failed", "Cancelled", "Crashed", "Paused", "Suspended", "AwaitingRetry", "Scheduled")
SILENCE = timedelta(seconds=120)
"""A run whose heart beats every 30 s and was not heard for so long is dead."""


def wanted(deployments: Sequence[Deployment], ids: Mapping[str, UUID]) -> list[AutomationCore]:
    """Every automation that these deployments need, the one about dead runs first."""
    able = [each for each in deployments if runs_by_itself(each)]
    data = [follow_data(each, ids[each.name]) for each in able if each.on_new_data and each.datasets]
    champions = [follow_champion(each, ids[each.name]) for each in able if each.on_new_champion is not None]
    return [dead_runs(SILENCE), *data, *champions]


def dead_runs(silence: timedelta) -> AutomationCore:
    """A run of Sluice's flows whose heartbeat stopped before it ended becomes Crashed, and can be retried."""
    from prefect.client.schemas.objects import StateType
    from prefect.events import AutomationCore, ChangeFlowRunState, EventTrigger, Posture, ResourceSpecification

    trigger = EventTrigger(
        after={HEARTBEAT},
        expect={HEARTBEAT, *(f"prefect.flow-run.{state}" for state in ENDS)},
        match=ResourceSpecification.model_validate({"prefect.resource.id": "prefect.flow-run.*"}),
        match_related=ResourceSpecification.model_validate(
            {"prefect.resource.role": "flow", "prefect.resource.name": list(get_args(FlowName))}
        ),
        for_each={"prefect.resource.id"},
        posture=Posture.Proactive,
        threshold=1,
        within=silence,
    )
    said = f"its process gave no sign of life for {silence.total_seconds():.0f} s; retry it, finished work is kept"
    action = ChangeFlowRunState(name=None, state=StateType.CRASHED, message=said, force=False)
    return AutomationCore(name=ZOMBIES, description="Runs of dead workers and processes.", trigger=trigger,
                          actions=[action])  # fmt: skip


def follow_data(deployment: Deployment, deployment_id: UUID) -> AutomationCore:
    """New rows in a data set of a deployment start it."""
    name = f"{PREFIX}new data in {', '.join(deployment.datasets)} runs {deployment.flow}/{deployment.name}"
    return _run_on(name, LAKE_GREW, [lake_resource(dataset) for dataset in deployment.datasets], deployment_id)


def follow_champion(deployment: Deployment, deployment_id: UUID) -> AutomationCore:
    """A new champion starts a campaign that follows it."""
    model = str(deployment.on_new_champion)
    name = f"{PREFIX}new champion of {model} runs {deployment.flow}/{deployment.name}"
    return _run_on(name, NEW_CHAMPION, [model_resource(model)], deployment_id)


def _run_on(name: str, event: str, resources: list[str], deployment_id: UUID) -> AutomationCore:
    from prefect.events import AutomationCore, EventTrigger, Posture, ResourceSpecification, RunDeployment

    trigger = EventTrigger(
        expect={event},
        match=ResourceSpecification.model_validate({"prefect.resource.id": resources}),
        posture=Posture.Reactive,
        threshold=1,
    )
    run = RunDeployment(source="selected", deployment_id=deployment_id, parameters=None, job_variables=None)
    return AutomationCore(name=name, trigger=trigger, actions=[run])


def apply(automations: Sequence[AutomationCore]) -> list[str]:
    """Create or update these automations, delete those of Sluice that are no longer wanted; the names of all."""
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        known = {each.name: each.id for each in client.read_automations() if each.name.startswith(PREFIX)}
        for automation in automations:
            if automation.name in known:
                client.update_automation(known.pop(automation.name), automation)
            else:
                client.create_automation(automation)
        for stale in known.values():
            client.delete_automation(stale)
    return [automation.name for automation in automations]
