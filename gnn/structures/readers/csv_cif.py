"""CSV tables with one crystal a row, as CIF text or JSON."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any, TextIO

from gnn.errors import InputError
from gnn.structures.cards import ReadingRules
from gnn.structures.readers.cif import raw_of_cif
from gnn.structures.readers.opening import open_text
from gnn.structures.readers.raw import SHOWN, Bad, Raw, Row, UnreadableRow, unreadable_row
from gnn.structures.readers.structures import decode

MAX_FIELD = 1 << 27
CIF_NAMES = ("cif", "structure", "crystal")
CRYSTAL = re.compile(r"_cell_length_a|\"(lattice|lattice_mat|sites|positions)\"\s*:")
SEPARATORS = (",", ";", "\t", "|")


def read_csv(path: Path, rules: ReadingRules) -> Iterator[Row]:
    """The rows of a table; `[columns] structure` names the column that holds the crystals.

    Else it is the one called `cif`, `structure` or `crystal`, else the first whose first field is one. The fields are
    CIF text or JSON; they are separated by commas, or by whatever separates most of the header.

    Raises:
        InputError: there is no such column.
    """
    csv.field_size_limit(MAX_FIELD)
    with open_text(path) as stream:
        header = _line(stream)
        separator = max(SEPARATORS, key=header.count)
        names = next(csv.reader([header], delimiter=separator), [])
        rows = csv.DictReader(stream, names, delimiter=separator, strict=True)
        first = next(rows, None)
        column = _structure_column(names, first or {}, rules, path)
        for row in chain(() if first is None else (first,), rows):
            yield _row(row, column)


def _line(stream: TextIO) -> str:
    """The first line that is not empty; "" where there is none."""
    return next((line for line in stream if line.strip()), "")


def _structure_column(names: list[str], first: dict[str, Any], rules: ReadingRules, path: Path) -> str:
    wanted = rules.columns.structure
    if wanted in names:
        return str(wanted)
    if wanted is None:
        named = [name for name in names if name.lower() in CIF_NAMES]
        if found := named or [name for name in names if CRYSTAL.search(str(first.get(name)))]:
            return found[0]
    raise InputError(
        f'{path.name}: no column holds a structure (columns: {", ".join(names)}); write [columns] structure = "NAME" '
        "in a card, for the column with CIF text"
    )


def _row(row: dict[str | None, Any], column: str) -> Row:
    text = row.get(column)
    if None in row or any(value is None for value in row.values()):
        return Bad("unreadable-row: more or fewer fields than the header", str(text)[:SHOWN])
    try:
        raw = _crystal(text or "")
    except UnreadableRow as error:
        return Bad(str(error), str(text)[:SHOWN])
    except Exception as error:  # noqa: BLE001 - pymatgen raises whatever its parsing steps on; the reason is kept
        return Bad(unreadable_row(error), str(text)[:SHOWN])
    raw.values |= {str(key): _value(value) for key, value in row.items() if key != column}
    return raw


def _crystal(text: str) -> Raw:
    """The structure of a field, with what JSON says beside the sites."""
    return decode(json.loads(text)) if text.lstrip().startswith("{") else raw_of_cif(text)


def _value(text: str) -> Any:
    """A field; lists written as JSON become lists."""
    if not text.startswith("["):
        return text
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text
