"""The hull of each binary: formation energy against composition, the reference's stable line, and the candidates."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

from gnn.screening.report.charts import Frame, figure, padded
from gnn.screening.report.context import HullEntry, ReportContext, without_reference
from gnn.screening.report.markup import Html, count, element, join, plain_formula
from gnn.screening.report.rows import Candidate, thinned
from gnn.screening.report.stability import legend, stability_class
from gnn.screening.report.ternary import ternary_section

SIZE = (400.0, 300.0)
MOST_POINTS = 400
MOST_SYSTEMS = 30
FLOOR, CEILING = -8.0, 0.25
"""Candidates more than this (eV/atom) from the elements are counted, not drawn; no compound is bound by 8 eV/atom."""

Point = tuple[float, float]


def lower_hull(points: Sequence[Point]) -> list[Point]:
    """The lower convex hull of points, from left to right (Andrew's monotone chain)."""
    hull: list[Point] = []
    for point in sorted(points):
        if hull and hull[-1][0] == point[0]:
            continue
        while len(hull) > 1 and _turns_right(hull[-2], hull[-1], point):
            hull.pop()
        hull.append(point)
    return hull


def _turns_right(a: Point, b: Point, c: Point) -> bool:
    return (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0]) <= 0


def elements_in_order(context: ReportContext, rows: Sequence[Candidate]) -> list[str]:
    """The campaign's elements as given, then what else its candidates hold."""
    given = list(context.facts.elements)
    return given + sorted({symbol for row in rows for symbol in row.system} - set(given))


def hull_section(context: ReportContext, rows: Sequence[Candidate]) -> Html:
    """All binaries, then all ternaries, that have candidates; the busiest first where there are too many."""
    elements = elements_in_order(context, rows)
    binaries, dropped = _busiest(elements, rows, 2)
    pictures = [binary_figure(pair, rows, context.hull_entries) for pair in binaries]
    ternaries, dropped_ternaries = _busiest(elements, rows, 3)
    said = {
        "dft": "Hull of the lake's DFT energies at the model's level of theory; candidates by the model.",
        "model": "Hull and candidates both by the model.",
    }[context.facts.hull_reference]
    return join(
        [
            element("p", said),
            legend(),
            element("div", *pictures, class_="grid-of-charts"),
            _left_out(dropped, "binary"),
            ternary_section(ternaries, rows, context.hull_entries),
            _left_out(dropped_ternaries, "ternary"),
            _more_elements(rows),
        ]
    )


def _busiest(elements: Sequence[str], rows: Sequence[Candidate], size: int) -> tuple[list[tuple[str, ...]], int]:
    """Systems of `size` elements that have candidates, at most `MOST_SYSTEMS`, and how many more there are."""
    weight: dict[frozenset[str], int] = {}
    for row in rows:
        if len(row.system) == size:
            weight[row.system] = weight.get(row.system, 0) + (1000 if row.shortlisted else 1)
    systems = [system for system in combinations(elements, size) if frozenset(system) in weight]
    chosen = set(sorted(systems, key=lambda system: -weight[frozenset(system)])[:MOST_SYSTEMS])
    return [system for system in systems if system in chosen], len(systems) - len(chosen)


def _left_out(number: int, kind: str) -> Html:
    if not number:
        return Html()
    return element(
        "p", f"{number} more {kind} systems have candidates, none of them busier than these.", class_="muted"
    )


def _more_elements(rows: Sequence[Candidate]) -> Html:
    many = sum(len(row.system) > 3 for row in rows)
    if not many:
        return Html()
    return element(
        "p", f"{count(many)} candidates of four and more elements have no plot; they are ranked as all.", class_="muted"
    )


def binary_figure(pair: tuple[str, ...], rows: Sequence[Candidate], entries: Sequence[HullEntry]) -> Html:
    """Formation energy against the share of the second element."""
    first, second = pair
    inside = [row for row in rows if row.is_within(pair) and row.formation_energy is not None]
    missing = without_reference(pair, entries)
    reference = _reference_points(pair, entries, missing)
    frame = _frame(inside, [point for point, _ in reference])
    drawn = [row for row in inside if frame.y.holds(row.formation_energy or 0.0)]
    shown = thinned(drawn, MOST_POINTS)
    line = lower_hull([point for point, _ in reference])
    picture = frame.svg(
        f"Convex hull of {first}-{second}",
        frame.axes(f"atomic share of {second}", "formation energy, eV/atom", _composition_ticks(first, second)),
        join(_dots(frame, shown, second)),
        "" if missing else frame.line(line, "hull"),
        join(frame.dot(x, y, "vertex", 4.0, f"{name} · reference") for (x, y), name in reference if (x, y) in line),
        join(_names(frame, reference, line)),
    )
    said = _caption(inside, len(inside) - len(drawn), len(drawn) - len(shown), missing)
    return figure(picture, f"{first}–{second}", said)


def _composition_ticks(first: str, second: str) -> list[tuple[float, str]]:
    return [(0.0, first), (0.25, "¼"), (0.5, "½"), (0.75, "¾"), (1.0, second)]


def _reference_points(
    pair: tuple[str, ...], entries: Sequence[HullEntry], missing: Sequence[str]
) -> list[tuple[Point, str]]:
    points = [((float(place), 0.0), symbol) for place, symbol in enumerate(pair) if symbol not in missing]
    for entry in entries:
        if entry.elements == set(pair):
            x = entry.composition[pair[1]] / sum(entry.composition.values())
            points.append(((x, entry.formation_energy_per_atom), entry.name))
    return points


def _frame(rows: Sequence[Candidate], reference: Sequence[Point]) -> Frame:
    energies = [row.formation_energy for row in rows if row.formation_energy is not None]
    values = [min(energy, CEILING) for energy in energies if energy > FLOOR] + [y for _, y in reference]
    low, high = padded([*values, 0.04, -0.02], 0.08)
    return Frame.of(*SIZE, (-0.03, 1.03), (low, high))


def _dots(frame: Frame, rows: Sequence[Candidate], second: str) -> list[Html]:
    ordered = sorted(rows, key=lambda row: (row.shortlisted, -(row.hull_distance or 0.0)))
    return [
        frame.dot(
            row.fraction(second),
            row.formation_energy or 0.0,
            stability_class(row.hull_distance) + (" ring" if row.shortlisted else ""),
            5.0 if row.shortlisted else 3.2,
            row.tip,
            row.candidate_id if row.shortlisted else None,
        )
        for row in ordered
    ]


def _names(frame: Frame, reference: Sequence[tuple[Point, str]], line: Sequence[Point]) -> list[Html]:
    """Names of the compounds on the stable line, below their points."""
    return [
        frame.label(*point, plain_formula(name), dy=16)
        for point, name in reference
        if point in line and 0.0 < point[0] < 1.0
    ]


def _caption(inside: Sequence[Candidate], outside: int, thinned_out: int, missing: Sequence[str]) -> str:
    said = [f"{count(len(inside))} candidates"]
    if outside:
        said.append(f"{count(outside)} outside of the frame")
    if thinned_out:
        said.append(f"{count(thinned_out)} not drawn (an even sample of the unstable is)")
    if missing:
        said.append(f"no reference of {', '.join(missing)}")
    return "; ".join(said)
