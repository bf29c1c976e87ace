"""Parity plots: the model on its test split."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gnn.screening.metrics import spearman
from gnn.screening.report.charts import Frame, figure, padded
from gnn.screening.report.context import Parity
from gnn.screening.report.markup import Html, count, element, join

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
        spearman=spearman(reference, predicted) if varies else None,
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
    frame = square(np.concatenate([reference, predicted]))
    dots = [frame.dot(reference[i], predicted[i], "plain", 2.4) for i in shown]
    picture = frame.svg(
        f"Parity of {parity.quantity}",
        frame.axes(f"reference, {parity.unit}", f"model, {parity.unit}"),
        diagonal(frame),
        join(dots),
    )
    more = f"; {count(MOST_POINTS)} drawn" if found.n > MOST_POINTS else ""
    caption = f"{error_words(found, parity.unit)}; {count(found.n)} values{more}"
    return figure(picture, f"{parity.quantity.capitalize()}, {parity.split} split", caption)


def square(values: Floats) -> Frame:
    """A frame with equal axes that hold `values`."""
    low, high = padded([float(values.min()), float(values.max())])
    return Frame.of(*SIZE, (low, high), (low, high))


def diagonal(frame: Frame) -> Html:
    """Where prediction equals reference."""
    return frame.line([(frame.x.low, frame.x.low), (frame.x.high, frame.x.high)], "diagonal")


def error_words(found: Errors, unit: str) -> str:
    """Errors in words, in milli-units where the unit has them."""
    factor, small = (1000.0, MILLI[unit]) if unit in MILLI else (1.0, unit)
    parts = [f"MAE {found.mae * factor:.3g}", f"RMSE {found.rmse * factor:.3g} {small}"]
    if found.r2 is not None:
        parts.append(f"R² {found.r2:.3f}".replace("-", "−"))
    return ", ".join(parts)
