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
    """Classification of stability; NaN where a ratio has no denominator.

    n_true_stable and n_predicted_stable are counts among n. daf: discovery acceleration factor, precision over
    prevalence. wasted: share of the predicted stable that are not.
    """

    n: int
    n_true_stable: int
    n_predicted_stable: int
    precision: float
    recall: float
    f1: float
    daf: float
    accuracy: float
    false_positive_rate: float
    prevalence: float
    wasted: float
    mae: float
    rmse: float
    r2: float


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

    Raises:
        InputError: the lengths differ.
    """
    from scipy.stats import rankdata

    a, b = _pair(truth, predicted)
    both = ~np.isnan(b)
    if both.sum() < 2:
        return math.nan
    ranks = rankdata(a[both]), rankdata(b[both])
    if any(np.ptp(rank) == 0 for rank in ranks):
        return math.nan
    return float(np.corrcoef(*ranks)[0, 1])


def _share_of_best(values: Floats, k: int) -> Floats:
    """Chance (N,) of each value to be among the k lowest when ties are broken at random."""
    cut = np.partition(values, k - 1)[k - 1]
    below, equal = values < cut, values == cut
    return below + equal * (k - below.sum()) / equal.sum()


def top_recall(truth: ArrayLike, predicted: ArrayLike, share: float = 0.1) -> float:
    """Share of the truly best (lowest) `share` that is among as many predicted best; expected value where ties cut.

    The best are ceil(share * N) of the N rows whose truth is known. NaN without rows.

    Raises:
        InputError: the lengths differ, or share is not within (0, 1].
    """
    if not 0 < share <= 1:
        raise InputError(f"share {share} is not within (0, 1]")
    a, b = _pair(truth, predicted)
    if not len(a):
        return math.nan
    k = math.ceil(share * len(a) - 1e-9)
    chosen = np.where(np.isnan(b), 0.0, _share_of_best(np.where(np.isnan(b), np.inf, b), k))
    return float((_share_of_best(a, k) * chosen).sum() / k)


def stability_metrics(truth: ArrayLike, predicted: ArrayLike, threshold: float = 0.0) -> StabilityMetrics:
    """Measures of predicting hull distances (eV/atom) to be at most `threshold`; a missing prediction is unstable.

    Source: Matbench Discovery (Riebesell et al., Nat. Mach. Intell. 2025): P = TP/(TP+FP), R = TP/(TP+FN),
    F1 = 2PR/(P+R), DAF = P / prevalence, prevalence = (TP+FN)/N; MAE, RMSE and R² over rows with a prediction.

    Raises:
        InputError: the lengths differ.
    """
    a, b = _pair(truth, predicted)
    true_stable, said_stable = a <= threshold, np.nan_to_num(b, nan=np.inf) <= threshold
    tp, fp = int((true_stable & said_stable).sum()), int((~true_stable & said_stable).sum())
    fn, n = int((true_stable & ~said_stable).sum()), len(a)
    precision, recall = _ratio(tp, tp + fp), _ratio(tp, tp + fn)
    prevalence = _ratio(tp + fn, n)
    mae, rmse, r2 = _errors(a[~np.isnan(b)], b[~np.isnan(b)])
    return StabilityMetrics(
        n=n,
        n_true_stable=tp + fn,
        n_predicted_stable=tp + fp,
        precision=precision,
        recall=recall,
        f1=_ratio(2 * tp, 2 * tp + fp + fn),
        daf=_ratio(precision, prevalence),
        accuracy=_ratio(n - fp - fn, n),
        false_positive_rate=_ratio(fp, n - tp - fn),
        prevalence=prevalence,
        wasted=1 - precision,
        mae=mae,
        rmse=rmse,
        r2=r2,
    )


def _errors(truth: Floats, predicted: Floats) -> tuple[float, float, float]:
    """MAE, RMSE and R²."""
    if not len(truth):
        return math.nan, math.nan, math.nan
    errors = predicted - truth
    spread = float(((truth - truth.mean()) ** 2).sum())
    r2 = 1 - _ratio(float((errors**2).sum()), spread)
    return float(np.abs(errors).mean()), float(np.sqrt((errors**2).mean())), r2


def predicted_hull_distance(truth: ArrayLike, predicted_formation: ArrayLike, true_formation: ArrayLike) -> Floats:
    """Hull distance (eV/atom) against a fixed hull: the true distance plus the error of the formation energy.

    Source: Matbench Discovery, each_pred = each_true + e_form_pred - e_form_true.
    """
    return np.asarray(truth, dtype=float) + np.asarray(predicted_formation, dtype=float) - np.asarray(true_formation)
