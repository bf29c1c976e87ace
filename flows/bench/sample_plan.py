"""How the sample set that ships in datasets/sample was drawn: which Li-Mg-Al-Si structures are labelled, and how.

Deterministic: the same plan on every machine. Formulas are dealt to a training part and a truth part; no formula of
the truth part has a structure in the training part.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

import numpy as np
from ase import Atoms

from flows.bench.sample_antisites import antisite_jobs
from flows.bench.sample_bridges import bridge_jobs, narrow_bridge_jobs
from flows.bench.sample_crystals import (
    ELEMENTS,
    OPEN_LATTICES,
    Decoration,
    Ordering,
    compounds,
    dealt_decorations,
    dealt_orderings,
    distorted,
    known_from,
    on_three_kinds_of_sites,
    rank,
    rattled,
    truth_formulas,
    unusual_lattices,
)
from flows.bench.sample_hidden import truth_jobs, truth_orderings
from flows.bench.sample_jobs import CHEAP, DEAREST, affordable, cheapest_cell, cost_of, label_cost
from gnn.dft.label import LabelJob
from gnn.screening.prototypes import ELEMENTAL, Prototype

SMALL_CELL = 4
"""Up to this many atoms cells are relaxed, and rattled without symmetry, often."""
COMPOUND_SCALES = (0.78, 0.86, 0.94, 1.03, 1.14)
DEAREST_RATTLED = 600
"""Rattled cells have no symmetry: some forty seconds."""
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
ORDERING_SCALES, SQUEEZED_SCALES = (0.78, 1.08), (0.5, 0.76)
N_SQUEEZED = 80


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
    return [*affordable(symmetric, DEAREST), *affordable(rattled, DEAREST_RATTLED), *_ordering_jobs(hidden)]


def known_jobs(pool: list[Decoration]) -> list[LabelJob]:
    """Volumes and relaxations of the known compounds that are not hidden."""
    hidden = truth_formulas(pool)
    known = [decoration for decoration in known_from(pool) if decoration.formula not in hidden]
    return [*_volume_jobs(known), *_relax_jobs(known)]


def _element_jobs() -> Iterator[LabelJob]:
    for prototype in ELEMENTAL:
        for element in ELEMENTS:
            decoration = Decoration(prototype, (element,))
            group = f"{element}-{prototype.name}"
            yield cheapest_cell(decoration.atoms(1.0), "relax", group, f"element-{prototype.name}")
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
    return list(affordable(jobs, DEAREST_FAR))


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
        jobs += sorted(affordable((_volume(d, scale, "open") for d in chosen), DEAREST_OPEN), key=cost_of)
    return jobs


def _volume(decoration: Decoration, scale: float, what: str) -> LabelJob:
    return cheapest_cell(decoration.atoms(scale), "static", decoration.crystal, f"{what}-{decoration.lattice}")


def lattice_jobs() -> list[LabelJob]:
    """The elements alone on the lattices of the compound prototypes, cheapest first.

    A crystal that training never saw is off by what its lattice costs, more than by its elements' order on it: without
    them Si-rich A15 and perovskite were wrong by 70 to 170 meV/atom.
    """
    jobs = [job for lattice in unusual_lattices() for job in _volumes_of_elements(lattice)]
    return sorted(affordable(jobs, DEAREST), key=cost_of)


def _volumes_of_elements(prototype: Prototype) -> Iterator[LabelJob]:
    for element in ELEMENTS:
        for scale in ELEMENT_SCALES:
            atoms = Decoration(prototype, (element,)).atoms(scale)
            yield cheapest_cell(atoms, "static", f"{element}-{prototype.name}", f"element-{prototype.name}-strained")


def _rattled_elements() -> Iterator[LabelJob]:
    for prototype in ELEMENTAL:
        for element in ELEMENTS:
            if prototype.name != "sc":
                group = f"{element}-{prototype.name}"
                supercell = Decoration(prototype, (element,)).atoms().repeat((1, 1, 2))
                yield cheapest_cell(rattled(supercell, group), "static", group, f"element-{prototype.name}-rattled")


def _volume_jobs(chosen: list[Decoration]) -> Iterator[LabelJob]:
    for decoration in chosen:
        for scale in COMPOUND_SCALES:
            yield _volume(decoration, scale, "volume")


def _relax_jobs(chosen: list[Decoration]) -> Iterator[LabelJob]:
    for decoration in chosen:
        yield cheapest_cell(decoration.atoms(), "relax", decoration.crystal, f"compound-{decoration.lattice}")


def _distorted_jobs(chosen: list[Decoration]) -> Iterator[LabelJob]:
    for decoration in chosen:
        name = f"{decoration.lattice}-{'-'.join(decoration.elements)}"
        atoms = distorted(decoration.atoms(), name)
        yield cheapest_cell(atoms, "static", decoration.crystal, f"distorted-{decoration.lattice}")


def _rattled_jobs(chosen: list[Decoration]) -> Iterator[LabelJob]:
    for decoration in chosen:
        name = f"{decoration.lattice}-{'-'.join(decoration.elements)}"
        yield cheapest_cell(
            rattled(decoration.atoms(), name), "static", decoration.crystal, f"rattled-{decoration.lattice}"
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
    return cheapest_cell(atoms, "static", ordering.crystal, f"{what}-{ordering.lattice}")


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
    return islice(affordable(jobs, DEAREST_FAR), N_SQUEEZED)


def _turn(job: LabelJob) -> float:
    """When a job has its turn: at random, but the cheaper its first label is the earlier; a relaxation brings more."""
    return rank(job.job_id) * label_cost(job.atoms()) ** 2


def plan() -> tuple[list[LabelJob], list[LabelJob]]:
    """Training jobs and truth jobs; every beginning of the first is a mixed sample, richer in cheap jobs.

    Known compounds come first, then compositions between those of the prototypes and elements on unusual lattices; the
    truth goes from its cheapest; what is planned twice is labelled once.
    """
    pool = compounds()
    orderings = truth_orderings(pool)
    hidden = truth_formulas(pool)
    special = [
        *atom_jobs(),
        *known_jobs(pool),
        *antisite_jobs(pool, orderings),
        *narrow_bridge_jobs(hidden),
        *bridge_jobs(hidden),
        *squeezed_jobs(hidden),
        *open_lattice_jobs(pool),
        *far_jobs(pool),
        *lattice_jobs(),
    ]
    training = [*special, *sorted(training_jobs(pool), key=_turn)]
    return training, sorted(truth_jobs(pool, orderings), key=cost_of)
