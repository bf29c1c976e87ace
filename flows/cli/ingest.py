"""`sluice ingest`: DFT files into the lake."""

from __future__ import annotations

from typing import Annotated

import typer

from flows.cli.output import USER_ERROR, JsonOption, one_line, say, show, speaks_plainly
from flows.cli.results import IngestResult

FILES = "Files, folders or globs; compressed and archived ones too."


@speaks_plainly
def ingest(
    files: Annotated[list[str], typer.Argument(metavar="FILE...", help=FILES)],
    dataset: Annotated[str, typer.Option("--dataset", help="Name of the data set in the lake.")],
    card: Annotated[str | None, typer.Option("--card", help="Card: a name, a .toml file, or 'auto'.")] = None,
    theory: Annotated[str | None, typer.Option("--theory", help="Level of theory, as pbe/vasp-pw520.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Read DFT files into the lake; what is there already is not added again."""
    from flows.cards import card_for
    from flows.settings import find_home
    from gnn.lake.reference import check_name
    from gnn.structures.readers.sources import expand

    home = find_home()
    check_name(dataset)
    expand(files)
    card_for(dataset, home, card, theory)
    say(f"reading into {dataset} …")
    from flows.ingest import NothingRead
    from flows.ingest import ingest as flow

    try:
        result = flow(files, dataset, home, card, theory)
    except NothingRead as error:
        show(error.result, as_json, _describe)
        say(f"error: {one_line(error)}")
        raise typer.Exit(USER_ERROR) from None
    show(result, as_json, _describe)


def _describe(result: IngestResult) -> None:
    version = "" if result.version is None else f"@{result.version}"
    lines = [
        f"{result.dataset}{version}: {result.rows_in} rows in = {result.kept} kept + {result.duplicates} duplicates "
        f"+ {result.quarantined} quarantined; {result.files} files, {result.files_failed} failed",
        *(f"  quarantined: {count} {reason}" for reason, count in result.reasons.items()),
        *(f"  failed: {name}: {why}" for name, why in result.file_errors.items()),
        *(f"  theory: {theory}" for theory in result.theories),
        *(f"  warning: {warning}" for warning in result.warnings),
    ]
    typer.echo("\n".join(lines))
