"""Known compounds: found or missed, and where they rank."""

from __future__ import annotations

from collections.abc import Sequence

from gnn.screening.report.context import KnownCompound
from gnn.screening.report.markup import Html, element, formula_html, join, number
from gnn.screening.report.tables import Cell, Column, table

COLUMNS = (
    Column("Compound"),
    Column("Structure"),
    Column("Found"),
    Column("Rank", numeric=True),
    Column("Shortlisted"),
    Column("Hull distance, meV/atom", numeric=True),
    Column("DFT hull distance, meV/atom", numeric=True),
    Column("Remark"),
)


def known_section(known: Sequence[KnownCompound]) -> Html:
    """A sentence and a table."""
    if not known:
        return element("p", "No known compounds were given to compare with.", class_="muted")
    found = sum(compound.found for compound in known)
    chosen = sum(compound.shortlisted for compound in known)
    said = f"{found} of {len(known)} known compounds were found and ranked; {chosen} of them are shortlisted."
    ordered = sorted(known, key=lambda compound: (compound.rank is None, compound.rank or 0))
    return join([element("p", said), table(COLUMNS, [_cells(compound) for compound in ordered])])


def _cells(compound: KnownCompound) -> list[Cell]:
    return [
        (element("b", formula_html(compound.formula)), compound.formula),
        (compound.name, compound.name),
        (_badge(compound.found, "found", "missed"), str(compound.found)),
        ("–" if compound.rank is None else str(compound.rank), compound.rank),
        ("yes" if compound.shortlisted else "no", str(compound.shortlisted)),
        _milli(compound.hull_distance),
        _milli(compound.dft_hull_distance),
        (compound.comment, compound.comment),
    ]


def _badge(good: bool, yes: str, no: str) -> Html:
    return element("span", yes if good else no, class_="badge good" if good else "badge bad")


def _milli(value: float | None) -> Cell:
    scaled = None if value is None else 1000 * value
    return number(scaled, 0, sign=True), scaled
