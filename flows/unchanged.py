"""Whether a training would only repeat the one that made the newest version of its name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flows.settings import Home
from gnn.training.config import TrainConfig

if TYPE_CHECKING:
    from flows.registry import RegisteredModel
    from gnn.training.checkpoint import CheckpointManifest

NOT_COMPARED = {"device", "threads"}
"""Fields of a configuration that a checkpoint does not keep."""


def nothing_new(config: TrainConfig, home: Home) -> str | None:
    """Why this training need not run: the same data and configuration made the newest version; None if it must run.

    A version that the gate has not judged is not done: the training, which finds itself finished, lets it be judged.

    Data are the same when their content digests are: versions that only compaction made do not count.

    Raises:
        InputError: the lake has no such data set or version.
    """
    newest = newest_version(config.register_as, home)
    if newest is None or not newest[0].judged:
        return None
    number, manifest = newest[0].version, newest[1]
    now = data_digests(config.data.sources, home)
    trained = {item.dataset: item.content_digest for item in manifest.data.inputs}
    if now != trained or manifest.training != config.model_dump(mode="json", exclude=NOT_COMPARED):
        return None
    data = ", ".join(f"{item.dataset}@{item.version}" for item in manifest.data.inputs)
    return f"nothing to do: the data are those of {data}, which version {number} of {config.register_as} was trained on"


def newest_version(name: str | None, home: Home) -> tuple[RegisteredModel, CheckpointManifest] | None:
    """The newest version of a registered model and its manifest; None where there is none."""
    from flows.registry import list_models, lookup, registered_names
    from gnn.training.checkpoint import read_manifest

    if name is None or name not in registered_names(home):
        return None
    newest = list_models(home, name)[-1]
    return newest, read_manifest(lookup(f"{name}/{newest.version}", home)[1])


def data_digests(datasets: list[str], home: Home) -> dict[str, str]:
    """Content digest of each data set as it is now, or at the version that is named.

    Raises:
        InputError: the lake has no such data set or version.
    """
    from flows.train import known_dataset
    from gnn.lake.table import Lake

    lake = Lake(home.lake)
    known = [known_dataset(reference, lake) for reference in datasets]
    return {name: lake.content_digest(name, version) for name, version in known}
