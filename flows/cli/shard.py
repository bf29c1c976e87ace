"""`sluice shard`: one shard of a campaign in this process, without Prefect, Dask or any server."""

from __future__ import annotations

from typing import Annotated

import typer

from flows.cli.output import JsonOption, goes_on, say, show
from flows.cli.results import ShardResult


@goes_on
def shard(
    campaign: Annotated[str, typer.Argument(help="A campaign's TOML file, or the name of one that was started.")],
    number: Annotated[int, typer.Argument(min=0, help="The shard's number, from 0.")],
    shards: Annotated[
        int | None, typer.Option(min=1, help="Shards to cut the campaign into, where it is not cut yet.")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Compute one shard of a campaign; give each batch job its own number. `sluice campaigns merge` ends it."""
    from flows.campaign_shard import compute_shard
    from flows.cli.output import terminating_like_interrupt
    from flows.settings import find_home

    with terminating_like_interrupt():
        result = compute_shard(campaign, number, find_home(), shards)
    show(result, json, _describe)


def _describe(result: ShardResult) -> None:
    say(
        f"shard {result.shard} of {result.campaign}: {result.structures} structures, {result.computed} computed,"
        f" {result.reused} were there, {result.failed} failed; {result.path}"
    )
