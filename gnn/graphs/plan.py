"""Which rows of the lake make which shard: by content, so that more data leave the old shards as they are.

Rows are taken in the order they were appended and cut after rows that their own id chooses, so that an insertion
changes the shard it falls into and no other.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gnn.files import digest
from gnn.lake.table import Lake

BUILDER_VERSION = 4
"""Raised when the same rows would give other graphs, references or statistics."""

TARGET_ATOMS = 50_000
"""Atoms after which a cut is due on average: some seconds of work and some 40 MB of graphs."""

LEAST_ATOMS, MOST_ATOMS = TARGET_ATOMS // 4, TARGET_ATOMS * 3

PLAN_COLUMNS = (
    "structure_id", "label_hash", "group", "fixed", "flags", "n_atoms", "source_file", "source_row", "ingested_at",
)  # fmt: skip
ORDER = ("ingested_at", "source_file", "source_row", "structure_id")


@dataclass(frozen=True)
class ShardPlan:
    """Rows of one data set that make one shard. `flags` and `digests` are per row, in the order of `ids`.

    `ranges` bound the rows in the columns by which the lake is ordered, so that the rest of it need not be read.
    """

    dataset: str
    version: int
    key: str
    ids: tuple[str, ...]
    flags: tuple[tuple[str, ...], ...]
    n_atoms: int
    ranges: dict[str, tuple[Any, Any]]

    @property
    def file_name(self) -> str:
        """Name of the shard, the same in every graph set that holds these rows."""
        return f"{self.key[:32]}.arrow"


def shard_plans(lake: Lake, dataset: str, version: int, cutoff: float) -> list[ShardPlan]:
    """The shards of one version of a data set, from the columns that decide them.

    Raises:
        InputError: there is no such data set or version.
    """
    return plans_of_table(lake.read(dataset, version, PLAN_COLUMNS), dataset, version, cutoff)


def plans_of_table(table: pa.Table, dataset: str, version: int, cutoff: float) -> list[ShardPlan]:
    """The shards of a table that has `PLAN_COLUMNS`."""
    rows = table.sort_by([(name, "ascending") for name in ORDER])
    ids = rows.column("structure_id").to_pylist()
    n_atoms = rows.column("n_atoms").to_numpy()
    digests = _row_digests(rows, dataset)
    flags = [tuple(row) for row in rows.column("flags").to_pylist()]
    return [
        ShardPlan(
            dataset=dataset,
            version=version,
            key=digest({"rows": digests[start:stop], "cutoff": cutoff, "builder": BUILDER_VERSION}),
            ids=tuple(ids[start:stop]),
            flags=tuple(flags[start:stop]),
            n_atoms=int(n_atoms[start:stop].sum()),
            ranges=_ranges(rows.slice(start, stop - start)),
        )
        for start, stop in cuts(ids, n_atoms.tolist())
    ]


def cuts(ids: list[str], n_atoms: list[int]) -> Iterator[tuple[int, int]]:
    """Runs [start, stop): a cut follows a row with a chance of its atoms / `TARGET_ATOMS`, drawn from its id."""
    start, atoms = 0, 0
    for index, (structure_id, n) in enumerate(zip(ids, n_atoms, strict=True)):
        if index > start and atoms + n > MOST_ATOMS:
            yield start, index
            start, atoms = index, 0
        atoms += n
        if atoms >= LEAST_ATOMS and _draw(structure_id) < n / TARGET_ATOMS:
            yield start, index + 1
            start, atoms = index + 1, 0
    if start < len(ids):
        yield start, len(ids)


def _draw(structure_id: str) -> float:
    """A number in [0, 1) that the id decides."""
    return float(int(hashlib.blake2b(structure_id.encode(), digest_size=6).hexdigest(), 16) / 2**48)


def _row_digests(rows: pa.Table, dataset: str) -> list[str]:
    """What each row's graph depends on beside the cutoff: structure, labels, and what neither hash covers."""
    columns = [rows.column(name).to_pylist() for name in ("structure_id", "label_hash", "group", "fixed")]
    return [_row_digest(dataset, *values) for values in zip(*columns, strict=True)]


def _row_digest(dataset: str, structure_id: str, label_hash: str, group: str | None, fixed: list[bool] | None) -> str:
    mask = b"" if fixed is None else np.asarray(fixed, dtype=np.uint8).tobytes()
    text = "\0".join([dataset, structure_id, label_hash, "" if group is None else f"in {group}"])
    return hashlib.blake2b(text.encode() + b"\0" + mask, digest_size=16).hexdigest()


def _ranges(rows: pa.Table) -> dict[str, tuple[Any, Any]]:
    found = {}
    for name in ("ingested_at", "source_file", "source_row"):
        column = rows.column(name)
        if column.null_count == 0:
            bounds = pc.min_max(column).as_py()
            found[name] = (bounds["min"], bounds["max"])
    return found


def plan_rows(lake: Lake, plan: ShardPlan) -> pa.Table:
    """The lake rows of a plan, in its order; reads no more of the lake than their ranges span.

    Raises:
        InputError: the data set or version is gone.
    """
    where = pc.field("structure_id").isin(pa.array(plan.ids))
    for name, (low, high) in plan.ranges.items():
        where = (pc.field(name) >= pa.scalar(low)) & (pc.field(name) <= pa.scalar(high)) & where
    batches = list(lake.record_batches(plan.dataset, plan.version, where=where))
    return in_order(pa.Table.from_batches(batches), plan.ids)


def in_order(rows: pa.Table, ids: tuple[str, ...]) -> pa.Table:
    """`rows` in the order of `ids`."""
    return rows.take(pc.index_in(pa.array(ids), rows.column("structure_id").combine_chunks()))
