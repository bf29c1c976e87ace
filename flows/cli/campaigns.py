"""`sluice campaigns`: look at campaigns, run them again, stop them, draw their report anew."""

from __future__ import annotations

from typing import Annotated

import typer

from flows.cli.cluster_options import ClusterOption, WorkersOption
from flows.cli.output import JsonOption, goes_on, say, show, speaks_plainly, table
from flows.cli.results import CampaignResult, CampaignsResult
from flows.cli.screen import FreshOption, describe

app = typer.Typer(help="Campaigns: list, show, rerun, merge, cancel, report.", no_args_is_help=True)
NameArgument = Annotated[str, typer.Argument(help="A campaign's name, or its TOML file.")]


@app.command("ls")
@speaks_plainly
def ls(json: JsonOption = False) -> None:
    """List campaigns."""
    from flows.campaigns import results
    from flows.settings import find_home

    show(CampaignsResult(campaigns=results(find_home())), json, _describe_all)


def _describe_all(result: CampaignsResult) -> None:
    from flows.campaigns import DAMAGED

    rows: list[list[object]] = [
        [
            c.campaign,
            c.state,
            c.n_candidates,
            c.n_shortlist,
            c.model,
            c.model_version,
            f"{c.shards.done}/{c.shards.total}",
        ]
        for c in result.campaigns
    ]
    table("Campaigns", ["name", "state", "candidates", "shortlist", "model", "version", "shards"], rows)
    for campaign in (c for c in result.campaigns if c.state == DAMAGED):
        say(f"{campaign.campaign}: {'; '.join(campaign.warnings)}")


@app.command("show")
@speaks_plainly
def show_campaign(name: NameArgument, json: JsonOption = False) -> None:
    """Show one campaign: its funnel, its shards, its files."""
    from flows.campaigns import folder_of, result_of
    from flows.settings import find_home

    show(result_of(folder_of(name, find_home())), json, describe)


@app.command("rerun")
@goes_on
def rerun(
    name: NameArgument,
    cluster: ClusterOption = "local",
    workers: WorkersOption = None,
    fresh: FreshOption = False,
    shards: Annotated[
        str | None, typer.Option(metavar="3,7-9", help="Only these shards, and structures set aside in them.")
    ] = None,
    error: Annotated[
        str | None,
        typer.Option(metavar="REGEX", help="Only failed shards, and structures set aside, whose error matches."),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Run a campaign again as it was started; what is finished is not repeated."""
    from flows.campaigns import folder_of
    from flows.cli.output import terminating_like_interrupt
    from flows.settings import find_home

    folder = folder_of(name, find_home())
    spec = folder.spec()
    from flows.rerun import parse_choice

    only = parse_choice(shards, error)
    from flows.screen import screen as run

    with terminating_like_interrupt():
        result: CampaignResult = run(spec, folder.home, cluster=cluster, workers=workers, fresh=fresh, only=only)
    show(result, json, describe)


@app.command("merge")
@speaks_plainly
def merge(name: NameArgument, json: JsonOption = False) -> None:
    """Put shards of `sluice shard` together: tables, shortlist, report; computes nothing and needs no server."""
    from flows.campaign_shard import merge_shards
    from flows.settings import find_home

    show(merge_shards(name, find_home()), json, describe)


@app.command("cancel")
@speaks_plainly
def cancel(name: NameArgument, json: JsonOption = False) -> None:
    """Ask a running campaign to stop; shards stop after the structure at hand, and what is finished stays."""
    from flows.campaigns import folder_of, request_cancel, result_of
    from flows.settings import find_home

    folder = folder_of(name, find_home())
    request_cancel(folder)
    say(f"campaign {folder.name} stops after the structures at hand; `sluice campaigns rerun {folder.name}` goes on")
    show(result_of(folder), json, describe)


@app.command("report")
@speaks_plainly
def report(name: NameArgument, json: JsonOption = False) -> None:
    """Draw a campaign's report anew, with what the lake knows by now."""
    from flows.campaign_outputs import report as draw
    from flows.campaigns import folder_of, result_of
    from flows.settings import find_home

    folder = folder_of(name, find_home())
    path = draw(folder)
    say(f"report: {path}")
    show(result_of(folder), json, describe)
