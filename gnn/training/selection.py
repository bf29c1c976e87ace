"""Which averaged weights of a training are kept: the last ones, unless earlier ones were clearly better."""

from __future__ import annotations

import math
import sys
from collections.abc import Container, Mapping
from types import MappingProxyType

from gnn.training.config import LossConfig, TermConfig

NOISE = 0.5 * math.sqrt(math.pi / 2.0 - 1.0)
"""Half the relative standard error of the mean |error| of one structure, for Gaussian errors."""


OF_TERMS = {
    "energy": "energy_mae_mev_per_atom",
    "forces": "force_mae_mev_per_angstrom",
    "stress": "stress_mae_gpa",
}
"""The error that each term of the loss lowers."""
LEAST = {"energy_mae_mev_per_atom": 0.01, "force_mae_mev_per_angstrom": 0.1, "stress_mae_gpa": 1e-3}
"""Errors below these are all alike: of forces that symmetry forbids the logarithm would count rounding errors."""
LEAST_OF_SCALE = 1e-6
"""The same of properties, as part of their deviation."""


def untrained_errors(losses: LossConfig) -> frozenset[str]:
    """Names of the errors whose terms weigh nothing: what a training leaves alone may not choose its weights."""
    terms: dict[str, TermConfig] = {error: getattr(losses, name) for name, error in OF_TERMS.items()}
    return frozenset(error for error, term in terms.items() if term.is_off)


def least_errors(scales: Mapping[str, float]) -> dict[str, float]:
    """Errors that count as none, by name; `scales` are the deviations of the properties in their units."""
    return LEAST | {f"{name}_mae": LEAST_OF_SCALE * scale for name, scale in scales.items()}


def validation_score(
    metrics: dict[str, float],
    left_out: Container[str] = (),
    least: Mapping[str, float] = LEAST,
    most: Mapping[str, float] = MappingProxyType({}),
) -> float:
    """Mean logarithm of the mean absolute errors of what is trained: no weights, no units; lower is better.

    `left_out`: errors that do not count; `least`: errors below these are all alike; `most`: so are those above, which
    are what one has who has learnt nothing. Else a fresh network would be chosen wherever labels are nearly the same
    (forces of relaxed crystals), which it knows best of all. Infinite where an error is no number.
    """
    errors = trained_errors(metrics, left_out)
    if not all(math.isfinite(value) for value in errors.values()):
        return math.inf
    counted = {name: min(value, most.get(name, math.inf)) for name, value in errors.items()}
    logarithms = [math.log(max(value, least.get(name, sys.float_info.min))) for name, value in counted.items()]
    return sum(logarithms) / max(1, len(errors))


def trained_errors(metrics: Mapping[str, float], left_out: Container[str]) -> dict[str, float]:
    """Mean absolute errors of what is trained."""
    return {name: value for name, value in metrics.items() if "mae" in name and name not in left_out}


def unlearnt(
    metrics: Mapping[str, float],
    untaught: Mapping[str, float],
    left_out: Container[str] = (),
    least: Mapping[str, float] = LEAST,
) -> list[str]:
    """Names of the errors that are no lower than those of who has learnt nothing, where there is something to learn."""
    errors = trained_errors(metrics, left_out)
    without = {name: untaught[name] for name in errors if untaught.get(name, 0.0) > least.get(name, 0.0)}
    return [name for name, error in errors.items() if name in without and not error < without[name]]


def last_is_kept(last: float, best: float, n_valid: int) -> bool:
    """Whether the last weights are kept although earlier ones had the better (lower) score.

    The lowest of many noisy scores is low by luck too: on a validation set of n structures (or of n groups that err
    alike) a mean absolute error is known to 76 %/√n; differences between two states of one training, judged on the same
    structures, are taken to be known to half of that. Within this margin the last weights are preferred, whose learning
    rate has come to its end (the one-standard-error rule of Breiman et al., Classification and Regression Trees, 1984,
    sec. 3.4.3). A training that has overfitted keeps its earlier weights.
    """
    return last <= best + math.log1p(NOISE / math.sqrt(max(n_valid, 1)))
