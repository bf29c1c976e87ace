"""The options that say where shards are computed."""

from __future__ import annotations

from typing import Annotated

import typer

from flows.cli.output import speaks_plainly
from flows.settings import CLUSTER_VARIABLE


@speaks_plainly
def known_cluster(cluster: str) -> str:
    """The value of `--cluster`, looked at before anything is started."""
    from flows.cluster import refuse_unknown_cluster

    refuse_unknown_cluster(cluster)
    return cluster


ClusterOption = Annotated[
    str,
    typer.Option(
        envvar=CLUSTER_VARIABLE,
        metavar="local|threads|slurm|kubernetes|ADDRESS",
        help="Processes here, this process, jobs, pods, or a Dask scheduler.",
        callback=known_cluster,
    ),
]
WorkersOption = Annotated[int | None, typer.Option(min=1, help="Worker processes of a local cluster.")]
