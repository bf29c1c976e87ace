"""The light columns of many shards, side by side: what decides splits, references and statistics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
from ase.data import chemical_symbols
from numpy.typing import NDArray

from gnn.graphs.shards import PROPERTY_PREFIX, read_index
from gnn.structures.properties import PropertySpec
from gnn.structures.record import Bools, Floats, Ints

CHUNK_ROWS = 20_000


@dataclass(frozen=True)
class PropertyColumn:
    """One property of M rows: `counts` (M,) values a row, 0 where it has none, and all `values` one after the other."""

    counts: Ints
    values: Floats


@dataclass(frozen=True)
class Columns:
    """M rows in the order of their shards. NaN where a number is missing; units as in the record.

    `atoms` are digests that rows share if they show the same atoms.
    """

    structure_id: list[str]
    dataset: list[str]
    theory: list[str]
    group: list[str | None]
    atoms: list[bytes]
    shard: Ints
    row: Ints
    n_atoms: Ints
    n_edges: Ints
    isolated: Bools
    charged: Bools
    energy: Floats
    free_energy: Floats
    max_force: Floats
    force_square_sum: Floats
    force_count: Ints
    stress_square_sum: Floats
    stress_count: Ints
    properties: dict[str, PropertyColumn]
    numbers: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.structure_id)

    @cached_property
    def _starts(self) -> Ints:
        """The first atom of each row in `numbers`."""
        starts: Ints = np.cumsum(self.n_atoms) - self.n_atoms
        return starts

    def symbols(self, row: int) -> list[str]:
        """Chemical symbols that occur in one row."""
        start = self._starts[row]
        return [chemical_symbols[z] for z in sorted(set(self.numbers[start : start + self.n_atoms[row]].tolist()))]

    def atoms_of(self, rows: Ints) -> NDArray[np.uint8]:
        """Atomic numbers of the atoms of `rows`, one row after the other."""
        return self.numbers[spans(self._starts[rows], self.n_atoms[rows])]

    def counts(self, rows: Ints, numbers: Ints) -> NDArray[np.uint16 | np.uint32]:
        """How often each of the atomic numbers (Z,) occurs in each of `rows`: (len(rows), Z)."""
        column = np.full(256, len(numbers))
        column[numbers] = np.arange(len(numbers))
        width = len(numbers) + 1
        largest = int(self.n_atoms[rows].max(initial=0))
        table = np.zeros((len(rows), len(numbers)), dtype=np.uint16 if largest < 1 << 16 else np.uint32)
        for start in range(0, len(rows), CHUNK_ROWS):
            chunk = rows[start : start + CHUNK_ROWS]
            of_atom = np.repeat(np.arange(len(chunk)), self.n_atoms[chunk]) * width + column[self.atoms_of(chunk)]
            found = np.bincount(of_atom, minlength=len(chunk) * width).reshape(len(chunk), width)
            table[start : start + CHUNK_ROWS] = found[:, :-1]
        return table

    def sum_over_atoms(self, rows: Ints, by_number: Floats) -> Floats:
        """The sum of `by_number` (256,) over the atoms of each row, (len(rows),)."""
        of_atom = np.repeat(np.arange(len(rows)), self.n_atoms[rows])
        sums = np.bincount(of_atom, weights=by_number[self.atoms_of(rows)], minlength=len(rows))
        return np.asarray(sums, dtype=np.float64)

    def has_property(self) -> Bools:
        """Rows with any declared property, (M,)."""
        known = np.zeros(len(self), dtype=bool)
        for column in self.properties.values():
            known |= column.counts > 0
        return known

    def has_labels(self) -> Bools:
        """Rows with anything to learn from, (M,)."""
        energies = ~np.isnan(self.energy) | ~np.isnan(self.free_energy)
        return energies | self.has_labels_beside_energy()

    def has_labels_beside_energy(self) -> Bools:
        """Rows with forces on free atoms, a stress or a property, (M,)."""
        return (self.force_count > 0) | (self.stress_count > 0) | self.has_property()


def spans(starts: Ints, lengths: Ints) -> Ints:
    """The integers of [start, start + length) for each pair, one after the other."""
    ends = np.cumsum(lengths)
    indices: Ints = np.arange(ends[-1] if len(ends) else 0) + np.repeat(starts - (ends - lengths), lengths)
    return indices


def read_columns(paths: Sequence[Path], declared: Mapping[str, PropertySpec]) -> Columns:
    """The index columns of shards, and those of their properties that are declared."""
    tables = [read_index(path) for path in paths]
    whole = pa.concat_tables(tables, promote_options="default")
    sizes = [table.num_rows for table in tables]
    numeric = {
        name: whole.column(name).to_numpy().astype(np.int64)
        for name in ("n_atoms", "n_edges", "force_count", "stress_count")
    }
    real = {
        name: whole.column(name).cast(pa.float64()).to_numpy()
        for name in ("energy", "free_energy", "max_force", "force_square_sum", "stress_square_sum")
    }
    return Columns(
        **{name: whole.column(name).to_pylist() for name in ("structure_id", "dataset", "theory", "group", "atoms")},
        **numeric,
        **real,
        shard=np.repeat(np.arange(len(sizes)), sizes),
        row=spans(np.zeros(len(sizes), np.int64), np.array(sizes, dtype=np.int64)),
        isolated=whole.column("isolated").to_numpy(),
        charged=whole.column("total_charge").fill_null(0).to_numpy() != 0,
        properties=_properties(whole, declared),
        numbers=pa.compute.list_flatten(whole.column("numbers")).to_numpy(),
    )


def _properties(whole: pa.Table, declared: Mapping[str, PropertySpec]) -> dict[str, PropertyColumn]:
    found = {}
    for name in declared:
        if PROPERTY_PREFIX + name in whole.schema.names:
            column = whole.column(PROPERTY_PREFIX + name)
            counts = pa.compute.fill_null(pa.compute.list_value_length(column), 0).to_numpy().astype(np.int64)
            found[name] = PropertyColumn(counts, pa.compute.list_flatten(column).to_numpy())
    return found
