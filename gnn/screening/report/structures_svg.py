"""Pictures of crystals as SVG: spheres shaded by element, bonds, the cell's edges, drawn from back to front."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import spglib
import vesin
from ase import Atoms
from ase.data import atomic_numbers, chemical_symbols, covalent_radii
from ase.data.colors import jmol_colors
from numpy.typing import NDArray

from gnn.screening.report.markup import Html, element, join, void

Floats = NDArray[np.float64]

SYMPREC = 0.05
"""Å; relaxed cells are only nearly symmetric."""
MOST_DRAWN = 40
"""A conventional cell with more atoms than this is not used; the cell is drawn as it is."""
EDGE = 0.02
"""Fractional distance to a face within which an atom is drawn on both sides of the cell."""
NEIGHBOUR_REACH = 6.0
"""Å within which nearest neighbours are looked for."""
FIRST_SHELL = 1.1
"""Neighbours up to this many nearest distances away count as bonded …"""
LONGEST_BOND = 1.4
"""… if they are not further apart than this many times the sum of their covalent radii."""
SPHERE = 0.5
"""Radius of a sphere in units of the covalent radius."""
LARGEST_SPHERE = 0.75
PADDING = 0.25
"""Å around the picture."""
VIEW = (-78.0, 0.0, 22.0)
"""Degrees of rotation about x, y and z: from slightly above, turned so that no two axes coincide."""


@dataclass(frozen=True)
class Crystal:
    """What is drawn: numbers (N,), positions (N, 3) incl. images on faces, bonds as index pairs (M, 2), cell (3, 3)."""

    numbers: NDArray[np.int64]
    positions: Floats
    bonds: NDArray[np.int64]
    cell: Floats


def crystal(atoms: Atoms) -> Crystal:
    """The atoms of the conventional cell where it is small, with images on its faces, and bonds between neighbours."""
    numbers, fractions, cell = _conventional(atoms)
    source, all_fractions = _with_images(fractions)
    positions = all_fractions @ cell
    shells = nearest_distances(fractions @ cell, cell)[source]
    return Crystal(numbers[source], positions, _bonds(numbers[source], positions, shells), cell)


def nearest_distances(positions: Floats, cell: Floats) -> Floats:
    """Distance (Å) of each atom's nearest neighbour in the periodic crystal, shape (N,)."""
    finder = vesin.NeighborList(cutoff=NEIGHBOUR_REACH, full_list=True)
    centres, distances = finder.compute(points=positions, box=cell, periodic=True, quantities="id")
    nearest = np.full(len(positions), np.inf)
    np.minimum.at(nearest, centres, distances)
    return nearest


def _conventional(atoms: Atoms) -> tuple[NDArray[np.int64], Floats, Floats]:
    as_given = (atoms.numbers.astype(np.int64), atoms.get_scaled_positions(wrap=True), np.array(atoms.cell[:]))
    cell = (as_given[2], as_given[1], as_given[0])
    found = spglib.standardize_cell(cell, to_primitive=False, no_idealize=False, symprec=SYMPREC)
    if found is None or len(found[2]) > MOST_DRAWN:
        return as_given
    lattice, fractions, numbers = found
    return np.asarray(numbers, dtype=np.int64), np.asarray(fractions) % 1.0, np.asarray(lattice)


def _with_images(fractions: Floats) -> tuple[NDArray[np.int64], Floats]:
    """Indices of the atoms and fractional coordinates, those on faces of the cell on the opposite faces too."""
    source, kept = [], []
    for index, fraction in enumerate(fractions):
        wrapped = np.where(fraction > 1 - EDGE, fraction - 1, fraction)
        for shift in product(*[(0, 1) if abs(value) < EDGE else (0,) for value in wrapped]):
            source.append(index)
            kept.append(wrapped + np.array(shift))
    return np.array(source), np.array(kept)


def _bonds(numbers: NDArray[np.int64], positions: Floats, nearest: Floats) -> NDArray[np.int64]:
    """Pairs of atoms in each other's first shell, as long as the covalent radii make that plausible."""
    i, j = np.triu_indices(len(numbers), 1)
    distance = np.linalg.norm(positions[i] - positions[j], axis=1)
    reach = LONGEST_BOND * (covalent_radii[numbers[i]] + covalent_radii[numbers[j]])
    near = (distance < FIRST_SHELL * np.maximum(nearest[i], nearest[j])) & (distance < reach)
    return np.column_stack([i[near], j[near]])


def rotation(degrees: Sequence[float] = VIEW) -> Floats:
    """The (3, 3) matrix that turns row vectors by angles about z, y, then x."""
    x, y, z = np.radians(degrees)
    about_x = np.array([[1, 0, 0], [0, np.cos(x), -np.sin(x)], [0, np.sin(x), np.cos(x)]])
    about_y = np.array([[np.cos(y), 0, np.sin(y)], [0, 1, 0], [-np.sin(y), 0, np.cos(y)]])
    about_z = np.array([[np.cos(z), -np.sin(z), 0], [np.sin(z), np.cos(z), 0], [0, 0, 1]])
    return (about_x @ about_y @ about_z).T


def radius(number: int) -> float:
    """Å of the sphere that stands for an element."""
    return float(min(SPHERE * covalent_radii[number], LARGEST_SPHERE))


