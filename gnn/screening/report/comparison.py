"""The model against DFT on the campaign's own candidates: formation energy, stability, the worth of uncertainties."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from gnn.screening.metrics import stability_metrics
from gnn.screening.report.charts import Frame, figure, padded
from gnn.screening.report.context import DftComparison, ReportContext
from gnn.screening.report.markup import Html, count, element, formula_html, join, number, plain_formula
from gnn.screening.report.parity import SIZE, diagonal, error_words, errors, square
from gnn.screening.report.rows import Candidate
from gnn.screening.report.tables import Cell, Column, table

FEW = 12
"""Tables up to this long stand open."""
COLUMNS = (
    Column("Rank", numeric=True),
    Column("Formula"),
    Column("Prototype"),
    Column("Model, eV/atom", numeric=True),
    Column("DFT, eV/atom", numeric=True),
    Column("Error, meV/atom", numeric=True),
    Column("DFT hull, meV/atom", numeric=True),
    Column("From"),
    Column("In training"),
)

Place = Callable[[DftComparison], tuple[float, float] | None]


def dft_section(context: ReportContext, rows: Sequence[Candidate]) -> Html:
    """What is known, three charts, and the same as a table."""
    points = context.dft
    if not points:
        said = "No candidate has a DFT energy in the lake at the model's level of theory. `sluice label` makes some."
        return element("p", said, class_="muted")
    distances = {row.candidate_id: row.hull_distance for row in rows}
    charts = [_energies(points), _stabilities(points, distances, context.facts.stability_threshold), _spreads(points)]
    return join([_summaries(points), element("div", *charts, class_="grid-of-charts"), _table(points)])


def _summaries(points: Sequence[DftComparison]) -> Html:
    groups = {
        "not seen in training": [point for point in points if not point.in_training],
        "seen in training (proves nothing)": [point for point in points if point.in_training],
    }
    return join(element("p", _summary(name, group)) for name, group in groups.items() if group)


def _summary(name: str, points: Sequence[DftComparison]) -> Html:
    reference = np.array([point.dft_formation_energy_per_atom for point in points])
    predicted = np.array([point.model_formation_energy_per_atom for point in points])
    found = errors(reference, predicted)
    rank = "" if found.spearman is None else f", Spearman {found.spearman:.3f}".replace("-", "−")
    origins = ", ".join(sorted({point.origin for point in points}))
    said = f": {error_words(found, 'eV/atom')}{rank}. From {origins}."
    return join([element("b", f"{count(found.n)} candidates {name}"), said])


def _energies(points: Sequence[DftComparison]) -> Html:
    def place(point: DftComparison) -> tuple[float, float]:
        return point.dft_formation_energy_per_atom, point.model_formation_energy_per_atom

    frame = square(np.array([place(point) for point in points]))
    bars = join(_error_bar(frame, *place(point), point.uncertainty) for point in points)
    picture = frame.svg(
        "Formation energy by the model against DFT",
        frame.axes("DFT formation energy, eV/atom", "model, eV/atom"),
        diagonal(frame),
        bars,
        _marks(frame, points, place),
    )
    return figure(picture, "Formation energy", "Bars: uncertainty. Ringed: shortlisted. Hollow: seen in training.")


def _error_bar(frame: Frame, x: float, y: float, spread: float | None) -> Html:
    if not spread:
        return Html()
    return frame.line([(x, max(y - spread, frame.y.low)), (x, min(y + spread, frame.y.high))], "error")


def _stabilities(points: Sequence[DftComparison], distances: dict[str, float | None], threshold: float) -> Html:
    """Hull distances; the dashed lines part what is worth its DFT from what is not, by DFT and by the model."""

    def place(point: DftComparison) -> tuple[float, float] | None:
        model = distances.get(point.candidate_id)
        return None if model is None or point.dft_hull_distance is None else (point.dft_hull_distance, model)

    places = [found for point in points if (found := place(point)) is not None]
    if not places:
        return Html()
    frame = square(np.array(places))
    limits = [
        frame.line([(threshold, frame.y.low), (threshold, frame.y.high)], "limit"),
        frame.line([(frame.x.low, threshold), (frame.x.high, threshold)], "limit"),
    ]
    picture = frame.svg(
        "Distance to the hull by the model against DFT",
        frame.axes("DFT distance to the hull, eV/atom", "model, eV/atom"),
        diagonal(frame),
        join(limits if frame.x.holds(threshold) else []),
        _marks(frame, points, place),
    )
    unseen = [found for point in points if not point.in_training and (found := place(point)) is not None]
    return figure(picture, "Distance to the hull", stability_words(unseen, threshold))


def stability_words(places: Sequence[tuple[float, float]], threshold: float) -> str:
    """How well hull distances, (DFT, model) in eV/atom, are told to be at most `threshold`."""
    if not places:
        return "All were seen in training."
    true, predicted = np.array(places).T
    found = stability_metrics(true, predicted, threshold)
    side = f"on the right side of {1000 * threshold:.0f} meV/atom (dashed)"
    said = [f"{found.n_right} of {found.n} not seen in training {side}"]
    if found.n_said:
        precise = f"precision {found.precision:.2f}"
        said.append(f"{found.n_found} of {found.n_said} that the model puts below are ({precise})")
    if found.n_stable:
        said.append(f"{found.n_found} of {found.n_stable} below are found (recall {found.recall:.2f})")
    return "; ".join(said)


def _spreads(points: Sequence[DftComparison]) -> Html:
    """The error that was made against the uncertainty that was stated."""

    def place(point: DftComparison) -> tuple[float, float] | None:
        error = abs(point.model_formation_energy_per_atom - point.dft_formation_energy_per_atom)
        return None if point.uncertainty is None else (1000 * point.uncertainty, 1000 * error)

    places = [found for point in points if not point.in_training and (found := place(point)) is not None]
    if not places:
        return Html()
    shown = [point for point in points if place(point) is not None]
    x_high = padded([0.0, *(found[0] for point in shown if (found := place(point)))])[1]
    y_high = padded([0.0, *(found[1] for point in shown if (found := place(point)))])[1]
    frame = Frame.of(*SIZE, (0.0, x_high), (0.0, y_high))
    edge = min(x_high, y_high)
    picture = frame.svg(
        "Error against uncertainty",
        frame.axes("uncertainty, meV/atom", "error, meV/atom"),
        frame.line([(0.0, 0.0), (edge, edge)], "diagonal"),
        _marks(frame, shown, place),
    )
    covered = sum(error <= spread for spread, error in places)
    return figure(picture, "Error against uncertainty", f"{covered} of {len(places)} errors within the uncertainty")


def _marks(frame: Frame, points: Sequence[DftComparison], place: Place) -> Html:
    ordered = sorted(points, key=lambda point: point.shortlisted)
    return join(_mark(frame, point, *found) for point in ordered if (found := place(point)) is not None)


def _mark(frame: Frame, point: DftComparison, x: float, y: float) -> Html:
    kind = "seen" if point.in_training else "plain strong"
    tip = (
        f"{plain_formula(point.formula)} · {point.prototype} · DFT {point.dft_formation_energy_per_atom:.3f}, "
        f"model {point.model_formation_energy_per_atom:.3f} eV/atom · {point.origin}"
    )
    chosen = point.shortlisted
    row = point.candidate_id if chosen else None
    return frame.dot(x, y, f"{kind} ring" if chosen else kind, 5.0 if chosen else 3.4, tip, row)


def _table(points: Sequence[DftComparison]) -> Html:
    ordered = sorted(points, key=lambda point: (not point.shortlisted, point.rank is None, point.rank or 0))
    rows = [_cells(point) for point in ordered]
    summary = element("summary", f"All {len(rows)} as a table")
    return element("details", summary, table(COLUMNS, rows), open=len(rows) <= FEW)


def _cells(point: DftComparison) -> list[Cell]:
    model, dft = point.model_formation_energy_per_atom, point.dft_formation_energy_per_atom
    error = 1000 * (model - dft)
    hull = None if point.dft_hull_distance is None else 1000 * point.dft_hull_distance
    return [
        ("–" if point.rank is None else str(point.rank), point.rank),
        (formula_html(point.formula), point.formula),
        (point.prototype, point.prototype),
        (number(model), model),
        (number(dft), dft),
        (number(error, 0, sign=True), error),
        (number(hull, 0), hull),
        (point.origin, point.origin),
        ("yes" if point.in_training else "no", str(point.in_training)),
    ]
