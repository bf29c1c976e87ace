"""Shards: files of graphs, as Arrow IPC (lz4) in record batches of 256, read batch by batch or by chosen batches.

A shard holds what its rows and the cutoff decide and nothing that depends on the set it is used in: both kinds of
energy, no split. Index columns (sizes, sums of squared labels) are read without opening a graph.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from gnn.errors import SluiceError
from gnn.files import file_sha256, write_atomically
from gnn.graphs.graph import ATOMS_DIGEST_BYTES, EnergyKind, Graph
from gnn.graphs.graph_set import ShardInfo

FORMAT_VERSION = 2
BATCH_ROWS = 256
TEXT_COLUMNS = ("structure_id", "dataset", "theory", "group")
INDEX_COLUMNS = (
    *TEXT_COLUMNS, "atoms", "numbers", "n_atoms", "n_edges", "isolated", "total_charge", "energy", "free_energy",
    "max_force", "force_square_sum", "force_count", "stress_square_sum", "stress_count",
)  # fmt: skip
ARRAY_COLUMNS = ("numbers", "positions", "cell", "pbc", "senders", "receivers", "shifts", "forces", "stress", "fixed")
PROPERTY_PREFIX = "property:"


def write_shard(path: Path, graphs: Sequence[Graph], relative_to: Path | None = None) -> ShardInfo:
    """Write graphs to `path` atomically; the same graphs give the same bytes.

    Properties become one column each. Integers are as wide as the shard needs.
    """
    table = graphs_to_table(graphs)
    options = pa.ipc.IpcWriteOptions(compression="lz4")

    def write(temporary: Path) -> None:
        with pa.OSFile(str(temporary), "wb") as sink, pa.ipc.new_file(sink, table.schema, options=options) as writer:
            writer.write_table(table, max_chunksize=BATCH_ROWS)

    write_atomically(path, write)
    return ShardInfo(
        path=str(path.relative_to(relative_to)) if relative_to else path.name,
        sha256=file_sha256(path),
        n_graphs=len(graphs),
        n_atoms=sum(graph.n_atoms for graph in graphs),
        n_edges=sum(graph.n_edges for graph in graphs),
    )


def graphs_to_table(graphs: Sequence[Graph]) -> pa.Table:
    """Graphs as one Arrow table: text, index, array and property columns."""
    columns: dict[str, pa.Array] = {
        name: pa.array([getattr(graph, name) for graph in graphs], pa.string()) for name in TEXT_COLUMNS
    }
    columns |= _index_columns(graphs)
    for name, dtype in _array_types(graphs).items():
        columns[name] = _list_column([getattr(graph, name) for graph in graphs], dtype)
    for name in sorted({name for graph in graphs for name in graph.properties}):
        values = [graph.properties.get(name) for graph in graphs]
        columns[PROPERTY_PREFIX + name] = _list_column(values, np.dtype(np.float64))
    return pa.table(columns, metadata={"format_version": str(FORMAT_VERSION)})


def _index_columns(graphs: Sequence[Graph]) -> dict[str, pa.Array]:
    forces = [_free_forces(graph) for graph in graphs]
    stresses = [np.zeros(0) if graph.crystal_stress is None else graph.crystal_stress for graph in graphs]
    return {
        "atoms": pa.array([graph.atoms_digest for graph in graphs], pa.binary(ATOMS_DIGEST_BYTES)),
        "n_atoms": pa.array([graph.n_atoms for graph in graphs], pa.int32()),
        "n_edges": pa.array([graph.n_edges for graph in graphs], pa.int32()),
        "isolated": pa.array([graph.is_isolated_atom for graph in graphs], pa.bool_()),
        "total_charge": pa.array([graph.total_charge for graph in graphs], pa.int32()),
        "energy": pa.array([graph.kinds.get("energy") for graph in graphs], pa.float64()),
        "free_energy": pa.array([graph.kinds.get("free_energy") for graph in graphs], pa.float64()),
        "max_force": pa.array([_max_force(graph) for graph in graphs], pa.float64()),
        "force_square_sum": pa.array([float((f**2).sum()) for f in forces], pa.float64()),
        "force_count": pa.array([f.size for f in forces], pa.int32()),
        "stress_square_sum": pa.array([float((s**2).sum()) for s in stresses], pa.float64()),
        "stress_count": pa.array([s.size for s in stresses], pa.int32()),
    }


def _free_forces(graph: Graph) -> NDArray[np.float64]:
    """Forces that are trained on, (n, 3): none of fixed atoms, none where unlabelled."""
    if graph.forces is None:
        return np.zeros((0, 3))
    return graph.forces if graph.fixed is None else graph.forces[~graph.fixed]


def _max_force(graph: Graph) -> float | None:
    """The largest force on any atom, fixed ones included (eV/Å)."""
    return None if graph.forces is None else float(np.linalg.norm(graph.forces, axis=1).max(initial=0.0))


def _array_types(graphs: Sequence[Graph]) -> dict[str, np.dtype[Any]]:
    largest = max((graph.n_atoms for graph in graphs), default=0)
    reach = max((int(np.abs(graph.shifts).max()) for graph in graphs if graph.n_edges), default=0)
    atom, shift = np.dtype(np.uint16 if largest <= 1 << 16 else np.uint32), np.min_scalar_type(-max(reach, 1) - 1)
    real, flag = np.dtype(np.float64), np.dtype(np.bool_)
    return {
        "numbers": np.dtype(np.uint8), "positions": real, "cell": real, "pbc": flag, "senders": atom,
        "receivers": atom, "shifts": shift, "forces": real, "stress": real, "fixed": flag,
    }  # fmt: skip


def _list_column(values: Sequence[Any], dtype: np.dtype[Any]) -> pa.Array:
    """A list column of flattened arrays; None stays null."""
    arrays = [np.zeros(0, dtype) if value is None else np.asarray(value).astype(dtype).ravel() for value in values]
    offsets = np.concatenate([[0], np.cumsum([len(array) for array in arrays])]).astype(np.int32)
    flat = np.concatenate([*arrays, np.zeros(0, dtype)])
    missing = np.array([value is None for value in values], dtype=bool)
    mask = pa.array(missing) if missing.any() else None
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(flat), mask=mask)


class ShardReader:
    """Record batches of one shard, by number; there are `n_batches`.

    Raises:
        SluiceError: the file is missing or is no shard of this format.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with self._opened() as file:
                self.n_batches = int(file.num_record_batches)
                version = (file.schema.metadata or {}).get(b"format_version")
        except (OSError, pa.ArrowInvalid) as error:
            raise SluiceError(f"{path} is not a readable shard ({error}); run `sluice preprocess` again") from error
        if version != str(FORMAT_VERSION).encode():
            raise SluiceError(
                f"{path} has shard format {version!r}, this code reads {FORMAT_VERSION}; preprocess again"
            )

    @contextmanager
    def _opened(self) -> Iterator[Any]:
        """The file, for a moment: a set may have more shards than a process may have files open."""
        with pa.memory_map(str(self.path)) as source:
            yield pa.ipc.open_file(source)

    def batch(self, number: int) -> GraphBlock:
        """Record batch `number`, decoded."""
        with self._opened() as file:
            return GraphBlock(file.get_batch(number))


