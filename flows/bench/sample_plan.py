"""How the sample set that ships in datasets/sample was drawn: which Li-Mg-Al-Si structures are labelled, and how.

Deterministic: the same plan on every machine. Formulas are dealt to a training part and a truth part; no formula of
the truth part has a structure in the training part.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import combinations, islice, permutations, product, zip_longest
from pathlib import Path

import numpy as np
import spglib
from ase import Atoms
from ase.build import niggli_reduce
from ase.calculators.calculator import kptdensity2monkhorstpack
from ase.data import atomic_numbers

from gnn.dft.engine import JobKind, RelaxSettings
from gnn.dft.gpaw import GpawSettings
from gnn.dft.label import LabelJob
from gnn.screening.derivatives import PARENTS, Derivative, derivatives
from gnn.screening.fingerprint import fingerprint
from gnn.screening.known import read_known
from gnn.screening.prototypes import ELEMENTAL, PROTOTYPES, Prototype, decorations
from gnn.screening.volumes import guess_volume
from gnn.structures.record import reduced_formula

SETTINGS = GpawSettings()
"""One level of theory for the whole set; why this one: docs/decisions/0002-sample-theory.md."""
ELEMENTS = ("Li", "Mg", "Al", "Si")
KNOWN = Path(__file__).resolve().parents[2] / "datasets" / "sample" / "known_compounds.toml"
SEED = 20261122
TRUTH_SHARE = 0.42
"""Share of the compound formulas kept for the truth part."""
LARGEST_TRUTH_CELL = 5
LARGEST_CELL = 8
CONTRACTION = 0.93
"""Alloys of these elements are denser than the elements: the first guess of a volume is scaled by this."""
RELAX = RelaxSettings(fmax=0.08, max_steps=20)
"""The energy is flat here: 0.08 eV/Å of force means below 1 meV/atom above the minimum."""
SMALL_CELL = 4
"""Up to this many atoms cells are relaxed, and rattled without symmetry, often."""
COMPOUND_SCALES = (0.78, 0.86, 0.94, 1.03, 1.14)
CHEAP, DEAREST = 100, 220
"""Atoms times irreducible k-points of a label that takes some nine and twenty seconds."""
DEAREST_RATTLED = 600
"""The same for rattled cells, which have no symmetry: some forty seconds."""
ELEMENT_SCALES = (0.82, 0.9, 1.0, 1.1, 1.22)
FAR_SCALES = (0.45, 0.6, 1.4, 1.9)
"""Volumes that nobody looks for and relaxations pass by: nearest neighbours at three and at five quarters."""
FAR_COMPOUNDS, DEAREST_FAR = 40, 150
OPEN_LATTICES = ("zincblende", "half-Heusler", "NaTl", "rocksalt", "fluorite", "wurtzite", "perovskite")
OPEN_ELEMENTAL = ("diamond", "sc")
OPEN_SCALES = (1.2, 0.95, 1.55, 1.9)
"""Open lattices end their relaxations at 1.2 to 1.8 times the volume that the elements' volumes add up to."""
DEAREST_OPEN = 240
FREE_ATOM_BOX = 10.0
"""Å. A cube: in an oblong box the degenerate levels of Si split and do not converge."""
ORDERING_SITES = 5
N_ORDERINGS = 800
SLOW_LATTICES = ("fcc-5.3", "bcc-5.2")
"""Superlattices whose symmetry GPAW's k-meshes do not follow: labels take minutes, some twenty of them were made."""
N_TRUTH_ORDERINGS = 80
BRIDGE_SITES, NARROW_BRIDGE_SITES, BRIDGES_A_PLACE = 5, 7, 2
BRIDGES_LOOKED_AT = 10
"""Orderings of a place whose costs are compared; there are hundreds of seven sites."""
ORDERING_SCALES, SQUEEZED_SCALES = (0.78, 1.08), (0.5, 0.76)
N_SQUEEZED = 80


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
    def is_cheap(self) -> bool:
        """Whether its symmetry makes a label of it cheap."""
        return label_cost(self.atoms()) <= CHEAP


