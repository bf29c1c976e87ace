"""Tables that sort: every cell carries the value it is sorted by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gnn.screening.report.markup import Html, element

Cell = tuple[str, float | str | None]
"""What is shown, and what it is sorted by (None goes last)."""


@dataclass(frozen=True)
class Column:
    """A column's title; `sortable` puts a button into its head."""

    title: str
    numeric: bool = False
    sortable: bool = True
    hint: str = ""


def table(
    columns: Sequence[Column],
    rows: Sequence[Sequence[Cell]],
    row_ids: Sequence[str] | None = None,
    searches: Sequence[str] | None = None,
    **attributes: str,
) -> Html:
    """A table; `row_ids` name the rows for the page's script, `searches` is what its filter looks through."""
    head = element("thead", element("tr", *(_head(column) for column in columns)))
    body = [
        _row(columns, cells, row_ids[index] if row_ids else None, searches[index] if searches else None)
        for index, cells in enumerate(rows)
    ]
    return element("div", element("table", head, element("tbody", *body), **attributes), class_="scroll")


def _head(column: Column) -> Html:
    kind = "num" if column.numeric else None
    if not column.sortable:
        return element("th", column.title, scope="col", class_=kind)
    button = element("button", column.title, type="button", title=column.hint or f"Sort by {column.title}")
    return element("th", button, scope="col", class_=kind, aria_sort="none")


def _row(columns: Sequence[Column], cells: Sequence[Cell], row_id: str | None, search: str | None) -> Html:
    shown = [_cell(column, *cell) for column, cell in zip(columns, cells, strict=True)]
    clickable = 0 if row_id is not None else None
    return element("tr", *shown, data_row=row_id, data_search=search, tabindex=clickable)


def _cell(column: Column, shown: str, value: float | str | None) -> Html:
    kind = "num" if column.numeric else None
    key = f"{value:.9g}" if isinstance(value, int | float) else value
    return element("td", shown, class_=kind, data_v=key)
