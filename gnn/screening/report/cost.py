"""What each stage cost."""

from __future__ import annotations

from collections.abc import Sequence

from gnn.screening.report.context import CostRow
from gnn.screening.report.markup import Html, count, element, seconds
from gnn.screening.report.tables import Cell, Column, table

COLUMNS = (
    Column("Stage", sortable=False),
    Column("Structures", numeric=True, sortable=False),
    Column("CPU time", numeric=True, sortable=False),
    Column("CPU a structure", numeric=True, sortable=False),
    Column("Wall time", numeric=True, sortable=False),
    Column("Share of time", sortable=False),
)


def cost_section(cost: Sequence[CostRow]) -> Html:
    """A table with bars, and its sum."""
    if not cost:
        return element("p", "No costs were recorded.", class_="muted")
    total = sum(row.cpu_s for row in cost)
    measured = sum(_weight(row, cost) for row in cost)
    rows = [_cells(row, _weight(row, cost) / measured if measured else 0.0) for row in cost]
    return element("div", table(COLUMNS, [*rows, _sum(cost, total)]), class_="cost")


def _weight(row: CostRow, cost: Sequence[CostRow]) -> float:
    """CPU seconds where every stage has them, else wall seconds."""
    return row.cpu_s if all(other.cpu_s for other in cost) else row.wall_s


def _cells(row: CostRow, part: float) -> list[Cell]:
    bar = element("span", class_="meter", style=f"width:{max(0.5, 100 * part):.1f}%")
    each = seconds(row.cpu_s / row.n) if row.n and row.cpu_s / row.n >= 1 else _milliseconds(row)
    return [
        (row.stage, None),
        (count(row.n), None),
        (seconds(row.cpu_s) if row.cpu_s else "–", None),
        (each, None),
        (seconds(row.wall_s) if row.wall_s else "–", None),
        (element("div", bar, class_="track"), None),
    ]


def _milliseconds(row: CostRow) -> str:
    return f"{1000 * row.cpu_s / row.n:.1f}\u202fms" if row.n and row.cpu_s else "–"


def _sum(cost: Sequence[CostRow], total: float) -> list[Cell]:
    wall = sum(row.wall_s for row in cost)
    shown = ["Together", "", seconds(total), "", seconds(wall) if wall else "–", ""]
    return [(element("b", part) if part else "", None) for part in shown]
