"""The rule by which a challenger becomes champion; docs/decisions/0003 says why it is this one."""

from __future__ import annotations

import math

from pydantic import BaseModel, ConfigDict, Field

from gnn.training.metrics import GroupMetrics, Metrics

QUANTITIES = ("energy_mae_mev_per_atom", "force_mae_mev_per_angstrom", "stress_mae_gpa")
"""Errors that are compared; those of properties come beside them."""
NOTHING = 1e-12
"""An error below this counts as this, so that the ratio of two perfect models is one."""


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Rule(_Model):
    """How much better a challenger must be, and how much worse it may be in part."""

    margin: float = Field(default=0.02, gt=0, lt=1, description="least gain in the geometric mean of the error ratios")
    worse: float = Field(default=0.05, ge=0, description="no error of the whole suite may grow by more than this part")
    worse_group: float = Field(default=0.25, ge=0, description="nor one of an element or theory by more than this")
    group_size: int = Field(default=20, ge=1, description="structures below which an element or theory is not judged")


class SuiteErrors(_Model):
    """Errors of one version on a frozen suite. All are mean absolute errors; smaller is better."""

    suite: str = Field(description="the suite's digest")
    n_structures: int
    errors: dict[str, float] = Field(description="quantity -> error on the whole suite")
    groups: dict[str, dict[str, float]] = Field(
        default_factory=dict, description="element or theory -> quantity -> error"
    )
    group_sizes: dict[str, int] = Field(default_factory=dict, description="element or theory -> structures")


class Decision(_Model):
    """What the rule says. `score` is the geometric mean of challenger's over champion's errors: below 1 is better."""

    promote: bool
    score: float | None
    reason: str


def suite_errors(suite: str, metrics: Metrics) -> SuiteErrors:
    """What the rule looks at, of an evaluation on the suite."""
    groups = {f"element {name}": found for name, found in metrics.by_element.items()}
    groups |= {f"theory {name}": found for name, found in metrics.by_theory.items()}
    properties = {f"{name} MAE": found.mae for name, found in metrics.properties.items()}
    return SuiteErrors(
        suite=suite,
        n_structures=metrics.n_structures,
        errors={**_labelled(metrics), **properties},
        groups={name: _labelled(found) for name, found in groups.items()},
        group_sizes={name: found.n_structures for name, found in groups.items()},
    )


def _labelled(metrics: Metrics | GroupMetrics) -> dict[str, float]:
    values = {name: getattr(metrics, name) for name in QUANTITIES}
    return {name: float(value) for name, value in values.items() if value is not None}


def decide(challenger: SuiteErrors, champion: SuiteErrors, rule: Rule | None = None) -> Decision:
    """Whether the challenger takes the champion's place.

    It must have been measured on the same structures for the same quantities; the geometric mean of the ratios of its
    errors to the champion's must be at most 1 - margin; no single error may be more than `worse` larger, and none of an
    element or theory with at least `group_size` structures more than `worse_group`.
    """
    rule = rule or Rule()
    if (why := incomparable(challenger, champion)) is not None:
        return Decision(promote=False, score=None, reason=why)
    ratios = {name: ratio(challenger.errors[name], value) for name, value in champion.errors.items()}
    score = math.exp(math.fsum(map(math.log, ratios.values())) / len(ratios))
    if score > 1 - rule.margin:
        said = f"errors are {score:.4f} of the champion's in the geometric mean; at most {1 - rule.margin:g} wins"
        return Decision(promote=False, score=score, reason=said)
    name, worst = max(ratios.items(), key=lambda item: item[1])
    if worst > 1 + rule.worse:
        return Decision(promote=False, score=score, reason=f"{name} is {worst:.3f} of the champion's")
    if (group := worst_group(challenger, champion, rule)) is not None:
        return Decision(promote=False, score=score, reason=group)
    said = f"errors are {score:.4f} of the champion's in the geometric mean, none is more than {worst:.3f} of it"
    return Decision(promote=True, score=score, reason=said)


def ratio(challenger: float, champion: float) -> float:
    """The challenger's error over the champion's."""
    return max(challenger, NOTHING) / max(champion, NOTHING)


def incomparable(challenger: SuiteErrors, champion: SuiteErrors) -> str | None:
    """Why two measurements cannot be compared; None where they can."""
    if challenger.suite != champion.suite:
        return f"measured on suite {challenger.suite[:12]}, the champion on {champion.suite[:12]}"
    if challenger.n_structures != champion.n_structures:
        return f"measured on {challenger.n_structures} structures, the champion on {champion.n_structures}"
    if missing := sorted(set(champion.errors) ^ set(challenger.errors)):
        return f"{missing[0]} is measured for only one of the two"
    values = [*challenger.errors.values(), *champion.errors.values()]
    if not values:
        return "the suite has no labels that either predicts"
    if not all(math.isfinite(value) and value >= 0 for value in values):
        return "an error is not a finite number"
    return None


def worst_group(challenger: SuiteErrors, champion: SuiteErrors, rule: Rule) -> str | None:
    """What an element or theory lost beyond the rule; None where nothing did."""
    for group, errors in sorted(champion.groups.items()):
        if champion.group_sizes.get(group, 0) < rule.group_size:
            continue
        for name, value in sorted(errors.items()):
            found = challenger.groups.get(group, {}).get(name, math.inf)
            if not ratio(found, value) <= 1 + rule.worse_group:
                return f"{name} of {group} is {ratio(found, value):.3f} of the champion's"
    return None
