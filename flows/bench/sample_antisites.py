"""Antisites of the sample set: crystals of hidden formulas with one atom too many of one of their elements."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import permutations, product

import numpy as np
from ase import Atoms

from flows.bench.sample_crystals import Decoration, Ordering, distorted, rank, rattled, truth_formulas
from flows.bench.sample_jobs import DEAREST, affordable, cheapest_cell, cost_of
from gnn.dft.label import LabelJob
from gnn.structures.record import reduced_formula

DEAREST_ANTISITE = 1200
"""Rattled cells of eight sites: some eighty seconds."""
REPEATS = {2: (2, 2, 1), 3: (2, 1, 1), 4: (2, 1, 1)}
"""Repeats of a cell of so many sites to at most eight."""


@dataclass(frozen=True)
class Kind:
    """A kind of antisites: volumes over the guess, and whether cells are stretched and atoms moved too."""

    name: str
    scales: tuple[float, float]
    distorted: bool = False


DECORATED = (Kind("antisite", (0.85, 1.25)), Kind("squeezed-antisite", (0.6, 0.85)))
ORDERED = (Kind("ordering-antisite", (0.78, 1.08)), Kind("distorted-antisite", (0.78, 1.08), distorted=True))
"""Of decorated prototypes, and of orderings on lattices, which go over into each other by stretching."""


def antisite_jobs(pool: list[Decoration], orderings: list[Ordering]) -> list[LabelJob]:
    """Hidden crystals, repeated to eight sites at most, with one atom of another of their kinds.

    The nearest that a cell of this size comes to a formula it must not have. Without them a network has to guess what
    one-to-one neighbours of Li and Si are on a lattice from far compositions, and took some of them for bound that are
    not. Decorations are squeezed as well: NaTl and Heusler lattices relax to 0.8 of their guessed volume, and a network
    that knows nothing below it let them go on to 0.6. Cheapest first, so that no failure of a screening chooses them.
    `orderings`: those of the truth.
    """
    hidden = truth_formulas(pool)
    decorated = [d for d in pool if d.formula in hidden and len(d.prototype.sites) in REPEATS]
    ordered = [ordering for ordering in orderings if sum(ordering.counts) in REPEATS]
    crystals: list[tuple[Kind, Decoration | Ordering]] = [*product(DECORATED, decorated), *product(ORDERED, ordered)]
    jobs = (job for kind, crystal in crystals for job in _antisites(kind, crystal, hidden))
    return sorted(affordable(jobs, DEAREST_ANTISITE), key=cost_of)


def _antisites(kind: Kind, crystal: Decoration | Ordering, hidden: frozenset[str]) -> Iterator[LabelJob]:
    """The cheapest cell for each exchange of one element for another."""
    cells = _repeated(kind, crystal)
    for own, other in permutations(sorted(set(crystal.elements)), 2):
        job = min((_substituted(kind, cell, own, other, crystal) for cell in cells), key=cost_of)
        if reduced_formula(job.atoms().numbers) not in hidden:
            yield job


def _repeated(kind: Kind, crystal: Decoration | Ordering) -> list[Atoms]:
    """Every way to repeat a crystal to at most eight sites, at one random volume."""
    random = np.random.default_rng(rank(f"{kind.name} {crystal.crystal}"))
    unit = crystal.atoms(random.uniform(*kind.scales))
    return [unit.repeat(repeat) for repeat in set(permutations(REPEATS[len(unit)]))]


def _substituted(kind: Kind, cell: Atoms, own: str, other: str, crystal: Decoration | Ordering) -> LabelJob:
    """The cell with the first atom of one element exchanged for another; rattled where symmetry makes it dear."""
    copy = cell.copy()
    copy.symbols[copy.get_chemical_symbols().index(own)] = other
    group, config_type = crystal.crystal, f"{kind.name}-{crystal.lattice}"
    name = f"{kind.name} {group} {own} {other}"
    symmetric = cheapest_cell(distorted(copy, name) if kind.distorted else copy, "static", group, config_type)
    if cost_of(symmetric) <= DEAREST:
        return symmetric
    return cheapest_cell(rattled(copy, name), "static", group, f"{config_type}-rattled")
