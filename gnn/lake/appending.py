"""One append: checks, the anti-join on keys, commits of bounded size, and the counts of it all."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa

from gnn.files import locked
from gnn.lake import delta
from gnn.lake.keys import KeyIndex
from gnn.lake.quarantine import QUARANTINE_SCHEMA, Refused, quarantine_row, refused_record, refused_row
from gnn.structures.cards import Card
from gnn.structures.checks import examine
from gnn.structures.readers import Rejected
from gnn.structures.record import RECORD_SCHEMA, Record, now, record_to_row

BATCH_ROWS = 2000
BATCH_ATOMS = 500_000
COMMIT_ROWS = 50_000
COMMIT_BYTES = 128 << 20
LOCK_WAIT_S = 600.0

Row = dict[str, Any]


@dataclass
class Counts:
    """rows_in = kept + duplicates + quarantined, at every moment between two batches."""

    rows_in: int = 0
    kept: int = 0
    duplicates: int = 0
    quarantined: int = 0
    reasons: Counter[str] = field(default_factory=Counter)


class Appending:
    """Takes records for one table and commits them now and then.

    The lock is held while a commit is made; if another process has committed since the keys were read, they are read
    again and the waiting rows are compared anew.
    """

    def __init__(self, folder: Path, quarantine: Path, lock: Path, dataset: str, card: Card) -> None:
        self.folder, self.quarantine, self.lock = folder, quarantine, lock
        self.dataset, self.card = dataset, card
        self.counts = Counts()
        self.version: int | None = None
        self.index = KeyIndex()
        self._waiting: list[pa.Table] = []
        self._refused: list[Refused] = []
        self._moment: datetime = now()
        self._refresh()

    def add(self, records: Iterable[Record | Rejected]) -> None:
        """Check, compare and count some rows; what is new waits for the next commit."""
        rows = []
        for record in records:
            self.counts.rows_in += 1
            row = self._checked(record)
            if row is not None:
                rows.append(row)
        self._wait_for_commit(rows)
        if self._is_full():
            self.commit()

    def _checked(self, record: Record | Rejected) -> Row | None:
        if isinstance(record, Rejected):
            self._refuse(refused_row(record))
            return None
        reason, flags = examine(record, self.card.properties)
        if reason is not None:
            self._refuse(refused_record(record, reason))
            return None
        return record_to_row(replace(record, dataset=self.dataset, flags=flags, ingested_at=self._moment))

    def _refuse(self, refused: Refused) -> None:
        self.counts.quarantined += 1
        self.counts.reasons[refused.code] += 1
        self._refused.append(refused)

    def _wait_for_commit(self, rows: list[Row]) -> None:
        new = [row for row in rows if self._is_new(row)]
        self.counts.kept += len(new)
        if new:
            self._waiting.append(pa.Table.from_pylist(new, schema=RECORD_SCHEMA))

    def _is_new(self, row: Row) -> bool:
        """Whether the table has no row of this key; duplicates are counted, other labels under the key refused."""
        known = self.index.label_of(row["structure_id"])
        if known is None:
            self.index.add(row["structure_id"], row["label_hash"])
            return True
        if known == row["label_hash"]:
            self.counts.duplicates += 1
        else:
            self._refuse(_conflict(row))
        return False

    def _is_full(self) -> bool:
        rows = sum(table.num_rows for table in self._waiting)
        return (
            rows >= COMMIT_ROWS
            or len(self._refused) >= COMMIT_ROWS
            or sum(table.nbytes for table in self._waiting) >= COMMIT_BYTES
        )

    def commit(self) -> None:
        """Write what waits: rows in one commit of the table, refused ones in one of the quarantine."""
        if not self._waiting and not self._refused:
            return
        with locked(self.lock, f"data set {self.dataset}", LOCK_WAIT_S):
            if self._newest() != self.version:
                self._compare_anew()
            if self._waiting:
                rows = pa.concat_tables(self._waiting)
                self.version = delta.append(self.folder, rows, self.index.content_digest())
                self._waiting = []
            self._commit_refused()

    def _newest(self) -> int | None:
        return int(delta.open_table(self.folder).version()) if delta.exists(self.folder) else None

    def _refresh(self) -> None:
        self.version = self._newest()
        if self.version is None:
            self.index = KeyIndex()
            return
        columns = ["structure_id", "label_hash"]
        keys = delta.read(delta.open_table(self.folder, self.version), RECORD_SCHEMA, columns)
        self.index = KeyIndex.of_columns(keys["structure_id"], keys["label_hash"])

    def _compare_anew(self) -> None:
        """Another process has written: read the keys again and take back what is no longer new."""
        waiting, self._waiting = self._waiting, []
        self._refresh()
        for table in waiting:
            rows = table.to_pylist()
            self.counts.kept -= len(rows)
            self._wait_for_commit(rows)

    def _commit_refused(self) -> None:
        if not self._refused:
            return
        known = _known_ids(self.quarantine)
        fresh = {refused.quarantine_id: refused for refused in self._refused if refused.quarantine_id not in known}
        self._refused = []
        if fresh:
            rows = [quarantine_row(refused, self.dataset, self._moment) for refused in fresh.values()]
            delta.append(self.quarantine, pa.Table.from_pylist(rows, schema=QUARANTINE_SCHEMA), "")


def _conflict(row: Row) -> Refused:
    from gnn.structures.record import Source

    source = None
    if row.get("source_file") is not None:
        source = Source(row["source_file"], row["source_row"], row["source_sha256"])
    reason = f"conflict: structure {row['structure_id'][:12]} is in the table with other labels"
    return Refused(reason, source, json.dumps(row, default=str), row["structure_id"])


def _known_ids(quarantine: Path) -> set[str]:
    if not delta.exists(quarantine):
        return set()
    table = delta.read(delta.open_table(quarantine), QUARANTINE_SCHEMA, ["quarantine_id"])
    return set(table["quarantine_id"].to_pylist())