@dataclass(frozen=True)
class Ordering:
    """Elements on the sites of a derivative superstructure."""

    derivative: Derivative
    elements: tuple[str, ...]

    @property
    def formula(self) -> str:
        """Reduced formula."""
        return reduced_formula([atomic_numbers[self.elements[colour]] for colour in self.derivative.colours])

    def atoms(self, scale: float = CONTRACTION) -> Atoms:
        """The crystal at `scale` times the sum of the elements' volumes."""
        volume = scale * guess_volume([self.elements[colour] for colour in self.derivative.colours])
        return self.derivative.decorate(self.elements, volume)

    def static(self) -> LabelJob:
        """A label at a random volume; every ordering is a crystal of its own."""
        return self._at_random(ORDERING_SCALES, "ordering")

    def squeezed(self) -> LabelJob:
        """A label at a random volume below what crystals have."""
        return self._at_random(SQUEEZED_SCALES, "squeezed")

    def _at_random(self, scales: tuple[float, float], what: str) -> LabelJob:
        random = np.random.default_rng(_rank(f"{what} {self.derivative.name} {self.elements}"))
        crystal = f"{self.derivative.name} {'-'.join(self.elements)}"
        return _job(self.atoms(random.uniform(*scales)), "static", crystal, f"{what}-{self.derivative.parent}")

    def relaxation(self) -> LabelJob:
        """A relaxation from the guessed volume."""
        return _job(self.atoms(), "relax", self.formula, f"truth-{self.derivative.parent}")


def _rank(text: str) -> int:
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
    formulas = sorted({decoration.formula for decoration in pool}, key=_rank)
    return frozenset(formulas[: round(TRUTH_SHARE * len(formulas))])


def _dealt(pool: list[Decoration], most: int) -> list[Decoration]:
    """At most `most` decorations, dealt round by round over the formulas, smaller cells first within a formula."""
    by_formula: dict[str, list[Decoration]] = {}
    for decoration in sorted(pool, key=lambda d: (len(d.prototype.sites) > 4, _rank(d.prototype.name + d.formula))):
        by_formula.setdefault(decoration.formula, []).append(decoration)
    rounds = max(len(group) for group in by_formula.values())
    dealt = [group[turn] for turn in range(rounds) for group in by_formula.values() if turn < len(group)]
    return dealt[:most]


def truth_jobs(pool: list[Decoration], most: int = 110) -> list[LabelJob]:
    """Relaxations of compounds and cheap orderings whose formula occurs nowhere in the training part.

    Orderings that are crystals of their own: many are a compound prototype, or each other with elements exchanged.
    """
    hidden = truth_formulas(pool)
    chosen = [d for d in pool if d.formula in hidden and len(d.prototype.sites) <= LARGEST_TRUTH_CELL]
    compound_jobs = [_job(d.atoms(), "relax", d.formula, f"truth-{d.prototype.name}") for d in _dealt(chosen, most)]
    dealt = _dealt_orderings(lambda formula: formula in hidden)
    orderings = (ordering.relaxation() for ordering in _new_crystals(dealt, [d.atoms() for d in chosen]))
    cheap = (job for job in orderings if label_cost(job.atoms()) <= CHEAP)
    return [*compound_jobs, *islice(cheap, N_TRUTH_ORDERINGS)]


def _new_crystals(orderings: Iterable[Ordering], known: Iterable[Atoms]) -> Iterator[Ordering]:
    seen = {fingerprint(atoms) for atoms in known}
    for ordering in orderings:
        found = fingerprint(ordering.atoms())
        if found not in seen:
            seen.add(found)
            yield ordering


