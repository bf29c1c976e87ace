"""Take results out of a finished shard, so that its next run computes them again and nothing else."""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path

from gnn.files import locked, write_text
from gnn.screening.compute import SET_ASIDE, Row
from gnn.screening.shard import read_manifest, read_results, shard_name


def set_aside(folder: Path, index: int) -> list[Row]:
    """The records of a sealed shard that were set aside; none where it is not sealed."""
    manifest = read_manifest(folder, index)
    if manifest is None or manifest.failed == 0:
        return []
    return [row for row in read_results(folder, index) if row["outcome"] == SET_ASIDE]


def reopen(folder: Path, index: int, again: Collection[str]) -> int:
    """Drop the records of the candidates `again` from a sealed shard, and unseal it; how many were dropped.

    A shard whose journal is gone is left as it is: nothing could be kept of it.

    Raises:
        BusyError: another process works on the shard.
    """
    name = shard_name(index)
    journal = folder / f"{name}.part.jsonl"
    with locked(folder / f"{name}.lock", f"shard {index}"):
        if read_manifest(folder, index) is None or not journal.is_file():
            return 0
        header, *records = journal.read_text(encoding="utf-8").splitlines(keepends=True)
        kept = [line for line in records if json.loads(line)["candidate_id"] not in again]
        if len(kept) < len(records):
            # the seal goes first: a crash in between leaves a shard that is computed from its whole journal
            (folder / f"{name}.json").unlink()
            (folder / f"{name}.parquet").unlink()
            write_text(journal, "".join([header, *kept]))
        return len(records) - len(kept)
