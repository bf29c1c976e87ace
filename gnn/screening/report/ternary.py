"""The hull of each ternary: a composition triangle with tie lines, coloured by stability."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import ConvexHull, QhullError

from gnn.screening.report.charts import figure, svg
from gnn.screening.report.context import HullEntry, without_reference
from gnn.screening.report.markup import Html, count, element, join, void
from gnn.screening.report.rows import Candidate
from gnn.screening.report.stability import stability_class

Floats = NDArray[np.float64]
WIDTH, HEIGHT = 400.0, 332.0
SIDE = 310.0
LEFT, BOTTOM = 45.0, 302.0
ROOT3_HALF = 3**0.5 / 2


def place(a: float, b: float, c: float) -> tuple[float, float]:
    """Pixels of a composition (shares a, b, c of the lower left, lower right and upper corner)."""
    total = a + b + c
    return LEFT + SIDE * (b + c / 2) / total, BOTTOM - SIDE * ROOT3_HALF * c / total


def ternary_section(
    systems: Sequence[tuple[str, ...]], rows: Sequence[Candidate], entries: Sequence[HullEntry]
) -> Html:
    """All ternaries."""
    if not systems:
        return Html()
    pictures = [ternary_figure(system, rows, entries) for system in systems]
    heading = element("h3", "Ternaries")
    said = element(
        "p", "The most stable candidate at each composition; lines join phases that coexist on the reference hull."
    )
    return join([heading, said, element("div", *pictures, class_="grid-of-charts")])


def ternary_figure(system: tuple[str, ...], rows: Sequence[Candidate], entries: Sequence[HullEntry]) -> Html:
    """One triangle."""
    inside = [row for row in rows if row.is_within(system) and row.hull_distance is not None]
    names, shares, energies = _reference(system, entries)
    missing = without_reference(system, entries)
    absent = {system.index(symbol) for symbol in missing}
    stable, ties = tie_lines(shares, energies)
    best = _best_by_composition(inside, system)
    picture = svg(
        WIDTH,
        HEIGHT,
        f"Ternary hull of {'-'.join(system)}",
        _triangle(system),
        join(_tie(shares[i], shares[j]) for i, j in ties if absent.isdisjoint((i, j))),
        join(_mark(row, system) for row in sorted(best, key=lambda row: (row.shortlisted, -(row.hull_distance or 0)))),
        join(_vertex(shares[index], names[index]) for index in sorted(stable - absent)),
    )
    said = f"{count(len(inside))} candidates at {count(len(best))} compositions"
    unknown = f"; no reference of {', '.join(missing)}" if missing else ""
    return figure(picture, "–".join(system), said + unknown)


def _reference(system: tuple[str, ...], entries: Sequence[HullEntry]) -> tuple[list[str], Floats, Floats]:
    """Names, shares (M, 3) and formation energies (M,) of elements and of the entries inside the system."""
    names, shares, energies = list(system), list(np.eye(3)), [0.0, 0.0, 0.0]
    for entry in entries:
        if len(entry.elements) > 1 and entry.elements <= set(system):
            amounts = np.array([entry.composition.get(symbol, 0.0) for symbol in system])
            names.append(entry.name)
            shares.append(amounts / amounts.sum())
            energies.append(entry.formation_energy_per_atom)
    return names, np.array(shares), np.array(energies)


def tie_lines(shares: Floats, energies: Floats) -> tuple[set[int], set[tuple[int, int]]]:
    """Stable entries and the pairs of them that a tie line joins: edges of the lower convex hull.

    Shapes: shares (M, 3) with rows that sum to 1, energies (M,), the three elements first with energy 0.
    """
    corners = ({0, 1, 2}, {(0, 1), (0, 2), (1, 2)})
    if not (energies < 0).any():
        return corners
    points = np.column_stack([shares[:, :2], np.minimum(energies, 1.0)])
    try:
        hull = ConvexHull(points)
    except QhullError:
        return corners
    lower = hull.simplices[hull.equations[:, 2] < -1e-9]
    edges = {tuple(sorted((int(f[i]), int(f[j])))) for f in lower for i, j in ((0, 1), (0, 2), (1, 2))}
    return {index for edge in edges for index in edge}, {(i, j) for i, j in edges}


def _best_by_composition(rows: Sequence[Candidate], system: tuple[str, ...]) -> list[Candidate]:
    best: dict[tuple[float, ...], Candidate] = {}
    for row in rows:
        key = tuple(round(row.fraction(symbol), 6) for symbol in system)
        if key not in best or _order(row) < _order(best[key]):
            best[key] = row
    return list(best.values())


def _order(row: Candidate) -> tuple[bool, float]:
    return not row.shortlisted, row.hull_distance if row.hull_distance is not None else float("inf")


def _triangle(system: tuple[str, ...]) -> Html:
    corners = [place(1, 0, 0), place(0, 1, 0), place(0, 0, 1)]
    outline = void("polygon", class_="triangle", points=" ".join(f"{x:.1f},{y:.1f}" for x, y in corners))
    grid = [_tie(np.array(a), np.array(b), "grid") for a, b in _grid_lines()]
    moves = ((-8.0, 18.0, "end"), (8.0, 18.0, "start"), (0.0, -12.0, "middle"))
    letters = [
        element("text", symbol, class_=f"corner {anchor}", x=x + dx, y=y + dy)
        for symbol, (x, y), (dx, dy, anchor) in zip(system, corners, moves, strict=True)
    ]
    return join([*grid, outline, *letters])


def _grid_lines() -> list[tuple[tuple[float, float, float], tuple[float, float, float]]]:
    lines = []
    for share in (0.25, 0.5, 0.75):
        rest = 1 - share
        lines.append(((share, rest, 0.0), (share, 0.0, rest)))
        lines.append(((rest, share, 0.0), (0.0, share, rest)))
        lines.append(((rest, 0.0, share), (0.0, rest, share)))
    return lines


def _tie(start: Floats, end: Floats, class_: str = "tie") -> Html:
    (x1, y1), (x2, y2) = place(*start), place(*end)
    return void("line", class_=class_, x1=x1, y1=y1, x2=x2, y2=y2)


def _mark(row: Candidate, system: tuple[str, ...]) -> Html:
    a, b, c = (row.fraction(symbol) for symbol in system)
    x, y = place(a, b, c)
    kind = stability_class(row.hull_distance) + (" ring" if row.shortlisted else "")
    return void(
        "circle", class_=kind, cx=x, cy=y, r=6.5 if row.shortlisted else 5.0, data_tip=row.tip,
        data_row=row.candidate_id if row.shortlisted else None,
    )  # fmt: skip


def _vertex(share: Floats, name: str) -> Html:
    x, y = place(*share)
    return void("circle", class_="vertex", cx=x, cy=y, r=3.5, data_tip=f"{name} · reference")
