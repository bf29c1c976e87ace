"""How good a screening is: rank correlation, recall of the best, and Matbench Discovery's measures of stability.

Energies are in eV/atom; lower is better. A missing prediction is NaN and never counts as good.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gnn.errors import InputError

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class StabilityMetrics:
    """Counts of n cases: stable in truth, said to be, and both; `n_right` are on the right side, stable or not.

    Source: Matbench Discovery (Riebesell et al., Nat. Mach. Intell. 2025). A ratio without a denominator is NaN.
    """

    n: int
    n_stable: int
    n_said: int
    n_found: int

    @property
    def n_right(self) -> int:
        """TP + TN."""
        return self.n - self.n_stable - self.n_said + 2 * self.n_found

    @property
    def precision(self) -> float:
        """TP / (TP + FP): how much of what is said to be stable is."""
        return _ratio(self.n_found, self.n_said)

    @property
    def recall(self) -> float:
        """TP / (TP + FN): how much of what is stable is found."""
        return _ratio(self.n_found, self.n_stable)

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall."""
        return _ratio(2 * self.n_found, self.n_said + self.n_stable)

    @property
    def acceleration(self) -> float:
        """Discovery acceleration factor: precision over prevalence, 1 for what is picked blindly."""
        return _ratio(self.precision, _ratio(self.n_stable, self.n))


def _pair(truth: ArrayLike, predicted: ArrayLike) -> tuple[Floats, Floats]:
    """Both as equally long vectors, without rows whose truth is missing."""
    a, b = np.asarray(truth, dtype=float).ravel(), np.asarray(predicted, dtype=float).ravel()
    if a.shape != b.shape:
        raise InputError(f"{a.size} true values cannot be compared with {b.size} predictions")
    known = ~np.isnan(a)
    return a[known], b[known]


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else math.nan


def spearman(truth: ArrayLike, predicted: ArrayLike) -> float:
    """Spearman's rank correlation of rows where both are known, ties by mean rank; NaN for a constant or fewer rows.

    An infinite prediction is known: it comes last in rank.

    Raises:
        InputError: the lengths differ.
    """
    from scipy.stats import spearmanr

    a, b = _pair(truth, predicted)
    both = ~np.isnan(b)
    a, b = a[both], b[both]
    if len(np.unique(a)) < 2 or len(np.unique(b)) < 2:
        return math.nan
    return float(spearmanr(a, b).statistic)


def _share_of_best(values: Floats, k: int) -> Floats:
    """Chance (N,) of each value to be among the k lowest when ties are broken at random."""
    cut = np.partition(values, k - 1)[k - 1]
    below, equal = values < cut, values == cut
    return below + equal * (k - below.sum()) / equal.sum()


def top_recall(truth: ArrayLike, predicted: ArrayLike, share: float = 0.1) -> float:
    """Share of the truly best (lowest) `share` that is among as many predicted best; expected value where ties cut.

    The best are round(share * N) of the N rows whose truth is known, at least one; an infinite prediction is never
    among them. NaN without rows.

    Raises:
        InputError: the lengths differ, or share is not within (0, 1].
    """
    if not 0 < share <= 1:
        raise InputError(f"share {share} is not within (0, 1]")
    a, b = _pair(truth, predicted)
    if not len(a):
        return math.nan
    k = max(1, round(share * len(a)))
    is_known = np.isfinite(b)
    chosen = np.where(is_known, _share_of_best(np.where(is_known, b, np.inf), k), 0.0)
    return float((_share_of_best(a, k) * chosen).sum() / k)


def stability_metrics(truth: ArrayLike, predicted: ArrayLike, threshold: float = 0.0) -> StabilityMetrics:
    """Measures of predicting hull distances (eV/atom) to be at most `threshold`; a missing prediction is unstable.

    Raises:
        InputError: the lengths differ.
    """
    a, b = _pair(truth, predicted)
    is_stable, is_said = a <= threshold, np.nan_to_num(b, nan=np.inf) <= threshold
    return StabilityMetrics(len(a), int(is_stable.sum()), int(is_said.sum()), int((is_stable & is_said).sum()))
