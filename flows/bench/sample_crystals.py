"""The crystals that the sample set in datasets/sample is drawn from: decorated prototypes and orderings on lattices.

Deterministic: the same on every machine. Formulas are dealt to a training part and a truth part.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import combinations, permutations, product, zip_longest
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers

from gnn.screening.derivatives import PARENTS, Derivative, derivatives
from gnn.screening.fingerprint import fingerprint
from gnn.screening.known import read_known
from gnn.screening.prototypes import ELEMENTAL, PROTOTYPES, Prototype, decorations
from gnn.screening.volumes import guess_volume
from gnn.structures.record import reduced_formula

ELEMENTS = ("Li", "Mg", "Al", "Si")
KNOWN = Path(__file__).resolve().parents[2] / "datasets" / "sample" / "known_compounds.toml"
SEED = 20261122
TRUTH_SHARE = 0.42
"""Share of the compound formulas kept for the truth part."""
LARGEST_CELL = 8
CONTRACTION = 0.93
"""Alloys of these elements are denser than the elements: the first guess of a volume is scaled by this."""
OPEN_LATTICES = ("zincblende", "half-Heusler", "NaTl", "rocksalt", "fluorite", "wurtzite", "perovskite")
ORDERING_SITES = 5


@dataclass(frozen=True)
class Decoration:
    """A prototype with elements on its sites."""

    prototype: Prototype
    elements: tuple[str, ...]

    def atoms(self, scale: float = CONTRACTION) -> Atoms:
        """The crystal at `scale` times the sum of the elements' volumes."""
        unit = self.prototype.decorate(self.elements, 1.0)
        return self.prototype.decorate(self.elements, scale * guess_volume(unit.get_chemical_symbols()))

    @property
    def formula(self) -> str:
        """Reduced formula."""
        return reduced_formula(self.atoms().numbers)

    @property
    def crystal(self) -> str:
        """The crystal that structures made from it are held together by in splits."""
        return f"{self.formula}-{self.prototype.name}"

    @property
    def lattice(self) -> str:
        """Name of the prototype."""
        return self.prototype.name


@dataclass(frozen=True)
class Ordering:
    """Elements on the sites of a derivative superstructure."""

    derivative: Derivative
    elements: tuple[str, ...]

    @property
    def crystal(self) -> str:
        """The crystal that structures made from it are held together by in splits."""
        return f"{self.derivative.name} {'-'.join(self.elements)}"

    @property
    def lattice(self) -> str:
        """Name of the lattice that is ordered."""
        return self.derivative.parent

    @property
    def counts(self) -> list[int]:
        """Sites of each element."""
        return [self.derivative.colours.count(colour) for colour in range(len(self.elements))]

    @property
    def formula(self) -> str:
        """Reduced formula."""
        return reduced_formula([atomic_numbers[self.elements[colour]] for colour in self.derivative.colours])

    def atoms(self, scale: float = CONTRACTION) -> Atoms:
        """The crystal at `scale` times the sum of the elements' volumes."""
        volume = scale * guess_volume([self.elements[colour] for colour in self.derivative.colours])
        return self.derivative.decorate(self.elements, volume)


def rank(text: str) -> int:
    """A number that is random but the same everywhere."""
    return int.from_bytes(hashlib.sha256(f"{SEED}/{text}".encode()).digest()[:8], "big")


def compounds() -> list[Decoration]:
    """Every distinct decoration of a compound prototype with at most `LARGEST_CELL` atoms."""
    found: dict[object, Decoration] = {}
    for prototype in PROTOTYPES.values():
        if len(prototype.labels) == 1 or len(prototype.sites) > LARGEST_CELL:
            continue
        for elements in decorations(prototype, ELEMENTS):
            decoration = Decoration(prototype, elements)
            found.setdefault(fingerprint(decoration.atoms(1.0)), decoration)
    return list(found.values())


def known_from(pool: list[Decoration]) -> list[Decoration]:
    """Those of the pool that are compounds known from experiment."""
    known = {
        fingerprint(Decoration(PROTOTYPES[compound.prototype], tuple(compound.elements)).atoms(1.0))
        for compound in read_known(KNOWN)
        if compound.prototype is not None
    }
    return [decoration for decoration in pool if fingerprint(decoration.atoms(1.0)) in known]


def truth_formulas(pool: list[Decoration]) -> frozenset[str]:
    """Formulas whose structures are kept for the truth part."""
    formulas = sorted({decoration.formula for decoration in pool}, key=rank)
    return frozenset(formulas[: round(TRUTH_SHARE * len(formulas))])