def training_jobs(pool: list[Decoration]) -> list[LabelJob]:
    """Elements; around the visible compounds volumes, relaxations, strained and rattled cells; orderings on lattices.

    What is too dear is left out.
    """
    hidden = truth_formulas(pool)
    visible = _dealt([d for d in pool if d.formula not in hidden], len(pool))
    small = [d for d in visible if len(d.prototype.sites) <= SMALL_CELL]
    symmetric = [
        *_element_jobs(),
        *_volume_jobs([d for d in visible if d.is_cheap][:80]),
        *_relax_jobs(small[:50]),
        *_distorted_jobs(visible[:110]),
    ]
    rattled = [
        *_rattled_elements(),
        *_rattled_jobs([*small[:70], *[d for d in visible if d not in small][:15]]),
    ]
    return [*_affordable(symmetric, DEAREST), *_affordable(rattled, DEAREST_RATTLED), *_ordering_jobs(hidden)]


def _affordable(jobs: Iterable[LabelJob], dearest: int) -> Iterator[LabelJob]:
    return (job for job in jobs if label_cost(job.atoms()) <= dearest)


def known_jobs(pool: list[Decoration]) -> list[LabelJob]:
    """Volumes and relaxations of the known compounds that are not hidden."""
    hidden = truth_formulas(pool)
    known = [decoration for decoration in known_from(pool) if decoration.formula not in hidden]
    return [*_volume_jobs(known), *_relax_jobs(known)]


def _job(atoms: Atoms, kind: JobKind, group: str, config_type: str) -> LabelJob:
    """A job on whichever of the given and the reduced cell has fewer irreducible k-points."""
    reduced = atoms.copy()
    niggli_reduce(reduced)
    return LabelJob.of(min(atoms, reduced, key=_irreducible_k_points), kind, group, config_type)


def label_cost(atoms: Atoms, density: float = SETTINGS.k_density) -> int:
    """Atoms times irreducible k-points: what a label's time is nearly proportional to."""
    return len(atoms) * _irreducible_k_points(atoms, density)


def _irreducible_k_points(atoms: Atoms, density: float = SETTINGS.k_density) -> int:
    mesh = kptdensity2monkhorstpack(atoms, density, even=True)
    cell = (atoms.cell[:], atoms.get_scaled_positions(), atoms.numbers)
    mapping, _ = spglib.get_ir_reciprocal_mesh(mesh, cell, is_shift=[1, 1, 1], symprec=1e-4)
    return len(np.unique(mapping))


def _element_jobs() -> Iterator[LabelJob]:
    for prototype in ELEMENTAL:
        for element in ELEMENTS:
            decoration = Decoration(prototype, (element,))
            group = f"{element}-{prototype.name}"
            yield _job(decoration.atoms(1.0), "relax", group, f"element-{prototype.name}")
        yield from _volumes_of_elements(prototype)


def atom_jobs() -> list[LabelJob]:
    """Free atoms, which reference energies are taken from.

    With references fitted to crystals atoms that part cost nothing, and open lattices expanded without end.
    """
    centre = [FREE_ATOM_BOX / 2] * 3
    atoms = [Atoms(element, positions=[centre], cell=[FREE_ATOM_BOX] * 3) for element in ELEMENTS]
    return [LabelJob.of(atom, "static", f"{atom.symbols}-atom", "free-atom") for atom in atoms]


def far_jobs(pool: list[Decoration]) -> list[LabelJob]:
    """Elements and visible compounds far from their volumes: what holds atoms apart, and what they cost apart."""
    hidden = truth_formulas(pool)
    elements = [Decoration(prototype, (element,)) for prototype in ELEMENTAL for element in ELEMENTS]
    visible = _dealt([d for d in pool if d.formula not in hidden and len(d.prototype.sites) <= SMALL_CELL], len(pool))
    chosen = [*elements, *visible[:FAR_COMPOUNDS]]
    jobs = (_volume(decoration, scale, "far") for scale in FAR_SCALES for decoration in chosen)
    return list(_affordable(jobs, DEAREST_FAR))


