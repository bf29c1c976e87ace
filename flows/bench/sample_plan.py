"""How the sample set that ships in datasets/sample was drawn: which Li-Mg-Al-Si structures are labelled, and how.

Deterministic: the same plan on every machine. Formulas are dealt to a training part and a truth part; no formula of
the truth part has a structure in the training part.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import combinations, islice, permutations, zip_longest

import numpy as np
import spglib
from ase import Atoms
from ase.build import niggli_reduce
from ase.calculators.calculator import kptdensity2monkhorstpack
from ase.data import atomic_numbers

from flows.bench.sample_crystals import (
    ELEMENTS,
    OPEN_LATTICES,
    Decoration,
    Ordering,
    combined,
    compounds,
    dealt_decorations,
    dealt_orderings,
    distorted,
    known_from,
    new_crystals,
    on_three_kinds_of_sites,
    rank,
    rattled,
    truth_formulas,
    unusual_lattices,
)
from gnn.dft.engine import JobKind, RelaxSettings
from gnn.dft.gpaw import GpawSettings
from gnn.dft.label import LabelJob
from gnn.screening.prototypes import ELEMENTAL, Prototype
from gnn.structures.record import reduced_formula

SETTINGS = GpawSettings()
"""One level of theory for the whole set; why this one: docs/decisions/0002-sample-theory.md."""
LARGEST_TRUTH_CELL = 5
RELAX = RelaxSettings(fmax=0.08, max_steps=20)
"""The energy is flat here: 0.08 eV/Å of force means below 1 meV/atom above the minimum."""
SMALL_CELL = 4
"""Up to this many atoms cells are relaxed, and rattled without symmetry, often."""
COMPOUND_SCALES = (0.78, 0.86, 0.94, 1.03, 1.14)
CHEAP, DEAREST = 100, 220
"""Atoms times irreducible k-points of a label that takes some nine and twenty seconds."""
DEAREST_RATTLED, DEAREST_ANTISITE = 600, 1200
"""The same for rattled cells, which have no symmetry: some forty and eighty seconds."""
ELEMENT_SCALES = (0.82, 0.9, 1.0, 1.1, 1.22)
FAR_SCALES = (0.45, 0.6, 1.4, 1.9)
"""Volumes that nobody looks for and relaxations pass by: nearest neighbours at three and at five quarters."""
FAR_COMPOUNDS, DEAREST_FAR = 40, 150
OPEN_ELEMENTAL = ("diamond", "sc")
OPEN_SCALES = (1.2, 0.95, 1.55, 1.9)
"""Open lattices end their relaxations at 1.2 to 1.8 times the volume that the elements' volumes add up to."""
DEAREST_OPEN = 240
FREE_ATOM_BOX = 10.0
"""Å. A cube: in an oblong box the degenerate levels of Si split and do not converge."""
N_ORDERINGS = 800
SLOW_LATTICES = ("fcc-5.3", "bcc-5.2")
"""Superlattices whose symmetry GPAW's k-meshes do not follow: labels take minutes, some twenty of them were made."""
N_TRUTH_ORDERINGS = 80
BRIDGE_SITES, NARROW_BRIDGE_SITES, BRIDGES_A_PLACE = 5, 7, 2
BRIDGES_LOOKED_AT = 10
"""Orderings of a place whose costs are compared; there are hundreds of seven sites."""
ANTISITE_SCALES = {"antisite": (0.85, 1.25), "squeezed-antisite": (0.6, 0.85), "ordering-antisite": (0.78, 1.08)}
EXCHANGES_AN_ORDERING = 2
REPEATS = {2: (2, 2, 1), 3: (2, 1, 1), 4: (2, 1, 1)}
"""Repeats of a cell of so many sites to at most eight."""
ORDERING_SCALES, SQUEEZED_SCALES = (0.78, 1.08), (0.5, 0.76)
N_SQUEEZED = 80


def truth_jobs(pool: list[Decoration], most: int = 110) -> list[LabelJob]:
    """Relaxations of compounds and cheap orderings whose formula occurs nowhere in the training part."""
    dealt = dealt_decorations(_truth_compounds(pool), most)
    return [*map(_truth_job, dealt), *map(_truth_job, truth_orderings(pool))]


