"""Scoring a screening against DFT: the same starts, relaxed by the model and by DFT, ranked by formation energy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gnn.dft.label import RELAXED_SUFFIX
from gnn.screening.campaign import DedupeSpec
from gnn.screening.dedupe import Crystal, duplicates
from gnn.screening.metrics import spearman, top_recall
from gnn.structures.record import Record

Floats = NDArray[np.float64]
BEST_SHARE = 0.1
SAME_ENERGY = 2e-3
"""eV/atom: relaxations whose ends are further apart ended in different crystals, however alike they look."""


@dataclass(frozen=True)
class TruthCase:
    """A relaxation by DFT: where it started, where it ended."""

    start: Record
    end: Record


@dataclass(frozen=True)
class TruthScore:
    """How a ranking compares with DFT's: n cases, MAE in eV/atom, None where every prediction failed."""

    n: int
    spearman: float
    best_decile_recall: float
    mae: float | None


def truth_cases(records: Sequence[Record]) -> list[TruthCase]:
    """Converged relaxations among labelled frames."""
    return [case for case in relaxations(records) if is_relaxed(case.end)]


def relaxations(records: Sequence[Record]) -> list[TruthCase]:
    """Relaxations, converged or not; frames of one job share their source digest and keep their order."""
    jobs: dict[str, list[Record]] = {}
    for record in records:
        key = record.source.sha256 if record.source is not None else record.structure_id
        jobs.setdefault(key, []).append(record)
    return [TruthCase(frames[0], frames[-1]) for frames in jobs.values()]


def distinct(cases: Sequence[TruthCase]) -> list[TruthCase]:
    """The first case of each crystal that relaxations ended in.

    Decorations of different lattices are often one crystal (an ordering of fcc is L1_0), or become one as they relax.
    Counted several times, a crystal would fill several places of a ranking.
    """
    ends = (_crystal(str(number), case.end) for number, case in enumerate(cases))
    repeated = duplicates(ends, DedupeSpec(), energy_window=SAME_ENERGY)
    return [case for number, case in enumerate(cases) if str(number) not in repeated]


def _crystal(name: str, end: Record) -> Crystal:
    energy = None if end.energy is None else end.energy / len(end.numbers)
    return Crystal(name, end.numbers, end.positions, end.cell, energy)


def is_relaxed(record: Record) -> bool:
    """Whether a frame is the last of a converged relaxation."""
    return (record.config_type or "").endswith(RELAXED_SUFFIX)


def score(predicted: Floats, true: Floats) -> TruthScore:
    """Rank correlation, recall of the true best decile within the predicted best decile, and MAE.

    Shapes: (n,), (n,), eV/atom; lower is better. A prediction that failed is inf: last in rank, and not in the MAE. A
    decile holds at least one case.
    """
    finite = np.isfinite(predicted)
    return TruthScore(
        n=len(true),
        spearman=spearman(true, predicted),
        best_decile_recall=top_recall(true, predicted, BEST_SHARE),
        mae=float(np.mean(np.abs(predicted - true)[finite])) if finite.any() else None,
    )
