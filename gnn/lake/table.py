"""The lake: one Delta table of records a data set, under one folder."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import CommitProperties

from gnn.errors import InputError
from gnn.files import locked, write_text
from gnn.lake import delta
from gnn.lake.appending import BATCH_ATOMS, BATCH_ROWS, LOCK_WAIT_S, Appending
from gnn.lake.keys import KeyIndex
from gnn.lake.quarantine import QUARANTINE_SCHEMA
from gnn.lake.reference import check_name
from gnn.structures.cards import Card
from gnn.structures.readers import Rejected
from gnn.structures.record import RECORD_SCHEMA, Record

QUARANTINE = "_quarantine"
LOCKS = "_locks"
CARD = "_sluice/card.json"


@dataclass(frozen=True)
class Appended:
    """What an append did. rows_in = kept + duplicates + quarantined; version is None while there is no table."""

    version: int | None
    rows_in: int
    kept: int
    duplicates: int
    quarantined: int
    reasons: dict[str, int]
    content_digest: str | None


@dataclass(frozen=True)
class Version:
    """One version of a table. The digest is None where no commit tells it and the files are deleted."""

    version: int
    timestamp_ms: int
    operation: str
    rows: int
    content_digest: str | None


class Lake:
    """Delta tables of records under `root`: NAME/ a data set, _quarantine/NAME what it refused, _locks/."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def append(self, dataset: str, records: Iterable[Record | Rejected], card: Card) -> Appended:
        """Check `records` and append those that the data set does not hold, in bounded memory and in their order.

        A row whose structure is there with the same labels is a duplicate; with other labels it is quarantined as
        `conflict`. A killed append leaves whole commits; the same call again ends in the same content.

        Raises:
            InputError: a name or a path that cannot be, or a card whose properties contradict the data set's.
        """
        check_name(dataset)
        delta.check_path(self.root)
        with locked(self._lock(dataset), f"data set {dataset}", LOCK_WAIT_S):
            self._keep_card(dataset, card)
        appending = Appending(self._folder(dataset), self._quarantine(dataset), self._lock(dataset), dataset, card)
        for batch in _batches(records):
            appending.add(batch)
        appending.commit()
        counts = appending.counts
        return Appended(
            version=appending.version,
            rows_in=counts.rows_in,
            kept=counts.kept,
            duplicates=counts.duplicates,
            quarantined=counts.quarantined,
            reasons=dict(sorted(counts.reasons.items())),
            content_digest=None if appending.version is None else appending.index.content_digest(),
        )

    def datasets(self) -> list[str]:
        """Names of the data sets, sorted."""
        if not self.root.is_dir():
            return []
        folders = (path for path in self.root.iterdir() if not path.name.startswith(("_", ".")))
        return sorted(path.name for path in folders if path.is_dir() and delta.exists(path))

    def has(self, dataset: str) -> bool:
        """Whether there is such a data set."""
        return delta.exists(self._folder(dataset))

    def version(self, dataset: str) -> int:
        """The newest version.

        Raises:
            InputError: there is no such data set.
        """
        return int(delta.open_table(self._existing(dataset)).version())

    def versions(self, dataset: str) -> list[Version]:
        """Every version with its digest, the newest first."""
        folder = self._existing(dataset)
        history = delta.open_table(folder).history()
        return [
            Version(
                version=commit["version"],
                timestamp_ms=commit["timestamp"],
                operation=commit["operation"],
                rows=self.rows(dataset, commit["version"]),
                content_digest=self._digest_if_known(dataset, commit["version"]),
            )
            for commit in history
        ]

    def _digest_if_known(self, dataset: str, version: int) -> str | None:
        try:
            return self.content_digest(dataset, version)
        except InputError:
            return None

    def rows(self, dataset: str, version: int | None = None) -> int:
        """Number of rows of a version."""
        return int(delta.open_table(self._existing(dataset), version).count())

    def read(self, dataset: str, version: int | None = None, columns: Sequence[str] | None = None) -> pa.Table:
        """A whole version (the newest by default) as an Arrow table of `RECORD_SCHEMA`, or some columns of it.

        Raises:
            InputError: there is no such data set, version or column.
        """
        return delta.read(delta.open_table(self._existing(dataset), version), RECORD_SCHEMA, _known(columns))

    def record_batches(
        self,
        dataset: str,
        version: int | None = None,
        batch_rows: int = 1000,
        columns: Sequence[str] | None = None,
        where: pc.Expression | None = None,
    ) -> Iterator[pa.RecordBatch]:
        """The rows of a version in bounded memory, at most `batch_rows` at a time, always in the same order.

        With `where`, only rows for which it is true; row groups that cannot hold one are not read.
        """
        table = delta.open_table(self._existing(dataset), version)
        return delta.batches(table, RECORD_SCHEMA, _known(columns), batch_rows, where)

    def content_digest(self, dataset: str, version: int | None = None) -> str:
        """What "unchanged" means: sha256 over sorted keys and label hashes, the same after a compaction."""
        folder = self._existing(dataset)
        number = self.version(dataset) if version is None else version
        return delta.committed_digest(folder, number) or self._computed_digest(dataset, number)

    def _computed_digest(self, dataset: str, version: int) -> str:
        keys = self.read(dataset, version, ["structure_id", "label_hash"])
        return KeyIndex.of_columns(keys["structure_id"], keys["label_hash"]).content_digest()

    def card(self, dataset: str) -> Card:
        """The card that the data set was read with.

        Raises:
            InputError: there is no such data set.
        """
        path = self._existing(dataset) / CARD
        return Card.model_validate_json(path.read_text(encoding="utf-8"))

    def quarantine(self, dataset: str) -> pa.Table:
        """What was refused, with reason, source and content; empty where nothing was."""
        folder = self._quarantine(check_name(dataset))
        if not delta.exists(folder):
            self._existing(dataset)
            return QUARANTINE_SCHEMA.empty_table()
        return delta.read(delta.open_table(folder), QUARANTINE_SCHEMA)

    def collect_garbage(self, dataset: str, keep_versions: Sequence[int], dry_run: bool = False) -> list[str]:
        """Compact small files, then delete those that neither the newest nor a kept version needs; their names."""
        folder = self._existing(dataset)
        with locked(self._lock(dataset), f"data set {dataset}", LOCK_WAIT_S):
            table = delta.open_table(folder)
            digest = self.content_digest(dataset)
            if not dry_run:
                table.optimize.compact(commit_properties=CommitProperties(custom_metadata={delta.DIGEST_KEY: digest}))
            kept = [version for version in keep_versions if version <= table.version()]
            vacuum = partial(
                table.vacuum, retention_hours=0, enforce_retention_duration=False, full=True, keep_versions=kept
            )
            doomed = [name for name in vacuum(dry_run=True) if (folder / name).exists()]
            if doomed and not dry_run:
                vacuum(dry_run=False)
            return doomed

    def _keep_card(self, dataset: str, card: Card) -> None:
        """Store the card beside the table, with the properties of earlier ones.

        A card without a licence does not replace one that has it. A theory that was said for some rows only, by card or
        command line, is not remembered. One that was kept before anything was, as of files that could not be read,
        binds nobody.
        """
        path = self._folder(dataset) / CARD
        if path.is_file() and delta.exists(self._folder(dataset)):
            before = Card.model_validate_json(path.read_text(encoding="utf-8"))
            _agree(dataset, before, card)
            properties = {**before.properties, **card.properties}
            says_more = card.licence is not None or before.licence is None
            theories = {
                name: getattr(card, name) if getattr(card, name) == getattr(before, name) else None
                for name in ("theory", "fallback_theory")
            }
            card = (card if says_more else before).model_copy(update={"properties": properties, **theories})
        text = card.model_dump_json(indent=1, exclude_unset=True)
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            write_text(path, text)

    def _folder(self, dataset: str) -> Path:
        return self.root / dataset

    def _quarantine(self, dataset: str) -> Path:
        return self.root / QUARANTINE / dataset

    def _lock(self, dataset: str) -> Path:
        return self.root / LOCKS / f"{dataset}.lock"

    def _existing(self, dataset: str) -> Path:
        folder = self._folder(check_name(dataset))
        if not delta.exists(folder):
            known = ", ".join(self.datasets()) or "none yet"
            raise InputError(
                f"there is no data set {dataset!r} in the lake (there are: {known}); run `sluice ingest` first"
            )
        return folder


def _batches(records: Iterable[Record | Rejected]) -> Iterator[list[Record | Rejected]]:
    """`records` in lists that are bounded in rows and, but for the last row of each, in atoms."""
    batch: list[Record | Rejected] = []
    n_atoms = 0
    for record in records:
        batch.append(record)
        n_atoms += record.n_atoms if isinstance(record, Record) else 0
        if len(batch) >= BATCH_ROWS or n_atoms >= BATCH_ATOMS:
            yield batch
            batch, n_atoms = [], 0
    if batch:
        yield batch


def _known(columns: Sequence[str] | None) -> Sequence[str] | None:
    for name in columns or ():
        if name not in RECORD_SCHEMA.names:
            raise InputError(f"a record has no column {name!r}; it has {', '.join(RECORD_SCHEMA.names)}")
    return columns


def _agree(dataset: str, before: Card, card: Card) -> None:
    for name, spec in card.property_specs.items():
        declared = before.property_specs.get(name, spec)
        if declared != spec:
            raise InputError(
                f"card {card.name} declares property {name} as {spec.model_dump()}, data set {dataset} has it as "
                f"{declared.model_dump()}; use another name or another data set"
            )
