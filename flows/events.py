"""What Sluice tells the Prefect server beyond its runs: the lake grew, a model has a new champion."""

from __future__ import annotations

from flows.settings import apply_quiet_defaults

LAKE_GREW = "sluice.lake.grew"
NEW_CHAMPION = "sluice.model.new-champion"


def lake_resource(dataset: str) -> str:
    """The resource id of a data set in events."""
    return f"sluice.lake.{dataset}"


def model_resource(name: str) -> str:
    """The resource id of a registered model in events."""
    return f"sluice.model.{name}"


def announce_growth(dataset: str, version: int | None, content_digest: str | None, kept: int) -> bool:
    """Tell that `kept` rows were added to a data set."""
    labels = {"sluice.dataset": dataset, "sluice.version": str(version), "sluice.content-digest": content_digest or ""}
    return _announce(LAKE_GREW, lake_resource(dataset), dataset, labels, {"kept": kept})


def announce_champion(name: str, version: str, reason: str) -> bool:
    """Tell that a version became the champion of its name."""
    labels = {"sluice.model": name, "sluice.version": version}
    return _announce(NEW_CHAMPION, model_resource(name), name, labels, {"reason": reason})


def server_address() -> str | None:
    """The API address of the standing Prefect server; None where flows run without one."""
    apply_quiet_defaults()
    from prefect.settings import PREFECT_API_URL

    address = PREFECT_API_URL.value()
    return None if address is None else str(address)


def _announce(event: str, resource: str, name: str, labels: dict[str, str], payload: dict[str, object]) -> bool:
    """Emit an event; False where there is no standing server that anybody could listen to."""
    if server_address() is None:
        return False
    from prefect.events import emit_event

    emit_event(
        event=event,
        resource={"prefect.resource.id": resource, "prefect.resource.name": name, **labels},
        payload={**labels, **payload},
    )
    return True
