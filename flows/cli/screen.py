"""`sluice screen`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flows.cli.cluster_options import ClusterOption, WorkersOption
from flows.cli.output import DryRunOption, JsonOption, SetOption, goes_on, overrides, say, show, table
from flows.cli.results import CampaignPlanResult, CampaignResult, FunnelStage, KnownCompoundRow

FreshOption = Annotated[bool, typer.Option("--fresh", help="Discard what an earlier run of this campaign left.")]


@goes_on
def screen(
    campaign: Annotated[Path, typer.Argument(help="The campaign's TOML file.")],
    cluster: ClusterOption = "local",
    workers: WorkersOption = None,
    fresh: FreshOption = False,
    assignments: SetOption = None,
    dry_run: DryRunOption = False,
    json: JsonOption = False,
) -> None:
    """Run a screening campaign to its shortlist; the same command continues what was interrupted."""
    changes = overrides(assignments)
    from flows.settings import find_home

    home = find_home()
    if dry_run:
        from flows.campaign_plan import describe_campaign

        show(describe_campaign(campaign, home, changes, workers, fresh), json, describe_plan)
        return
    from flows.campaign_plan import check_campaign
    from flows.cli.output import terminating_like_interrupt

    check_campaign(campaign, home, changes, fresh)
    from flows.screen import screen as run

    with terminating_like_interrupt():
        result = run(campaign, home, cluster=cluster, workers=workers, fresh=fresh, changes=changes)
    show(result, json, describe)


def describe(result: CampaignResult) -> None:
    """The funnel, the known compounds, and where things lie."""
    version = f" version {result.model_version}" if result.model_version else ""
    say(f"campaign {result.campaign} {result.state}: {result.model}{version} (sha256 {result.model_sha256[:12]})")
    show_funnel("Funnel", result.funnel)
    if result.known:
        show_known(result.known)
    for warning in result.warnings:
        say(f"note: {warning}")
    shards = result.shards
    say(f"shards: {shards.done} of {shards.total} done, {shards.failed} failed")
    say(f"structures: {result.computed} computed, {result.reused} reused; shortlist: {result.n_shortlist}")
    for name, path in result.paths.items():
        say(f"{name}: {path}")


def show_funnel(title: str, funnel: list[FunnelStage]) -> None:
    """Stages with what they rejected."""
    rows: list[list[object]] = [
        [stage.stage, stage.n_in, stage.n_out, "; ".join(f"{n} {reason}" for reason, n in stage.rejected.items())]
        for stage in funnel
    ]
    table(title, ["stage", "in", "out", "rejected"], rows)


def show_known(known: list[KnownCompoundRow]) -> None:
    """Known compounds with their rank."""
    rows: list[list[object]] = [
        [row.formula, row.prototype, row.rank, "found" if row.found else "missed", row.comment] for row in known
    ]
    table("Known compounds", ["formula", "prototype", "rank", "shortlist", "remark"], rows)


def describe_plan(result: CampaignPlanResult) -> None:
    """What would be done."""
    show_funnel("Before relaxation", result.funnel)
    say(
        f"would relax {result.structures} structures ({result.atoms} atoms) in {result.shards} shards with"
        f" {result.model} at {result.theory}"
    )
    if result.hull_missing:
        say(f"no reference energy for {', '.join(result.hull_missing)}")
