"""Hull distance as colour: five classes that the style sheet colours, the same in every chart."""

from __future__ import annotations

from gnn.screening.report.markup import Html, element, join

CLASSES: tuple[tuple[float, str, str], ...] = (
    (-0.001, "s0", "below the hull"),
    (0.025, "s1", "0–25 meV"),
    (0.1, "s2", "25–100 meV"),
    (0.2, "s3", "100–200 meV"),
    (float("inf"), "s4", "above 200 meV"),
)
"""Upper bound of the hull distance (eV/atom), CSS class, words."""


def stability_class(hull_distance: float | None) -> str:
    """The CSS class of a hull distance (eV/atom); `sx` where it is unknown."""
    if hull_distance is None:
        return "sx"
    return next(name for bound, name, _ in CLASSES if hull_distance <= bound)


def legend() -> Html:
    """What the colours mean."""
    keys = [element("span", element("i", class_=f"key {name}"), words) for _, name, words in CLASSES]
    ring = element("span", element("i", class_="key ring"), "shortlisted")
    known = element("span", element("i", class_="key reference"), "reference hull")
    return element("p", join([*keys, ring, known]), class_="legend")
