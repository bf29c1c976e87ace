"""Pictures of crystals: what is drawn, what is bonded, and in which order."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from hypothesis import given, settings
from hypothesis import strategies as st

from gnn.screening.prototypes import PROTOTYPES
from gnn.screening.report.structures_svg import (
    crystal,
    element_legend,
    gradients,
    hex_colour,
    nearest_distances,
    rotation,
    structure_svg,
)


def test_a_primitive_cell_is_drawn_as_its_conventional_one():
    drawn = crystal(bulk("Al", "fcc", a=4.05))
    assert len(drawn.numbers) == 14
    np.testing.assert_allclose(np.linalg.norm(drawn.cell, axis=1), 4.05, atol=1e-6)


def test_rock_salt_has_six_bonds_an_atom_inside():
    drawn = crystal(bulk("MgO", "rocksalt", a=4.2))
    centre = np.argmin(np.linalg.norm(drawn.positions - drawn.cell.sum(axis=0) / 2, axis=1))
    assert (drawn.bonds == centre).sum() == 6


def test_caesium_chloride_is_bonded_from_the_middle_to_the_corners():
    drawn = crystal(bulk("NaCl", "cesiumchloride", a=3.4))
    assert len(drawn.numbers) == 9
    assert len(drawn.bonds) == 8


def test_diamond_has_four_neighbours_inside():
    drawn = crystal(bulk("Si"))
    inside = [i for i in range(len(drawn.numbers)) if (drawn.bonds == i).sum() == 4]
    assert len(inside) >= 4


def test_atoms_far_apart_are_not_bonded():
    assert len(crystal(Atoms("Al", cell=[9, 9, 9], pbc=True)).bonds) == 0


def test_nearest_distances_cross_the_cell():
    np.testing.assert_allclose(nearest_distances(np.zeros((1, 3)), 2.9 * np.eye(3)), [2.9], atol=1e-6)
    assert np.isinf(nearest_distances(np.zeros((1, 3)), 20 * np.eye(3)))[0]


def test_a_large_cell_is_drawn_as_it_is():
    drawn = crystal(bulk("Al", "fcc", a=4.05).repeat((4, 4, 4)))
    assert len(drawn.numbers) >= 4 or len(drawn.numbers) >= 64


def test_the_rotation_keeps_lengths():
    np.testing.assert_allclose(rotation() @ rotation().T, np.eye(3), atol=1e-12)


@pytest.mark.parametrize("name", sorted(PROTOTYPES))
def test_every_prototype_has_a_picture(name):
    prototype = PROTOTYPES[name]
    atoms = prototype.decorate(("Li", "Mg", "Al", "Si")[: len(prototype.labels)], 16.0 * len(prototype.sites))
    picture = ET.fromstring(structure_svg(atoms, 100))
    assert len(picture.findall("circle")) >= len(atoms)
    assert len(picture.findall("line[@class='edge']")) == 12
    assert max(float(picture.attrib["width"]), float(picture.attrib["height"])) == pytest.approx(100, abs=1)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 8))
def test_everything_is_inside_the_picture(seed, n):
    random = np.random.default_rng(seed)
    atoms = Atoms(random.choice([3, 12, 13, 14], n), cell=5 * np.eye(3) + random.normal(0, 0.7, (3, 3)),
                  scaled_positions=random.random((n, 3)), pbc=True)  # fmt: skip
    picture = ET.fromstring(structure_svg(atoms, 120))
    _, _, width, height = map(float, picture.attrib["viewBox"].split())
    for circle in picture.findall("circle"):
        x, y, r = (float(circle.attrib[key]) for key in ("cx", "cy", "r"))
        assert x - r >= -0.1
        assert x + r <= width + 0.1
        assert y - r >= -0.1
        assert y + r <= height + 0.1


def test_near_atoms_hide_far_ones():
    """The last circle drawn is the nearest: seen from the front, the one of smallest y."""
    cell = [[5.0, 0, 0], [0.3, 6.0, 0], [0.2, 0.4, 5.5]]
    picture = structure_svg(Atoms("LiSi", positions=[[2, 4.5, 2.1], [2.3, 1.0, 2]], cell=cell, pbc=True))
    assert re.findall(r"url\(#g(\w+)\)", picture) == ["Li", "Si"]


def test_colours_are_jmols_and_defined_once():
    defined = gradients(["Si", "Li", "Si"])
    assert defined.count("<radialGradient") == 2
    assert hex_colour("O") == "#ff0d0d"
    assert element_legend(["Li", "Si"]).count("<circle") == 2
