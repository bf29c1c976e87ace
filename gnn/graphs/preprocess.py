"""Preprocessing: what is asked for, and one shard of it."""

from __future__ import annotations

import logging
from pathlib import Path

import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field

from gnn.cost import Meter
from gnn.errors import InputError
from gnn.files import file_sha256
from gnn.graphs.graph_set import ShardInfo, Split
from gnn.graphs.outliers import OutlierRule
from gnn.graphs.plan import ShardPlan, plan_rows
from gnn.graphs.rows import graphs_of_rows
from gnn.graphs.shards import write_shard
from gnn.graphs.splits import DEFAULT_HELPER_SHARE, DEFAULT_SHARES, SplitBy, check_shares
from gnn.graphs.verify import refuse_damaged
from gnn.lake.reference import parse_reference
from gnn.lake.table import Lake

logger = logging.getLogger(__name__)

SHARD_FOLDER = "shards"
INFO_FIELDS = tuple(ShardInfo.model_fields)
DEFAULT_CUTOFF = 5.0


class PreprocessSpec(BaseModel):
    """What a graph set is made of and how; with the content of the data sets it decides the result."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    datasets: tuple[str, ...] = Field(
        min_length=1,
        description="NAME or NAME@VERSION; of a structure that several hold, the first named keeps its row",
    )
    helpers: tuple[str, ...] = Field(
        default=(), description="data sets that are only trained on; `split` divides, and counts, the others"
    )
    helper_share: float = Field(
        default=DEFAULT_HELPER_SHARE, gt=0, lt=1, description="largest part of a pass that the helpers make"
    )
    cutoff: float = Field(default=DEFAULT_CUTOFF, gt=0, le=20, description="Å; edges are drawn up to here")
    split: dict[Split, float] = Field(
        default_factory=lambda: dict(DEFAULT_SHARES), description="fractions of the structures, or counts"
    )
    split_by: SplitBy = Field(default="group", description="what stays on one side of a split")
    seed: int = Field(default=0, description="of the splits")
    outliers: OutlierRule = OutlierRule()
    train_on_elements: bool = Field(
        default=False, description="structures of one element stay in training, with all of their groups"
    )
    frozen_test: tuple[str, ...] = Field(
        default=(), description="ids of structures that stay in the test split, with all of their groups"
    )

    @property
    def sources(self) -> tuple[str, ...]:
        """All data sets that are read."""
        return (*self.datasets, *self.helpers)

    @property
    def helper_names(self) -> frozenset[str]:
        """The data sets that are only trained on, without their versions."""
        return frozenset(parse_reference(reference)[0] for reference in self.helpers)

    def checked(self) -> PreprocessSpec:
        """The spec itself.

        Raises:
            InputError: its split shares are impossible, or a data set is named twice.
        """
        check_shares(self.split)
        names = [parse_reference(reference)[0] for reference in self.sources]
        if len(set(names)) < len(names):
            raise InputError(f"{', '.join(self.sources)}: a data set is named twice; name each once")
        return self


class ShardManifest(ShardInfo):
    """A shard and what it cost."""

    cpu_s: float
    wall_s: float = 0.0
    gpu_s: float = 0.0
    peak_memory_mb: float = 0.0

    def info(self) -> ShardInfo:
        """The part that belongs into a graph set."""
        return ShardInfo.model_validate(self.model_dump(exclude=set(ShardManifest.model_fields) - set(INFO_FIELDS)))


def shard_path(graphs_root: Path, plan: ShardPlan) -> Path:
    """Where the shard of a plan lies."""
    return graphs_root / SHARD_FOLDER / plan.file_name


def build_shard(plan: ShardPlan, rows: pa.Table, cutoff: float, graphs_root: Path) -> ShardManifest:
    """Write the shard of `rows`, which are the plan's, in its order; rows without a graph are set aside.

    Raises:
        SluiceError: a row is not what its digests say.
    """
    set_aside: dict[str, str] = {}
    with Meter() as meter:
        refuse_damaged(rows, f"{plan.dataset}@{plan.version}")
        graphs = list(graphs_of_rows(rows, cutoff, set_aside.__setitem__))
        info = write_shard(shard_path(graphs_root, plan), graphs, graphs_root)
    for name, reason in set_aside.items():
        logger.warning("set aside: %s", reason, extra={"structure": name})
    return ShardManifest.model_validate({**info.model_dump(), "set_aside": set_aside, **meter.costs()})


def build_lake_shard(plan: ShardPlan, cutoff: float, lake_root: Path, graphs_root: Path) -> dict[str, object]:
    """What a worker does: read the rows of a plan from the lake, write their shard, give its manifest as JSON."""
    return build_shard(plan, plan_rows(Lake(lake_root), plan), cutoff, graphs_root).model_dump(mode="json")


def is_intact(manifest: ShardManifest, graphs_root: Path) -> bool:
    """Whether the file of a manifest is there and has its digest."""
    path = graphs_root / manifest.path
    return path.is_file() and file_sha256(path) == manifest.sha256
