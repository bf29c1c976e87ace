"""Antisites of the sample set: crystals of hidden formulas with one atom too many of one of their elements."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice, permutations

import numpy as np
from ase import Atoms

from flows.bench.sample_crystals import Decoration, Ordering, rank, rattled, truth_formulas
from flows.bench.sample_hidden import truth_orderings
from flows.bench.sample_jobs import DEAREST, affordable, cheapest_cell, cost_of
from gnn.dft.label import LabelJob
from gnn.structures.record import reduced_formula

DEAREST_ANTISITE = 1200
"""Rattled cells of eight sites: some eighty seconds."""
ANTISITE_SCALES = {"antisite": (0.85, 1.25), "squeezed-antisite": (0.6, 0.85), "ordering-antisite": (0.78, 1.08)}
EXCHANGES_AN_ORDERING = 2
LARGEST_REPEATED = 4
REPEATS = {2: (2, 2, 1), 3: (2, 1, 1), 4: (2, 1, 1)}
"""Repeats of a cell of so many sites to at most eight."""


def antisite_jobs(pool: list[Decoration]) -> list[LabelJob]:
    """Hidden crystals, repeated to eight sites at most, with one atom of another of their kinds.

    The nearest that a cell of this size comes to a formula it must not have. Without them a network has to guess what
    one-to-one neighbours of Li and Si are on a lattice from far compositions, and took some of them for bound that are
    not. Decorations are squeezed as well: NaTl and Heusler lattices relax to 0.8 of their guessed volume, and a network
    that knows nothing below it let them go on to 0.6. Cheapest first, so that no failure of a screening chooses them.
    """
    hidden = truth_formulas(pool)
    decorated = [d for d in pool if d.formula in hidden and len(d.prototype.sites) <= LARGEST_REPEATED]
    ordered = [ordering for ordering in truth_orderings(pool) if sum(ordering.counts) <= LARGEST_REPEATED]
    kinds = ("antisite", "squeezed-antisite")
    jobs = [
        *(job for kind in kinds for d in decorated for job in _antisites(kind, d, hidden)),
        *(job for o in ordered for job in islice(_antisites("ordering-antisite", o, hidden), EXCHANGES_AN_ORDERING)),
    ]
    return sorted(affordable(jobs, DEAREST_ANTISITE), key=cost_of)


def _antisites(kind: str, crystal: Decoration | Ordering, hidden: frozenset[str]) -> Iterator[LabelJob]:
    """The cheapest cell for each exchange of one element for another, in a random order."""
    cells = _repeated(kind, crystal)
    exchanges = permutations(sorted(set(crystal.elements)), 2)
    for own, other in sorted(exchanges, key=lambda pair: rank(f"exchange {crystal.crystal} {pair}")):
        job = min((_substituted(kind, cell, own, other, crystal) for cell in cells), key=cost_of)
        if reduced_formula(job.atoms().numbers) not in hidden:
            yield job


def _repeated(kind: str, crystal: Decoration | Ordering) -> list[Atoms]:
    """Every way to repeat a crystal to at most eight sites, at one random volume."""
    random = np.random.default_rng(rank(f"{kind} {crystal.crystal}"))
    unit = crystal.atoms(random.uniform(*ANTISITE_SCALES[kind]))
    return [unit.repeat(repeat) for repeat in set(permutations(REPEATS[len(unit)]))]


def _substituted(kind: str, cell: Atoms, own: str, other: str, crystal: Decoration | Ordering) -> LabelJob:
    """The cell with the first atom of one element exchanged for another; rattled where symmetry makes it dear."""
    copy = cell.copy()
    copy.symbols[copy.get_chemical_symbols().index(own)] = other
    group, config_type = crystal.crystal, f"{kind}-{crystal.lattice}"
    symmetric = cheapest_cell(copy, "static", group, config_type)
    if cost_of(symmetric) <= DEAREST:
        return symmetric
    return cheapest_cell(rattled(copy, f"{kind} {group} {own} {other}"), "static", group, f"{config_type}-rattled")
