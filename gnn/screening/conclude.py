"""After the relaxations: filter, measure against the hull, select, and write the final table; every candidate once."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from gnn.screening.campaign import CampaignSpec
from gnn.screening.candidates import Candidate
from gnn.screening.dedupe import Crystal, duplicates
from gnn.screening.filters import energy_reason, geometry_reason, hull_reason, uncertainty_reason
from gnn.screening.hull import ReferenceHull
from gnn.screening.ledger import Ledger
from gnn.screening.prepare import Prepared
from gnn.screening.references import counts_of
from gnn.screening.select import Contender, Selection, ranked, score, select
from gnn.screening.tables import CANDIDATE_SCHEMA, geometry_columns
from gnn.structures.record import Record

Row = dict[str, Any]
SAME_ENERGY = 0.01
"""eV/atom within which two relaxed structures that match are one."""
FAILURES = {
    "elements": "elements the model does not know",
    "non_finite": "energy or forces not finite",
    "exploded": "exploded",
    "collapsed": "collapsed",
    "too_close": "atoms on top of each other",
    "forces": "forces beyond any sense",
    "error": "the potential failed",
    "steps": "not converged",
}
NOT_COMPUTED = "not computed: its shard failed"


@dataclass(frozen=True)
class Measured:
    """A relaxed candidate against the hull: energies in eV/atom; None where elements have no reference."""

    formation_energy: float | None
    hull_distance: float | None


@dataclass(frozen=True)
class Conclusion:
    """The end of a campaign: the funnel's ledger, rows of `CANDIDATE_SCHEMA`, ids of the shortlist in order."""

    ledger: Ledger
    rows: list[Row]
    shortlist: list[str]


def conclude(
    spec: CampaignSpec, prepared: Prepared, results: Mapping[str, Row], hull: ReferenceHull, theory: str
) -> Conclusion:
    """Close the remaining stages of the funnel.

    Args:
        spec: the campaign.
        prepared: its candidates, and the ledger of the stages before; left unchanged.
        results: shards' results by candidate id; candidates of failed shards have none.
        hull: the reference.
        theory: level of theory of the model's energies.
    """
    before = prepared.ledger
    ledger = Ledger(before.ids, dict(before.drops), list(before.stages))
    measured = {
        name: _measured(prepared.candidates[name], row, hull)
        for name, row in results.items()
        if name in prepared.candidates
    }
    ledger.close("relaxed", _unrelaxed(ledger.alive, results, spec))
    ledger.close("plausible", _implausible(ledger.alive, prepared, results, measured, spec))
    ledger.close("certain", _uncertain(ledger.alive, results, spec))
    repeated = _repeated(ledger.alive, prepared, results, spec)
    ledger.close(
        "distinct_relaxed", {name: ("duplicate after relaxation", f"of {first}") for name, first in repeated.items()}
    )
    unreferenced = _unreferenced(ledger.alive, prepared, measured, hull)
    places = _places(set(ledger.alive) - set(unreferenced), prepared, results, measured, spec)
    ledger.close("near_hull", {**unreferenced, **_far(set(places), measured, spec)})
    selection = select([places[name][1] for name in ledger.alive], spec.selection)
    ledger.close("shortlist", selection.rejected)
    rows = _Rows(prepared, results, measured, places, selection, repeated, theory, spec.selection.kappa)
    shortlist = sorted(selection.chosen, key=lambda name: places[name][0])
    return Conclusion(ledger, [rows.row(name, ledger) for name in ledger.ids], shortlist)


def _measured(candidate: Candidate, row: Row, hull: ReferenceHull) -> Measured:
    energy, counts = row["energy_per_atom"], counts_of(candidate.numbers)
    if energy is None or hull.missing(counts):
        return Measured(None, None)
    return Measured(hull.formation_energy(counts, energy), hull.distance(counts, energy))


Reasons = dict[str, str | tuple[str, str]]


def _unrelaxed(names: Sequence[str], results: Mapping[str, Row], spec: CampaignSpec) -> Reasons:
    reasons: Reasons = {}
    for name in names:
        row = results.get(name)
        if row is None:
            reasons[name] = NOT_COMPUTED
        elif row["outcome"] == "steps" and not spec.filters.require_convergence:
            continue
        elif row["outcome"] != "converged":
            reasons[name] = (str(FAILURES.get(row["outcome"], row["outcome"])), str(row["reason"] or ""))
    return reasons


def _implausible(
    names: Sequence[str],
    prepared: Prepared,
    results: Mapping[str, Row],
    measured: Mapping[str, Measured],
    spec: CampaignSpec,
) -> Reasons:
    reasons: Reasons = {}
    for name in names:
        row, numbers = results[name], prepared.candidates[name].numbers
        reason = energy_reason(row["energy_per_atom"], measured[name].formation_energy, spec.filters)
        reason = reason or geometry_reason(numbers, *_relaxed_geometry(row, len(numbers)), spec.filters)
        if reason is not None:
            reasons[name] = reason
    return reasons


def _relaxed_geometry(row: Row, n_atoms: int) -> tuple[Any, Any]:
    return np.reshape(row["positions"], (n_atoms, 3)), np.reshape(row["cell"], (3, 3))


