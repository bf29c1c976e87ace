"""Artifacts of a home under one address, whether MLflow is embedded or served.

Runs and models name their files `mlflow-artifacts:/…`. A server hands them out; with the embedded database they are
plain files in the folder beside it. So nothing changes when `sluice up` or `sluice down` changes which one is used, and
a home can be moved. MLflow finds this module by the entry-point group `mlflow.artifact_repository`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote, urlsplit

from gnn.errors import SluiceError

if TYPE_CHECKING:
    from mlflow.store.artifact.artifact_repo import ArtifactRepository

SCHEME = "mlflow-artifacts"
FOLDER = "artifacts"
SQLITE = "sqlite:///"


def home_artifacts(
    artifact_uri: str, tracking_uri: str | None = None, registry_uri: str | None = None
) -> ArtifactRepository:
    """MLflow's access to an `mlflow-artifacts:` address: through the server, or to the files of an embedded store."""
    from mlflow.store.artifact.local_artifact_repo import LocalArtifactRepository
    from mlflow.store.artifact.mlflow_artifacts_repo import MlflowArtifactsRepository
    from mlflow.tracking import get_tracking_uri

    database = embedded_database(tracking_uri or get_tracking_uri())
    if database is None:
        return MlflowArtifactsRepository(artifact_uri, tracking_uri=tracking_uri, registry_uri=registry_uri)
    folder = folder_of(artifact_uri, database.parent / FOLDER)
    return LocalArtifactRepository(folder.as_uri(), tracking_uri=tracking_uri, registry_uri=registry_uri)


def embedded_database(tracking_uri: str) -> Path | None:
    """The SQLite file of an embedded store; None for any other store."""
    if not tracking_uri.startswith(SQLITE):
        return None
    return Path(unquote(tracking_uri.removeprefix(SQLITE).partition("?")[0])).resolve()


def folder_of(artifact_uri: str, root: Path) -> Path:
    """The files of an `mlflow-artifacts:` address in the folder that a server of this store would hand out.

    Raises:
        SluiceError: the address points out of that folder.
    """
    path = (root / unquote(urlsplit(artifact_uri).path).lstrip("/")).resolve()
    if not path.is_relative_to(root.resolve()):
        raise SluiceError(f"{artifact_uri} points out of {root}")
    return path


def address_of(name: str) -> str:
    """The address under which an experiment keeps its files."""
    return f"{SCHEME}:/{quote(name)}"
