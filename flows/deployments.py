"""Deployments of every flow: what there is by default, what a home's sluice.toml adds, and their creation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from flows.settings import WORK_POOL, WORK_POOL_TYPE, Home, home_table
from gnn.errors import InputError
from gnn.overlay import merged

if TYPE_CHECKING:
    from uuid import UUID

    from prefect import Flow
    from prefect.client.schemas.schedules import CronSchedule
    from prefect.deployments.runner import RunnerDeployment

FlowName = Literal["ingest", "preprocess", "train", "screen", "label"]
MODULE = "flows.deployed"
TAG = "sluice"
TABLE = "deployments"


class Deployment(BaseModel):
    """One deployment as `[deployments.NAME]` in sluice.toml describes it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(description="its name in the Prefect UI")
    flow: FlowName = Field(description="the flow that it runs")
    parameters: dict[str, Any] = Field(default_factory=dict, description="values that its runs start with")
    tags: list[str] = Field(default_factory=list, description="labels of the deployment and its runs")
    cron: str | None = Field(default=None, description="when it runs by itself, as a cron expression")
    timezone: str = Field(default="UTC", description="time zone of the cron expression")
    on_new_data: bool = Field(default=False, description="run when one of its data sets grew")
    on_new_champion: str | None = Field(default=None, description="run when this model has a new champion")
    concurrency: int | None = Field(default=None, ge=1, description="runs of it at a time; the others wait")

    @model_validator(mode="after")
    def _follows_what_it_can(self) -> Deployment:
        if self.on_new_data and self.flow not in ("preprocess", "train"):
            raise ValueError(f"on_new_data: {self.flow} does not read data sets; preprocess and train do")
        if self.on_new_champion is not None and self.flow != "screen":
            raise ValueError(f"on_new_champion: {self.flow} does not use a model; screen does")
        return self

    @model_validator(mode="after")
    def _has_a_schedule_that_can_be(self) -> Deployment:
        if self.cron is not None:
            schedule_of(self.cron, self.timezone)
        return self

    @property
    def entrypoint(self) -> str:
        """What a worker imports: a module path, the same on every machine."""
        return f"{MODULE}.{self.flow}"

    @property
    def all_tags(self) -> list[str]:
        """Its own tags, after those that every deployment of Sluice has."""
        return list(dict.fromkeys([TAG, self.flow, *self.tags]))

    @property
    def datasets(self) -> list[str]:
        """Names of the data sets that it reads."""
        return [str(reference).partition("@")[0] for reference in self.parameters.get("datasets", [])]


DEFAULTS: dict[str, dict[str, Any]] = {
    "ingest": {"flow": "ingest"},
    "preprocess": {"flow": "preprocess"},
    "train": {"flow": "train"},
    "nightly": {
        "flow": "train",
        "cron": "0 2 * * *",
        "parameters": {"minutes": 240.0},
        "on_new_data": True,
        "concurrency": 1,
    },
    "screen": {"flow": "screen"},
    "label": {"flow": "label"},
}
"""Deployments that every home has; a table of the same name in sluice.toml is laid over them."""


def planned(home: Home, changes: Mapping[str, Any] | None = None) -> list[Deployment]:
    """The default deployments, those of the home's sluice.toml laid over them, and `changes` over both.

    Raises:
        InputError: the file or a value in it cannot be used, or a parameter is none of its flow.
    """
    tables = merged(merged(DEFAULTS, home_table(home, TABLE)), changes or {})
    found = [make_deployment(name, table) for name, table in tables.items()]
    for deployment in found:
        check_parameters(deployment)
    return found


def make_deployment(name: str, table: Any) -> Deployment:
    """A checked deployment.

    Raises:
        InputError: a field is unknown, missing or has a value that cannot be.
    """
    from gnn.training.config import describe_validation

    if not isinstance(table, Mapping):
        raise InputError(f"{TABLE}.{name} = {table!r} is no table of a deployment")
    try:
        return Deployment.model_validate({**table, "name": name})
    except ValidationError as error:
        raise InputError(f"{TABLE}.{name}: {describe_validation(error)}") from None


