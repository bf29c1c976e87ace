"""The shortlist: a table to sort and filter, a picture of each crystal, and a model to turn."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers, chemical_symbols

from gnn.screening.report.context import ReportContext
from gnn.screening.report.markup import Html, count, element, formula_html, join, number, void
from gnn.screening.report.rows import Candidate, shortlisted_atoms
from gnn.screening.report.stability import stability_class
from gnn.screening.report.structures_svg import crystal, element_legend, gradients, hex_colour, radius, structure_svg
from gnn.screening.report.tables import Cell, Column, RowMarks, table

MOST_PICTURES = 120
COLUMNS = (
    Column("Rank", numeric=True),
    Column("Structure", sortable=False),
    Column("Formula"),
    Column("Prototype"),
    Column("Atoms", numeric=True),
    Column("Hull, meV/atom", numeric=True, hint="Distance to the convex hull by the model"),
    Column("± meV/atom", numeric=True, hint="The model's uncertainty, meV/atom"),
    Column("Formation, eV/atom", numeric=True, hint="Formation energy by the model"),
    Column("DFT hull, meV/atom", numeric=True, hint="Distance to the hull by DFT, where the lake holds it"),
)


def shortlist_section(context: ReportContext, rows: Sequence[Candidate]) -> Html:
    """Filter, table and viewer."""
    chosen = sorted((row for row in rows if row.shortlisted), key=_place)
    if not chosen:
        return element("p", "No candidate was shortlisted.", class_="muted")
    atoms = shortlisted_atoms(context.candidates)
    symbols = sorted({symbol for row in chosen for symbol in row.system}, key=lambda symbol: atomic_numbers[symbol])
    known = {point.candidate_id: point.dft_hull_distance for point in context.dft}
    pictured = [row.candidate_id for row in chosen if row.candidate_id in atoms][:MOST_PICTURES]
    body = table(
        COLUMNS,
        [_cells(row, atoms.get(row.candidate_id) if row.candidate_id in pictured else None, known) for row in chosen],
        [_marks(row) for row in chosen],
        id="shortlist-table",
    )
    viewer = element("aside", _viewer(), class_="viewer")
    return join(
        [
            gradients(symbols),
            _filter(symbols, len(chosen)),
            element("div", body, viewer, class_="beside"),
            element_legend(symbols),
            _missing_pictures(len(chosen) - len(pictured)),
            _payload(chosen, atoms),
        ]
    )


def _place(row: Candidate) -> tuple[bool, int]:
    return row.rank is None, row.rank or 0


def _missing_pictures(number_missing: int) -> Html:
    if not number_missing:
        return Html()
    return element(
        "p", f"{count(number_missing)} rows have no picture here; the table holds their geometry.", class_="muted"
    )


def _marks(row: Candidate) -> RowMarks:
    elements = " ".join(sorted(row.system)).lower()
    return RowMarks(row.candidate_id, f"{row.formula} {row.prototype} {elements}".lower(), elements)


def _cells(row: Candidate, atoms: Atoms | None, known: Mapping[str, float | None]) -> list[Cell]:
    distance = None if row.hull_distance is None else 1000 * row.hull_distance
    spread = None if row.uncertainty is None else 1000 * row.uncertainty
    dft = known.get(row.candidate_id)
    dft_distance = None if dft is None else 1000 * dft
    dot = element("i", class_=f"key {stability_class(row.hull_distance)}")
    picture = Html() if atoms is None else structure_svg(atoms, 84.0, f"{row.formula}, {row.prototype}")
    return [
        ("–" if row.rank is None else str(row.rank), row.rank),
        (picture, ""),
        (element("b", formula_html(row.formula)), row.formula),
        (row.prototype, row.prototype),
        (str(row.n_atoms), row.n_atoms),
        (join([dot, number(distance, 0, sign=True)]), distance),
        (number(spread, 1), spread),
        (number(row.formation_energy, 3), row.formation_energy),
        (number(dft_distance, 0, sign=True), dft_distance),
    ]


def _filter(symbols: Sequence[str], total: int) -> Html:
    box = element(
        "label", element("span", "Filter"),
        void("input", type="search", id="filter", placeholder="formula, prototype …", autocomplete="off"),
    )  # fmt: skip
    chips = [
        element("button", symbol, type="button", class_="chip", data_element=symbol.lower(), aria_pressed="false")
        for symbol in symbols
    ]
    shown = element("output", f"{total} of {total}", id="shown")
    chosen = element("span", *chips, class_="chips", role="group", aria_label="must contain")
    return element("div", box, chosen, shown, class_="filter")


def _viewer() -> Html:
    said = "Drag to turn, scroll to zoom; arrow keys turn too."
    return join(
        [
            element("canvas", id="crystal", width=640, height=560, tabindex=0, aria_label="crystal model to turn"),
            element("p", "", id="crystal-name"),
            element("p", said, class_="caption"),
        ]
    )


def _payload(chosen: Sequence[Candidate], atoms: Mapping[str, Atoms]) -> Html:
    """Geometry for the viewer as JSON inside the page; `<` is written so that no text can end the script element."""
    symbols = sorted({symbol for row in chosen for symbol in row.system})
    styles = {symbol: [hex_colour(symbol), round(radius(atomic_numbers[symbol]), 3)] for symbol in symbols}
    models = {row.candidate_id: _model(row, atoms[row.candidate_id]) for row in chosen if row.candidate_id in atoms}
    text = json.dumps({"elements": styles, "models": models}, separators=(",", ":")).replace("<", "\\u003c")
    return element("script", Html(text), type="application/json", id="crystals")


def _model(row: Candidate, atoms: Atoms) -> dict[str, object]:
    drawn = crystal(atoms)
    return {
        "name": f"{row.formula} · {row.prototype}",
        "symbols": [chemical_symbols[number] for number in drawn.numbers],
        "positions": np.round(drawn.positions, 3).ravel().tolist(),
        "bonds": drawn.bonds.ravel().tolist(),
        "cell": np.round(drawn.cell, 3).ravel().tolist(),
    }
