"""`sluice preprocess`: data sets of the lake to a graph set."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Annotated

import typer

from flows.cli.cluster_options import ClusterOption
from flows.cli.output import DryRunOption, JsonOption, goes_on, say, show
from flows.cli.results import PreprocessPlanResult, PreprocessResult
from flows.settings import Home, find_home

if TYPE_CHECKING:
    from gnn.graphs.preprocess import PreprocessSpec


@goes_on
def preprocess(
    datasets: Annotated[list[str], typer.Argument(metavar="DATASET[@VERSION]...", help="Data sets of the lake.")],
    cutoff: Annotated[float, typer.Option(help="Å; edges are drawn up to here.")] = 5.0,
    cluster: ClusterOption = "local",
    split: Annotated[
        str | None,
        typer.Option(metavar="train=450,valid=50", help="Counts or fractions. [default: train=0.8,valid=0.1,test=0.1]"),
    ] = None,
    split_by: Annotated[
        str, typer.Option(metavar="group|structure", help="What stays on one side of the split.")
    ] = "group",
    seed: Annotated[int, typer.Option(help="Seed of the split.")] = 0,
    max_force: Annotated[
        float, typer.Option(help="eV/Å; structures with a larger force are dropped and counted; 0 keeps all.")
    ] = 50.0,
    train_on_elements: Annotated[
        bool, typer.Option("--train-on-elements", help="Structures of one element stay in training.")
    ] = False,
    helper: Annotated[
        list[str] | None, typer.Option("--helper", metavar="NAME", help="Data set that is only trained on; repeatable.")
    ] = None,
    as_json: JsonOption = False,
    dry_run: DryRunOption = False,
) -> None:
    """Build the graphs of data sets: neighbour lists, splits, statistics and reference energies.

    Finished shards are reused: a second run builds nothing, and more data build only what is new.
    """
    from flows.preprocess import check, make_spec
    from flows.preprocess import preprocess as flow
    from gnn.errors import InputError
    from gnn.graphs.outliers import OutlierRule
    from gnn.graphs.splits import SplitBy, parse_shares

    if split_by not in ("group", "structure"):
        raise InputError(f"--split-by {split_by!r} is neither group nor structure")
    if not 0 <= max_force < inf:
        raise InputError(f"--max-force {max_force:g} eV/Å is no largest force; give 0 to keep all")
    by: SplitBy = "group" if split_by == "group" else "structure"
    shares = parse_shares(split) if split else None
    outliers = OutlierRule(max_force=max_force)
    home = find_home()
    spec = make_spec(
        datasets, cutoff, shares, by, seed, outliers, train_on_elements=train_on_elements, helpers=helper or ()
    )
    check(spec, home)
    if dry_run:
        show(described(spec, home), as_json, describe_plan)
        return
    result = flow(
        datasets,
        home,
        cutoff=cutoff,
        split=shares,
        split_by=by,
        seed=seed,
        outliers=outliers,
        cluster=cluster,
        show=not as_json,
        train_on_elements=train_on_elements,
        helpers=helper or (),
    )
    show(result, as_json, describe)


def described(spec: PreprocessSpec, home: Home) -> PreprocessPlanResult:
    """What would be built."""
    from flows.preprocess import plan
    from gnn.graphs.preprocess import shard_path

    inputs, _, plans = plan(spec, home)
    missing = [shard for shard in plans if not shard_path(home.graphs, shard).is_file()]
    return PreprocessPlanResult(
        lake_versions={each.dataset: each.version for each in inputs},
        rows=sum(len(shard.ids) for shard in plans),
        shards=len(plans),
        shards_to_build=len(missing),
        atoms=sum(shard.n_atoms for shard in missing),
    )


def describe_plan(result: PreprocessPlanResult) -> None:
    """The same for people."""
    read = ", ".join(f"{name}@{version}" for name, version in result.lake_versions.items())
    say(f"{result.rows} rows of {read} make {result.shards} shards")
    say(f"{result.shards_to_build} of them would be built, with {result.atoms} atoms")


def describe(result: PreprocessResult) -> None:
    """The summary for people; its numbers add up to the rows that went in."""
    splits = " + ".join(f"{n} {split}" for split, n in result.splits.items())
    dropped = " + ".join(f"{n} dropped ({reason})" for reason, n in result.dropped.items())
    parts = [splits, f"{result.reference_rows} references", dropped or "0 dropped"]
    typer.echo(f"{result.rows_in} rows in = {' + '.join(parts)}")
    typer.echo(f"{result.edges} edges up to {result.cutoff:g} Å in {result.shards} shards")
    typer.echo(f"{result.shards_built} shards built, {result.shards_reused} reused, {result.wall_s:.1f} s")
    for note in result.notes:
        typer.echo(f"note: {note}")
    typer.echo(f"graph set {result.graph_set_id[:16]} in {result.graph_set}")