def open_lattice_jobs(pool: list[Decoration]) -> list[LabelJob]:
    """Visible compounds and the elements on open lattices, from dense to parted, cheapest first at each volume.

    The volumes of the other jobs end where these lattices begin. Lattices of three kinds of sites also hold two
    elements: their crystals of three differ much, and few are left to learn from where one is held out.
    """
    hidden = truth_formulas(pool)
    every = [d for d in pool if d.prototype.name in OPEN_LATTICES] + _on_three_kinds_of_sites()
    compounds = [decoration for decoration in every if decoration.formula not in hidden]
    lattices = [p for p in (*ELEMENTAL, *_unusual_lattices()) if p.name in (*OPEN_ELEMENTAL, *OPEN_LATTICES)]
    elements = [Decoration(lattice, (element,)) for lattice in lattices for element in ELEMENTS]
    jobs: list[LabelJob] = []
    for scale in OPEN_SCALES:
        chosen = [*compounds, *elements] if scale > max(ELEMENT_SCALES) else compounds
        jobs += sorted(_affordable((_volume(d, scale, "open") for d in chosen), DEAREST_OPEN), key=_cost_of)
    return jobs


def _on_three_kinds_of_sites() -> list[Decoration]:
    """Two elements on the open lattices of three kinds of sites."""
    lattices = [PROTOTYPES[name] for name in OPEN_LATTICES if len(PROTOTYPES[name].labels) == 3]
    pairs = [elements for elements in product(ELEMENTS, repeat=3) if len(set(elements)) == 2]
    return [Decoration(lattice, elements) for lattice in lattices for elements in pairs]


def _volume(decoration: Decoration, scale: float, what: str) -> LabelJob:
    return _job(decoration.atoms(scale), "static", decoration.crystal, f"{what}-{decoration.prototype.name}")


def _cost_of(job: LabelJob) -> int:
    return label_cost(job.atoms())


def lattice_jobs() -> list[LabelJob]:
    """The elements alone on the lattices of the compound prototypes, cheapest first.

    A crystal that training never saw is off by what its lattice costs, more than by its elements' order on it: without
    them Si-rich A15 and perovskite were wrong by 70 to 170 meV/atom.
    """
    jobs = [job for lattice in _unusual_lattices() for job in _volumes_of_elements(lattice)]
    return sorted(_affordable(jobs, DEAREST), key=_cost_of)


def _unusual_lattices() -> list[Prototype]:
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


def _volumes_of_elements(prototype: Prototype) -> Iterator[LabelJob]:
    for element in ELEMENTS:
        for scale in ELEMENT_SCALES:
            atoms = Decoration(prototype, (element,)).atoms(scale)
            yield _job(atoms, "static", f"{element}-{prototype.name}", f"element-{prototype.name}-strained")


def _rattled_elements() -> Iterator[LabelJob]:
    for prototype in ELEMENTAL:
        for element in ELEMENTS:
            if prototype.name != "sc":
                group = f"{element}-{prototype.name}"
                supercell = Decoration(prototype, (element,)).atoms().repeat((1, 1, 2))
                yield _job(_rattled(supercell, group), "static", group, f"element-{prototype.name}-rattled")


def _volume_jobs(chosen: list[Decoration]) -> Iterator[LabelJob]:
    for decoration in chosen:
        for scale in COMPOUND_SCALES:
            yield _volume(decoration, scale, "volume")


def _relax_jobs(chosen: list[Decoration]) -> Iterator[LabelJob]:
    for decoration in chosen:
        yield _job(decoration.atoms(), "relax", decoration.crystal, f"compound-{decoration.prototype.name}")


