"""Which versions of the lake's tables models, graph sets and campaigns name or are made of, so that none is deleted."""

from __future__ import annotations

import json
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

from flows.settings import Home
from gnn.errors import InputError, one_line
from gnn.files import write_text
from gnn.lake.reference import parse_reference
from gnn.screening.manifest import MANIFEST_NAME, CampaignManifest

MANIFESTS = ("graph_set.json", "model.json", "manifest.json")
MARKERS = "_in_use"
HELD_S = 7 * 86400.0
"""How long a marker counts: one that a killed run left keeps what the run needs when it is started again."""


@contextmanager
def in_use(home: Home, versions: Iterable[tuple[str, int]]) -> Iterator[None]:
    """Keep (data set, version) pairs from being deleted while they are read and no manifest names them yet."""
    marker = home.lake / MARKERS / f"{uuid4().hex}.json"
    write_text(marker, json.dumps([{"dataset": dataset, "version": version} for dataset, version in versions]))
    try:
        yield
    finally:
        marker.unlink(missing_ok=True)


def used_versions(home: Home) -> dict[str, list[int]]:
    """Data set -> versions that some manifest under the home names or somebody reads, sorted.

    Raises:
        InputError: a manifest is damaged, so that what it needs is not known.
    """
    for path in home.campaigns.glob(f"*/{MANIFEST_NAME}"):
        CampaignManifest.read(path.parent)
    used: dict[str, set[int]] = defaultdict(set)
    for folder in (home.graphs, home.models, home.campaigns, home.mlruns):
        for path in _manifests(folder):
            for dataset, version in _named(_content(path)):
                used[dataset].add(version)
    for dataset, version in _marked(home.lake / MARKERS):
        used[dataset].add(version)
    return {dataset: sorted(versions) for dataset, versions in sorted(used.items())}


def _marked(folder: Path) -> Iterator[tuple[str, int]]:
    """What fresh markers name; one may go while it is looked at."""
    for path in folder.glob("*.json"):
        with suppress(FileNotFoundError):
            if time.time() - path.stat().st_mtime < HELD_S:
                yield from _named(_content(path))


def _manifests(folder: Path) -> Iterator[Path]:
    for name in MANIFESTS:
        yield from folder.rglob(name)


def _content(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path} is damaged ({one_line(error)}); mend it, or remove what it belongs to") from None


def _named(value: Any) -> Iterator[tuple[str, int]]:
    """Every {"dataset": NAME, "version": N}, {"lake_versions": {NAME: N}}, {"candidate_datasets": [NAME@N]} inside."""
    if isinstance(value, list):
        for item in value:
            yield from _named(item)
    if not isinstance(value, dict):
        return
    if isinstance(value.get("dataset"), str) and isinstance(value.get("version"), int):
        yield value["dataset"], value["version"]
    versions = value.get("lake_versions")
    if isinstance(versions, dict):
        yield from ((name, version) for name, version in versions.items() if isinstance(version, int))
    for name, version in map(parse_reference, value.get("candidate_datasets") or ()):
        if version is not None:
            yield name, version
    for child in value.values():
        yield from _named(child)
