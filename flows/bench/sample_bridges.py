"""Bridges of the sample set: orderings of compositions between those of the prototypes."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import combinations, zip_longest

from ase.data import atomic_numbers

from flows.bench.sample_crystals import ELEMENTS, Ordering, combined, rank, rattled
from flows.bench.sample_jobs import cheapest_cell, cost_of
from gnn.dft.label import LabelJob
from gnn.structures.record import reduced_formula

BRIDGE_SITES, NARROW_BRIDGE_SITES, BRIDGES_A_PLACE = 5, 7, 2
BRIDGES_LOOKED_AT = 10
"""Orderings of a place whose costs are compared; there are hundreds of seven sites."""


def bridge_jobs(hidden: frozenset[str]) -> list[LabelJob]:
    """Rattled orderings of five sites on fcc and bcc, dealt over every composition of two and three elements.

    The compositions of the prototypes leave gaps where formulas are hidden: Li-Al was known from Li3Al alone. Rattled,
    because GPAW's grid grows where symmetry mixes short and long axes, as it does in these stacks of layers: without
    symmetry a label costs less and has forces.
    """
    orderings = [*combined(BRIDGE_SITES, 2), *combined(BRIDGE_SITES, 3)]
    places = _by_place(ordering for ordering in orderings if ordering.formula not in hidden)
    return _dealt_over_places({place: _bridges(places[place]) for place in places})


def narrow_bridge_jobs(hidden: frozenset[str]) -> list[LabelJob]:
    """The same of seven sites, A4B3 and A3B4 where AB is hidden: as near to it as cells of this size come.

    Extrapolated from A3B2 and A2B3, AB was wrong by 40 to 150 meV/atom.
    """
    gaps = {pair for pair in combinations(ELEMENTS, 2) if reduced_formula([atomic_numbers[e] for e in pair]) in hidden}
    places = _by_place(o for o in combined(NARROW_BRIDGE_SITES, 2) if o.elements in gaps and max(o.counts) == 4)
    return _dealt_over_places({place: _bridges(places[place][:BRIDGES_LOOKED_AT]) for place in places})


Place = tuple[int, int, str, str]
"""Number of elements, sites of the commonest, formula and lattice."""


def _by_place(orderings: Iterable[Ordering]) -> dict[Place, list[Ordering]]:
    """Orderings of one formula and lattice each, in a random order."""
    places: dict[Place, list[Ordering]] = {}
    for ordering in sorted(orderings, key=lambda each: rank(f"bridge {each.derivative.name} {each.elements}")):
        place = (len(ordering.counts), max(ordering.counts), ordering.formula, ordering.lattice)
        places.setdefault(place, []).append(ordering)
    return places


def _dealt_over_places(jobs: dict[Place, list[LabelJob]]) -> list[LabelJob]:
    """Round by round, one of each place."""
    return [job for turn in zip_longest(*(jobs[place] for place in sorted(jobs))) for job in turn if job is not None]


def _bridges(orderings: list[Ordering]) -> list[LabelJob]:
    """The cheapest of them, rattled."""
    jobs = []
    for ordering in orderings:
        atoms = rattled(ordering.atoms(), ordering.crystal)
        jobs.append(cheapest_cell(atoms, "static", ordering.crystal, f"ordering-{ordering.lattice}-rattled"))
    return sorted(jobs, key=cost_of)[:BRIDGES_A_PLACE]
