"""The funnel: how many candidates each stage let through, and why it dropped the others."""

from __future__ import annotations

from collections.abc import Sequence

from gnn.screening.report.context import FunnelRow
from gnn.screening.report.markup import Html, count, element, join, share

SMALLEST_BAR = 0.4
"""Percent of the width that a bar keeps, so that a few of many remain visible."""


def funnel_section(stages: Sequence[FunnelRow]) -> Html:
    """One bar a stage: what went on, what was dropped, and the reasons in words."""
    if not stages:
        return element("p", "No stage has run.", class_="muted")
    widest = max(1, max(stage.n_in for stage in stages))
    return element("ol", *(_stage(stage, widest) for stage in stages), class_="funnel")


def _stage(stage: FunnelRow, widest: int) -> Html:
    kept = _percent(stage.n_out, widest)
    lost = _percent(stage.n_in - stage.n_out, widest)
    bar = element(
        "div",
        element("span", class_="kept", style=f"width:{kept:.2f}%"),
        element("span", class_="lost", style=f"width:{lost:.2f}%"),
        class_="bar",
    )
    head = element(
        "div",
        element("span", stage.stage.replace("_", " "), class_="stage"),
        element("span", element("b", count(stage.n_out)), f" of {count(stage.n_in)}", _passed(stage), class_="figures"),
        class_="head",
    )
    return element("li", head, bar, _reasons(stage), class_="idle" if stage.n_in == stage.n_out else None)


def _passed(stage: FunnelRow) -> Html:
    if not stage.n_in or stage.n_in == stage.n_out:
        return Html()
    return element("span", f" · {share(stage.n_out / stage.n_in)}", class_="muted")


def _percent(number: int, widest: int) -> float:
    return max(SMALLEST_BAR, 100 * number / widest) if number > 0 else 0.0


def _reasons(stage: FunnelRow) -> Html:
    unexplained = stage.n_in - stage.n_out - sum(stage.rejected.values())
    if not stage.rejected and not unexplained:
        return Html()
    ordered = sorted(stage.rejected.items(), key=lambda item: -item[1])
    parts = [element("span", element("b", count(number)), f" {reason}") for reason, number in ordered]
    if unexplained:
        parts.append(element("span", element("b", count(unexplained)), " without a reason", class_="bad"))
    return element("p", join(parts), class_="reasons")
