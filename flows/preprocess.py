"""The flow `preprocess`: data sets of the lake to a graph set, one Prefect task a shard."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from prefect import flow

from flows.cli.results import PreprocessResult
from flows.cluster import dask_client
from flows.settings import Home, find_home
from flows.shard_bar import ShardBar
from flows.shards import ShardJob, ShardOutcome, raise_if_failed, run_shards
from flows.suites import frozen_ids
from flows.used_versions import in_use
from gnn.errors import InputError
from gnn.graphs.assembly import assemble
from gnn.graphs.graph_set import GraphSet, LakeInput, Split
from gnn.graphs.outliers import OutlierRule
from gnn.graphs.plan import BUILDER_VERSION, ShardPlan, shard_plans
from gnn.graphs.preprocess import (
    DEFAULT_CUTOFF,
    PreprocessSpec,
    ShardManifest,
    build_lake_shard,
    shard_path,
)
from gnn.graphs.splits import DEFAULT_HELPER_SHARE, DEFAULT_SHARES, SplitBy, are_counts
from gnn.lake.reference import parse_reference
from gnn.lake.table import Lake
from gnn.structures.properties import PropertySpec

STAGE = "preprocess"
IN_PROCESS_ATOMS = 30_000
"""Below this much work to do, starting worker processes takes longer than the work."""


@flow(name=STAGE, persist_result=False)
def preprocess(
    datasets: Sequence[str],
    home: Home | None = None,
    cutoff: float = DEFAULT_CUTOFF,
    split: dict[Split, float] | None = None,
    split_by: SplitBy | None = None,
    seed: int = 0,
    outliers: OutlierRule | None = None,
    cluster: str = "local",
    show: bool = True,
    suite_of: str | None = None,
    train_on_elements: bool = False,
    helpers: Sequence[str] = (),
    helper_share: float = DEFAULT_HELPER_SHARE,
) -> PreprocessResult:
    """Build the shards that are missing, then the graph set; the same call again reuses everything.

    The frozen suite of the registered model `suite_of`, if there is one, stays in the test split; structures of one
    element stay in training if `train_on_elements`; `helpers` are only trained on, and make at most `helper_share` of
    a pass.

    Raises:
        InputError: the input cannot be used.
        SluiceError: shards failed; the finished ones are kept.
    """
    started = time.monotonic()
    home = home or find_home()
    spec = make_spec(
        datasets, cutoff, split, split_by, seed, outliers, frozen_ids(suite_of, home), train_on_elements,
        helpers, helper_share,
    )  # fmt: skip
    inputs, properties, plans = plan(spec, home)
    with in_use(home, [(source.dataset, source.version) for source in inputs]):
        outcomes = build(plans, spec, home, cluster, show)
        raise_if_failed(STAGE, outcomes)
        shards = [ShardManifest.model_validate(outcome.manifest).info() for outcome in outcomes]
        graph_set, folder = assemble(spec, inputs, properties, plans, shards, home.graphs)
    return result_of(graph_set, folder, home, outcomes, time.monotonic() - started)


def make_spec(
    datasets: Sequence[str],
    cutoff: float = DEFAULT_CUTOFF,
    split: dict[Split, float] | None = None,
    split_by: SplitBy | None = None,
    seed: int = 0,
    outliers: OutlierRule | None = None,
    frozen_test: tuple[str, ...] = (),
    train_on_elements: bool = False,
    helpers: Sequence[str] = (),
    helper_share: float = DEFAULT_HELPER_SHARE,
) -> PreprocessSpec:
    """The spec of a call; None takes the default.

    Raises:
        InputError: a value cannot be used.
    """
    if not datasets:
        raise InputError("no data set is named; see `sluice lake ls` for those there are")
    if not 0 < cutoff <= 20:
        raise InputError(f"a cutoff of {cutoff:g} Å cannot be used; give one above 0 and at most 20")
    return PreprocessSpec(
        datasets=tuple(datasets),
        cutoff=cutoff,
        split=split or dict(DEFAULT_SHARES),
        split_by=split_by or "group",
        seed=seed,
        outliers=outliers or OutlierRule(),
        frozen_test=frozen_test,
        train_on_elements=train_on_elements,
        helpers=tuple(helpers),
        helper_share=helper_share,
    ).checked()


def check(spec: PreprocessSpec, home: Home) -> None:
    """Find mistakes that need no work to be seen, before a server is started.

    Raises:
        InputError: a data set or version does not exist, or the split asks for more than there is.
    """
    lake = Lake(home.lake)
    counts = {reference: lake.rows(*parse_reference(reference)) for reference in spec.sources}
    rows = sum(counts[reference] for reference in spec.datasets)
    if are_counts(spec.split) and sum(spec.split.values()) > rows:
        raise InputError(
            f"--split asks for {sum(spec.split.values()):g} structures, the data have {rows}; ask for fewer"
        )


def plan(spec: PreprocessSpec, home: Home) -> tuple[list[LakeInput], dict[str, PropertySpec], list[ShardPlan]]:
    """What goes in, which properties it declares, and the shards to be made of it.

    Raises:
        InputError: a data set or version does not exist, or two declare a property differently.
    """
    lake = Lake(home.lake)
    inputs: list[LakeInput] = []
    properties: dict[str, PropertySpec] = {}
    plans: list[ShardPlan] = []
    for reference in spec.sources:
        name, version = parse_reference(reference)
        number = lake.version(name) if version is None else version
        card = lake.card(name)
        for key, declared in card.property_specs.items():
            if properties.setdefault(key, declared) != declared:
                raise InputError(f"{name} declares property {key!r} as {declared}, an earlier data set otherwise")
        digest = lake.content_digest(name, number)
        inputs.append(LakeInput(dataset=name, version=number, content_digest=digest, licence=card.licence))
        plans += shard_plans(lake, name, number, spec.cutoff)
    return inputs, properties, plans


def build(plans: Sequence[ShardPlan], spec: PreprocessSpec, home: Home, cluster: str, show: bool) -> list[ShardOutcome]:
    """Build the shards that are not there."""
    jobs = [
        ShardJob(
            index=index,
            inputs={"shard": shard.key},
            function=build_lake_shard,
            args=(shard, spec.cutoff, home.lake.resolve(), home.graphs.resolve()),
            output=shard_path(home.graphs, shard),
        )
        for index, shard in enumerate(plans)
    ]
    with dask_client(_cluster(plans, home, cluster)) as client, ShardBar(STAGE, len(jobs), show) as bar:
        return run_shards(STAGE, BUILDER_VERSION, jobs, client, home, on_outcome=bar.update)


def _cluster(plans: Sequence[ShardPlan], home: Home, cluster: str) -> str:
    """The cluster that was asked for, or this process where processes of our own would not pay."""
    missing = sum(shard.n_atoms for shard in plans if not shard_path(home.graphs, shard).is_file())
    return "threads" if cluster == "local" and missing < IN_PROCESS_ATOMS else cluster


def result_of(
    graph_set: GraphSet, folder: Path, home: Home, outcomes: Sequence[ShardOutcome], wall_s: float
) -> PreprocessResult:
    """What `sluice preprocess` prints. rows_in = structures + reference_rows + dropped."""
    reused = sum(outcome.cached for outcome in outcomes)
    return PreprocessResult(
        graph_set=home.relative(folder),
        graph_set_id=graph_set.graph_set_id,
        cutoff=graph_set.cutoff,
        rows_in=graph_set.rows_in,
        structures=sum(graph_set.split_counts.values()),
        reference_rows=graph_set.reference_rows,
        dropped=graph_set.dropped,
        splits={str(split): n for split, n in graph_set.split_counts.items()},
        shards=len(outcomes),
        shards_built=len(outcomes) - reused,
        shards_reused=reused,
        edges=sum(shard.n_edges for shard in graph_set.shards),
        notes=graph_set.notes,
        wall_s=wall_s,
    )
