"""Crystals that the lake holds, for candidates to be compared with as they come and as they relax."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from gnn.lake.table import Lake
from gnn.screening.dedupe import Crystal
from gnn.screening.shelf import formula_hash
from gnn.screening.tables import arrays_of

COLUMNS = ("structure_id", "formula", "numbers", "positions", "cell", "pbc")
Library = Callable[[NDArray[np.int64]], list[Crystal]]
"""Gives the known crystals whose formulas have these hashes."""


def nothing_known(_: NDArray[np.int64]) -> list[Crystal]:
    """The library of a lake without crystals."""
    return []


def lake_library(lake: Lake, versions: Mapping[str, int]) -> Library:
    """The bulk crystals of some data sets; of these only the formulas asked for are read whole."""

    def known(hashes: NDArray[np.int64]) -> list[Crystal]:
        wanted = set(hashes.tolist())
        formulas = {formula for formula in lake_formulas(lake, versions) if formula_hash(formula) in wanted}
        return lake_crystals(lake, versions, formulas) if formulas else []

    return known


def lake_formulas(lake: Lake, versions: Mapping[str, int]) -> set[str]:
    """Reduced formulas of what the lake holds."""
    tables = (lake.read(dataset, version, columns=["formula"]) for dataset, version in versions.items())
    return {str(formula) for table in tables for formula in pc.unique(table["formula"]).to_pylist()}


def lake_crystals(lake: Lake, versions: Mapping[str, int], formulas: Collection[str]) -> list[Crystal]:
    """Bulk crystals of the lake with one of `formulas`, as something to compare candidates with."""
    wanted = pc.field("formula").isin(pa.array(sorted(formulas), pa.string()))
    return [
        Crystal(f"{dataset}:{row['structure_id'][:12]}", *arrays_of(row))
        for dataset, version in versions.items()
        for batch in lake.record_batches(dataset, version, columns=COLUMNS, where=wanted)
        for row in batch.to_pylist()
        if all(row["pbc"])
    ]
