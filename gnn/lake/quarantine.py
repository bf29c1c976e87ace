"""What was refused: why, where it came from, and what it was."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import pyarrow as pa

from gnn.structures.readers import Rejected
from gnn.structures.record import Record, Source, record_to_row

QUARANTINE_SCHEMA = pa.schema(
    [
        pa.field("quarantine_id", pa.string(), nullable=False),
        pa.field("dataset", pa.string(), nullable=False),
        pa.field("reason", pa.string(), nullable=False),
        pa.field("detail", pa.string()),
        pa.field("structure_id", pa.string()),
        pa.field("source_file", pa.string()),
        pa.field("source_row", pa.int64()),
        pa.field("source_sha256", pa.string()),
        pa.field("content", pa.string()),
        pa.field("quarantined_at", pa.timestamp("us", tz="UTC"), nullable=False),
    ]
)


@dataclass(frozen=True)
class Refused:
    """One refused row; `content` is JSON of the record where there was one, else what the reader saw."""

    reason: str
    source: Source | None
    content: str | None
    structure_id: str | None = None

    @property
    def code(self) -> str:
        """The part of the reason that is counted."""
        return self.reason.partition(":")[0]

    @property
    def quarantine_id(self) -> str:
        """sha256 (hex) of where it came from and why, so that a second ingest adds nothing."""
        where = (self.source.file, self.source.row, self.source.sha256) if self.source else (self.content,)
        return hashlib.sha256(json.dumps([*where, self.code]).encode()).hexdigest()


def refused_row(rejected: Rejected) -> Refused:
    """What a reader could make no record of."""
    return Refused(rejected.reason, rejected.source, rejected.content)


def refused_record(record: Record, reason: str) -> Refused:
    """A record that the checks or the table refuse; one too broken to be a row is kept as text."""
    try:
        content = json.dumps(record_to_row(record), default=str)
    except (ValueError, TypeError, IndexError, KeyError):
        content = str(record)
    return Refused(reason, record.source, content)


def quarantine_row(refused: Refused, dataset: str, moment: datetime) -> dict[str, Any]:
    """One row of `QUARANTINE_SCHEMA`."""
    code, _, detail = refused.reason.partition(":")
    row: dict[str, Any] = {
        "quarantine_id": refused.quarantine_id,
        "dataset": dataset,
        "reason": code,
        "detail": detail.strip() or None,
        "structure_id": refused.structure_id,
        "content": refused.content,
        "quarantined_at": moment,
    }
    if refused.source is not None:
        row["source_file"] = refused.source.file
        row["source_row"] = refused.source.row
        row["source_sha256"] = refused.source.sha256
    return row