def dealt_decorations(pool: list[Decoration], most: int) -> list[Decoration]:
    """At most `most` decorations, dealt round by round over the formulas, smaller cells first within a formula."""
    by_formula: dict[str, list[Decoration]] = {}
    for decoration in sorted(pool, key=lambda d: (len(d.prototype.sites) > 4, rank(d.prototype.name + d.formula))):
        by_formula.setdefault(decoration.formula, []).append(decoration)
    rounds = max(len(group) for group in by_formula.values())
    dealt = [group[turn] for turn in range(rounds) for group in by_formula.values() if turn < len(group)]
    return dealt[:most]


def new_crystals(orderings: Iterable[Ordering], known: Iterable[Atoms]) -> Iterator[Ordering]:
    """Orderings that are neither among the known crystals nor an earlier ordering with elements exchanged."""
    seen = {fingerprint(atoms) for atoms in known}
    for ordering in orderings:
        found = fingerprint(ordering.atoms())
        if found not in seen:
            seen.add(found)
            yield ordering


def on_three_kinds_of_sites() -> list[Decoration]:
    """Two elements on the open lattices of three kinds of sites."""
    lattices = [PROTOTYPES[name] for name in OPEN_LATTICES if len(PROTOTYPES[name].labels) == 3]
    pairs = [elements for elements in product(ELEMENTS, repeat=3) if len(set(elements)) == 2]
    return [Decoration(lattice, elements) for lattice in lattices for elements in pairs]


def unusual_lattices() -> list[Prototype]:
    """The lattices of the compound prototypes that are none of the elements' own, each once."""
    known = {fingerprint(Decoration(prototype, ("Si",)).atoms()) for prototype in ELEMENTAL}
    lattices: list[Prototype] = []
    for lattice in map(_with_one_label, PROTOTYPES.values()):
        found = fingerprint(Decoration(lattice, ("Si",)).atoms())
        if len(lattice.sites) <= LARGEST_CELL and found not in known:
            known.add(found)
            lattices.append(lattice)
    return lattices


def _with_one_label(prototype: Prototype) -> Prototype:
    return replace(prototype, sites=tuple(("A", position) for _, position in prototype.sites))


def combined(n_sites: int, n_elements: int) -> Iterator[Ordering]:
    """Orderings of so many sites, with every choice of elements in one order."""
    for parent in PARENTS:
        for derivative in derivatives(parent, n_sites, n_elements):
            yield from (Ordering(derivative, elements) for elements in combinations(ELEMENTS, n_elements))


def dealt_orderings(wanted: Callable[[str], bool]) -> Iterator[Ordering]:
    """Orderings dealt round by round over the formulas that are wanted, at random within a formula."""
    by_formula: dict[str, list[Ordering]] = {}
    for ordering in sorted(_orderings(), key=lambda each: rank(f"{each.derivative.name} {each.elements}")):
        if wanted(ordering.formula):
            by_formula.setdefault(ordering.formula, []).append(ordering)
    for dealt in zip_longest(*by_formula.values()):
        yield from filter(None, dealt)


def _orderings() -> Iterable[Ordering]:
    for parent in PARENTS:
        for n_sites in range(2, ORDERING_SITES + 1):
            for n_elements in range(2, len(ELEMENTS) + 1):
                for derivative in derivatives(parent, n_sites, n_elements):
                    yield from (Ordering(derivative, elements) for elements in permutations(ELEMENTS, n_elements))


def distorted(atoms: Atoms, name: str) -> Atoms:
    """A copy stretched and with its atoms moved along z alone, so that mirror planes and cheap k-meshes survive."""
    random = np.random.default_rng(rank(f"distorted {name}"))
    copy = atoms.copy()
    across, along = random.normal(0.0, 0.04, 2)
    stretch = (1 + random.uniform(-0.1, 0.1)) ** (1 / 3)
    copy.set_cell(copy.cell[:] @ np.diag([1 + across, 1 + across, 1 + along]) * stretch, scale_atoms=True)
    copy.positions[:, 2] += random.normal(0.0, random.uniform(0.05, 0.2), len(copy))
    return copy


def rattled(atoms: Atoms, name: str) -> Atoms:
    """A copy with a random volume (±12 %), strain (σ 3 %) and displacements (σ 0.03 to 0.15 Å)."""
    random = np.random.default_rng(rank(name))
    strain = random.normal(0.0, 0.03, (3, 3))
    stretch = (1 + random.uniform(-0.12, 0.12)) ** (1 / 3)
    copy = atoms.copy()
    copy.set_cell(copy.cell[:] @ (np.eye(3) + 0.5 * (strain + strain.T)) * stretch, scale_atoms=True)
    copy.positions += random.normal(0.0, random.uniform(0.03, 0.15), copy.positions.shape)
    return copy
