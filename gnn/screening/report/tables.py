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


@dataclass(frozen=True)
class RowMarks:
    """What the page's script knows a row by: its id, the text that typed words are looked for in, its elements."""

    row_id: str
    search: str
    elements: str


def table(
    columns: Sequence[Column],
    rows: Sequence[Sequence[Cell]],
    marks: Sequence[RowMarks] | None = None,
    **attributes: str,
) -> Html:
    """A table; `marks` are for the page's script, one a row."""
    head = element("thead", element("tr", *(_head(column) for column in columns)))
    body = [_row(columns, cells, marks[index] if marks else None) for index, cells in enumerate(rows)]
    return element("div", element("table", head, element("tbody", *body), **attributes), class_="scroll")


def _head(column: Column) -> Html:
    kind = "num" if column.numeric else None
    if not column.sortable:
        return element("th", column.title, scope="col", class_=kind)
    button = element("button", column.title, type="button", title=column.hint or f"Sort by {column.title}")
    return element("th", button, scope="col", class_=kind, aria_sort="none")


def _row(columns: Sequence[Column], cells: Sequence[Cell], marks: RowMarks | None) -> Html:
    shown = [_cell(column, *cell) for column, cell in zip(columns, cells, strict=True)]
    if marks is None:
        return element("tr", *shown)
    return element(
        "tr", *shown, data_row=marks.row_id, data_search=marks.search, data_elements=marks.elements, tabindex=0
    )


def _cell(column: Column, shown: str, value: float | str | None) -> Html:
    kind = "num" if column.numeric else None
    key = f"{value:.9g}" if isinstance(value, int | float) else value
    return element("td", shown, class_=kind, data_v=key)
