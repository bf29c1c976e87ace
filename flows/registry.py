"""The model registry: checkpoints as MLflow logged models, versions and aliases, and from a name to a folder."""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlparse

from flows.artifacts import FOLDER, folder_of
from flows.artifacts import SCHEME as ARTIFACTS_SCHEME
from flows.events import announce_champion
from flows.settings import Home
from flows.tracking import connect, experiment_id, flattened, is_embedded, store_exists
from gnn.errors import InputError, SluiceError, told
from gnn.files import file_sha256, locked
from gnn.graphs.graph_set import Split

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

CHAMPION = "champion"
VERDICT = "gate.reason"
"""The tag of a version that says what the gate made of it."""
FIRST = "the first version of its name"
JUDGED_ON: tuple[Split, ...] = ("test", "valid")
"""Splits whose errors describe a version; the first that there is."""
SCHEME = "models:/"
NAME = re.compile(r"[A-Za-z0-9][\w.\-]*")
MANIFEST_NAME, WEIGHTS_NAME = "model.json", "model.safetensors"


@dataclass(frozen=True)
class Reference:
    """A model as people write it: a name with an alias or a version; neither means the champion."""

    name: str
    alias: str | None = None
    version: str | None = None

    def __str__(self) -> str:
        return f"{SCHEME}{self.name}" + (f"/{self.version}" if self.version else f"@{self.alias}")


@dataclass(frozen=True)
class RegisteredModel:
    """One version in the registry. `metrics` are those of the split `judged_on`; `judged`: the gate has spoken."""

    name: str
    version: str
    aliases: tuple[str, ...]
    sha256: str | None
    judged_on: Split | None
    metrics: dict[str, float]
    created: str
    model_id: str | None
    run_id: str | None
    source: str
    judged: bool = False


@dataclass(frozen=True)
class Found:
    """A checkpoint folder, and which registered version it is (None: a plain folder)."""

    path: Path
    name: str | None
    version: str | None
    sha256: str


def parse_reference(text: str) -> Reference:
    """`models:/name@alias`, `models:/name/3`, `name@alias`, `name/3` or `name`.

    Raises:
        InputError: it is none of these.
    """
    body = text.removeprefix(SCHEME)
    name, at, alias = body.partition("@")
    name, slash, version = name.partition("/")
    if not NAME.fullmatch(name) or (at and not alias) or (slash and not version.isdigit()) or (at and slash):
        raise InputError(
            f"{text!r} is no checkpoint folder and no model name; write a folder, NAME, models:/NAME@ALIAS or "
            "models:/NAME/VERSION"
        )
    return Reference(name, alias=alias or (None if version else CHAMPION), version=version or None)


def check_name(name: str) -> str:
    """`name`, if a model can have it.

    Raises:
        InputError: it cannot.
    """
    if not NAME.fullmatch(name):
        raise InputError(f"model name {name!r}: use letters, digits, '-', '_' and '.', a letter or digit first")
    return name


def resolve(uri: str, home: Home) -> Path:
    """The checkpoint folder of a path, a `models:/` URI or a plain name (its champion), verified by its sha256.

    Raises:
        InputError: there is no such folder, model, version or alias; the message lists what there is.
        SluiceError: the registered files are not what was registered.
    """
    return find(uri, home).path


def find(uri: str, home: Home) -> Found:
    """As `resolve`, with the registered version and the sha256 of the weights."""
    folder = _checkpoint_folder(uri)
    if folder is not None:
        from gnn.training.checkpoint import read_manifest

        return Found(folder, None, None, read_manifest(folder).sha256)
    model, path = lookup(uri, home)
    return Found(path, model.name, model.version, _verified(path, model))


def _checkpoint_folder(uri: str) -> Path | None:
    """The folder that is meant, if one is: a data folder that happens to have a model's name is not."""
    from gnn.training.checkpoint import MANIFEST_NAME

    folder = Path(uri).expanduser()
    if uri.startswith(SCHEME) or not folder.is_dir():
        return None
    return None if NAME.fullmatch(uri) and not (folder / MANIFEST_NAME).exists() else folder


def lookup(uri: str, home: Home) -> tuple[RegisteredModel, Path]:
    """A registered version and where its files lie; they are not verified.

    Raises:
        InputError: there is no such model, version or alias; the message lists what there is.
    """
    reference = parse_reference(uri)
    if not store_exists(home):
        raise InputError(f"no model {reference.name!r}: nothing is registered in {home.mlruns} yet; run `sluice train`")
    client = connect(home)
    model = _described(find_version(client, reference), client)
    return model, _local_folder(client, home, model)


