"""The record: one labelled structure, one row of the lake.

Units: eV, Å, eV/Å, eV/Å³; stress as ASE has it (positive = tension), order xx yy zz yz xz xy.
Missing labels are None (null in tables), never 0 or NaN.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
from ase.data import atomic_numbers, chemical_symbols
from ase.formula import Formula
from numpy.typing import NDArray

from gnn.files import canonical_json

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

ID_DECIMALS = 6
"""Positions and cell enter the id rounded to 1e-6 Å."""


@dataclass(frozen=True)
class Source:
    """Where a record was read: file, row inside it, sha256 of the file."""

    file: str
    row: int
    sha256: str


@dataclass(frozen=True)
class Record:
    """One structure with its labels and provenance.

    Shapes: numbers (N,), positions (N, 3), cell (3, 3), pbc (3,), forces (N, 3), stress (6,), magmoms, charges, fixed
    and tags (N,). `properties` holds the targets that the data set's card declares: a float for level "structure", a
    flat list of N floats for level "atom", where one atom's is a float.
    """

    dataset: str
    theory: str
    numbers: Ints
    positions: Floats
    cell: Floats
    pbc: Bools
    total_charge: int | None = None
    multiplicity: int | None = None
    energy: float | None = None
    free_energy: float | None = None
    forces: Floats | None = None
    stress: Floats | None = None
    magmoms: Floats | None = None
    charges: Floats | None = None
    fixed: Bools | None = None
    tags: Ints | None = None
    properties: dict[str, float | list[float]] = field(default_factory=dict)
    config_type: str | None = None
    group: str | None = None
    flags: tuple[str, ...] = ()
    source: Source | None = None
    ingested_at: datetime | None = None

    @property
    def n_atoms(self) -> int:
        """Number of atoms."""
        return len(self.numbers)

    @cached_property
    def structure_id(self) -> str:
        """sha256 of what the structure is: numbers, rounded positions and cell, pbc, theory, charge, multiplicity."""
        return structure_id(self)

    @property
    def elements(self) -> list[str]:
        """Chemical symbols present, sorted."""
        return sorted({chemical_symbols[z] for z in self.numbers})

    @property
    def formula(self) -> str:
        """Reduced formula in metal-first order, as `Li2MgSi`."""
        return reduced_formula(self.numbers)

    @property
    def is_isolated_atom(self) -> bool:
        """One atom without periodicity: a reference energy, never a training structure."""
        return self.n_atoms == 1 and not self.pbc.any()

    @property
    def is_bulk(self) -> bool:
        """Periodic in all three directions, so that volume and stress mean something."""
        return bool(self.pbc.all())

    @property
    def training_energy(self) -> float | None:
        """The energy consistent with the forces: `free_energy` where it is present, else `energy` (eV)."""
        return self.energy if self.free_energy is None else self.free_energy


def reduced_formula(numbers: Sequence[int] | Ints) -> str:
    """Reduced chemical formula of atomic numbers in metal-first order."""
    present, counts = np.unique(np.asarray(numbers), return_counts=True)
    smallest = counts // np.gcd.reduce(counts)
    return _formula(tuple(present.tolist()), tuple(smallest.tolist()))


@lru_cache(maxsize=1 << 16)
def _formula(numbers: tuple[int, ...], counts: tuple[int, ...]) -> str:
    symbols = {chemical_symbols[z]: count for z, count in zip(numbers, counts, strict=True)}
    return str(Formula.from_dict(symbols).format("metal"))


def _rounded_bytes(values: Floats) -> bytes:
    # adding zero turns -0.0 into 0.0, which has other bytes
    return (np.round(np.asarray(values, dtype="<f8"), ID_DECIMALS) + 0.0).astype("<f8").tobytes()


def atoms_bytes(numbers: NDArray[np.integer[Any]], positions: Floats, cell: Floats, pbc: Bools) -> bytes:
    """What tells structures apart, whatever their level of theory: canonical bytes, positions and cell to 1e-6 Å."""
    parts = np.asarray(numbers, dtype="<i4").tobytes(), _rounded_bytes(positions), _rounded_bytes(cell)
    return b"".join([*parts, np.asarray(pbc, dtype="u1").tobytes()])


def structure_id(record: Record) -> str:
    """sha256 (hex) of canonical little-endian bytes; the order of atoms matters."""
    sha = hashlib.sha256(atoms_bytes(record.numbers, record.positions, record.cell, record.pbc))
    sha.update(record.theory.encode())
    for value in (record.total_charge, record.multiplicity):
        sha.update(b"\0" if value is None else struct.pack("<bq", 1, value))
    return sha.hexdigest()


LABEL_DECIMALS = 9
LABELS = ("energy", "free_energy", "forces", "stress", "magmoms", "charges")
"""Fields that are labels, beside the declared properties."""


def label_hash(record: Record) -> str:
    """sha256 (hex) of a record's labels, rounded to 1e-9, so that re-reading a file finds the same labels."""
    labels: dict[str, Any] = {name: _rounded_label(getattr(record, name)) for name in LABELS}
    labels["properties"] = {name: _rounded_label(as_read(value)) for name, value in sorted(record.properties.items())}
    return hashlib.sha256(canonical_json(labels).encode()).hexdigest()


