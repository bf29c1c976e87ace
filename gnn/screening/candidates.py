"""Candidates: decorated prototypes, derivative superstructures, and structures from files or the lake."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import combinations

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols
from numpy.typing import NDArray

from gnn.screening.campaign import CandidateSpec
from gnn.screening.derivatives import derivatives
from gnn.screening.names import names_digest
from gnn.screening.prototypes import PROTOTYPES, decorations
from gnn.screening.volumes import guess_volume
from gnn.structures.record import ID_DECIMALS, reduced_formula

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
ID_LENGTH = 16

Reason = tuple[str, str] | None
"""A reason that is counted and a detail that is not, or None."""


@dataclass(frozen=True)
class Candidate:
    """A crystal to screen, periodic in three directions.

    numbers (N,), positions (N, 3) Å, cell (3, 3) Å. `prototype`: structure type, None where unknown. `source`: where it
    comes from, different for every candidate of a campaign, as `prototype:CsCl:Li-Al` or `file:a.csv.gz#17`.
    """

    numbers: Ints
    positions: Floats
    cell: Floats
    prototype: str | None
    source: str

    @cached_property
    def candidate_id(self) -> str:
        """The start of the sha256 of source and geometry (rounded to 1e-6 Å)."""
        sha = hashlib.sha256(self.source.encode())
        sha.update(np.asarray(self.numbers, dtype="<i4").tobytes())
        for values in (self.positions, self.cell):
            sha.update((np.round(values, ID_DECIMALS) + 0.0).astype("<f8").tobytes())
        return sha.hexdigest()[:ID_LENGTH]

    @property
    def n_atoms(self) -> int:
        """Number of atoms in the cell."""
        return len(self.numbers)

    @cached_property
    def formula(self) -> str:
        """Reduced formula, metals first."""
        return reduced_formula(self.numbers)

    @cached_property
    def elements(self) -> tuple[str, ...]:
        """Chemical symbols, sorted."""
        return tuple(sorted({chemical_symbols[number] for number in self.numbers}))

    @property
    def system(self) -> str:
        """Chemical system, as `Al-Li`."""
        return "-".join(self.elements)

    def atoms(self) -> Atoms:
        """The crystal as ASE Atoms."""
        return Atoms(numbers=self.numbers, positions=self.positions, cell=self.cell, pbc=True)

    @classmethod
    def of(cls, atoms: Atoms, prototype: str | None, source: str) -> Candidate:
        """A candidate of ASE Atoms."""
        return cls(
            numbers=atoms.numbers.astype(np.int64),
            positions=np.array(atoms.positions, dtype=float),
            cell=np.array(atoms.cell[:], dtype=float),
            prototype=prototype,
            source=source,
        )


def element_sets(spec: CandidateSpec) -> list[tuple[str, ...]]:
    """The chemical systems to decorate: those named, else every combination of the elements."""
    if spec.systems:
        return [tuple(system.split("-")) for system in spec.systems]
    sizes = range(spec.min_elements, min(spec.max_elements, len(spec.elements)) + 1)
    return [chosen for size in sizes for chosen in combinations(spec.elements, size)]


def decorated_prototypes(spec: CandidateSpec, volumes: Mapping[str, float] | None = None) -> Iterator[Candidate]:
    """Every decoration of the chosen prototypes with every chemical system of their size."""
    names = list(PROTOTYPES) if "all" in spec.prototypes else spec.prototypes
    systems = element_sets(spec)
    for prototype in (PROTOTYPES[name] for name in dict.fromkeys(names)):
        for system in (system for system in systems if len(system) == len(prototype.labels)):
            for elements in decorations(prototype, system):
                symbols = prototype.decorate(elements, 1.0).get_chemical_symbols()
                atoms = prototype.decorate(elements, spec.volume_scale * guess_volume(symbols, volumes))
                yield Candidate.of(atoms, prototype.name, f"prototype:{prototype.name}:{'-'.join(elements)}")


def decorated_derivatives(spec: CandidateSpec, volumes: Mapping[str, float] | None = None) -> Iterator[Candidate]:
    """Every derivative superstructure of the chosen families with every chemical system of their size."""
    systems = element_sets(spec)
    done: set[tuple[str, int, int]] = set()
    for family in spec.derivatives:
        for n_elements in family.n_elements:
            fitting = [system for system in systems if len(system) == n_elements]
            for n_sites in range(family.min_sites, family.max_sites + 1):
                for parent in family.parents:
                    if (parent, n_sites, n_elements) not in done:
                        done.add((parent, n_sites, n_elements))
                        yield from _decorated(spec, parent, n_sites, fitting, volumes)


def _decorated(
    spec: CandidateSpec, parent: str, n_sites: int, systems: list[tuple[str, ...]], volumes: Mapping[str, float] | None
) -> Iterator[Candidate]:
    for system in systems:
        for derivative in derivatives(parent, n_sites, len(system)):
            symbols = [system[colour] for colour in derivative.colours]
            atoms = derivative.decorate(system, spec.volume_scale * guess_volume(symbols, volumes))
            yield Candidate.of(atoms, derivative.name, f"derivative:{derivative.name}:{'-'.join(system)}")


def constraint_reason(candidate: Candidate, spec: CandidateSpec, known_elements: frozenset[str]) -> Reason:
    """Why the campaign's constraints keep a candidate out, None if they let it in.

    `known_elements`: chemical symbols that the model knows.
    """
    elements = candidate.elements
    if unknown := sorted(set(elements) - known_elements):
        return "elements the model does not know", ", ".join(unknown)
    if excluded := sorted(set(elements) & set(spec.exclude)):
        return "excluded elements", ", ".join(excluded)
    if len(elements) > spec.max_elements:
        return f"more than {spec.max_elements} elements", ""
    if len(elements) < spec.min_elements:
        return f"fewer than {spec.min_elements} elements", ""
    if candidate.n_atoms > spec.max_atoms:
        return f"more than {spec.max_atoms} atoms", ""
    if spec.charge_neutral and not can_be_neutral(candidate.formula):
        return "common oxidation states cannot make it neutral", ""
    return None


@lru_cache(maxsize=4096)
def can_be_neutral(formula: str) -> bool:
    """Whether common oxidation states (pymatgen's table) add up to zero; elements alone are neutral."""
    from pymatgen.core import Composition

    composition = Composition(formula)
    return len(composition) == 1 or bool(composition.oxi_state_guesses(max_sites=-1))


def candidates_digest(candidates: Iterable[Candidate]) -> str:
    """sha256 (hex) of the sorted candidate ids."""
    return names_digest(candidate.candidate_id for candidate in candidates)
