"""Scoring a screening against DFT: the same starts, relaxed by the model and by DFT, ranked by formation energy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from ase.data import chemical_symbols
from numpy.typing import NDArray
from scipy.stats import spearmanr

from gnn.errors import InputError
from gnn.structures.record import Record

Floats = NDArray[np.float64]
RELAXED_SUFFIX = "-relaxed"
BEST_SHARE = 0.1


@dataclass(frozen=True)
class TruthCase:
    """A relaxation by DFT: where it started, where it ended."""

    start: Record
    end: Record


@dataclass(frozen=True)
class TruthScore:
    """How a ranking compares with DFT's: n cases, MAE in eV/atom."""

    n: int
    spearman: float
    best_decile_recall: float
    mae: float


def truth_cases(records: Sequence[Record]) -> list[TruthCase]:
    """Converged relaxations among labelled frames; frames of one job share their source digest and keep their order."""
    jobs: dict[str, list[Record]] = {}
    for record in records:
        key = record.source.sha256 if record.source is not None else record.structure_id
        jobs.setdefault(key, []).append(record)
    return [TruthCase(frames[0], frames[-1]) for frames in jobs.values() if _is_relaxed(frames[-1])]


def _is_relaxed(record: Record) -> bool:
    return (record.config_type or "").endswith(RELAXED_SUFFIX)


def elemental_references(records: Sequence[Record]) -> dict[str, float]:
    """Lowest energy per atom (eV) of each element among periodic records of one element."""
    lowest: dict[str, float] = {}
    for record in records:
        if record.energy is None or not record.is_bulk or len(set(record.numbers.tolist())) > 1:
            continue
        symbol = chemical_symbols[record.numbers[0]]
        lowest[symbol] = min(lowest.get(symbol, np.inf), record.energy / record.n_atoms)
    return lowest


def formation_energy(numbers: Sequence[int], energy: float, references: Mapping[str, float]) -> float:
    """Formation energy (eV/atom) of a total energy (eV) against elemental energies (eV/atom).

    Raises:
        InputError: an element has no reference.
    """
    symbols = [chemical_symbols[number] for number in numbers]
    missing = sorted(set(symbols) - set(references))
    if missing:
        raise InputError(f"no reference energy for {', '.join(missing)}; add elemental structures of the same theory")
    return (energy - sum(references[symbol] for symbol in symbols)) / len(symbols)


def score(predicted: Floats, true: Floats) -> TruthScore:
    """Rank correlation, recall of the true best decile within the predicted best decile, and MAE.

    Shapes: (n,), (n,), eV/atom; lower is better. A decile holds at least one case.
    """
    best = max(1, round(BEST_SHARE * len(true)))
    true_best = set(np.argsort(true, kind="stable")[:best].tolist())
    predicted_best = set(np.argsort(predicted, kind="stable")[:best].tolist())
    return TruthScore(
        n=len(true),
        spearman=float(spearmanr(predicted, true).statistic),
        best_decile_recall=len(true_best & predicted_best) / best,
        mae=float(np.mean(np.abs(predicted - true))),
    )
