"""Crystal prototypes to decorate: cell, sites and the label (A, B, C, D) of each site.

Source of the geometries: Strukturbericht types as in Pearson's Handbook and the AFLOW prototype encyclopaedia; ideal
axial ratios and free parameters, since a relaxation follows.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import permutations

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

Floats = NDArray[np.float64]

FCC = ((0.0, 0.5, 0.5), (0.5, 0.0, 0.5), (0.5, 0.5, 0.0))
BCC = ((-0.5, 0.5, 0.5), (0.5, -0.5, 0.5), (0.5, 0.5, -0.5))
CUBIC = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))
ROOT3 = 3**0.5
IDEAL_C_OVER_A = (8 / 3) ** 0.5

Vectors = tuple[tuple[float, float, float], ...]
Sites = tuple[tuple[str, tuple[float, float, float]], ...]


@dataclass(frozen=True)
class Prototype:
    """A structure type: `cell` in units of the lattice constant, `sites` as (label, fractional coordinates)."""

    name: str
    cell: Vectors
    sites: Sites

    @property
    def labels(self) -> tuple[str, ...]:
        """Distinct site labels, in alphabetical order."""
        return tuple(sorted({label for label, _ in self.sites}))

    def decorate(self, elements: tuple[str, ...], volume: float) -> Atoms:
        """Atoms with `elements` on the labels in alphabetical order, the cell scaled to `volume` (Å³)."""
        of_label = dict(zip(self.labels, elements, strict=True))
        cell = np.array(self.cell)
        cell *= (volume / abs(np.linalg.det(cell))) ** (1 / 3)
        atoms = Atoms(
            symbols=[of_label[label] for label, _ in self.sites],
            scaled_positions=[position for _, position in self.sites],
            cell=right_handed(cell),
            pbc=True,
        )
        atoms.info["prototype"] = self.name
        return atoms


def right_handed(cell: Floats) -> Floats:
    """The same lattice with a positive determinant; the sites become their mirror image."""
    return cell if np.linalg.det(cell) > 0 else -cell


def hexagonal(c_over_a: float) -> Vectors:
    """Vectors of a hexagonal cell with a = 1."""
    return ((1.0, 0.0, 0.0), (-0.5, ROOT3 / 2, 0.0), (0.0, 0.0, c_over_a))


def tetragonal(c_over_a: float) -> Vectors:
    """Vectors of a primitive tetragonal cell with a = 1."""
    return ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, c_over_a))


def body_centred_tetragonal(c_over_a: float) -> Vectors:
    """Primitive vectors of a body-centred tetragonal cell with a = 1."""
    h = c_over_a / 2
    return ((-0.5, 0.5, h), (0.5, -0.5, h), (0.5, 0.5, -h))


def _bct_fractional(point: tuple[float, float, float]) -> tuple[float, float, float]:
    """Conventional body-centred coordinates as fractions of the primitive vectors."""
    x, y, z = np.linalg.solve(np.array(BCC).T, np.array(point))
    return (float(x), float(y), float(z))


def _fcc_fractional(point: tuple[float, float, float]) -> tuple[float, float, float]:
    """Conventional face-centred coordinates as fractions of the primitive vectors."""
    x, y, z = np.linalg.solve(np.array(FCC).T, np.array(point))
    return (float(x), float(y), float(z))


def _fcc_prototype(name: str, *sites: tuple[str, tuple[float, float, float]]) -> Prototype:
    return Prototype(name, FCC, tuple((label, _fcc_fractional(point)) for label, point in sites))


QUARTER, HALF, THREE = (0.25,) * 3, (0.5,) * 3, (0.75,) * 3
ORIGIN = (0.0, 0.0, 0.0)

ELEMENTAL = (
    Prototype("fcc", FCC, (("A", ORIGIN),)),
    Prototype("bcc", BCC, (("A", ORIGIN),)),
    Prototype("sc", CUBIC, (("A", ORIGIN),)),
    Prototype("hcp", hexagonal(IDEAL_C_OVER_A), (("A", (1 / 3, 2 / 3, 0.25)), ("A", (2 / 3, 1 / 3, 0.75)))),
    _fcc_prototype("diamond", ("A", ORIGIN), ("A", QUARTER)),
)

BINARY = (
    _fcc_prototype("rocksalt", ("A", ORIGIN), ("B", HALF)),
    Prototype("CsCl", CUBIC, (("A", ORIGIN), ("B", HALF))),
    _fcc_prototype("zincblende", ("A", ORIGIN), ("B", QUARTER)),
    Prototype(
        "wurtzite",
        hexagonal(IDEAL_C_OVER_A),
        (
            ("A", (1 / 3, 2 / 3, 0.0)),
            ("A", (2 / 3, 1 / 3, 0.5)),
            ("B", (1 / 3, 2 / 3, 0.375)),
            ("B", (2 / 3, 1 / 3, 0.875)),
        ),
    ),
    Prototype(
        "NiAs",
        hexagonal(1.39),
        (("A", ORIGIN), ("A", (0.0, 0.0, 0.5)), ("B", (1 / 3, 2 / 3, 0.25)), ("B", (2 / 3, 1 / 3, 0.75))),
    ),
    _fcc_prototype("NaTl", ("A", ORIGIN), ("A", QUARTER), ("B", HALF), ("B", THREE)),
    Prototype("L1_0", tetragonal(2**0.5), (("A", ORIGIN), ("B", HALF))),
    Prototype("L1_1", ((0.5, 0.5, 1.0), (0.5, 1.0, 0.5), (1.0, 0.5, 0.5)), (("A", ORIGIN), ("B", HALF))),
    _fcc_prototype("fluorite", ("A", ORIGIN), ("B", QUARTER), ("B", THREE)),
    _fcc_prototype("antifluorite", ("B", ORIGIN), ("A", QUARTER), ("A", THREE)),
    Prototype("AlB2", hexagonal(1.08), (("A", ORIGIN), ("B", (1 / 3, 2 / 3, 0.5)), ("B", (2 / 3, 1 / 3, 0.5)))),
    Prototype("CdI2", hexagonal(1.6), (("A", ORIGIN), ("B", (1 / 3, 2 / 3, 0.25)), ("B", (2 / 3, 1 / 3, 0.75)))),
    Prototype(
        "MoSi2",
        body_centred_tetragonal(2.45),
        (("A", ORIGIN), ("B", _bct_fractional((0, 0, 1 / 3))), ("B", _bct_fractional((0, 0, 2 / 3)))),
    ),
    Prototype(
        "Ni2In",
        hexagonal(1.22),
        (
            ("A", (1 / 3, 2 / 3, 0.25)),
            ("A", (2 / 3, 1 / 3, 0.75)),
            ("B", ORIGIN),
            ("B", (0.0, 0.0, 0.5)),
            ("B", (1 / 3, 2 / 3, 0.75)),
            ("B", (2 / 3, 1 / 3, 0.25)),
        ),
    ),
    _fcc_prototype(
        "Laves-C15",
        ("A", (0.125, 0.125, 0.125)),
        ("A", (0.875, 0.875, 0.875)),
        ("B", HALF),
        ("B", (0.5, 0.75, 0.75)),
        ("B", (0.75, 0.5, 0.75)),
        ("B", (0.75, 0.75, 0.5)),
    ),
    Prototype(
        "Laves-C14",
        hexagonal(1.633),
        (
            ("A", (1 / 3, 2 / 3, 0.062)),
            ("A", (2 / 3, 1 / 3, 0.562)),
            ("A", (1 / 3, 2 / 3, 0.438)),
            ("A", (2 / 3, 1 / 3, 0.938)),
            ("B", ORIGIN),
            ("B", (0.0, 0.0, 0.5)),
            *(
                ("B", (x, y, z))
                for x, y, z in (
                    (0.83, 0.66, 0.25),
                    (0.34, 0.17, 0.25),
                    (0.83, 0.17, 0.25),
                    (0.17, 0.34, 0.75),
                    (0.66, 0.83, 0.75),
                    (0.17, 0.83, 0.75),
                )
            ),
        ),
    ),
    Prototype("L1_2", CUBIC, (("A", ORIGIN), ("B", (0.5, 0.5, 0.0)), ("B", (0.5, 0.0, 0.5)), ("B", (0.0, 0.5, 0.5)))),
    _fcc_prototype("D0_3", ("A", ORIGIN), ("B", HALF), ("B", QUARTER), ("B", THREE)),
    Prototype(
        "D0_22",
        body_centred_tetragonal(2.0),
        (
            ("A", ORIGIN),
            ("B", _bct_fractional((0.5, 0.5, 0.0))),
            ("B", _bct_fractional((0.5, 0.0, 0.25))),
            ("B", _bct_fractional((0.0, 0.5, 0.25))),
        ),
    ),
    Prototype(
        "D0_19",
        hexagonal(IDEAL_C_OVER_A / 2),
        (
            ("A", (1 / 3, 2 / 3, 0.25)),
            ("A", (2 / 3, 1 / 3, 0.75)),
            ("B", (1 / 6, 1 / 3, 0.75)),
            ("B", (2 / 3, 5 / 6, 0.75)),
            ("B", (1 / 6, 5 / 6, 0.75)),
            ("B", (5 / 6, 2 / 3, 0.25)),
            ("B", (1 / 3, 1 / 6, 0.25)),
            ("B", (5 / 6, 1 / 6, 0.25)),
        ),
    ),
    Prototype(
        "A15",
        CUBIC,
        (
            ("A", ORIGIN),
            ("A", HALF),
            ("B", (0.25, 0.0, 0.5)),
            ("B", (0.75, 0.0, 0.5)),
            ("B", (0.5, 0.25, 0.0)),
            ("B", (0.5, 0.75, 0.0)),
            ("B", (0.0, 0.5, 0.25)),
            ("B", (0.0, 0.5, 0.75)),
        ),
    ),
    Prototype(
        "D1_a",
        body_centred_tetragonal(0.62),
        (
            ("A", ORIGIN),
            *(
                ("B", _bct_fractional(point))
                for point in ((0.2, 0.4, 0.0), (0.8, 0.6, 0.0), (0.6, 0.2, 0.0), (0.4, 0.8, 0.0))
            ),
        ),
    ),
)

TERNARY = (
    _fcc_prototype("half-Heusler", ("A", ORIGIN), ("B", HALF), ("C", QUARTER)),
    _fcc_prototype("full-Heusler", ("A", ORIGIN), ("B", HALF), ("C", QUARTER), ("C", THREE)),
    _fcc_prototype("inverse-Heusler", ("A", ORIGIN), ("B", QUARTER), ("C", HALF), ("C", THREE)),
    Prototype(
        "perovskite",
        CUBIC,
        (("A", ORIGIN), ("B", HALF), ("C", (0.5, 0.5, 0.0)), ("C", (0.5, 0.0, 0.5)), ("C", (0.0, 0.5, 0.5))),
    ),
    Prototype(
        "ThCr2Si2",
        body_centred_tetragonal(2.5),
        (
            ("A", ORIGIN),
            ("B", _bct_fractional((0.0, 0.5, 0.25))),
            ("B", _bct_fractional((0.5, 0.0, 0.25))),
            ("C", _bct_fractional((0.0, 0.0, 0.37))),
            ("C", _bct_fractional((0.0, 0.0, 0.63))),
        ),
    ),
    Prototype(
        "CaAl2Si2",
        hexagonal(1.7),
        (
            ("A", ORIGIN),
            ("B", (1 / 3, 2 / 3, 0.63)),
            ("B", (2 / 3, 1 / 3, 0.37)),
            ("C", (1 / 3, 2 / 3, 0.27)),
            ("C", (2 / 3, 1 / 3, 0.73)),
        ),
    ),
    Prototype(
        "chalcopyrite",
        body_centred_tetragonal(2.0),
        (
            ("A", ORIGIN),
            ("A", _bct_fractional((0.0, 0.5, 0.25))),
            ("B", _bct_fractional((0.0, 0.0, 0.5))),
            ("B", _bct_fractional((0.0, 0.5, 0.75))),
            *(
                ("C", _bct_fractional(point))
                for point in (
                    (0.25, 0.25, 0.125),
                    (0.75, 0.75, 0.125),
                    (0.25, 0.75, 0.875),
                    (0.75, 0.25, 0.875),
                )
            ),
        ),
    ),
    Prototype(
        "ZrBeSi",
        hexagonal(1.55),
        (
            ("A", ORIGIN),
            ("A", (0.0, 0.0, 0.5)),
            ("B", (1 / 3, 2 / 3, 0.25)),
            ("B", (2 / 3, 1 / 3, 0.75)),
            ("C", (1 / 3, 2 / 3, 0.75)),
            ("C", (2 / 3, 1 / 3, 0.25)),
        ),
    ),
)

QUATERNARY = (_fcc_prototype("LiMgPdSn", ("A", ORIGIN), ("B", QUARTER), ("C", HALF), ("D", THREE)),)

PROTOTYPES: dict[str, Prototype] = {p.name: p for p in (*ELEMENTAL, *BINARY, *TERNARY, *QUATERNARY)}


def decorations(prototype: Prototype, elements: tuple[str, ...]) -> list[tuple[str, ...]]:
    """Every ordered choice of distinct `elements` for the labels of `prototype`."""
    return list(permutations(elements, len(prototype.labels)))
