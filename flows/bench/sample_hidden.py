"""The truth part of the sample set: relaxations of crystals whose formula occurs nowhere in the training part."""

from __future__ import annotations

from itertools import islice

from flows.bench.sample_crystals import (
    Decoration,
    Ordering,
    dealt_decorations,
    dealt_orderings,
    new_crystals,
    truth_formulas,
)
from flows.bench.sample_jobs import CHEAP, cheapest_cell, cost_of
from gnn.dft.label import LabelJob

LARGEST_TRUTH_CELL = 5
N_TRUTH_COMPOUNDS, N_TRUTH_ORDERINGS = 110, 80


def truth_jobs(pool: list[Decoration], orderings: list[Ordering]) -> list[LabelJob]:
    """Relaxations of compounds and of `truth_orderings`, whose formulas occur nowhere in the training part."""
    dealt = dealt_decorations(_truth_compounds(pool), N_TRUTH_COMPOUNDS)
    return [*map(_truth_job, dealt), *map(_truth_job, orderings)]


def truth_orderings(pool: list[Decoration]) -> list[Ordering]:
    """Cheap orderings of hidden formulas that are crystals of their own.

    Many are a compound prototype, or each other with elements exchanged.
    """
    hidden = truth_formulas(pool)
    dealt = dealt_orderings(lambda formula: formula in hidden)
    crystals = new_crystals(dealt, [decoration.atoms() for decoration in _truth_compounds(pool)])
    cheap = (ordering for ordering in crystals if cost_of(_truth_job(ordering)) <= CHEAP)
    return list(islice(cheap, N_TRUTH_ORDERINGS))


def _truth_compounds(pool: list[Decoration]) -> list[Decoration]:
    hidden = truth_formulas(pool)
    return [d for d in pool if d.formula in hidden and len(d.prototype.sites) <= LARGEST_TRUTH_CELL]


def _truth_job(crystal: Decoration | Ordering) -> LabelJob:
    return cheapest_cell(crystal.atoms(), "relax", crystal.formula, f"truth-{crystal.lattice}")