def find_version(client: MlflowClient, reference: Reference) -> ModelVersion:
    """The registered version that a reference means.

    Raises:
        InputError: there is none; the message lists what there is.
    """
    versions = _versions(client, reference.name)
    if not versions:
        known = ", ".join(_names(client)) or "none at all"
        raise InputError(f"no model {reference.name!r} is registered; there are: {known}")
    aliases = client.get_registered_model(reference.name).aliases
    wanted = reference.version or aliases.get(reference.alias or "")
    for version in versions:
        if str(version.version) == str(wanted):
            return version
    what = f"version {reference.version}" if reference.version else f"alias {reference.alias!r}"
    raise InputError(
        f"model {reference.name!r} has no {what}; it has versions {', '.join(str(v.version) for v in versions)} "
        f"and aliases {', '.join(sorted(aliases)) or 'none'}"
    )


def _versions(client: MlflowClient, name: str) -> list[ModelVersion]:
    found = client.search_model_versions(f"name = '{name}'")
    return sorted(found, key=lambda version: int(version.version))


def _described(version: ModelVersion, client: MlflowClient) -> RegisteredModel:
    aliases = client.get_registered_model(version.name).aliases
    split = next((split for split in JUDGED_ON if any(tag.startswith(f"{split}.") for tag in version.tags)), None)
    numbers = {k.removeprefix(f"{split}."): v for k, v in version.tags.items() if k.startswith(f"{split}.")}
    return RegisteredModel(
        name=version.name,
        version=str(version.version),
        aliases=tuple(sorted(a for a, number in aliases.items() if str(number) == str(version.version))),
        sha256=version.tags.get("sha256"),
        judged_on=split,
        metrics={name: float(value) for name, value in numbers.items()},
        created=datetime.fromtimestamp(version.creation_timestamp / 1000, UTC).isoformat(timespec="seconds"),
        model_id=version.tags.get("model_id"),
        run_id=version.run_id or None,
        source=version.source,
        judged=VERDICT in version.tags,
    )


def _local_folder(client: MlflowClient, home: Home, model: RegisteredModel) -> Path:
    """Where the files of a version lie; a server's are downloaded once, by their sha256."""
    parts = urlparse(model.source)
    if parts.scheme in ("", "file"):
        path = Path(unquote(parts.path))
        return path if path.is_dir() else _moved_with_home(path, home)
    if parts.scheme == ARTIFACTS_SCHEME:
        path = folder_of(model.source, home.mlruns / FOLDER)
        if (path / MANIFEST_NAME).is_file():
            return path
        if is_embedded():
            raise SluiceError(f"the files of the registered model are gone: {path} does not exist")
    cached = home.models / "downloads" / (model.sha256 or f"{model.name}-{model.version}")
    with locked(cached.with_name(f"{cached.name}.lock"), f"download of {model.name}", timeout_s=600):
        if not (cached / MANIFEST_NAME).is_file():
            _download(client, model, cached)
    return cached


def _moved_with_home(path: Path, home: Home) -> Path:
    """The same files after the home was moved or copied: what follows mlruns/artifacts is the same."""
    parts = path.parts
    for index in range(len(parts) - 1):
        if parts[index : index + 2] == (home.mlruns.name, FOLDER):
            candidate = home.mlruns.joinpath(*parts[index + 1 :])
            if candidate.is_dir():
                return candidate
    raise SluiceError(f"the files of the registered model are gone: {path} does not exist")


def _download(client: MlflowClient, model: RegisteredModel, target: Path) -> None:
    from mlflow.artifacts import download_artifacts

    temporary = target.with_name(f".{target.name}.part")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    found = download_artifacts(
        artifact_uri=f"{SCHEME}{model.name}/{model.version}",
        dst_path=str(temporary),
        tracking_uri=client.tracking_uri,
        registry_uri=client.tracking_uri,
    )
    shutil.rmtree(target, ignore_errors=True)
    Path(found).rename(target)
    shutil.rmtree(temporary, ignore_errors=True)


def _verified(path: Path, model: RegisteredModel) -> str:
    weights = path / WEIGHTS_NAME
    if not weights.is_file():
        raise SluiceError(f"{path} of model {model.name} {model.version} has no {WEIGHTS_NAME}")
    sha256 = file_sha256(weights)
    if model.sha256 is not None and sha256 != model.sha256:
        raise SluiceError(
            f"{weights} has sha256 {sha256[:16]}…, registered was {model.sha256[:16]}…: the file was changed"
        )
    return sha256


