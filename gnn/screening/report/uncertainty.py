"""Energies against uncertainty: where the model is unsure, and what the selection made of it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gnn.screening.report.charts import Frame, figure, padded
from gnn.screening.report.context import ReportContext
from gnn.screening.report.markup import Html, count, element, join
from gnn.screening.report.rows import Candidate, thinned
from gnn.screening.report.stability import stability_class

SIZE = (1130.0, 420.0)
MOST_POINTS = 2500
QUANTILE = 0.985
"""The axes hold this share of the candidates; those beyond are counted."""


def uncertainty_section(context: ReportContext, rows: Sequence[Candidate]) -> Html:
    """Hull distance against the model's uncertainty for every candidate that has both."""
    known = [row for row in rows if row.hull_distance is not None and row.uncertainty is not None]
    if not known:
        return element("p", "The model gives no uncertainty.", class_="muted")
    frame = _frame(known)
    inside = [row for row in known if frame.holds(row.hull_distance or 0.0, row.uncertainty or 0.0)]
    shown = thinned(inside, MOST_POINTS)
    zero = frame.line([(0.0, frame.y.low), (0.0, frame.y.high)], "zero")
    limit = context.facts.stability_threshold
    picture = frame.svg(
        "Hull distance against uncertainty",
        frame.axes("distance to the hull, eV/atom", "uncertainty, eV/atom"),
        zero,
        frame.line([(limit, frame.y.low), (limit, frame.y.high)], "limit") if frame.x.holds(limit) else "",
        join(_dot(frame, row) for row in sorted(shown, key=lambda row: row.shortlisted)),
    )
    return figure(picture, "Distance to the hull against uncertainty", _caption(known, inside, shown, limit))


def _frame(rows: Sequence[Candidate]) -> Frame:
    distances = np.array([row.hull_distance for row in rows], dtype=float)
    spreads = np.array([row.uncertainty for row in rows], dtype=float)
    chosen = np.array([row.shortlisted for row in rows])
    x_low, x_high = padded([float(distances.min()), 0.0, _most(distances, chosen)])
    _, y_high = padded([0.0, _most(spreads, chosen)])
    return Frame.of(*SIZE, (x_low, x_high), (-0.02 * y_high, y_high))


def _most(values: np.ndarray, chosen: np.ndarray) -> float:
    """The upper end of an axis: a high quantile, but every shortlisted candidate is inside."""
    return float(max([np.quantile(values, QUANTILE), *values[chosen]]))


def _dot(frame: Frame, row: Candidate) -> Html:
    kind = stability_class(row.hull_distance) + (" ring" if row.shortlisted else "")
    return frame.dot(
        row.hull_distance or 0.0, row.uncertainty or 0.0, kind, 5.0 if row.shortlisted else 2.8, row.tip,
        row.candidate_id if row.shortlisted else None,
    )  # fmt: skip


def _caption(known: Sequence[Candidate], inside: Sequence[Candidate], shown: Sequence[Candidate], limit: float) -> str:
    said = [
        f"{count(len(known))} candidates; dashed: {1000 * limit:.0f} meV/atom, up to which a candidate is worth its DFT"
    ]
    if len(inside) < len(known):
        said.append(f"{count(len(known) - len(inside))} beyond the axes")
    if len(shown) < len(inside):
        said.append(f"{count(len(shown))} drawn")
    return "; ".join(said)
