"""After the relaxations: filter, measure against the hull, select, and write the final table; every candidate once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gnn.screening.campaign import CampaignSpec
from gnn.screening.dedupe import Crystal, duplicates, known_among
from gnn.screening.filters import energy_reason, geometry_reason, hull_reason, uncertainty_reason
from gnn.screening.final_rows import FinalRows, Measurements, relaxed_geometry
from gnn.screening.hull import ReferenceHull
from gnn.screening.ledger import Ledger, Why
from gnn.screening.library import Library, nothing_known
from gnn.screening.names import links
from gnn.screening.preparation import Prepared
from gnn.screening.references import counts_of
from gnn.screening.select import Contender, select
from gnn.screening.shelf import formula_hash, shared

Row = dict[str, Any]
Places = NDArray[np.uint32]
Dropped = tuple[str, Why]
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
class Conclusion:
    """The end of a campaign: the funnel's ledger, rows of `CANDIDATE_SCHEMA`, ids of the shortlist in order."""

    ledger: Ledger
    rows: FinalRows
    shortlist: list[str]


def conclude(
    spec: CampaignSpec,
    prepared: Prepared,
    results: Mapping[str, Row],
    hull: ReferenceHull,
    theory: str,
    library: Library = nothing_known,
) -> Conclusion:
    """Close the remaining stages of the funnel.

    Args:
        spec: the campaign.
        prepared: its candidates, and the ledger of the stages before; left unchanged.
        results: shards' results by candidate id; candidates of failed shards have none.
        hull: the reference.
        theory: level of theory of the model's energies.
        library: the crystals that are known.
    """
    ledger = prepared.ledger.copy()
    end = _End(spec, prepared, results, hull, ledger)
    ledger.close("relaxed", end.unrelaxed())
    ledger.close("plausible", end.implausible())
    ledger.close("certain", end.uncertain())
    repeated = links(ledger.ids, end.repeated())
    ledger.close(
        "distinct_relaxed", ((name, ("duplicate after relaxation", f"of {first}")) for name, first in repeated.items())
    )
    ranks = end.ranks()
    ledger.close("near_hull", end.far())
    known = end.known(library)
    refused = known if spec.filters.novel_only else {}
    ledger.close(
        "novel_relaxed", ((name, ("relaxed into a crystal of the lake", where)) for name, where in refused.items())
    )
    selection = select([end.contender(name) for name in ledger.living()], spec.selection)
    ledger.close("shortlist", selection.rejected)
    kappa = spec.selection.kappa
    rows = FinalRows(prepared, results, end.measured, ranks, selection, repeated, known, theory, kappa, ledger)
    return Conclusion(ledger, rows, sorted(selection.chosen, key=rows.rank))


