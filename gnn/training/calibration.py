"""From a spread to an expected error, and to an interval that holds nine errors of ten."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gnn.training.checkpoint import Calibration, SpreadKind

FEWEST = 10
"""Structures that a calibration needs."""
LEAST_FACTOR = 1e-12
"""Of a scale and of an interval's factor: errors of nothing at all would make them 0."""
LEVEL = 0.9
ROUNDING = 1e-9
SMALLEST_SPREAD = 1e-9
"""eV/atom of a committee, no unit of a last layer; a smaller spread says nothing."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Residuals:
    """Held-out structures: error of the energy per atom in eV, spread, and what each belongs to; (n,) all.

    The spread is in eV/atom where it is a committee's; a last layer's has no unit and is about √D.
    """

    error: Floats
    spread: Floats
    groups: Sequence[str] | None = None

    def usable(self) -> Residuals:
        """Those with a spread."""
        kept, names = np.flatnonzero(self.spread > SMALLEST_SPREAD), self.names()
        return Residuals(self.error[kept], self.spread[kept], [names[int(k)] for k in kept])

    def names(self) -> Sequence[str]:
        """The group of each; every structure is its own where none is given."""
        return [str(k) for k in range(len(self.error))] if self.groups is None else self.groups


@dataclass(frozen=True)
class Coverage:
    """Part of held-out errors inside the nominal interval: mean over group splits, and its standard error.

    `targets` are the structures counted in all splits together; `half_width` (eV/atom) is the mean over splits of the
    median half width, since a useless interval covers too.
    """

    level: float
    mean: float
    standard_error: float
    splits: int
    targets: int
    half_width: float

    @property
    def is_nominal(self) -> bool:
        """Whether the mean is within two standard errors of the level."""
        return abs(self.mean - self.level) <= 2.0 * self.standard_error


def calibrate(residuals: Residuals, kind: SpreadKind = "committee", ridge: float | None = None) -> Calibration | None:
    """The factor s that makes the spread as large as the error on average, and the one of a 90 % interval.

    s² = mean(error²) / mean(spread²). Moments are matched rather than the likelihood of each error: over the spread of
    M members an error is distributed as Student's t with M - 1 degrees of freedom, whose mean square is infinite for
    two and three members, so one pair of members that agree by chance would decide the factor. For the same reason the
    interval is not 1.645 s: its factor is a quantile of the held-out errors themselves (`interval_factor`).
    None with fewer than ten structures that have a spread.
    """
    usable = residuals.usable()
    if len(usable.error) < FEWEST:
        return None
    scale = float(np.sqrt(np.mean(np.square(usable.error)) / np.mean(np.square(usable.spread))))
    scale = max(scale, LEAST_FACTOR)
    ratios = np.abs(usable.error) / (scale * usable.spread)
    return Calibration(
        energy_scale=scale,
        n=len(usable.error),
        kind=kind,
        ridge=ridge,
        interval_90=max(interval_factor(ratios, usable.names()), LEAST_FACTOR),
        groups=len(set(usable.names())),
    )


def interval_factor(ratios: Floats, groups: Sequence[str], level: float = LEVEL) -> float:
    """The ratio |error|/spread within which `level` of the structures of a group that is yet to come are expected.

    A quantile of the ratios in which every group has one vote, shared among its structures. Which quantile, each group
    says as if it were the one to come: the one of the others' ratios that holds `level` of its own, on average over
    groups (the jackknife across groups; Barber, Candès, Ramdas and Tibshirani, Ann. Stat. 49, 486 (2021); Lee, Barber
    and Willett, arXiv:2306.06342 (2023), for groups). Groups that err alike need hardly more than `level`, groups that
    differ need more. If every structure is its own group it is split-conformal prediction (Vovk, Gammerman and Shafer
    2005), or one rank more. Where no quantile of the others' ratios is enough, the largest ratio is given.
    """
    _, index = np.unique(np.asarray(groups), return_inverse=True)
    order = np.argsort(ratios, kind="stable")
    index = index[order]
    votes = 1.0 / np.bincount(index)[index]
    share = needed_share(votes, index, level)
    enough = np.flatnonzero(np.cumsum(votes) / (index.max() + 1) >= share - ROUNDING)
    return float(ratios[order[enough[0] if len(enough) else -1]])


def needed_share(votes: Floats, index: NDArray[np.intp], level: float) -> float:
    """The share of the others' votes within which `level` of a group lies, on average over groups.

    votes (n,) and index of the group (n,) are in the order of the ratios. A structure is within the quantile of the
    others' votes if fewer of them are below it.
    """
    n_groups = index.max() + 1
    if n_groups == 1:
        return 1.0
    below = (np.cumsum(votes) - votes - votes * rank_in_group(index)) / (n_groups - 1)
    by_need = np.argsort(below, kind="stable")
    first = np.flatnonzero(np.cumsum(votes[by_need]) / n_groups >= level - ROUNDING)[0]
    more = below[by_need][below[by_need] > below[by_need[first]] + ROUNDING]
    return float(more[0]) if len(more) else 1.0


def rank_in_group(index: NDArray[np.intp]) -> NDArray[np.intp]:
    """How many of its group come before each."""
    together = np.argsort(index, kind="stable")
    sizes = np.bincount(index)
    rank = np.empty_like(index)
    rank[together] = np.arange(len(index)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    return rank


def mean_over_groups(inside: NDArray[np.bool_], groups: Sequence[str]) -> float:
    """The mean over groups of the part of each that is inside, every group alike; (n,) both."""
    _, index = np.unique(np.asarray(groups), return_inverse=True)
    return float(np.mean(np.bincount(index, weights=inside) / np.bincount(index)))


def coverage(residuals: Residuals, level: float = LEVEL, splits: int = 20, seed: int = 0) -> Coverage:
    """Let half of the groups decide the interval and count errors in the other half, `splits` times.

    Raises:
        ValueError: fewer than four groups, or no split at all.
    """
    usable = residuals.usable()
    names, index = np.unique(np.asarray(usable.names()), return_inverse=True)
    if len(names) < 4 or splits < 1:
        raise ValueError(f"coverage needs at least four groups and one split, not {len(names)} and {splits}")
    rng = np.random.default_rng(seed)
    ratios = np.abs(usable.error) / usable.spread
    inside, widths, targets = [], [], 0
    for _ in range(splits):
        judged = np.isin(index, rng.permutation(len(names))[: len(names) // 2])
        factor = interval_factor(ratios[~judged], index[~judged].astype(str).tolist(), level)
        inside.append(float(np.mean(ratios[judged] <= factor)))
        widths.append(float(np.median(factor * usable.spread[judged])))
        targets += int(judged.sum())
    return summary(level, inside, widths, targets)


def summary(level: float, inside: Sequence[float], widths: Sequence[float], targets: int) -> Coverage:
    """The coverages of several splits as one; the standard error takes the splits as independent."""
    deviation = float(np.std(inside, ddof=1)) if len(inside) > 1 else float("nan")
    return Coverage(
        level=level,
        mean=float(np.mean(inside)),
        standard_error=deviation / float(np.sqrt(len(inside))),
        splits=len(inside),
        targets=targets,
        half_width=float(np.mean(widths)),
    )
