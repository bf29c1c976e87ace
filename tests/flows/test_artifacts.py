"""One address for a home's artifacts."""

from __future__ import annotations

from pathlib import Path

import pytest

from flows.artifacts import address_of, embedded_database, folder_of
from gnn.errors import SluiceError


def test_which_stores_are_embedded(tmp_path: Path) -> None:
    assert embedded_database(f"sqlite:///{tmp_path}/mlruns/mlflow.db") == tmp_path / "mlruns" / "mlflow.db"
    assert embedded_database("sqlite:////a%20b/mlflow.db?timeout=5") == Path("/a b/mlflow.db")
    for other in ("http://127.0.0.1:5000", "postgresql://x/y", "databricks"):
        assert embedded_database(other) is None


def test_addresses_and_folders_agree(tmp_path: Path) -> None:
    assert (
        folder_of(address_of("sluice") + "/models/m-1/artifacts", tmp_path) == tmp_path / "sluice/models/m-1/artifacts"
    )
    assert folder_of(address_of("my runs"), tmp_path) == tmp_path / "my runs"


@pytest.mark.parametrize("path", ["../secret", "a/../../secret", "%2e%2e/secret"])
def test_no_address_leads_out_of_the_store(tmp_path: Path, path: str) -> None:
    with pytest.raises(SluiceError, match="points out of"):
        folder_of(f"mlflow-artifacts:/{path}", tmp_path / "artifacts")


@pytest.mark.slow
def test_mlflow_finds_files_of_an_embedded_store(tmp_path: Path) -> None:
    """By the entry point, so for every program in this environment, not only for this one's commands."""
    from mlflow.artifacts import download_artifacts
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
    from mlflow.store.artifact.mlflow_artifacts_repo import MlflowArtifactsRepository

    store = tmp_path / "mlruns"
    (store / "artifacts" / "x").mkdir(parents=True)
    (store / "artifacts" / "x" / "note.txt").write_text("hello")
    found = download_artifacts("mlflow-artifacts:/x/note.txt", tracking_uri=f"sqlite:///{store}/mlflow.db")
    assert Path(found).read_text() == "hello"
    served = get_artifact_repository("mlflow-artifacts:/x", tracking_uri="http://127.0.0.1:5000")
    assert isinstance(served, MlflowArtifactsRepository)
