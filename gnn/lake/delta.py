"""Delta tables: opening a version, appending with a digest in the commit, reading in the record's schema."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import CommitProperties, DeltaTable, WriterProperties, write_deltalake
from deltalake.exceptions import DeltaError

from gnn.errors import InputError

ROW_GROUP = 1024
FOREVER = "interval 36500 days"
CONFIGURATION = {
    # a model names the versions it was trained on, so old ones must stay readable until `gc` says otherwise
    "delta.logRetentionDuration": FOREVER,
    "delta.deletedFileRetentionDuration": FOREVER,
}
DIGEST_KEY = "sluice.content_digest"
MISREAD = re.compile(r"[#?^|\\\[\]]|%[0-9A-Fa-f]{2}")
CHANGES = {"add", "remove"}
"""Actions of a commit that changes what a table holds."""


def exists(folder: Path) -> bool:
    """Whether there is a table."""
    return (folder / "_delta_log").is_dir() and DeltaTable.is_deltatable(str(folder))


def open_table(folder: Path, version: int | None = None) -> DeltaTable:
    """A table at a version (the newest by default).

    Raises:
        InputError: there is no such version.
    """
    try:
        return DeltaTable(str(folder), version=version)
    except DeltaError as error:
        newest = DeltaTable(str(folder)).version()
        raise InputError(f"{folder.name}@{version} cannot be read; the newest version is {newest} ({error})") from None


def check_path(folder: Path) -> None:
    """Refuse a path that the library takes for something else, since it reads paths as URLs.

    Raises:
        InputError: the path holds such characters.
    """
    if found := MISREAD.search(str(folder.resolve())):
        raise InputError(
            f"tables cannot lie in {folder.resolve()}: {found[0]!r} is misread in paths of Delta tables; "
            "set SLUICE_HOME to a folder without it"
        )


def append(folder: Path, rows: pa.Table, digest: str) -> int:
    """Append rows in one commit that carries the content digest of the whole table; the new version."""
    write_deltalake(
        str(folder),
        rows,
        mode="append",
        configuration=None if exists(folder) else CONFIGURATION,
        writer_properties=WriterProperties(compression="ZSTD", max_row_group_size=ROW_GROUP),
        commit_properties=CommitProperties(custom_metadata={DIGEST_KEY: digest}),
    )
    return int(DeltaTable(str(folder)).version())


def committed_digest(folder: Path, version: int) -> str | None:
    """The content digest that the commit of a version carries, or the one before it where it changed no rows (VACUUM).

    None where another writer made it.
    """
    for number in range(version, -1, -1):
        commit = folder / "_delta_log" / f"{number:020}.json"
        if not commit.is_file():
            return None
        actions = [json.loads(line) for line in commit.read_text(encoding="utf-8").splitlines()]
        digest = next((found for action in actions if (found := action.get("commitInfo", {}).get(DIGEST_KEY))), None)
        if digest or any(CHANGES & action.keys() for action in actions):
            return str(digest) if digest else None
    return None


def batches(
    table: DeltaTable,
    schema: pa.Schema,
    columns: Sequence[str] | None = None,
    batch_rows: int = 1000,
    where: pc.Expression | None = None,
) -> Iterator[pa.RecordBatch]:
    """The rows in the order of the files, at most `batch_rows` at a time, in `schema` (or those columns of it).

    Of `where`, files and row groups that cannot hold a row are skipped by their statistics.

    Raises:
        InputError: files of this version were deleted.
    """
    wanted = schema if columns is None else pa.schema([schema.field(name) for name in columns])
    dataset = table.to_pyarrow_dataset()
    stream = dataset.to_batches(
        columns=wanted.names, filter=where, batch_size=batch_rows, batch_readahead=2, fragment_readahead=1
    )
    try:
        for batch in stream:
            if batch.num_rows:
                yield batch.cast(wanted)
    except FileNotFoundError:
        name = Path(table.table_uri).name
        raise InputError(
            f"{name}@{table.version()} was deleted by `sluice lake gc`; give another of `sluice lake versions {name}`"
        ) from None


def read(table: DeltaTable, schema: pa.Schema, columns: Sequence[str] | None = None) -> pa.Table:
    """All rows at once."""
    wanted = schema if columns is None else pa.schema([schema.field(name) for name in columns])
    return pa.Table.from_batches(batches(table, schema, columns, 1 << 16), schema=wanted)
