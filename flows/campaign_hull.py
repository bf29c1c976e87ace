"""The hull that a campaign measures against, and how its manifest keeps it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

from gnn.screening.hull import ReferenceHull
from gnn.screening.manifest import HullEntryRow
from gnn.screening.preparation import Prepared
from gnn.screening.references import dft_hull, model_entries

if TYPE_CHECKING:
    from flows.screen import Campaign
    from gnn.screening.gather import Inputs


def reference_hull(inputs: Inputs, elements: Collection[str]) -> tuple[ReferenceHull, list[str]]:
    """The lake's fixed hull at the model's theory, and remarks.

    Raises:
        InputError: no element has a reference.
    """
    return dft_hull(inputs.lake, inputs.versions, inputs.model.theory, elements)


def remarks(campaign: Campaign, ready: Prepared) -> list[str]:
    """What is to be known of lake and hull before anything is relaxed.

    Raises:
        InputError: no element of the candidates has a reference.
    """
    if campaign.spec.hull.reference == "dft":
        return novelty_remarks(campaign) + reference_hull(campaign.inputs, known_elements(campaign, ready))[1]
    return novelty_remarks(campaign)


def novelty_remarks(campaign: Campaign) -> list[str]:
    """Whether known crystals are to be dropped, and none are looked for."""
    if not campaign.spec.filters.novel_only or campaign.inputs.versions:
        return []
    return [
        f"filters.novel_only drops nothing: no data set of the lake holds {campaign.model.theory}; name those to look"
        " for known crystals in under hull.datasets"
    ]


def known_elements(campaign: Campaign, ready: Prepared) -> frozenset[str]:
    """Elements of the candidates that the model knows."""
    return ready.elements & set(campaign.model.elements)


def hull_of(
    campaign: Campaign, ready: Prepared, results: Mapping[str, dict[str, Any]]
) -> tuple[ReferenceHull, list[str]]:
    """The hull that the campaign asks for, and remarks on what it lacks."""
    elements = known_elements(campaign, ready)
    if campaign.spec.hull.reference == "dft":
        return reference_hull(campaign.inputs, elements)
    theory, filters = campaign.model.theory, campaign.spec.filters
    entries, left_out = model_entries(ready.references.values(), results, theory, filters)
    hull = ReferenceHull(entries)
    notes = []
    if missing := hull.missing(elements):
        notes.append(
            f"the model relaxed no reference of {', '.join(missing)}: candidates that hold them get no hull distance"
        )
    if left_out:
        counted = ", ".join(f"{n} {reason}" for reason, n in sorted(Counter(left_out.values()).items()))
        notes.append(f"structures that are no references of the model's hull: {counted}")
    return hull, notes


def hull_rows(hull: ReferenceHull) -> list[HullEntryRow]:
    """The reference entries as the manifest keeps them."""
    rows = []
    for entry in hull.entries:
        counts = dict(entry.composition)
        missing = hull.missing(counts)
        rows.append(
            HullEntryRow(
                name=entry.name,
                composition=counts,
                energy_per_atom=entry.energy_per_atom,
                formation_energy_per_atom=None if missing else hull.formation_energy(counts, entry.energy_per_atom),
                source=entry.source,
            )
        )
    return rows
