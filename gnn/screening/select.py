"""Spending a budget of DFT calculations: rank by a bound of the hull distance, keep the shortlist diverse."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from gnn.screening.campaign import SelectionSpec

Why = Literal["rank", "exploration"]
BEYOND_BUDGET = "beyond the budget"


@dataclass(frozen=True)
class Contender:
    """What selection looks at: hull distance and uncertainty in eV/atom (None: the potential gives none)."""

    name: str
    formula: str
    prototype: str | None
    system: str
    hull_distance: float
    uncertainty: float | None


@dataclass(frozen=True)
class Selection:
    """Who is chosen, in order, and why; and why each other one is not."""

    chosen: dict[str, Why]
    rejected: dict[str, str]


def score(contender: Contender, kappa: float) -> float:
    """Hull distance minus kappa times uncertainty (eV/atom), a lower bound for kappa > 0; lower is better."""
    return contender.hull_distance - kappa * (contender.uncertainty or 0.0)


def ranked(contenders: Iterable[Contender], kappa: float) -> list[Contender]:
    """Contenders by score, equal ones by hull distance, then by name, so that the order is always the same."""
    return sorted(contenders, key=lambda c: (score(c, kappa), c.hull_distance, c.name))


def select(contenders: Sequence[Contender], spec: SelectionSpec) -> Selection:
    """At most `spec.budget` contenders: by score, a share of `spec.exploration` by uncertainty, all within the caps."""
    n_explore = round(spec.exploration * spec.budget)
    chosen: dict[str, Why] = {}
    rejected: dict[str, str] = {}
    caps = _Caps(spec)
    by_score = ranked(contenders, spec.kappa)
    _take(by_score, spec.budget - n_explore, "rank", caps, chosen, rejected)
    uncertain = sorted(
        (c for c in by_score if c.name not in chosen and c.uncertainty is not None),
        key=lambda c: -(c.uncertainty or 0.0),
    )
    _take(uncertain, n_explore, "exploration", caps, chosen, rejected)
    left = [c for c in by_score if c.name not in chosen]
    _take(left, spec.budget - len(chosen), "rank", caps, chosen, rejected)
    return Selection(chosen, {c.name: rejected.get(c.name, BEYOND_BUDGET) for c in by_score if c.name not in chosen})


def _take(
    contenders: Sequence[Contender],
    most: int,
    why: Why,
    caps: _Caps,
    chosen: dict[str, Why],
    rejected: dict[str, str],
) -> None:
    """Choose up to `most` of `contenders` in their order, noting whom a cap keeps out before the budget is spent."""
    taken = 0
    for contender in contenders:
        if taken >= most:
            return
        if (reason := caps.full(contender)) is not None:
            rejected[contender.name] = reason
            continue
        caps.count(contender)
        chosen[contender.name] = why
        rejected.pop(contender.name, None)
        taken += 1


class _Caps:
    """How many of each formula, prototype and chemical system are on the shortlist."""

    def __init__(self, spec: SelectionSpec) -> None:
        self.limits = {
            "formula": spec.max_per_formula,
            "prototype": spec.max_per_prototype,
            "system": spec.max_per_system,
        }
        self.counts: Counter[tuple[str, str]] = Counter()

    def _keys(self, contender: Contender) -> list[tuple[str, str]]:
        values = {"formula": contender.formula, "prototype": contender.prototype, "system": contender.system}
        return [(kind, value) for kind, value in values.items() if value is not None]

    def full(self, contender: Contender) -> str | None:
        """Which cap is reached, None if none is."""
        for kind, value in self._keys(contender):
            limit = self.limits[kind]
            if limit is not None and self.counts[kind, value] >= limit:
                return f"enough of its {kind}"
        return None

    def count(self, contender: Contender) -> None:
        """Count one more."""
        self.counts.update(self._keys(contender))
