"""Parity plots of a training: labels against predictions."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gnn.training.evaluation import Parity

MOST_POINTS = 20_000


def parity_plot(parity: Parity, folder: Path, split: str) -> list[Path]:
    """One PNG for energies, one for forces, one for each property that was labelled; the paths."""
    folder.mkdir(parents=True, exist_ok=True)
    return [draw(label, predicted, folder / f"{split}_{name}.png", f"{name} ({unit})", f"{split} split")
            for name, unit, label, predicted in panels(parity) if len(label)]  # fmt: skip


def panels(parity: Parity) -> Iterator[tuple[str, str, Any, Any]]:
    """Name, unit, label and prediction of everything that can be drawn."""
    yield "energy", "eV/atom", parity.energy_label, parity.energy_predicted
    yield "forces", "eV/Å", parity.force_label, parity.force_predicted
    for name, (label, predicted) in parity.properties.items():
        yield "".join(c if c.isalnum() else "_" for c in name), "its unit", label, predicted


def draw(label: NDArray[Any], predicted: NDArray[Any], path: Path, axis: str, title: str) -> Path:
    """A scatter of predictions against labels with the diagonal and the errors."""
    import numpy as np
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    error = predicted - label
    step = max(1, len(label) // MOST_POINTS)
    figure = Figure(figsize=(4.5, 4.5), dpi=130, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.scatter(label[::step], predicted[::step], s=4, alpha=0.4, linewidths=0, color="#2b6cb0")
    low, high = float(min(label.min(), predicted.min())), float(max(label.max(), predicted.max()))
    axes.plot([low, high], [low, high], color="#444444", linewidth=0.8)
    axes.set(xlabel=f"DFT {axis}", ylabel=f"model {axis}", title=title)
    mae, rmse = float(np.abs(error).mean()), float(np.sqrt(np.square(error).mean()))
    axes.text(0.04, 0.94, f"MAE {mae:.4g}\nRMSE {rmse:.4g}\nn {len(label)}", transform=axes.transAxes, va="top")
    figure.savefig(path)
    return path
