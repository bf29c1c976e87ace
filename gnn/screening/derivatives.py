"""Derivative superstructures: every ordered arrangement of elements on a parent lattice, once each.

Source: G. L. W. Hart and R. W. Forcade, Phys. Rev. B 77, 224115 (2008) and 80, 014120 (2009): all Hermite normal forms
of each index, all decorations of each superlattice, reduced by the parent's symmetry and by translations.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import product

import numpy as np
import spglib
from ase import Atoms
from ase.geometry import minkowski_reduce
from numpy.typing import NDArray

from gnn.errors import InputError
from gnn.screening.prototypes import PROTOTYPES, right_handed

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
HermiteForm = tuple[tuple[int, int, int], tuple[int, int, int], tuple[int, int, int]]

PARENTS = ("fcc", "bcc", "hcp", "diamond")
LARGEST = 8
"""Sites of the largest derivative: beyond it the number of arrangements explodes."""
TOLERANCE = 1e-6


@dataclass(frozen=True)
class Operation:
    """A space-group operation on lattice points: site (p, d) goes to (rotation @ p + offsets[d], sites[d])."""

    rotation: Ints
    offsets: Ints
    sites: tuple[int, ...]


@dataclass(frozen=True)
class Derivative:
    """An arrangement of colours 0..k-1 on a superlattice of `parent`.

    hnf (3, 3): rows are the superlattice's vectors in units of the parent's; colours: one of each site, lattice points
    outermost, the parent's sites innermost.
    """

    parent: str
    hnf: HermiteForm
    colours: tuple[int, ...]
    name: str

    @property
    def n_colours(self) -> int:
        """Number of different colours."""
        return max(self.colours) + 1

    def decorate(self, elements: tuple[str, ...], volume: float) -> Atoms:
        """Atoms with `elements[c]` on sites of colour c, in a Minkowski-reduced cell of `volume` (Å³)."""
        cell, fractional = _geometry(self.parent, self.hnf)
        scaled = cell * (volume / abs(np.linalg.det(cell))) ** (1 / 3)
        return Atoms([elements[colour] for colour in self.colours], scaled_positions=fractional, cell=scaled, pbc=True)


def hermite_normal_forms(index: int) -> list[Ints]:
    """Every integer matrix [[a, 0, 0], [b, c, 0], [d, e, f]] with acf = index, 0 <= b, d < a and 0 <= e < c.

    Its rows span each sublattice of that index exactly once.
    """
    forms = []
    for a in (a for a in range(1, index + 1) if index % a == 0):
        for c in (c for c in range(1, index // a + 1) if (index // a) % c == 0):
            f = index // (a * c)
            forms += [np.array([[a, 0, 0], [b, c, 0], [d, e, f]]) for b, d, e in product(range(a), range(a), range(c))]
    return forms


def reduced_points(points: Ints, hnf: Ints) -> Ints:
    """Lattice points (M, 3) brought into the superlattice's cell [0, a) x [0, c) x [0, f)."""
    reduced = points.copy()
    for axis in (2, 1, 0):
        reduced -= np.outer(reduced[:, axis] // hnf[axis, axis], hnf[axis])
    return reduced


@lru_cache(maxsize=16)
def operations(parent: str) -> tuple[Operation, ...]:
    """The parent's space group as it acts on lattice points and sites."""
    prototype = PROTOTYPES[parent]
    basis = np.array([position for _, position in prototype.sites])
    found = spglib.get_symmetry((np.array(prototype.cell), basis, [1] * len(basis)), symprec=1e-4)
    return tuple(_operation(w, t, basis) for w, t in zip(found["rotations"], found["translations"], strict=True))


def _operation(rotation: Ints, translation: Floats, basis: Floats) -> Operation:
    offsets, sites = [], []
    for position in basis:
        away = rotation @ position + translation - basis
        site = int(np.argmin(np.abs(away - np.round(away)).max(axis=1)))
        sites.append(site)
        offsets.append(np.round(away[site]).astype(np.int64))
    return Operation(rotation.astype(np.int64), np.array(offsets), tuple(sites))


def _hermite(vectors: Ints) -> tuple[int, ...]:
    """The Hermite normal form (flat) of three integer row vectors."""
    rows = vectors.copy()
    for axis in (2, 1, 0):
        for other in range(axis):
            while rows[other, axis]:
                factor = rows[axis, axis] // rows[other, axis]
                rows[axis] -= factor * rows[other]
                rows[[axis, other]] = rows[[other, axis]]
        if rows[axis, axis] < 0:
            rows[axis] *= -1
    for row in (1, 2):
        for axis in range(row - 1, -1, -1):
            rows[row] -= rows[row, axis] // rows[axis, axis] * rows[axis]
    return tuple(int(value) for value in rows.ravel())


@lru_cache(maxsize=64)
def superlattices(parent: str, index: int) -> tuple[HermiteForm, ...]:
    """Sublattices of `index` that no symmetry of the parent turns into each other, as Hermite normal forms."""
    rotations = np.unique(np.array([operation.rotation for operation in operations(parent)]), axis=0)
    kept = []
    seen: set[tuple[int, ...]] = set()
    for form in hermite_normal_forms(index):
        if tuple(form.ravel()) in seen:
            continue
        seen |= {_hermite(form @ rotation.T) for rotation in rotations}
        kept.append(_rows(form))
    return tuple(kept)


def _rows(form: Ints) -> HermiteForm:
    a, b, c = ((int(row[0]), int(row[1]), int(row[2])) for row in form)
    return a, b, c


def _points(hnf: Ints) -> Ints:
    return np.array(list(product(*(range(hnf[axis, axis]) for axis in range(3)))), dtype=np.int64)


def _site_index(points: Ints, hnf: Ints) -> Ints:
    """Position of each reduced point (M, 3) in the list `_points` gives."""
    c, f = hnf[1, 1], hnf[2, 2]
    reduced = reduced_points(points, hnf)
    return (reduced[:, 0] * c + reduced[:, 1]) * f + reduced[:, 2]


def site_permutations(parent: str, hnf: Ints) -> tuple[Ints, Ints]:
    """What symmetry does to the sites of a superlattice: (T, N) pure translations without the identity, (G, N) all.

    Site (point i, parent site d) has number i * D + d; permutation g sends site s to g[s].
    """
    points = _points(hnf)
    fixing = [op for op in operations(parent) if not reduced_points(hnf @ op.rotation.T, hnf).any()]
    permutations = [_permutation(op, shift, points, hnf) for op in fixing for shift in points]
    identity = Operation(
        np.eye(3, dtype=np.int64), np.zeros_like(fixing[0].offsets), tuple(range(len(fixing[0].sites)))
    )
    translations = [_permutation(identity, shift, points, hnf) for shift in points[1:]]
    n_sites = len(points) * len(identity.sites)
    return np.array(translations, dtype=np.int64).reshape(-1, n_sites), np.unique(np.array(permutations), axis=0)


def _permutation(operation: Operation, shift: Ints, points: Ints, hnf: Ints) -> Ints:
    n_basis = len(operation.sites)
    image = np.empty((len(points), n_basis), dtype=np.int64)
    for site in range(n_basis):
        moved = points @ operation.rotation.T + operation.offsets[site] + shift
        image[:, site] = _site_index(moved, hnf) * n_basis + operation.sites[site]
    return image.ravel()


def distinct_colourings(n_colours: int, translations: Ints, permutations: Ints) -> Ints:
    """Colourings (M, N) with every colour used, not periodic in a smaller cell, one (the lowest code) of each orbit."""
    n_sites = permutations.shape[1]
    weights = n_colours ** np.arange(n_sites - 1, -1, -1, dtype=np.int64)
    codes = np.arange(n_colours**n_sites, dtype=np.int64)
    colourings = ((codes[:, None] // weights) % n_colours).astype(np.int8)
    uses_all = np.all([(colourings == colour).any(axis=1) for colour in range(n_colours)], axis=0)
    codes, colourings = codes[uses_all], colourings[uses_all]
    for permutation in translations:
        keep = colourings[:, permutation] @ weights != codes
        codes, colourings = codes[keep], colourings[keep]
    for permutation in permutations:
        keep = colourings[:, permutation] @ weights >= codes
        codes, colourings = codes[keep], colourings[keep]
    return colourings.astype(np.int64)


@lru_cache(maxsize=256)
def derivatives(parent: str, n_sites: int, n_colours: int) -> tuple[Derivative, ...]:
    """Every derivative of `parent` with exactly `n_sites` sites and `n_colours` labelled colours.

    Colours are labelled: AAB and ABB are two arrangements. Empty where `n_sites` is no multiple of the parent's sites.

    Raises:
        InputError: unknown parent, or too many sites.
    """
    if parent not in PARENTS:
        raise InputError(f"unknown parent lattice {parent!r}; known: {', '.join(PARENTS)}")
    if n_sites > LARGEST:
        raise InputError(f"derivatives of {n_sites} sites are too many to list; at most {LARGEST}")
    n_basis = len(PROTOTYPES[parent].sites)
    if n_sites % n_basis or n_sites < n_colours:
        return ()
    found: list[Derivative] = []
    for number, hnf in enumerate(superlattices(parent, n_sites // n_basis)):
        for colours in distinct_colourings(n_colours, *site_permutations(parent, np.array(hnf))):
            name = f"{parent}-{n_sites}.{number}-{''.join('ABCDEFGH'[colour] for colour in colours)}"
            found.append(Derivative(parent, hnf, tuple(int(colour) for colour in colours), name))
    return tuple(found)


@lru_cache(maxsize=1024)
def _geometry(parent: str, hnf: HermiteForm) -> tuple[Floats, Floats]:
    """Reduced cell (3, 3) in units of the lattice constant and fractional sites (N, 3) in it."""
    prototype = PROTOTYPES[parent]
    parent_cell = np.array(prototype.cell)
    basis = np.array([position for _, position in prototype.sites])
    lattice_points = _points(np.array(hnf))
    cartesian = (lattice_points[:, None, :] + basis[None, :, :]).reshape(-1, 3) @ parent_cell
    cell = right_handed(minkowski_reduce(np.array(hnf) @ parent_cell)[0])
    fractional = cartesian @ np.linalg.inv(cell)
    fractional -= np.floor(fractional + TOLERANCE)
    return cell, fractional
