"""Rows of the lake turned into graphs, column by column."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import pi
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from gnn.errors import SluiceError, told
from gnn.graphs.graph import EnergyKind, Graph
from gnn.graphs.neighbours import neighbour_list

PLAIN = ("structure_id", "dataset", "theory", "group", "total_charge")
ARRAYS: dict[str, type] = {
    "numbers": np.int64, "positions": np.float64, "cell": np.float64, "pbc": np.bool_, "forces": np.float64,
    "stress": np.float64, "fixed": np.bool_,
}  # fmt: skip
VECTORS = ("positions", "cell", "forces")
MOST_EDGES = 50_000_000
"""Edges that one structure may have: about a gigabyte."""

OnBad = Callable[[str, str], None]


def graphs_of_rows(rows: pa.Table | pa.RecordBatch, cutoff: float, on_bad: OnBad | None = None) -> Iterator[Graph]:
    """A graph of each row of a table of `RECORD_SCHEMA`, edges up to `cutoff` (Å).

    A row that has no graph is told to `on_bad` (id, reason) and left out, where that is given.

    Raises:
        SluiceError: a row has no graph; the message names it.
    """
    for batch in rows.to_batches() if isinstance(rows, pa.Table) else [rows]:
        yield from _graphs_of_batch(batch, cutoff, on_bad)


def _graphs_of_batch(batch: pa.RecordBatch, cutoff: float, on_bad: OnBad | None) -> Iterator[Graph]:
    plain = {name: batch.column(name).to_pylist() for name in PLAIN}
    kinds = {name: batch.column(name).to_pylist() for name in ("energy", "free_energy")}
    arrays = {name: _rows_of(batch.column(name), dtype) for name, dtype in ARRAYS.items()}
    properties = batch.column("properties").to_pylist()
    for row in range(batch.num_rows):
        name = plain["structure_id"][row]
        try:
            graph = _graph(
                {name: column[row] for name, column in plain.items()},
                {name: column[row] for name, column in kinds.items() if column[row] is not None},
                {name: column[row] for name, column in arrays.items()},
                properties[row] or [],
                cutoff,
            )
        except (SluiceError, ValueError, TypeError, ArithmeticError, LookupError, RuntimeError) as error:
            if on_bad is None:
                raise SluiceError(f"structure {name[:16]} of {plain['dataset'][row]}: {error}") from error
            on_bad(name, told(error))
            continue
        yield graph


def _graph(
    plain: dict[str, Any], kinds: dict[Any, float], arrays: dict[str, Any], properties: list[Any], cutoff: float
) -> Graph:
    for name in VECTORS:
        arrays[name] = None if arrays[name] is None else arrays[name].reshape(-1, 3)
    _refuse_too_dense(arrays["positions"], arrays["cell"], arrays["pbc"], cutoff)
    edges = neighbour_list(arrays["positions"], arrays["cell"], arrays["pbc"], cutoff)
    energies: dict[EnergyKind, float] = kinds
    return Graph(
        **plain,
        **arrays,
        senders=edges.senders,
        receivers=edges.receivers,
        shifts=edges.shifts,
        energy=energies.get("free_energy", energies.get("energy")),
        properties={name: _number_or_array(values) for name, values in properties},
        kinds=energies,
    )


def _refuse_too_dense(
    positions: NDArray[np.float64], cell: NDArray[np.float64], pbc: NDArray[np.bool_], cutoff: float
) -> None:
    """Do nothing if the edges of a crystal fit into memory.

    Raises:
        SluiceError: there would be more than `MOST_EDGES`, by its density.
    """
    volume = abs(float(np.linalg.det(cell)))
    if not pbc.all() or volume == 0.0:
        return
    edges = len(positions) ** 2 / volume * 4 / 3 * pi * cutoff**3
    if edges > MOST_EDGES:
        raise SluiceError(
            f"{len(positions)} atoms in {volume:.3g} Å³ would have {edges:.1e} edges up to {cutoff:g} Å, more than"
            f" {MOST_EDGES:.0e}"
        )


def _number_or_array(values: list[float]) -> float | NDArray[np.float64]:
    return values[0] if len(values) == 1 else np.array(values)


def _rows_of(column: pa.ListArray, dtype: type) -> list[NDArray[Any] | None]:
    """One array a row, None where null; views where the type allows."""
    flat = column.values.to_numpy(zero_copy_only=False).astype(dtype, copy=False)
    offsets = column.offsets.to_numpy()
    known = column.is_valid().to_numpy(zero_copy_only=False)
    return [flat[offsets[i] : offsets[i + 1]] if known[i] else None for i in range(len(column))]