def _distorted_jobs(chosen: list[Decoration]) -> Iterator[LabelJob]:
    for decoration in chosen:
        name = f"{decoration.prototype.name}-{'-'.join(decoration.elements)}"
        atoms = _distorted(decoration.atoms(), name)
        yield _job(atoms, "static", decoration.crystal, f"distorted-{decoration.prototype.name}")


def _rattled_jobs(chosen: list[Decoration]) -> Iterator[LabelJob]:
    for decoration in chosen:
        name = f"{decoration.prototype.name}-{'-'.join(decoration.elements)}"
        yield _job(
            _rattled(decoration.atoms(), name), "static", decoration.crystal, f"rattled-{decoration.prototype.name}"
        )


def _ordering_jobs(hidden: frozenset[str]) -> Iterator[LabelJob]:
    """Cheap orderings of two to four elements on fcc, bcc, hcp and diamond, each at a volume of its own."""
    dealt = _dealt_orderings(lambda formula: formula not in hidden)
    jobs = (ordering.static() for ordering in dealt if not ordering.derivative.name.startswith(SLOW_LATTICES))
    return islice((job for job in jobs if label_cost(job.atoms()) <= CHEAP), N_ORDERINGS)


def squeezed_jobs(hidden: frozenset[str]) -> Iterator[LabelJob]:
    """Cheap orderings squeezed: where nothing is known a network may have a hole, and relaxations fall into it.

    LiSi, hidden, went to -24 eV/atom from Li-Si distances of 2.4 Å in three quarters of its volume.
    """
    dealt = _dealt_orderings(lambda formula: formula not in hidden)
    jobs = (o.squeezed() for o in dealt if not o.derivative.name.startswith(SLOW_LATTICES))
    return islice(_affordable(jobs, DEAREST_FAR), N_SQUEEZED)


def bridge_jobs(hidden: frozenset[str]) -> list[LabelJob]:
    """Rattled orderings of five sites on fcc and bcc, dealt over every composition of two and three elements.

    The compositions of the prototypes leave gaps where formulas are hidden: Li-Al was known from Li3Al alone. Rattled,
    because GPAW's grid grows where symmetry mixes short and long axes, as it does in these stacks of layers: without
    symmetry a label costs less and has forces.
    """
    orderings = [*_combined(BRIDGE_SITES, 2), *_combined(BRIDGE_SITES, 3)]
    places = _by_place(ordering for ordering in orderings if ordering.formula not in hidden)
    return _dealt_over_places({place: _bridges(places[place]) for place in places})


def narrow_bridge_jobs(hidden: frozenset[str]) -> list[LabelJob]:
    """The same of seven sites, A4B3 and A3B4 where AB is hidden: as near to it as cells of this size come.

    Extrapolated from A3B2 and A2B3, AB was wrong by 40 to 150 meV/atom.
    """
    gaps = {pair for pair in combinations(ELEMENTS, 2) if reduced_formula([atomic_numbers[e] for e in pair]) in hidden}
    places = _by_place(o for o in _combined(NARROW_BRIDGE_SITES, 2) if o.elements in gaps and max(_counts(o)) == 4)
    return _dealt_over_places({place: _bridges(places[place][:BRIDGES_LOOKED_AT]) for place in places})


def _combined(n_sites: int, n_elements: int) -> Iterator[Ordering]:
    """Orderings of so many sites, with every choice of elements in one order."""
    for parent in PARENTS:
        for derivative in derivatives(parent, n_sites, n_elements):
            yield from (Ordering(derivative, elements) for elements in combinations(ELEMENTS, n_elements))


Place = tuple[int, int, str, str]
"""Number of elements, sites of the commonest, formula and lattice."""


def _by_place(orderings: Iterable[Ordering]) -> dict[Place, list[Ordering]]:
    """Orderings of one formula and lattice each, in a random order."""
    places: dict[Place, list[Ordering]] = {}
    for ordering in sorted(orderings, key=lambda each: _rank(f"bridge {each.derivative.name} {each.elements}")):
        counts = _counts(ordering)
        place = (len(counts), max(counts), ordering.formula, ordering.derivative.parent)
        places.setdefault(place, []).append(ordering)
    return places


