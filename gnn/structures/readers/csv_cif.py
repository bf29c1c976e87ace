"""CSV tables with one crystal a row as CIF text."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gnn.errors import InputError
from gnn.structures.cards import ReadingRules
from gnn.structures.readers.cif import raw_of_cif
from gnn.structures.readers.opening import open_text
from gnn.structures.readers.raw import Bad, Row

MAX_FIELD = 1 << 27
SHOWN = 200
CIF_NAMES = ("cif", "structure", "crystal")


def read_csv(path: Path, rules: ReadingRules) -> Iterator[Row]:
    """The rows of a CSV table; `[columns] structure` names the column that holds CIF text (`cif` by default).

    Raises:
        InputError: there is no such column.
    """
    csv.field_size_limit(MAX_FIELD)
    with open_text(path) as stream:
        reader = csv.DictReader(stream)
        column = _structure_column(list(reader.fieldnames or ()), rules, path)
        for row in reader:
            yield _row(row, column)


def _structure_column(names: list[str], rules: ReadingRules, path: Path) -> str:
    wanted = rules.columns.structure
    if wanted in names:
        return str(wanted)
    for name in names:
        if wanted is None and name.lower() in CIF_NAMES:
            return name
    raise InputError(
        f'{path.name}: no column holds a structure (columns: {", ".join(names)}); write [columns] structure = "NAME" '
        "in a card, for the column with CIF text"
    )


def _row(row: dict[str | None, Any], column: str) -> Row:
    text = row.get(column)
    if None in row or any(value is None for value in row.values()):
        return Bad("unreadable-row: more or fewer fields than the header", str(text)[:SHOWN])
    try:
        raw = raw_of_cif(text or "")
    except Exception as error:  # noqa: BLE001 - pymatgen raises whatever its parsing steps on; the reason is kept
        return Bad(f"unreadable-row: {type(error).__name__}: {str(error)[:SHOWN]}", str(text)[:SHOWN])
    raw.values = {str(key): _value(value) for key, value in row.items() if key != column}
    return raw


def _value(text: str) -> Any:
    """A field; lists written as JSON become lists."""
    if not text.startswith("["):
        return text
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text
