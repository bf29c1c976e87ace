"""The `sluice` command. Verbs import what is heavy inside themselves, so that `--help` answers at once."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer
from typer.exceptions import TyperException

from flows.cli import (
    bench,
    campaigns,
    demo,
    deploy,
    dynamics,
    evaluate,
    ingest,
    label,
    lake,
    models,
    preprocess,
    relax,
    screen,
    services,
    shard,
    train,
)
from flows.cli.output import USER_ERROR, say, speaks_plainly
from flows.settings import apply_quiet_defaults, find_home

WITHOUT_SERVICES = ("up", "down", "status", "shard")
"""Verbs that start or look at the services, or that must run where none is."""

app = typer.Typer(
    name="sluice",
    help="Atomistic data in, DFT shortlists out.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _version(wanted: bool) -> None:
    if wanted:
        from gnn import __version__

        typer.echo(f"sluice {__version__}")
        raise typer.Exit


@app.callback()
def root(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Set what every verb needs; `version` has answered before."""
    del version
    # verbs show progress themselves; a worker that runs the same flows keeps Prefect's own log
    os.environ.setdefault("PREFECT_LOGGING_LEVEL", "WARNING")
    apply_quiet_defaults()
    if context.invoked_subcommand not in WITHOUT_SERVICES:
        use_services()


@speaks_plainly
def use_services() -> None:
    """Let the verb use what `sluice up` runs for this home, if anything."""
    home = find_home()
    if home.services.is_dir():
        from flows.services.discover import use_running

        use_running(home, say)


app.command("ingest")(ingest.ingest)
app.add_typer(lake.app, name="lake")
app.command("preprocess")(preprocess.preprocess)
app.command("train")(train.train)
app.command("evaluate")(evaluate.evaluate)
app.add_typer(models.app, name="models")
app.command("relax")(relax.relax)
app.command("md")(dynamics.md)
app.command("screen")(screen.screen)
app.add_typer(campaigns.app, name="campaigns")
app.command("shard")(shard.shard)
app.command("label")(label.label)
app.command("deploy")(deploy.deploy)
app.command("demo")(demo.demo)
app.add_typer(bench.app, name="bench")
app.command("up")(services.up)
app.command("down")(services.down)
app.command("status")(services.status)


def main() -> None:
    """Entry point: a wrong option or verb is told in one line, as every other mistake."""
    try:
        sys.exit(app(standalone_mode=False))
    except TyperException as error:
        # a verb without arguments has shown its help by now, and has no message
        if message := error.format_message().strip():
            say(f"error: {message} (sluice --help lists verbs and options)")
        sys.exit(USER_ERROR)


if __name__ == "__main__":
    main()
