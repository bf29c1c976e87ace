"""`sluice ingest`: DFT files into the lake."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer

from flows.cli.output import USER_ERROR, JsonOption, goes_on, say, show
from flows.cli.results import IngestResult
from gnn.errors import one_line

SHOWN_LINES = 20
FILES = "Files, folders or globs; compressed and archived ones too."


@goes_on
def ingest(
    files: Annotated[list[str], typer.Argument(metavar="FILE...", help=FILES)],
    dataset: Annotated[str, typer.Option("--dataset", help="Name of the data set in the lake.")],
    card: Annotated[str | None, typer.Option("--card", help="Card: a name, a .toml file, or 'auto'.")] = None,
    theory: Annotated[
        str | None,
        typer.Option("--theory", help="Level of theory, where neither file nor card tells, as pbe/vasp-pw520."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Read DFT files into the lake; what is there already is not added again."""
    from flows.cards import check_input
    from flows.settings import find_home

    home = find_home()
    check_input(files, dataset, home, card, theory)
    from flows.ingest import NothingRead
    from flows.ingest import ingest as flow

    with _told(dataset):
        try:
            result = flow(files, dataset, home, card, theory)
        except NothingRead as error:
            show(error.result, as_json, _describe)
            say(f"error: {one_line(error)}")
            raise typer.Exit(USER_ERROR) from None
    show(result, as_json, _describe)


@contextmanager
def _told(dataset: str) -> Iterator[None]:
    """Show on a terminal which file is read and how many rows there were."""
    import sys

    if not sys.stderr.isatty():
        yield
        return
    from rich.console import Console

    from flows.ingest import watcher

    with Console(stderr=True).status(f"reading into {dataset} …") as status:
        token = watcher.set(lambda name, rows: status.update(f"reading into {dataset}: {rows} rows, {name}"))
        try:
            yield
        finally:
            watcher.reset(token)


def _describe(result: IngestResult) -> None:
    version = "" if result.version is None else f"@{result.version}"
    lines = [
        f"{result.dataset}{version}: {result.rows_in} rows in = {result.kept} kept + {result.duplicates} duplicates "
        f"+ {result.quarantined} quarantined; {result.files} files, {result.files_failed} failed",
        *(f"  quarantined: {count} {reason}" for reason, count in result.reasons.items()),
        *_first([f"  failed: {name}: {why}" for name, why in result.file_errors.items()]),
        *(f"  theory: {theory}" for theory in result.theories),
        *_first([f"  warning: {warning}" for warning in result.warnings]),
    ]
    typer.echo("\n".join(lines))


def _first(lines: list[str]) -> list[str]:
    """The first of many lines, and how many more there are."""
    more = len(lines) - SHOWN_LINES
    return lines if more <= 0 else [*lines[:SHOWN_LINES], f"  … and {more} more; --json names all"]
