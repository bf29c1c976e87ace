"""Which versions of the lake's tables models, graph sets and campaigns name, so that none of them is deleted."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from flows.settings import Home
from gnn.lake.reference import parse_reference

MANIFESTS = ("graph_set.json", "model.json", "manifest.json")


def used_versions(home: Home) -> dict[str, list[int]]:
    """Data set -> versions that some manifest under the home names, sorted."""
    used: dict[str, set[int]] = defaultdict(set)
    for folder in (home.graphs, home.models, home.campaigns, home.mlruns):
        for path in _manifests(folder):
            for dataset, version in _named(json.loads(path.read_text(encoding="utf-8"))):
                used[dataset].add(version)
    return {dataset: sorted(versions) for dataset, versions in sorted(used.items())}


def _manifests(folder: Path) -> Iterator[Path]:
    for name in MANIFESTS:
        yield from folder.rglob(name)


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
