"""Parity plots: the model on its test split, and the model against DFT on this campaign's candidates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr

from gnn.screening.report.charts import Frame, figure, padded
from gnn.screening.report.context import DftComparison, Parity
from gnn.screening.report.markup import Html, count, element, formula_html, join, number
from gnn.screening.report.tables import Column, table

Floats = NDArray[np.float64]
SIZE = (360.0, 340.0)
MOST_POINTS = 1500
SEED = 7
MILLI = {"eV/atom": "meV/atom", "eV/Å": "meV/Å"}


@dataclass(frozen=True)
class Errors:
    """MAE and RMSE in the quantity's unit, R² and Spearman's rank correlation (None where not defined)."""

    n: int
    mae: float
    rmse: float
    r2: float | None
    spearman: float | None


def errors(reference: Floats, predicted: Floats) -> Errors:
    """Errors of predictions, shapes (M,), M ≥ 1; not finite pairs must be gone."""
    difference = predicted - reference
    spread = float(np.sum((reference - reference.mean()) ** 2))
    varies = len(reference) > 2 and np.ptp(reference) > 0 and np.ptp(predicted) > 0
    return Errors(
        n=len(reference),
        mae=float(np.abs(difference).mean()),
        rmse=float(np.sqrt((difference**2).mean())),
        r2=1 - float((difference**2).sum()) / spread if spread > 0 else None,
        spearman=float(spearmanr(reference, predicted).statistic) if varies else None,
    )


def parity_section(parities: Sequence[Parity]) -> Html:
    """One plot a quantity."""
    pictures = [parity_figure(parity) for parity in parities if _clean(parity)[0].size]
    if not pictures:
        return element("p", "The checkpoint holds no parity of its test split.", class_="muted")
    return element("div", *pictures, class_="grid-of-charts")


def _clean(parity: Parity) -> tuple[Floats, Floats]:
    reference, predicted = np.ravel(parity.reference).astype(float), np.ravel(parity.predicted).astype(float)
    good = np.isfinite(reference) & np.isfinite(predicted)
    return reference[good], predicted[good]


def parity_figure(parity: Parity) -> Html:
    """Predicted against reference values; an even sample where there are many."""
    reference, predicted = _clean(parity)
    found = errors(reference, predicted)
    shown = np.arange(found.n)
    if found.n > MOST_POINTS:
        shown = np.random.default_rng(SEED).choice(found.n, MOST_POINTS, replace=False)
    frame = _square(np.concatenate([reference, predicted]))
    dots = [frame.dot(reference[i], predicted[i], "plain", 2.4) for i in shown]
    picture = frame.svg(
        f"Parity of {parity.quantity}",
        frame.axes(f"reference, {parity.unit}", f"model, {parity.unit}"),
        _diagonal(frame),
        join(dots),
    )
    more = f"; {count(MOST_POINTS)} drawn" if found.n > MOST_POINTS else ""
    caption = f"{_words(found, parity.unit)}; {count(found.n)} values{more}"
    return figure(picture, f"{parity.quantity.capitalize()}, {parity.split} split", caption)


def _square(values: Floats) -> Frame:
    low, high = padded([float(values.min()), float(values.max())])
    return Frame.of(*SIZE, (low, high), (low, high))


def _diagonal(frame: Frame) -> Html:
    return frame.line([(frame.x.low, frame.x.low), (frame.x.high, frame.x.high)], "diagonal")


def _words(found: Errors, unit: str) -> str:
    factor, small = (1000.0, MILLI[unit]) if unit in MILLI else (1.0, unit)
    parts = [f"MAE {found.mae * factor:.3g}", f"RMSE {found.rmse * factor:.3g} {small}"]
    if found.r2 is not None:
        parts.append(f"R² {found.r2:.3f}".replace("-", "−"))
    return ", ".join(parts)


def dft_section(points: Sequence[DftComparison]) -> Html:
    """Formation energies by the model against DFT, and the same as a table."""
    if not points:
        said = "No candidate has a DFT energy in the lake at the model's level of theory. `sluice label` makes some."
        return element("p", said, class_="muted")
    groups = [("not seen in training", [p for p in points if not p.in_training])]
    groups.append(("seen in training (proves nothing)", [p for p in points if p.in_training]))
    summaries = [element("p", _group_words(name, group)) for name, group in groups if group]
    chart = element("div", _dft_figure(points), class_="grid-of-charts")
    return join([*summaries, chart, _dft_table(points)])


def _group_words(name: str, points: Sequence[DftComparison]) -> Html:
    reference = np.array([point.dft_formation_energy_per_atom for point in points])
    predicted = np.array([point.model_formation_energy_per_atom for point in points])
    found = errors(reference, predicted)
    rank = "" if found.spearman is None else f", Spearman {found.spearman:.3f}".replace("-", "−")
    origins = ", ".join(sorted({point.origin for point in points}))
    said = f": {_words(found, 'eV/atom')}{rank}. From {origins}."
    return join([element("b", f"{count(found.n)} candidates {name}"), said])


def _dft_figure(points: Sequence[DftComparison]) -> Html:
    values = [(p.dft_formation_energy_per_atom, p.model_formation_energy_per_atom) for p in points]
    frame = _square(np.array(values))
    marks = [_dft_mark(frame, point) for point in sorted(points, key=lambda p: p.shortlisted)]
    picture = frame.svg(
        "Formation energy by the model against DFT",
        frame.axes("DFT formation energy, eV/atom", "model, eV/atom"),
        _diagonal(frame),
        join(marks),
    )
    return figure(
        picture, "Formation energy", "Bars: the model's uncertainty. Ringed: shortlisted. Hollow: seen in training."
    )


def _dft_mark(frame: Frame, point: DftComparison) -> Html:
    x, y = point.dft_formation_energy_per_atom, point.model_formation_energy_per_atom
    kind = "seen" if point.in_training else "plain strong"
    tip = f"{point.formula} · {point.prototype} · DFT {x:.3f} · model {y:.3f} eV/atom · {point.origin}"
    dot = frame.dot(x, y, f"{kind} ring" if point.shortlisted else kind, 5.0 if point.shortlisted else 3.4, tip)
    if not point.uncertainty:
        return dot
    low, high = max(y - point.uncertainty, frame.y.low), min(y + point.uncertainty, frame.y.high)
    return join([frame.line([(x, low), (x, high)], "error"), dot])


def _dft_table(points: Sequence[DftComparison]) -> Html:
    ordered = sorted(points, key=lambda p: (not p.shortlisted, p.rank is None, p.rank or 0))
    columns = [
        Column("Rank", numeric=True), Column("Formula"), Column("Prototype"), Column("Model, eV/atom", numeric=True),
        Column("DFT, eV/atom", numeric=True), Column("Error, meV/atom", numeric=True),
        Column("DFT hull, meV/atom", numeric=True), Column("From"), Column("In training"),
    ]  # fmt: skip
    rows = [_dft_row(point) for point in ordered]
    return element(
        "details", element("summary", f"All {len(rows)} as a table"), table(columns, rows), open=len(rows) <= 12
    )


def _dft_row(point: DftComparison) -> list[tuple[Html | str, float | str | None]]:
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
