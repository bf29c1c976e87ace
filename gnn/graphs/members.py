"""Members of a graph set: which row of which shard is in which split, or why it is in none."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from gnn.files import write_atomically
from gnn.graphs.graph_set import SPLITS, Split

FILE_NAME = "splits.parquet"
REFERENCE = "reference"
DROPPED = "dropped"
ROLES = (*SPLITS, REFERENCE, DROPPED)

SCHEMA = pa.schema(
    [
        pa.field("structure_id", pa.string(), nullable=False),
        pa.field("dataset", pa.string(), nullable=False),
        pa.field("theory", pa.string(), nullable=False),
        pa.field("group", pa.string()),
        pa.field("shard", pa.int32(), nullable=False),
        pa.field("row", pa.int32(), nullable=False),
        pa.field("n_atoms", pa.int32(), nullable=False),
        pa.field("n_edges", pa.int32(), nullable=False),
        pa.field("role", pa.string(), nullable=False),
        pa.field("reason", pa.string()),
    ]
)
"""Columns of `splits.parquet`, every row of the inputs once. `role` is one of `ROLES`, `reason` why it was dropped."""


@dataclass(frozen=True)
class Members:
    """What a loader keeps of the members, in their stored order; all arrays (M,). `helps`: rows of a helper."""

    shard: NDArray[np.int32]
    row: NDArray[np.int32]
    n_atoms: NDArray[np.int32]
    n_edges: NDArray[np.int32]
    role: NDArray[np.int8]
    helps: NDArray[np.bool_]

    def of(self, split: Split) -> NDArray[np.int64]:
        """Indices of the members of a split."""
        return np.flatnonzero(self.role == ROLES.index(split))


@dataclass(frozen=True)
class KnownRoles:
    """What became of the structures of one data set: role by structure id, and by group of those in a split."""

    of_structure: Mapping[str, str]
    of_group: Mapping[str, str]

    def of(self, structure_id: str, group: str | None) -> str | None:
        """The role of a structure, or that of its group; None where neither was among the members."""
        own = self.of_structure.get(structure_id)
        return own if own is not None or group is None else self.of_group.get(group)


def read_roles(path: Path, dataset: str, by_group: bool) -> KnownRoles:
    """The roles of a data set's structures, and of its groups if they were split as one."""
    table = pq.read_table(path, columns=["structure_id", "group", "role"], filters=[("dataset", "=", dataset)])
    ids, groups, roles = (table.column(name).to_pylist() for name in table.column_names)
    splits = ((group, role) for group, role in zip(groups, roles, strict=True) if group is not None and role in SPLITS)
    return KnownRoles(dict(zip(ids, roles, strict=True)), dict(splits) if by_group else {})


def write_members(path: Path, table: pa.Table) -> Path:
    """Write a table of `SCHEMA` atomically."""
    checked = table.select(SCHEMA.names).cast(SCHEMA)

    def write(temporary: Path) -> None:
        pq.write_table(checked, temporary, compression="zstd", use_dictionary=["dataset", "theory", "group", "role"])

    return write_atomically(path, write)


def read_members(path: Path, helpers: Iterable[str] = ()) -> Members:
    """The compact members of `path`; `helpers` are names of data sets."""
    table = pq.read_table(path, columns=["dataset", "shard", "row", "n_atoms", "n_edges", "role"])
    numbers = {name: table.column(name).to_numpy() for name in ("shard", "row", "n_atoms", "n_edges")}
    codes = pa.array(ROLES)
    role = pa.compute.index_in(table.column("role"), codes).to_numpy().astype(np.int8)
    helps = pa.compute.is_in(table.column("dataset"), pa.array(list(helpers), pa.string())).to_numpy()
    return Members(**numbers, role=role, helps=helps)