def truth_orderings(pool: list[Decoration]) -> list[Ordering]:
    """Cheap orderings of hidden formulas that are crystals of their own.

    Many are a compound prototype, or each other with elements exchanged.
    """
    hidden = truth_formulas(pool)
    dealt = dealt_orderings(lambda formula: formula in hidden)
    crystals = new_crystals(dealt, [decoration.atoms() for decoration in _truth_compounds(pool)])
    cheap = (ordering for ordering in crystals if _cost_of(_truth_job(ordering)) <= CHEAP)
    return list(islice(cheap, N_TRUTH_ORDERINGS))


def _truth_compounds(pool: list[Decoration]) -> list[Decoration]:
    hidden = truth_formulas(pool)
    return [d for d in pool if d.formula in hidden and len(d.prototype.sites) <= LARGEST_TRUTH_CELL]


def _truth_job(crystal: Decoration | Ordering) -> LabelJob:
    return _job(crystal.atoms(), "relax", crystal.formula, f"truth-{crystal.lattice}")


def training_jobs(pool: list[Decoration]) -> list[LabelJob]:
    """Elements; around the visible compounds volumes, relaxations, strained and rattled cells; orderings on lattices.

    What is too dear is left out.
    """
    hidden = truth_formulas(pool)
    visible = dealt_decorations([d for d in pool if d.formula not in hidden], len(pool))
    small = [d for d in visible if len(d.prototype.sites) <= SMALL_CELL]
    symmetric = [
        *_element_jobs(),
        *_volume_jobs([d for d in visible if label_cost(d.atoms()) <= CHEAP][:80]),
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
    visible = dealt_decorations(
        [d for d in pool if d.formula not in hidden and len(d.prototype.sites) <= SMALL_CELL], len(pool)
    )
    chosen = [*elements, *visible[:FAR_COMPOUNDS]]
    jobs = (_volume(decoration, scale, "far") for scale in FAR_SCALES for decoration in chosen)
    return list(_affordable(jobs, DEAREST_FAR))


def open_lattice_jobs(pool: list[Decoration]) -> list[LabelJob]:
    """Visible compounds and the elements on open lattices, from dense to parted, cheapest first at each volume.

    The volumes of the other jobs end where these lattices begin. Lattices of three kinds of sites also hold two
    elements: their crystals of three differ much, and few are left to learn from where one is held out.
    """
    hidden = truth_formulas(pool)
    every = [d for d in pool if d.prototype.name in OPEN_LATTICES] + on_three_kinds_of_sites()
    compounds = [decoration for decoration in every if decoration.formula not in hidden]
    lattices = [p for p in (*ELEMENTAL, *unusual_lattices()) if p.name in (*OPEN_ELEMENTAL, *OPEN_LATTICES)]
    elements = [Decoration(lattice, (element,)) for lattice in lattices for element in ELEMENTS]
    jobs: list[LabelJob] = []
    for scale in OPEN_SCALES:
        chosen = [*compounds, *elements] if scale > max(ELEMENT_SCALES) else compounds
        jobs += sorted(_affordable((_volume(d, scale, "open") for d in chosen), DEAREST_OPEN), key=_cost_of)
    return jobs


def _volume(decoration: Decoration, scale: float, what: str) -> LabelJob:
    return _job(decoration.atoms(scale), "static", decoration.crystal, f"{what}-{decoration.prototype.name}")


def _cost_of(job: LabelJob) -> int:
    return label_cost(job.atoms())


def lattice_jobs() -> list[LabelJob]:
    """The elements alone on the lattices of the compound prototypes, cheapest first.

    A crystal that training never saw is off by what its lattice costs, more than by its elements' order on it: without
    them Si-rich A15 and perovskite were wrong by 70 to 170 meV/atom.
    """
    jobs = [job for lattice in unusual_lattices() for job in _volumes_of_elements(lattice)]
    return sorted(_affordable(jobs, DEAREST), key=_cost_of)


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
                yield _job(rattled(supercell, group), "static", group, f"element-{prototype.name}-rattled")


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
        atoms = distorted(decoration.atoms(), name)
        yield _job(atoms, "static", decoration.crystal, f"distorted-{decoration.prototype.name}")


def _rattled_jobs(chosen: list[Decoration]) -> Iterator[LabelJob]:
    for decoration in chosen:
        name = f"{decoration.prototype.name}-{'-'.join(decoration.elements)}"
        yield _job(
            rattled(decoration.atoms(), name), "static", decoration.crystal, f"rattled-{decoration.prototype.name}"
        )


def _ordering(ordering: Ordering) -> LabelJob:
    """A label at a random volume; every ordering is a crystal of its own."""
    return _at_random(ordering, ORDERING_SCALES, "ordering")


def _squeezed(ordering: Ordering) -> LabelJob:
    """A label at a random volume below what crystals have."""
    return _at_random(ordering, SQUEEZED_SCALES, "squeezed")


def _at_random(ordering: Ordering, scales: tuple[float, float], what: str) -> LabelJob:
    random = np.random.default_rng(rank(f"{what} {ordering.derivative.name} {ordering.elements}"))
    atoms = ordering.atoms(random.uniform(*scales))
    return _job(atoms, "static", ordering.crystal, f"{what}-{ordering.derivative.parent}")


def _ordering_jobs(hidden: frozenset[str]) -> Iterator[LabelJob]:
    """Cheap orderings of two to four elements on fcc, bcc, hcp and diamond, each at a volume of its own."""
    dealt = dealt_orderings(lambda formula: formula not in hidden)
    jobs = (_ordering(ordering) for ordering in dealt if not ordering.derivative.name.startswith(SLOW_LATTICES))
    return islice((job for job in jobs if label_cost(job.atoms()) <= CHEAP), N_ORDERINGS)


def squeezed_jobs(hidden: frozenset[str]) -> Iterator[LabelJob]:
    """Cheap orderings squeezed: where nothing is known a network may have a hole, and relaxations fall into it.

    LiSi, hidden, went to -24 eV/atom from Li-Si distances of 2.4 Å in three quarters of its volume.
    """
    dealt = dealt_orderings(lambda formula: formula not in hidden)
    jobs = (_squeezed(o) for o in dealt if not o.derivative.name.startswith(SLOW_LATTICES))
    return islice(_affordable(jobs, DEAREST_FAR), N_SQUEEZED)


def antisite_jobs(pool: list[Decoration]) -> list[LabelJob]:
    """Hidden crystals of up to `SMALL_CELL` sites, repeated to eight at most, with one atom of another of their kinds.

    The nearest that a cell of this size comes to a formula it must not have. Without them a network has to guess what
    one-to-one neighbours of Li and Si are on a lattice from far compositions, and took some of them for bound that are
    not. Decorations are squeezed as well: NaTl and Heusler lattices relax to 0.8 of their guessed volume, and a network
    that knows nothing below it let them go on to 0.6. Cheapest first, so that no failure of a screening chooses them.
    """
    hidden = truth_formulas(pool)
    decorated = [d for d in pool if d.formula in hidden and len(d.prototype.sites) <= SMALL_CELL]
    ordered = [ordering for ordering in truth_orderings(pool) if sum(ordering.counts) <= SMALL_CELL]
    kinds = ("antisite", "squeezed-antisite")
    jobs = [
        *(job for kind in kinds for d in decorated for job in _antisites(kind, d, hidden)),
        *(job for o in ordered for job in islice(_antisites("ordering-antisite", o, hidden), EXCHANGES_AN_ORDERING)),
    ]
    return sorted(_affordable(jobs, DEAREST_ANTISITE), key=_cost_of)


def _antisites(kind: str, crystal: Decoration | Ordering, hidden: frozenset[str]) -> Iterator[LabelJob]:
    """The cheapest cell for each exchange of one element for another, in a random order."""
    cells = _repeated(kind, crystal)
    exchanges = permutations(sorted(set(crystal.elements)), 2)
    for own, other in sorted(exchanges, key=lambda pair: rank(f"exchange {crystal.crystal} {pair}")):
        job = min((_substituted(kind, cell, own, other, crystal) for cell in cells), key=_cost_of)
        if reduced_formula(job.atoms().numbers) not in hidden:
            yield job


def _repeated(kind: str, crystal: Decoration | Ordering) -> list[Atoms]:
    """Every way to repeat a crystal to at most eight sites, at one random volume."""
    random = np.random.default_rng(rank(f"{kind} {crystal.crystal}"))
    unit = crystal.atoms(random.uniform(*ANTISITE_SCALES[kind]))
    return [unit.repeat(repeat) for repeat in set(permutations(REPEATS[len(unit)]))]


def _substituted(kind: str, cell: Atoms, own: str, other: str, crystal: Decoration | Ordering) -> LabelJob:
    """The cell with the first atom of one element exchanged for another; rattled where symmetry makes it dear."""
    copy = cell.copy()
    copy.symbols[copy.get_chemical_symbols().index(own)] = other
    group, config_type = crystal.crystal, f"{kind}-{crystal.lattice}"
    symmetric = _job(copy, "static", group, config_type)
    if _cost_of(symmetric) <= DEAREST:
        return symmetric
    return _job(rattled(copy, f"{kind} {group} {own} {other}"), "static", group, f"{config_type}-rattled")


def bridge_jobs(hidden: frozenset[str]) -> list[LabelJob]:
    """Rattled orderings of five sites on fcc and bcc, dealt over every composition of two and three elements.

    The compositions of the prototypes leave gaps where formulas are hidden: Li-Al was known from Li3Al alone. Rattled,
    because GPAW's grid grows where symmetry mixes short and long axes, as it does in these stacks of layers: without
    symmetry a label costs less and has forces.
    """
    orderings = [*combined(BRIDGE_SITES, 2), *combined(BRIDGE_SITES, 3)]
    places = _by_place(ordering for ordering in orderings if ordering.formula not in hidden)
    return _dealt_over_places({place: _bridges(places[place]) for place in places})


def narrow_bridge_jobs(hidden: frozenset[str]) -> list[LabelJob]:
    """The same of seven sites, A4B3 and A3B4 where AB is hidden: as near to it as cells of this size come.

    Extrapolated from A3B2 and A2B3, AB was wrong by 40 to 150 meV/atom.
    """
    gaps = {pair for pair in combinations(ELEMENTS, 2) if reduced_formula([atomic_numbers[e] for e in pair]) in hidden}
    places = _by_place(o for o in combined(NARROW_BRIDGE_SITES, 2) if o.elements in gaps and max(o.counts) == 4)
    return _dealt_over_places({place: _bridges(places[place][:BRIDGES_LOOKED_AT]) for place in places})


Place = tuple[int, int, str, str]
"""Number of elements, sites of the commonest, formula and lattice."""


def _by_place(orderings: Iterable[Ordering]) -> dict[Place, list[Ordering]]:
    """Orderings of one formula and lattice each, in a random order."""
    places: dict[Place, list[Ordering]] = {}
    for ordering in sorted(orderings, key=lambda each: rank(f"bridge {each.derivative.name} {each.elements}")):
        place = (len(ordering.counts), max(ordering.counts), ordering.formula, ordering.derivative.parent)
        places.setdefault(place, []).append(ordering)
    return places


def _dealt_over_places(jobs: dict[Place, list[LabelJob]]) -> list[LabelJob]:
    """Round by round, one of each place."""
    return [job for turn in zip_longest(*(jobs[place] for place in sorted(jobs))) for job in turn if job is not None]


def _bridges(orderings: list[Ordering]) -> list[LabelJob]:
    """The cheapest of them, rattled."""
    jobs = []
    for ordering in orderings:
        atoms = rattled(ordering.atoms(), ordering.crystal)
        jobs.append(_job(atoms, "static", ordering.crystal, f"ordering-{ordering.derivative.parent}-rattled"))
    return sorted(jobs, key=_cost_of)[:BRIDGES_A_PLACE]


def _turn(job: LabelJob) -> float:
    """When a job has its turn: at random, but the cheaper its first label is the earlier; a relaxation brings more."""
    return rank(job.job_id) * label_cost(job.atoms()) ** 2


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
        *antisite_jobs(pool),
        *narrow_bridge_jobs(hidden),
        *bridge_jobs(hidden),
        *squeezed_jobs(hidden),
        *open_lattice_jobs(pool),
        *far_jobs(pool),
        *lattice_jobs(),
    ]
    training = [*special, *sorted(training_jobs(pool), key=_turn)]
    return training, sorted(truth_jobs(pool), key=_cost_of)
