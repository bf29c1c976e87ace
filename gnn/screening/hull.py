"""Convex hulls: formation energies and distances from the hull of fixed reference entries."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, TypeVar

from gnn.errors import InputError

if TYPE_CHECKING:
    from pymatgen.analysis.phase_diagram import PhaseDiagram

K = TypeVar("K")
V = TypeVar("V")

MOST_DIAGRAMS, MOST_ENERGIES = 1 << 8, 1 << 12
"""Hulls of chemical systems and energies of compositions that are remembered."""


@dataclass(frozen=True)
class HullEntry:
    """A reference: composition (element -> atoms, any multiple), total energy per atom (eV), name, origin.

    volume_per_atom (Å³) is kept where it is known.
    """

    composition: tuple[tuple[str, float], ...]
    energy_per_atom: float
    name: str
    source: str
    theory: str
    volume_per_atom: float | None = None

    @property
    def elements(self) -> frozenset[str]:
        """Chemical symbols."""
        return frozenset(symbol for symbol, _ in self.composition)


def composition_of(counts: Mapping[str, float]) -> tuple[tuple[str, float], ...]:
    """Atomic fractions by element, sorted: equal for equal compositions."""
    total = sum(counts.values())
    return tuple((symbol, counts[symbol] / total) for symbol in sorted(counts))


def lowest_by_composition(entries: Iterable[HullEntry]) -> list[HullEntry]:
    """The entry of lowest energy per atom of each composition."""
    best: dict[tuple[tuple[str, float], ...], HullEntry] = {}
    for entry in entries:
        key = tuple((symbol, round(part, 6)) for symbol, part in composition_of(dict(entry.composition)))
        if key not in best or entry.energy_per_atom < best[key].energy_per_atom:
            best[key] = entry
    return list(best.values())


class ReferenceHull:
    """Hulls of reference entries of one level of theory, one for each chemical system that is asked for.

    The entries are fixed: a candidate below the hull has a negative distance and does not become a reference.

    Raises:
        InputError: the entries are of several levels of theory.
    """

    def __init__(self, entries: Sequence[HullEntry]) -> None:
        theories = sorted({entry.theory for entry in entries})
        if len(theories) > 1:
            raise InputError(
                f"hull entries of different theories cannot be mixed: {', '.join(theories)}; take data sets of one"
            )
        self.entries = lowest_by_composition(entries)
        self._diagrams: dict[frozenset[str], PhaseDiagram] = {}
        self._hull_energies: dict[tuple[tuple[str, float], ...], float] = {}

    @cached_property
    def elemental(self) -> dict[str, float]:
        """Energy per atom (eV) of each element's lowest entry."""
        return {next(iter(e.elements)): e.energy_per_atom for e in self.entries if len(e.elements) == 1}

    def missing(self, elements: Iterable[str]) -> list[str]:
        """Those of `elements` without a reference, sorted."""
        return sorted(set(elements) - set(self.elemental))

    def formation_energy(self, counts: Mapping[str, float], energy_per_atom: float) -> float:
        """Formation energy (eV/atom) against the elemental references.

        Raises:
            InputError: an element has no reference.
        """
        if missing := self.missing(counts):
            raise InputError(f"no reference energy of {', '.join(missing)} at the hull's theory; label these elements")
        total = sum(counts.values())
        return energy_per_atom - sum(n * self.elemental[symbol] for symbol, n in counts.items()) / total

    def hull_energy(self, counts: Mapping[str, float]) -> float:
        """Energy of the hull (eV/atom) at a composition.

        Raises:
            InputError: an element has no reference.
        """
        key = composition_of(counts)
        if key not in self._hull_energies:
            from pymatgen.core import Composition

            diagram = self._diagram(frozenset(counts))
            energy = float(diagram.get_hull_energy_per_atom(Composition(dict(key))))
            _keep(self._hull_energies, key, energy, MOST_ENERGIES)
        return self._hull_energies[key]

    def distance(self, counts: Mapping[str, float], energy_per_atom: float) -> float:
        """Distance (eV/atom) above the hull, negative below it."""
        return energy_per_atom - self.hull_energy(counts)

    def _diagram(self, elements: frozenset[str]) -> PhaseDiagram:
        if missing := self.missing(elements):
            raise InputError(f"no reference energy of {', '.join(missing)} at the hull's theory; label these elements")
        if elements not in self._diagrams:
            from pymatgen.analysis.phase_diagram import PDEntry, PhaseDiagram
            from pymatgen.core import Composition

            inside = [entry for entry in self.entries if entry.elements <= elements]
            entries = [
                PDEntry(Composition(dict(e.composition)), e.energy_per_atom * _size(e), name=e.name) for e in inside
            ]
            _keep(self._diagrams, elements, PhaseDiagram(entries), MOST_DIAGRAMS)
        return self._diagrams[elements]


def _keep(known: dict[K, V], key: K, value: V, most: int) -> None:
    """Remember a value, and forget the oldest where there are too many."""
    if len(known) >= most:
        del known[next(iter(known))]
    known[key] = value


def _size(entry: HullEntry) -> float:
    return sum(amount for _, amount in entry.composition)