def as_read(value: float | list[float]) -> float | list[float]:
    """A property as it comes back from a table, where one number is the same whether it is an atom's or the whole's."""
    return float(np.ravel(value)[0]) if np.size(value) == 1 else value


def _rounded_label(value: float | Sequence[float] | Floats | None) -> Any:
    if value is None:
        return None
    rounded = np.round(np.asarray(value, dtype=float), LABEL_DECIMALS) + 0.0
    return rounded.tolist()


PROPERTY_TYPE = pa.map_(pa.string(), pa.list_(pa.float64()))

RECORD_SCHEMA = pa.schema(
    [
        pa.field("structure_id", pa.string(), nullable=False),
        pa.field("dataset", pa.string(), nullable=False),
        pa.field("theory", pa.string(), nullable=False),
        pa.field("numbers", pa.list_(pa.int32()), nullable=False),
        pa.field("positions", pa.list_(pa.float64()), nullable=False),
        pa.field("cell", pa.list_(pa.float64()), nullable=False),
        pa.field("pbc", pa.list_(pa.bool_()), nullable=False),
        pa.field("total_charge", pa.int32()),
        pa.field("multiplicity", pa.int32()),
        pa.field("energy", pa.float64()),
        pa.field("free_energy", pa.float64()),
        pa.field("forces", pa.list_(pa.float64())),
        pa.field("stress", pa.list_(pa.float64())),
        pa.field("magmoms", pa.list_(pa.float64())),
        pa.field("charges", pa.list_(pa.float64())),
        pa.field("fixed", pa.list_(pa.bool_())),
        pa.field("tags", pa.list_(pa.int32())),
        pa.field("properties", PROPERTY_TYPE),
        pa.field("config_type", pa.string()),
        pa.field("group", pa.string()),
        pa.field("flags", pa.list_(pa.string()), nullable=False),
        pa.field("n_atoms", pa.int32(), nullable=False),
        pa.field("elements", pa.list_(pa.string()), nullable=False),
        pa.field("formula", pa.string(), nullable=False),
        pa.field("label_hash", pa.string(), nullable=False),
        pa.field("source_file", pa.string()),
        pa.field("source_row", pa.int64()),
        pa.field("source_sha256", pa.string()),
        pa.field("ingested_at", pa.timestamp("us", tz="UTC")),
    ]
)
"""Columns of a lake table. Lists are flat; shapes come back from `n_atoms`."""

