"""`sluice bench`: benchmarks, each a table for people and one JSON object for programs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.cli.output import JsonOption, say, show, speaks_plainly

if TYPE_CHECKING:
    from flows.bench.table import BenchTable

app = typer.Typer(help="Benchmarks: each prints a table, or JSON.", no_args_is_help=True)

DataOption = Annotated[
    Path, typer.Option("--data", metavar="DIR", help="Folder of real data sets.", show_default=False, file_okay=False)
]
PeersOption = Annotated[
    Path | None, typer.Option("--peers-home", metavar="DIR", help="Environments of peers; default HOME/peers.")
]


def peers_folder(given: Path | None) -> Path:
    """Where the environments of peers lie."""
    from flows.settings import find_home

    return (given or find_home().root / "peers").resolve()


def print_table(table: BenchTable) -> None:
    """The table as Markdown on stdout."""
    sys.stdout.write(table.markdown())


@app.command("peers")
@speaks_plainly
def peers(
    install: Annotated[
        list[str] | None, typer.Option("--install", metavar="NAME", help="Install this peer, or `all`; repeatable.")
    ] = None,
    peers_home: PeersOption = None,
    as_json: JsonOption = False,
) -> None:
    """Which packages are measured beside ours, and whether their environments are there."""
    from flows.bench.peers import environments as found

    home = peers_folder(peers_home)
    chosen = list(found.PEERS) if "all" in (install or []) else install or []
    for peer in [found.peer_named(name) for name in chosen]:
        say(f"{peer.requirement}: {'installed' if found.install(peer, home) else 'was there'}")
    show(found.listing(home), as_json, print_table)


@app.command("potential")
@speaks_plainly
def potential(
    data: DataOption,
    sets: Annotated[list[str] | None, typer.Option("--set", help="3bpa or si; both if none is given.")] = None,
    model: Annotated[
        list[str] | None, typer.Option("--model", metavar="PACKAGE:MODEL", help="Measure only these; repeatable.")
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds in turn.")] = 4,
    seconds: Annotated[float, typer.Option(min=0.0, help="Least CPU seconds of each task in a round.")] = 1.0,
    compiled: Annotated[bool, typer.Option("--compiled", help="NequIP compiled too, which takes minutes.")] = False,
    peers_home: PeersOption = None,
    as_json: JsonOption = False,
) -> None:
    """Speed and memory of our networks beside other packages', in turn, and against the arithmetic floor."""
    from flows.bench import potential as bench
    from flows.bench.potential_tables import table_of

    settings = bench.Settings(
        data=data,
        peers_home=peers_folder(peers_home),
        sets=tuple(sets or ("3bpa", "si")),
        contenders=tuple(map(bench.parse_contender, model or [])) or bench.default_contenders(compiled),
        rounds=rounds,
        seconds=seconds,
        core=bench.last_core(),
    )
    bench.check(settings)
    extra = [f"--set {name}" for name in sets or []] + [f"--model {name}" for name in model or []]
    extra += ["--compiled"] if compiled else []
    command = " ".join(["sluice bench potential --data DATA", f"--rounds {rounds} --seconds {seconds:g}", *extra])
    show(table_of(bench.run(settings), settings, command), as_json, print_table)