def _counts(ordering: Ordering) -> list[int]:
    """Sites of each element."""
    return [ordering.derivative.colours.count(colour) for colour in range(len(ordering.elements))]


def _dealt_over_places(jobs: dict[Place, list[LabelJob]]) -> list[LabelJob]:
    """Round by round, one of each place."""
    return [job for turn in zip_longest(*(jobs[place] for place in sorted(jobs))) for job in turn if job is not None]


def _bridges(orderings: list[Ordering]) -> list[LabelJob]:
    """The cheapest of them, rattled."""
    jobs = []
    for ordering in orderings:
        name = f"{ordering.derivative.name} {'-'.join(ordering.elements)}"
        atoms = _rattled(ordering.atoms(), name)
        jobs.append(_job(atoms, "static", name, f"ordering-{ordering.derivative.parent}-rattled"))
    return sorted(jobs, key=_cost_of)[:BRIDGES_A_PLACE]


def _dealt_orderings(wanted: Callable[[str], bool]) -> Iterator[Ordering]:
    """Orderings dealt round by round over the formulas that are wanted, at random within a formula."""
    by_formula: dict[str, list[Ordering]] = {}
    for ordering in sorted(_orderings(), key=lambda each: _rank(f"{each.derivative.name} {each.elements}")):
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


def _distorted(atoms: Atoms, name: str) -> Atoms:
    """A copy stretched and with its atoms moved along z alone, so that mirror planes and cheap k-meshes survive."""
    random = np.random.default_rng(_rank(f"distorted {name}"))
    copy = atoms.copy()
    across, along = random.normal(0.0, 0.04, 2)
    stretch = (1 + random.uniform(-0.1, 0.1)) ** (1 / 3)
    copy.set_cell(copy.cell[:] @ np.diag([1 + across, 1 + across, 1 + along]) * stretch, scale_atoms=True)
    copy.positions[:, 2] += random.normal(0.0, random.uniform(0.05, 0.2), len(copy))
    return copy


def _rattled(atoms: Atoms, name: str) -> Atoms:
    """A copy with a random volume (±12 %), strain (σ 3 %) and displacements (σ 0.03 to 0.15 Å)."""
    random = np.random.default_rng(_rank(name))
    strain = random.normal(0.0, 0.03, (3, 3))
    stretch = (1 + random.uniform(-0.12, 0.12)) ** (1 / 3)
    copy = atoms.copy()
    copy.set_cell(copy.cell[:] @ (np.eye(3) + 0.5 * (strain + strain.T)) * stretch, scale_atoms=True)
    copy.positions += random.normal(0.0, random.uniform(0.03, 0.15), copy.positions.shape)
    return copy


def _turn(job: LabelJob) -> float:
    """When a job has its turn: at random, but the cheaper its first label is the earlier; a relaxation brings more."""
    return _rank(job.job_id) * label_cost(job.atoms()) ** 2


def plan() -> tuple[list[LabelJob], list[LabelJob]]:
    """Training jobs and truth jobs; every beginning of the first is a mixed sample, richer in cheap jobs.

    Known compounds come first, then compositions between those of the prototypes and elements on unusual lattices; the
    truth goes from its cheapest; what is planned twice is labelled once.
    """
    pool = compounds()
    hidden = truth_formulas(pool)
    special = [
        *atom_jobs(),
        *known_jobs(pool),
        *squeezed_jobs(hidden),
        *open_lattice_jobs(pool),
        *far_jobs(pool),
        *narrow_bridge_jobs(hidden),
        *bridge_jobs(hidden),
        *lattice_jobs(),
    ]
    training = [*special, *sorted(training_jobs(pool), key=_turn)]
    return training, sorted(truth_jobs(pool), key=_cost_of)