def structure_svg(atoms: Atoms, size: float = 132.0, label: str = "unit cell") -> Html:
    """A picture of at most size × size pixels; its colours come from `gradients`, which stand once in the page."""
    drawn = crystal(atoms)
    view = _View.of(drawn, size)
    shapes = [*_edges(drawn, view), *_sticks(drawn, view), *_spheres(drawn, view)]
    body = [shape for _, shape in sorted(shapes, key=lambda shape: shape[0])]
    return element(
        "svg", *body, class_="crystal", viewBox=f"0 0 {view.width:.1f} {view.height:.1f}", width=round(view.width),
        height=round(view.height), role="img", aria_label=label,
    )  # fmt: skip


Shape = tuple[float, Html]
"""Depth (larger = nearer) and markup."""


@dataclass(frozen=True)
class _View:
    """From Å to pixels, seen along `VIEW`."""

    turn: Floats
    low: Floats
    high: Floats
    scale: float

    @classmethod
    def of(cls, drawn: Crystal, size: float) -> _View:
        turn = rotation()
        spheres, corners = drawn.positions @ turn, _corners(drawn.cell) @ turn
        low = np.minimum(spheres.min(axis=0) - LARGEST_SPHERE, corners.min(axis=0) - PADDING)
        high = np.maximum(spheres.max(axis=0) + LARGEST_SPHERE, corners.max(axis=0) + PADDING)
        return cls(turn, low, high, size / float(max(high[0] - low[0], high[1] - low[1])))

    @property
    def width(self) -> float:
        return float((self.high[0] - self.low[0]) * self.scale)

    @property
    def height(self) -> float:
        return float((self.high[1] - self.low[1]) * self.scale)

    def __call__(self, points: Floats) -> Floats:
        """Pixels x, y and depth of positions (N, 3)."""
        turned = points @ self.turn
        return np.column_stack(
            [(turned[:, 0] - self.low[0]) * self.scale, (self.high[1] - turned[:, 1]) * self.scale, turned[:, 2]]
        )


def _corners(cell: Floats) -> Floats:
    return np.array(list(product((0, 1), repeat=3)), dtype=float) @ cell


def _edges(drawn: Crystal, view: _View) -> Iterable[Shape]:
    """The twelve edges of the cell; each joins corners that differ in one coordinate."""
    pixels = view(_corners(drawn.cell))
    for i in range(8):
        for bit in (1, 2, 4):
            if not i & bit:
                yield _line(pixels[i], pixels[i | bit], class_="edge")


def _line(start: Floats, end: Floats, **attributes: str | float) -> Shape:
    depth = float(start[2] + end[2]) / 2
    return depth, void("line", x1=start[0], y1=start[1], x2=end[0], y2=end[1], **attributes)


def _sticks(drawn: Crystal, view: _View) -> Iterable[Shape]:
    """Each bond in two halves, coloured as their atoms."""
    pixels = view(drawn.positions)
    for i, j in drawn.bonds:
        middle = (pixels[i] + pixels[j]) / 2
        for atom in (i, j):
            width = round(0.17 * view.scale, 2)
            yield _line(
                pixels[atom], middle, class_=f"stick e{chemical_symbols[drawn.numbers[atom]]}", stroke_width=width
            )


def _spheres(drawn: Crystal, view: _View) -> Iterable[Shape]:
    for number, (x, y, depth) in zip(drawn.numbers, view(drawn.positions), strict=True):
        size = radius(int(number))
        fill = f"url(#g{chemical_symbols[number]})"
        circle = void("circle", class_="atom", cx=float(x), cy=float(y), r=size * view.scale, fill=fill)
        yield float(depth) + size / 2, circle


def gradients(symbols: Iterable[str]) -> Html:
    """Shaded fills for the spheres and colours for the sticks, once a page; the SVG itself shows nothing."""
    wanted = sorted(set(symbols))
    fills = [_gradient(symbol) for symbol in wanted]
    rules = "".join(f".e{symbol}{{stroke:{_shade(symbol, 0.82)}}}" for symbol in wanted)
    definitions = element("defs", *fills)
    return join(
        [element("svg", definitions, width="0", height="0", class_="defs", aria_hidden="true"),
         element("style", Html(rules))]
    )  # fmt: skip


def _gradient(symbol: str) -> Html:
    stops = [
        void("stop", offset="0%", stop_color=_shade(symbol, 1.0, 0.75)),
        void("stop", offset="45%", stop_color=_shade(symbol, 1.0)),
        void("stop", offset="100%", stop_color=_shade(symbol, 0.55)),
    ]
    return element("radialGradient", *stops, id=f"g{symbol}", cx="35%", cy="30%", r="75%")


def hex_colour(symbol: str) -> str:
    """The element's colour as #rrggbb (jmol's)."""
    return _shade(symbol, 1.0)


def _shade(symbol: str, light: float, white: float = 0.0) -> str:
    """The element's colour, made darker by `light` < 1 or mixed with white."""
    base = np.array(jmol_colors[atomic_numbers[symbol]]) * light
    return "#" + "".join(f"{round(255 * float(part)):02x}" for part in base + (1 - base) * white)


def element_legend(symbols: Iterable[str]) -> Html:
    """Coloured spheres with their elements' names."""
    keys = [
        element("span", element("svg", void("circle", cx=7, cy=7, r=6, class_="atom", fill=f"url(#g{symbol})"),
                                width=14, height=14, aria_hidden="true"), symbol)
        for symbol in symbols
    ]  # fmt: skip
    return element("p", *keys, class_="legend")
