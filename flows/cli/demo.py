"""`sluice demo`: the whole river on the sample set."""

from __future__ import annotations

from typing import Annotated

import typer

from flows.cli.cluster_options import ClusterOption
from flows.cli.output import JsonOption, goes_on, show, table
from flows.cli.results import DemoResult


@goes_on
def demo(
    minutes: Annotated[float, typer.Option(min=0.05, help="Training time.")] = 9.0,
    committee: Annotated[int, typer.Option(min=1, help="Networks; their spread is the uncertainty.")] = 2,
    cluster: ClusterOption = "local",
    json: JsonOption = False,
) -> None:
    """Take the sample set from DFT labels to a DFT shortlist with a report."""
    from flows.demo import demo as run
    from flows.settings import find_home

    show(run(find_home(), minutes, committee, cluster), json, _describe)


def _describe(result: DemoResult) -> None:
    from flows.demo import describe

    table("The river, on the sample set", ["what", "figure"], [[k, v] for k, v in describe(result).items()])
