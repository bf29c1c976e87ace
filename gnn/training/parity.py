"""Parity arrays kept beside a checkpoint, so that reports can draw them without the data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from gnn.files import write_atomically
from gnn.training.evaluation import Parity

PARITY_NAME = "parity.parquet"
MOST_VALUES = 6000
"""Values kept of one quantity and split; an even sample of more."""
SCHEMA = pa.schema(
    [
        pa.field("split", pa.string(), nullable=False),
        pa.field("quantity", pa.string(), nullable=False),
        pa.field("unit", pa.string(), nullable=False),
        pa.field("reference", pa.list_(pa.float32()), nullable=False),
        pa.field("predicted", pa.list_(pa.float32()), nullable=False),
    ]
)

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class ParityArrays:
    """Reference and prediction of one quantity on one split; shapes (M,)."""

    split: str
    quantity: str
    unit: str
    reference: Floats
    predicted: Floats


def write_parity(folder: Path, parities: Mapping[str, Parity], property_units: Mapping[str, str]) -> Path:
    """Write the parity of each split to `folder`/parity.parquet."""
    rows = [row for split, parity in parities.items() for row in _rows(split, parity, property_units)]
    table = pa.Table.from_pylist(rows, schema=SCHEMA)
    return write_atomically(folder / PARITY_NAME, lambda temporary: pq.write_table(table, temporary))


def _rows(split: str, parity: Parity, property_units: Mapping[str, str]) -> list[dict[str, Any]]:
    quantities = [
        ("energy", "eV/atom", parity.energy_label, parity.energy_predicted),
        ("forces", "eV/Å", parity.force_label, parity.force_predicted),
        *((name, property_units.get(name, ""), *arrays) for name, arrays in parity.properties.items()),
    ]
    return [
        {"split": split, "quantity": name, "unit": unit, "reference": _sample(label), "predicted": _sample(predicted)}
        for name, unit, label, predicted in quantities
        if len(label)
    ]


def _sample(values: Floats) -> list[float]:
    flat = np.ravel(values)
    step = max(1, -(-len(flat) // MOST_VALUES))
    return flat[::step].astype(np.float32).tolist()


def read_parity(folder: Path) -> list[ParityArrays]:
    """What `write_parity` left in a checkpoint's folder; empty where it left nothing."""
    path = folder / PARITY_NAME
    if not path.is_file():
        return []
    return [
        ParityArrays(
            split=row["split"],
            quantity=row["quantity"],
            unit=row["unit"],
            reference=np.array(row["reference"]),
            predicted=np.array(row["predicted"]),
        )
        for row in pq.read_table(path, schema=SCHEMA).to_pylist()
    ]
