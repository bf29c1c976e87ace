"""Which campaigns a version was used for, as tags on its page in the registry."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from prefect.logging import get_logger

from flows.campaigns import CampaignFolder
from gnn.errors import SluiceError
from gnn.screening.manifest import CampaignManifest

TAG = "campaign."


@contextmanager
def traced(folder: CampaignFolder) -> Iterator[None]:
    """Tell the registered version that a campaign began with it, and how that ended.

    The campaign does not depend on the registry any more, so one that does not answer costs a warning.
    """
    note_campaign(folder)
    try:
        yield
    finally:
        note_campaign(folder)


def note_campaign(folder: CampaignFolder) -> bool:
    """Write the tag of a campaign; False where its model is no registered version or the registry does not answer."""
    manifest = folder.manifest()
    if manifest is None or manifest.model.version is None:
        return False
    from mlflow.exceptions import MlflowException

    from flows.registry import parse_reference
    from flows.tracking import connect

    name, version = parse_reference(manifest.model.uri).name, manifest.model.version
    try:
        connect(folder.home).set_model_version_tag(name, version, f"{TAG}{folder.name}", summary(manifest))
    except (MlflowException, OSError, SluiceError) as error:
        get_logger("sluice").warning("campaign %s is not on the page of %s %s: %s", folder.name, name, version, error)
        return False
    return True


def summary(manifest: CampaignManifest) -> str:
    """A campaign in one line."""
    when = manifest.finished_at or manifest.started_at
    counts = f"{manifest.n_candidates} candidates, {manifest.n_shortlist} on the shortlist"
    return f"{manifest.state} {when}: {counts}, {manifest.cost.get('cpu_s', 0.0):.0f} CPU s"