def flow_of(deployment: Deployment) -> Flow[..., Any]:
    """The flow that a deployment runs."""
    from flows import deployed

    flow: Flow[..., Any] = getattr(deployed, deployment.flow)
    return flow


def check_parameters(deployment: Deployment) -> None:
    """Do nothing if the flow takes all parameters of the deployment.

    Raises:
        InputError: a parameter is unknown or has a value of another kind.
    """
    from prefect.utilities.callables import parameter_schema
    from prefect.utilities.schema_tools.validation import validate

    schema = parameter_schema(flow_of(deployment)).model_dump_for_openapi()
    known = schema["properties"]
    where = f"{TABLE}.{deployment.name}.parameters"
    if unknown := sorted(set(deployment.parameters) - set(known)):
        raise InputError(f"{where}: no {unknown[0]!r}; {deployment.flow} takes {', '.join(known)}")
    errors = validate(deployment.parameters, {**schema, "required": []}, raise_on_error=False)
    if errors:
        deepest = errors[0]
        while deepest.context:
            deepest = deepest.context[0]
        raise InputError(f"{where}.{'.'.join(map(str, errors[0].path))}: {deepest.message}")


def lacking(deployment: Deployment) -> list[str]:
    """Parameters that a run needs and the deployment does not give; with any, it can only be started by hand."""
    from inspect import Parameter, signature

    needed = [name for name, p in signature(flow_of(deployment).fn).parameters.items() if p.default is Parameter.empty]
    return [name for name in needed if name not in deployment.parameters]


def runs_by_itself(deployment: Deployment) -> bool:
    """Whether its schedule and its triggers are switched on: it has every parameter that it needs."""
    return not lacking(deployment)


def schedule_of(cron: str, timezone: str) -> CronSchedule:
    """When a deployment runs by itself.

    Raises:
        ValueError: no cron expression, or no time zone.
    """
    from prefect.client.schemas.schedules import CronSchedule

    try:
        return CronSchedule(cron=cron, timezone=timezone)
    except ValidationError as error:
        raise ValueError(f"cron {cron!r} in {timezone!r}: {error.errors()[0]['msg']}") from None


def runner_deployment(deployment: Deployment, home: Home) -> RunnerDeployment:
    """The deployment as Prefect takes it; only the server learns where the home lies, through the job's environment."""
    from prefect.deployments.runner import RunnerDeployment
    from prefect.types.entrypoint import EntrypointType

    schedule = None if deployment.cron is None else schedule_of(deployment.cron, deployment.timezone)
    active = runs_by_itself(deployment)
    return RunnerDeployment.from_flow(
        flow_of(deployment),
        name=deployment.name,
        schedules=None if schedule is None else [{"schedule": schedule, "active": active}],
        parameters=deployment.parameters,
        tags=deployment.all_tags,
        work_pool_name=WORK_POOL,
        job_variables={"env": {"SLUICE_HOME": str(home.root.resolve())}},
        concurrency_limit=deployment.concurrency,
        entrypoint_type=EntrypointType.MODULE_PATH,
    )


def make_work_pool() -> bool:
    """Have the work pool; whether it is new."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.actions import WorkPoolCreate
    from prefect.exceptions import ObjectNotFound

    with get_client(sync_client=True) as client:
        try:
            client.read_work_pool(WORK_POOL)
        except ObjectNotFound:
            client.create_work_pool(WorkPoolCreate(name=WORK_POOL, type=WORK_POOL_TYPE))
            return True
    return False


def apply(deployments: list[Deployment], home: Home) -> dict[str, UUID]:
    """Create or update the deployments; their ids by name."""
    make_work_pool()
    return {each.name: runner_deployment(each, home).apply() for each in deployments}  # type: ignore[misc]