_FLAT_COLUMNS = ("positions", "cell", "forces", "stress")
_PLAIN_COLUMNS = (
    "dataset", "theory", "total_charge", "multiplicity", "energy", "free_energy", "config_type", "group", "ingested_at",
)  # fmt: skip
_LIST_COLUMNS = ("numbers", "pbc", "magmoms", "charges", "fixed", "tags")


def record_to_row(record: Record) -> dict[str, Any]:
    """One row of `RECORD_SCHEMA`, as Python values."""
    row: dict[str, Any] = {name: getattr(record, name) for name in _PLAIN_COLUMNS}
    for name in (*_FLAT_COLUMNS, *_LIST_COLUMNS):
        value = getattr(record, name)
        row[name] = None if value is None else np.asarray(value).ravel().tolist()
    row["properties"] = [(key, np.ravel(value).tolist()) for key, value in sorted(record.properties.items())]
    row["flags"] = list(record.flags)
    row["structure_id"] = record.structure_id
    row["label_hash"] = label_hash(record)
    row["n_atoms"] = record.n_atoms
    row["elements"] = record.elements
    row["formula"] = record.formula
    if record.source is not None:
        row["source_file"] = record.source.file
        row["source_row"] = record.source.row
        row["source_sha256"] = record.source.sha256
    return row


def records_to_table(records: Iterable[Record]) -> pa.Table:
    """Records as an Arrow table of `RECORD_SCHEMA`."""
    return pa.Table.from_pylist([record_to_row(record) for record in records], schema=RECORD_SCHEMA)


def _array(value: list[Any] | None, dtype: type, shape: tuple[int, ...], name: str) -> Any:
    if value is None:
        return None
    array: NDArray[Any] = np.asarray(value, dtype=dtype)
    if array.size != int(np.prod(shape)):
        raise ValueError(f"{name} has {array.size} numbers where {int(np.prod(shape))} are due")
    return array.reshape(shape)


def row_to_record(row: dict[str, Any]) -> Record:
    """A record from a row of `RECORD_SCHEMA`.

    Raises:
        ValueError: an array's length does not fit `n_atoms`.
    """
    n = row["n_atoms"]
    properties = {key: as_read(list(values)) for key, values in (row.get("properties") or [])}
    source = None
    if row.get("source_file") is not None:
        source = Source(row["source_file"], row["source_row"], row["source_sha256"])
    plain: dict[str, Any] = {name: row.get(name) for name in _PLAIN_COLUMNS}
    return Record(
        **plain,
        numbers=_array(row["numbers"], np.int64, (n,), "numbers"),
        positions=_array(row["positions"], np.float64, (n, 3), "positions"),
        cell=_array(row["cell"], np.float64, (3, 3), "cell"),
        pbc=_array(row["pbc"], np.bool_, (3,), "pbc"),
        forces=_array(row.get("forces"), np.float64, (n, 3), "forces"),
        stress=_array(row.get("stress"), np.float64, (6,), "stress"),
        magmoms=_array(row.get("magmoms"), np.float64, (n,), "magmoms"),
        charges=_array(row.get("charges"), np.float64, (n,), "charges"),
        fixed=_array(row.get("fixed"), np.bool_, (n,), "fixed"),
        tags=_array(row.get("tags"), np.int64, (n,), "tags"),
        properties=properties,
        flags=tuple(row.get("flags") or ()),
        source=source,
    )


def table_to_records(table: pa.Table) -> list[Record]:
    """Records of an Arrow table of `RECORD_SCHEMA`."""
    return [row_to_record(row) for row in table.to_pylist()]


def now() -> datetime:
    """The present moment in UTC, as `ingested_at` wants it."""
    return datetime.now(UTC)


def symbol_number(symbol: str) -> int:
    """Atomic number of a chemical symbol.

    Raises:
        ValueError: there is no such element.
    """
    if symbol not in atomic_numbers or symbol == "X":
        raise ValueError(f"unknown element {symbol!r}")
    return int(atomic_numbers[symbol])
