"""`sluice lake`: what the lake holds."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from flows.cli.output import DryRunOption, JsonOption, show, speaks_plainly, table
from flows.cli.results import (
    DatasetRow,
    GcResult,
    LakeResult,
    QuarantineResult,
    QuarantineRow,
    VersionRow,
    VersionsResult,
)

if TYPE_CHECKING:
    from gnn.lake import Lake

app = typer.Typer(help="What the lake holds.", no_args_is_help=True)

ReferenceArgument = Annotated[str, typer.Argument(metavar="NAME[@VERSION]", help="A data set, or one of its versions.")]
NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="A data set.")]
SHOWN_DIGEST = 12


def _lake() -> Lake:
    from flows.settings import find_home
    from gnn.lake import Lake

    return Lake(find_home().lake)


def _row(lake: Lake, name: str, version: int | None = None) -> DatasetRow:
    number = lake.version(name) if version is None else version
    columns = lake.read(name, number, ["theory", "elements"])
    return DatasetRow(
        dataset=name,
        version=number,
        rows=columns.num_rows,
        quarantined=lake.quarantine(name).num_rows,
        theories=sorted(columns["theory"].unique().to_pylist()),
        elements=sorted(columns["elements"].combine_chunks().flatten().unique().to_pylist()),
        content_digest=lake.content_digest(name, number),
    )


def _describe(result: LakeResult) -> None:
    rows: list[list[object]] = [
        [
            row.dataset, row.version, row.rows, row.quarantined, ", ".join(row.theories), " ".join(row.elements),
            row.content_digest[:SHOWN_DIGEST],
        ]
        for row in result.datasets
    ]  # fmt: skip
    table("lake", ["data set", "version", "rows", "quarantined", "theories", "elements", "content"], rows)


@app.command("ls")
@speaks_plainly
def ls(as_json: JsonOption = False) -> None:
    """List the data sets."""
    lake = _lake()
    show(LakeResult(datasets=[_row(lake, name) for name in lake.datasets()]), as_json, _describe)


@app.command("show")
@speaks_plainly
def show_dataset(reference: ReferenceArgument, as_json: JsonOption = False) -> None:
    """Show one data set, or one version of it."""
    from gnn.lake import parse_reference

    name, version = parse_reference(reference)
    show(LakeResult(datasets=[_row(_lake(), name, version)]), as_json, _describe)


@app.command("versions")
@speaks_plainly
def versions(name: NameArgument, as_json: JsonOption = False) -> None:
    """List the versions of a data set, the newest first."""
    rows = [
        VersionRow(
            version=version.version,
            created=datetime.fromtimestamp(version.timestamp_ms / 1000, UTC).isoformat(timespec="seconds"),
            operation=version.operation.lower(),
            rows=version.rows,
            content_digest=version.content_digest,
        )
        for version in _lake().versions(name)
    ]
    show(VersionsResult(dataset=name, versions=rows), as_json, _describe_versions)


def _describe_versions(result: VersionsResult) -> None:
    rows: list[list[object]] = [
        [row.version, row.created, row.operation, row.rows, (row.content_digest or "deleted")[:SHOWN_DIGEST]]
        for row in result.versions
    ]
    table(result.dataset, ["version", "created", "by", "rows", "content"], rows)


@app.command("quarantine")
@speaks_plainly
def quarantine(
    name: NameArgument,
    limit: Annotated[int, typer.Option("--limit", min=0, help="How many rows to show.")] = 20,
    as_json: JsonOption = False,
) -> None:
    """Show what was refused, and why."""
    from collections import Counter

    refused = _lake().quarantine(name)
    columns = ["reason", "detail", "source_file", "source_row"]
    rows = [QuarantineRow(**row) for row in refused.slice(0, limit).select(columns).to_pylist()]
    reasons = dict(sorted(Counter(refused["reason"].to_pylist()).items()))
    result = QuarantineResult(dataset=name, quarantined=refused.num_rows, reasons=reasons, rows=rows)
    show(result, as_json, _describe_quarantine)


def _describe_quarantine(result: QuarantineResult) -> None:
    rows: list[list[object]] = [[row.reason, row.detail, row.source_file, row.source_row] for row in result.rows]
    table(f"{result.dataset}: {result.quarantined} quarantined", ["reason", "detail", "file", "row"], rows)


@app.command("gc")
@speaks_plainly
def gc(dry_run: DryRunOption = False, as_json: JsonOption = False) -> None:
    """Compact tables and delete files that no current version, model, graph set or campaign needs."""
    from flows.settings import find_home
    from flows.used_versions import used_versions

    lake, used = _lake(), used_versions(find_home())
    deleted = {name: len(lake.collect_garbage(name, used.get(name, []), dry_run)) for name in lake.datasets()}
    show(GcResult(dry_run=dry_run, deleted=deleted, kept_versions=used), as_json, _describe_gc)


def _describe_gc(result: GcResult) -> None:
    rows: list[list[object]] = [
        [name, count, ", ".join(map(str, result.kept_versions.get(name, [])))] for name, count in result.deleted.items()
    ]
    verb = "would be deleted" if result.dry_run else "deleted"
    table("lake", ["data set", f"files {verb}", "versions kept for models and campaigns"], rows)
