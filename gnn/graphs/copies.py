"""Copies: rows that show the very atoms of other rows, whatever their level of theory, charge or multiplicity."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from gnn.graphs.columns import Columns


def copies(columns: Columns, of: Sequence[int], among: Sequence[int]) -> set[int]:
    """The rows `among` that have the atoms of a row `of`."""
    shown = {columns.atoms[row] for row in of}
    return {row for row in among if columns.atoms[row] in shown}


def twins(columns: Columns, rows: Sequence[int]) -> list[bytes | None] | None:
    """A mark of each row's atoms where another of the rows has them too, else None; None if no row has."""
    often = Counter(columns.atoms[row] for row in rows)
    if len(often) == len(rows):
        return None
    return [columns.atoms[row] if often[columns.atoms[row]] > 1 else None for row in rows]
