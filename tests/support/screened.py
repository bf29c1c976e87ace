"""What a screening left on disk, as its tests read it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from flows.settings import Home


def rows_of(home: Home, name: str = "metals") -> list[dict[str, Any]]:
    return pq.read_table(home.campaigns / name / "candidates.parquet").to_pylist()


def journal_ids(home: Home, name: str = "metals") -> list[str]:
    ids = []
    for path in sorted((home.campaigns / name / "shards").glob("*.part.jsonl")):
        ids += [json.loads(line)["candidate_id"] for line in path.read_text().splitlines()[1:]]
    return ids


def journal_lines(folder: Path) -> set[str]:
    """Whole records of all journals."""
    lines: set[str] = set()
    for path in folder.glob("*.part.jsonl"):
        content = path.read_text()
        lines |= set(content[: content.rfind("\n") + 1].splitlines()[1:])
    return lines