def read_index(path: Path) -> pa.Table:
    """The index columns and structure-level properties of a shard, without its arrays."""
    with pa.memory_map(str(path)) as source:
        names = pa.ipc.open_file(source).schema.names
        wanted = [i for i, name in enumerate(names) if name in INDEX_COLUMNS or name.startswith(PROPERTY_PREFIX)]
        options = pa.ipc.IpcReadOptions(included_fields=wanted)
        return pa.ipc.open_file(source, options=options).read_all()


def read_shard(path: Path) -> Iterator[Graph]:
    """All graphs of a shard, in order.

    Raises:
        SluiceError: the file is missing or is no shard of this format.
    """
    reader = ShardReader(path)
    for number in range(reader.n_batches):
        yield from reader.batch(number)


@dataclass(frozen=True)
class _Lists:
    """A list column as two numpy arrays, and where it is null."""

    offsets: NDArray[np.int32]
    values: NDArray[Any]
    known: NDArray[np.bool_]

    def row(self, row: int) -> NDArray[Any] | None:
        """A view of one row's values."""
        return self.values[self.offsets[row] : self.offsets[row + 1]] if self.known[row] else None


class GraphBlock:
    """The graphs of one record batch; arrays are views into it."""

    def __init__(self, batch: pa.RecordBatch) -> None:
        self._plain = {name: batch.column(name).to_pylist() for name in (*TEXT_COLUMNS, "total_charge")}
        self._kinds: dict[EnergyKind, Any] = {
            "energy": batch.column("energy").to_pylist(),
            "free_energy": batch.column("free_energy").to_pylist(),
        }
        self._arrays = {name: _lists(batch.column(name)) for name in ARRAY_COLUMNS}
        self._properties = {
            name.removeprefix(PROPERTY_PREFIX): _lists(batch.column(name))
            for name in batch.schema.names
            if name.startswith(PROPERTY_PREFIX)
        }
        self.nbytes = int(batch.nbytes)

    def __len__(self) -> int:
        return len(self._plain["structure_id"])

    def __iter__(self) -> Iterator[Graph]:
        return (self.graph(row) for row in range(len(self)))

    def graph(self, row: int) -> Graph:
        """The graph of one row; its energy is the free energy where it has one."""
        kinds = {kind: values[row] for kind, values in self._kinds.items() if values[row] is not None}
        arrays: dict[str, Any] = {name: lists.row(row) for name, lists in self._arrays.items()}
        for name in ("positions", "cell", "shifts", "forces"):
            arrays[name] = None if arrays[name] is None else arrays[name].reshape(-1, 3)
        plain: dict[str, Any] = {name: values[row] for name, values in self._plain.items()}
        return Graph(
            **plain,
            **arrays,
            energy=kinds.get("free_energy", kinds.get("energy")),
            properties=self._row_properties(row),
            kinds=kinds,
        )

    def _row_properties(self, row: int) -> dict[str, float | NDArray[np.float64]]:
        found: dict[str, float | NDArray[np.float64]] = {}
        for name, lists in self._properties.items():
            if (values := lists.row(row)) is not None:
                found[name] = float(values[0]) if len(values) == 1 else values
        return found


def _lists(column: pa.ListArray) -> _Lists:
    values = column.values
    flat = values.to_numpy(zero_copy_only=not pa.types.is_boolean(values.type))
    return _Lists(column.offsets.to_numpy(), flat, column.is_valid().to_numpy(zero_copy_only=False))