def _uncertain(names: Sequence[str], results: Mapping[str, Row], spec: CampaignSpec) -> Reasons:
    reasons = {name: uncertainty_reason(results[name]["uncertainty"], spec.filters) for name in names}
    return {name: reason for name, reason in reasons.items() if reason is not None}


def _repeated(
    names: Sequence[str], prepared: Prepared, results: Mapping[str, Row], spec: CampaignSpec
) -> dict[str, str]:
    """Candidates that relaxed to a structure another one reached with a lower energy -> that one."""
    crystals = []
    for name in sorted(names, key=lambda name: (results[name]["energy_per_atom"], name)):
        numbers = prepared.candidates[name].numbers
        geometry = _relaxed_geometry(results[name], len(numbers))
        crystals.append(Crystal(name, numbers, *geometry, results[name]["energy_per_atom"]))
    return duplicates(crystals, spec.dedupe, SAME_ENERGY)


def _unreferenced(
    names: Sequence[str], prepared: Prepared, measured: Mapping[str, Measured], hull: ReferenceHull
) -> Reasons:
    without = [name for name in names if measured[name].hull_distance is None]
    missing = {name: hull.missing(prepared.candidates[name].elements) for name in without}
    return {name: ("no reference energy", ", ".join(elements)) for name, elements in missing.items()}


def _places(
    names: Collection[str],
    prepared: Prepared,
    results: Mapping[str, Row],
    measured: Mapping[str, Measured],
    spec: CampaignSpec,
) -> dict[str, tuple[int, Contender]]:
    """Rank, from 1, and what selection looks at, of everyone whose hull distance can be trusted."""
    contenders = [
        _contender(prepared.candidates[name], measured[name].hull_distance or 0.0, results[name]["uncertainty"])
        for name in names
    ]
    return {c.name: (place, c) for place, c in enumerate(ranked(contenders, spec.selection.kappa), 1)}


def _contender(candidate: Candidate, hull_distance: float, uncertainty: float | None) -> Contender:
    return Contender(
        name=candidate.candidate_id,
        formula=candidate.formula,
        prototype=candidate.prototype,
        system=candidate.system,
        hull_distance=hull_distance,
        uncertainty=uncertainty,
    )


def _far(names: Collection[str], measured: Mapping[str, Measured], spec: CampaignSpec) -> Reasons:
    reasons = {name: hull_reason(measured[name].hull_distance or 0.0, spec.filters) for name in names}
    return {name: reason for name, reason in reasons.items() if reason is not None}


@dataclass(frozen=True)
class _Rows:
    """What the rows of the final table are put together from."""

    prepared: Prepared
    results: Mapping[str, Row]
    measured: Mapping[str, Measured]
    places: Mapping[str, tuple[int, Contender]]
    selection: Selection
    repeated: Mapping[str, str]
    theory: str
    kappa: float

    @cached_property
    def shards(self) -> dict[str, int]:
        """Shard of each candidate that was computed."""
        return {name: shard for shard, names in self.prepared.plan.items() for name in names}

    def row(self, name: str, ledger: Ledger) -> Row:
        """The row of one candidate."""
        row: Row = {**dict.fromkeys(CANDIDATE_SCHEMA.names), "candidate_id": name}
        candidate = self.prepared.candidates.get(name)
        row["source"] = self.prepared.unreadable[name] if candidate is None else candidate.source
        if candidate is not None:
            row |= _about(candidate)
        if candidate is not None and name in self.results:
            row |= self._result(name, candidate)
        drop = ledger.drops.get(name)
        row |= {
            "stage_dropped": None if drop is None else drop.stage,
            "reason": None if drop is None else drop.text,
            "duplicate_of": self.repeated.get(name) or self.prepared.duplicate_of.get(name),
            "in_lake": self.prepared.in_lake.get(name),
            "shard": self.shards.get(name),
            "shortlisted": name in self.selection.chosen,
            "chosen_by": self.selection.chosen.get(name),
        }
        return row

    def _result(self, name: str, candidate: Candidate) -> Row:
        result, measured = self.results[name], self.measured[name]
        positions, cell = _relaxed_geometry(result, candidate.n_atoms)
        place = self.places.get(name)
        columns = ("energy_per_atom", "uncertainty", "converged", "fmax", "steps", "cpu_s", "positions", "cell")
        return {
            **{column: result[column] for column in columns},
            "formation_energy_per_atom": measured.formation_energy,
            "hull_distance": measured.hull_distance,
            "rank": None if place is None else place[0],
            "score": None if place is None else score(place[1], self.kappa),
            "volume_per_atom": abs(float(np.linalg.det(cell))) / candidate.n_atoms,
            "theory": self.theory,
            "structure_id": _structure_id(candidate, positions, cell, self.theory),
        }


def _about(candidate: Candidate) -> Row:
    return {
        "formula": candidate.formula,
        "prototype": candidate.prototype,
        "chemical_system": candidate.system,
        **geometry_columns(candidate),
    }


def _structure_id(candidate: Candidate, positions: Any, cell: Any, theory: str) -> str:
    periodic = np.ones(3, dtype=bool)
    return Record("screening", theory, candidate.numbers, positions, cell, periodic).structure_id
