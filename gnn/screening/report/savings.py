"""What the campaign saves: how much goes to DFT, and how much of that is likely wasted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gnn.screening.report.context import DftComparison, ReportContext
from gnn.screening.report.markup import Html, count, element, join, share
from gnn.screening.report.rows import Candidate


@dataclass(frozen=True)
class Waste:
    """Of `n_known` candidates whose DFT energy is known, `n_wasted` lie above the threshold by DFT."""

    n_known: int
    n_wasted: int

    @property
    def share(self) -> float | None:
        """Wasted share; None where nothing is known."""
        return self.n_wasted / self.n_known if self.n_known else None


@dataclass(frozen=True)
class Savings:
    """Counts behind the report's first sentence.

    shortlisted: waste among the shortlisted. alike: among candidates with DFT that the model puts as low as the
    shortlist's least stable. at_random: among all with DFT, whatever the model says: what picking blindly would waste.
    """

    n_candidates: int
    n_shortlist: int
    threshold: float
    shortlisted: Waste
    alike: Waste
    at_random: Waste

    @property
    def saved(self) -> float:
        """Share of the candidates that need no DFT."""
        return 1 - self.n_shortlist / self.n_candidates if self.n_candidates else 0.0


def savings(context: ReportContext, rows: Sequence[Candidate]) -> Savings:
    """Count them."""
    chosen = [row for row in rows if row.shortlisted]
    deepest = max((row.hull_distance for row in chosen if row.hull_distance is not None), default=None)
    predicted = {row.candidate_id: row.hull_distance for row in rows}
    threshold = context.facts.stability_threshold
    honest = [point for point in context.dft if point.dft_hull_distance is not None and not point.in_training]
    alike = [
        point
        for point in honest
        if deepest is not None and (distance := predicted.get(point.candidate_id)) is not None and distance <= deepest
    ]
    return Savings(
        n_candidates=context.facts.n_candidates,
        n_shortlist=len(chosen),
        threshold=threshold,
        shortlisted=_waste([point for point in honest if point.shortlisted], threshold),
        alike=_waste(alike, threshold),
        at_random=_waste(honest, threshold),
    )


def _waste(points: Sequence[DftComparison], threshold: float) -> Waste:
    wasted = sum((point.dft_hull_distance or 0.0) > threshold for point in points)
    return Waste(len(points), wasted)


def savings_sentence(found: Savings) -> Html:
    """The sentence that every report prints."""
    first = join(
        [
            element("b", count(found.n_shortlist)),
            f" of {count(found.n_candidates)} candidates go to DFT: ",
            element("b", share(found.saved)),
            " of the expensive work is saved.",
        ]
    )
    return join([first, " ", _waste_sentence(found)])


def _waste_sentence(found: Savings) -> Html:
    limit = f"{1000 * found.threshold:.0f} meV/atom above the hull"
    if (measured := found.shortlisted.share) is not None:
        known = found.shortlisted
        said = (
            f"DFT is known for {known.n_known} of the shortlisted: {known.n_wasted} lie more than {limit}, "
            f"so {share(measured)} of that work is wasted"
        )
    elif (expected := found.alike.share) is not None:
        known = found.alike
        said = (
            f"No DFT energy of the shortlist is known yet; of {known.n_known} candidates with known DFT that the model "
            f"puts as low, {known.n_wasted} lie more than {limit}: expect {share(expected)} of the work to be wasted"
        )
    else:
        return Html("No DFT energy of these candidates is known yet, so the wasted share cannot be told.")
    blind = found.at_random.share
    beside = f" ({share(blind)} if picked blindly, from {found.at_random.n_known} with known DFT)." if blind else "."
    return join([said, beside])