def register(
    folder: Path, name: str, home: Home, run_id: str | None = None, experiment: str = "sluice"
) -> RegisteredModel:
    """Register a checkpoint folder as a new version of `name`; the first one becomes the champion.

    The same weights under the same name are registered once: their version is given again.

    Raises:
        InputError: the name cannot be used, or the folder is no sound checkpoint.
    """
    from gnn.training.checkpoint import read_checkpoint

    check_name(name)
    manifest, _ = read_checkpoint(folder)
    client = connect(home)
    for version in _versions(client, name):
        if version.tags.get("sha256") == manifest.sha256:
            return _crowned_if_first(client, version)
    tags = {
        "sha256": manifest.sha256,
        "graph_set_id": manifest.graph_set_id,
        "theories": ", ".join(manifest.theories),
        "data": ", ".join(f"{i.dataset}@{i.version}" for i in manifest.data.inputs),
        **_headline_tags(manifest.metrics),
    }
    experiment_key = experiment_id(client, experiment)
    run_id = run_id or _import_run(client, experiment_key, name, tags)
    model_id, source = _log_model(client, experiment_key, folder, name, run_id, tags)
    version = _create_version(client, name, source, run_id, {**tags, "model_id": model_id}, model_id)
    return _crowned_if_first(client, version)


def _crowned_if_first(client: MlflowClient, version: ModelVersion) -> RegisteredModel:
    """The version, which becomes the champion where its name has none."""
    if CHAMPION not in client.get_registered_model(version.name).aliases:
        client.set_registered_model_alias(version.name, CHAMPION, version.version)
        announce_champion(version.name, str(version.version), FIRST)
    return _described(version, client)


def _import_run(client: MlflowClient, experiment: str, name: str, tags: dict[str, str]) -> str:
    """A run for a checkpoint that was trained elsewhere: MLflow ties every version to one."""
    run = client.create_run(experiment, run_name=f"import {name}", tags=tags)
    client.set_terminated(run.info.run_id, "FINISHED")
    return str(run.info.run_id)


def _headline_tags(metrics: dict[str, Any]) -> dict[str, str]:
    """Errors on the test split (else the validation split) as tags."""
    split = next((split for split in JUDGED_ON if metrics.get(split)), None)
    errors = metrics[split] if split else {}
    scalars = {k: v for k, v in errors.items() if isinstance(v, int | float)}
    return {f"{split}.{name}": repr(float(value)) for name, value in scalars.items()}


def _log_model(
    client: MlflowClient, experiment: str, folder: Path, name: str, run_id: str, tags: dict[str, str]
) -> tuple[str, str]:
    """The folder as a logged model; its id and the place of its files."""
    params = flattened({"sha256": tags["sha256"], "data": tags["data"], "theories": tags["theories"]})
    logged = client.create_logged_model(experiment, name, run_id, tags=tags, params=params, model_type="sluice")
    try:
        client.log_model_artifacts(logged.model_id, str(folder))
    except Exception:
        client.finalize_logged_model(logged.model_id, "FAILED")
        raise
    client.finalize_logged_model(logged.model_id, "READY")
    return logged.model_id, logged.artifact_location


def _create_version(
    client: MlflowClient, name: str, source: str, run_id: str, tags: dict[str, str], model_id: str
) -> ModelVersion:
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    return client.create_model_version(name, source, run_id=run_id, tags=tags, model_id=model_id)


def list_models(home: Home, name: str | None = None) -> list[RegisteredModel]:
    """Every version of every model, or of one.

    Raises:
        InputError: no model of that name is registered.
    """
    if not store_exists(home):
        return []
    client = connect(home)
    if name is not None:
        find_version(client, Reference(name, version=_latest(client, name)))
    names = [name] if name else _names(client)
    return [_described(version, client) for each in names for version in _versions(client, each)]


def registered_names(home: Home) -> list[str]:
    """Names of all registered models."""
    return _names(connect(home)) if store_exists(home) else []


def _names(client: MlflowClient) -> list[str]:
    """Names of all registered models, however many pages of them there are."""
    page = client.search_registered_models()
    found = [model.name for model in page]
    while page.token:
        page = client.search_registered_models(page_token=page.token)
        found += [model.name for model in page]
    return sorted(found)


def _latest(client: MlflowClient, name: str) -> str | None:
    versions = _versions(client, name)
    return str(versions[-1].version) if versions else None


def promote(uri: str, home: Home, alias: str = CHAMPION) -> RegisteredModel:
    """Let `alias` point at a version.

    Raises:
        InputError: no such version, or a name that MLflow does not take as an alias.
    """
    from mlflow.exceptions import MlflowException

    reference = parse_reference(uri)
    if not store_exists(home):
        raise InputError(f"no model {reference.name!r}: nothing is registered in {home.mlruns} yet")
    client = connect(home)
    version = find_version(client, reference)
    try:
        client.set_registered_model_alias(version.name, alias, str(version.version))
    except MlflowException as error:
        raise InputError(f"alias {alias!r}: {error}") from None
    return _described(version, client)


def export(uri: str, target: Path, home: Home) -> Path:
    """Copy a checkpoint to the new folder `target`.

    Raises:
        InputError: `target` exists already.
    """
    if target.exists():
        raise InputError(f"{target} exists already; give a new folder")
    source = resolve(uri, home)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        return Path(shutil.copytree(source, target))
    except OSError as error:
        raise InputError(f"{target} cannot be written: {told(error)}") from None