class _End:
    """The stages after relaxation. Each names those whom it drops, one after the other."""

    def __init__(
        self, spec: CampaignSpec, prepared: Prepared, results: Mapping[str, Row], hull: ReferenceHull, ledger: Ledger
    ) -> None:
        self.spec, self.prepared, self.results, self.hull, self.ledger = spec, prepared, results, hull, ledger
        self.measured = Measurements(ledger.ids)
        self.formulas = np.zeros(len(ledger.ids), dtype=np.int64)
        for place in self._by_system():
            self._measure(ledger.ids[int(place)])

    def _by_system(self) -> Places:
        """Places of those with a result, a chemical system together, so that each hull is made once and forgotten."""
        computed, systems = np.zeros(len(self.formulas), dtype=bool), np.zeros_like(self.formulas)
        for name in self.results:
            if (candidate := self.prepared.candidates.get(name)) is not None:
                place = self.ledger.ids.place(name)
                computed[place], systems[place] = True, hash(candidate.system)
                self.formulas[place] = formula_hash(candidate.formula)
        places = np.flatnonzero(computed).astype(np.uint32)
        return places[np.argsort(systems[places], kind="stable")]

    def _measure(self, name: str) -> None:
        energy, counts = self.results[name]["energy_per_atom"], counts_of(self.prepared.candidates[name].numbers)
        if energy is not None and not self.hull.missing(counts):
            formation_energy = self.hull.formation_energy(counts, energy)
            self.measured.note(name, formation_energy, self.hull.distance(counts, energy))

    def unrelaxed(self) -> Iterator[Dropped]:
        for name in self.ledger.living():
            row = self.results.get(name)
            if row is None:
                yield name, NOT_COMPUTED
            elif row["outcome"] == "steps" and not self.spec.filters.require_convergence:
                continue
            elif row["outcome"] != "converged":
                yield name, (str(FAILURES.get(row["outcome"], row["outcome"])), str(row["reason"] or ""))

    def implausible(self) -> Iterator[Dropped]:
        filters = self.spec.filters
        for name in self.ledger.living():
            row, numbers = self.results[name], self.prepared.candidates[name].numbers
            reason = energy_reason(row["energy_per_atom"], self.measured[name].formation_energy, filters)
            reason = reason or geometry_reason(numbers, *relaxed_geometry(row, len(numbers)), filters)
            if reason is not None:
                yield name, reason

    def uncertain(self) -> Iterator[Dropped]:
        for name in self.ledger.living():
            if (reason := uncertainty_reason(self.results[name]["uncertainty"], self.spec.filters)) is not None:
                yield name, reason

    def repeated(self) -> Places:
        """Place, from 1, of the candidate that reached the same structure with a lower energy; 0 for most."""
        first_of = np.zeros(len(self.ledger.ids), dtype=np.uint32)
        places = self.ledger.places()
        energies = self._of_results("energy_per_atom", places)
        by_energy = places[np.lexsort((self.ledger.ids.array[places], energies))]
        for group in shared(self.formulas, by_energy):
            crystals = (self._crystal(int(place)) for place in group)
            window = self.spec.relaxation.volume_window
            for name, first in duplicates(crystals, self.spec.dedupe, SAME_ENERGY, window).items():
                first_of[int(name)] = int(first) + 1
        return first_of

    def _of_results(self, column: str, places: Places) -> NDArray[np.float64]:
        """A number of each result, 0 where it has none."""
        names = (self.ledger.ids[int(place)] for place in places)
        return np.fromiter((self.results[name][column] or 0.0 for name in names), dtype=float, count=len(places))

    def _crystal(self, place: int) -> Crystal:
        name = self.ledger.ids[place]
        row, numbers = self.results[name], self.prepared.candidates[name].numbers
        return Crystal(str(place), numbers, *relaxed_geometry(row, len(numbers)), row["energy_per_atom"])

    def ranks(self) -> Places:
        """Rank, from 1, of everyone whose hull distance can be trusted, by place; 0 for the others."""
        places = self.ledger.places()
        places = places[~np.isnan(self.measured.hull_distances[places])]
        distances = self.measured.hull_distances[places]
        scores = distances - self.spec.selection.kappa * self._of_results("uncertainty", places)
        ranks = np.zeros(len(self.ledger.ids), dtype=np.uint32)
        order = np.lexsort((self.ledger.ids.array[places], distances, scores))
        ranks[places[order]] = np.arange(1, len(places) + 1)
        return ranks

    def far(self) -> Iterator[Dropped]:
        for name in self.ledger.living():
            distance = self.measured[name].hull_distance
            if distance is None:
                missing = self.hull.missing(self.prepared.candidates[name].elements)
                yield name, ("no reference energy", ", ".join(missing))
            elif (reason := hull_reason(distance, self.spec.filters)) is not None:
                yield name, reason

    def known(self, library: Library) -> dict[str, str]:
        """Who relaxed into a crystal of the library -> its name there."""
        places = self.ledger.places()
        crystals = library(self.formulas[places])
        shared_formulas = {formula_hash(crystal.formula) for crystal in crystals}
        relaxed = (self._crystal(int(place)) for place in places if int(self.formulas[place]) in shared_formulas)
        found = known_among(relaxed, crystals, self.spec.dedupe, self.spec.relaxation.volume_window)
        return {self.ledger.ids[int(place)]: where for place, where in found.items()}

    def contender(self, name: str) -> Contender:
        """What selection looks at."""
        candidate = self.prepared.candidates[name]
        return Contender(
            name=name,
            formula=candidate.formula,
            prototype=candidate.prototype,
            system=candidate.system,
            hull_distance=self.measured[name].hull_distance or 0.0,
            uncertainty=self.results[name]["uncertainty"],
        )
