from collections.abc import Callable

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, make_supercell
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from gnn.screening.campaign import CandidateSpec, DedupeSpec, DerivativeSpec
from gnn.screening.candidates import decorated_derivatives, decorated_prototypes
from gnn.screening.dedupe import Crystal, Matcher, duplicates, known_among, shell_profile
from gnn.screening.prototypes import PROTOTYPES

MakeCrystal = Callable[..., Crystal]


def moved(atoms: Atoms, seed: int) -> Atoms:
    """The same crystal rotated, shifted, scaled, in another cell, its atoms shuffled."""
    random = np.random.default_rng(seed)
    rotation = Rotation.random(random_state=seed).as_matrix()
    copy = make_supercell(atoms, [[1, 1, 0], [0, 1, 0], [0, random.integers(0, 2), 1]])
    copy.set_cell(copy.cell[:] @ rotation * random.uniform(0.9, 1.1), scale_atoms=True)
    copy.positions += random.normal(size=3)
    copy.wrap()
    return copy[random.permutation(len(copy))]


@given(st.sampled_from(["CsCl", "L1_2", "fluorite", "AlB2", "wurtzite", "D0_19"]), st.integers(0, 10_000))
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_moved_crystal_is_a_duplicate(crystal: MakeCrystal, name: str, seed: int) -> None:
    atoms = PROTOTYPES[name].decorate(("Mg", "Si"), 20.0 * len(PROTOTYPES[name].sites))
    other = crystal(moved(atoms, seed), "moved")
    assert duplicates([crystal(atoms, "first"), other], DedupeSpec()) == {"moved": "first"}


@given(st.integers(0, 10_000))
@settings(max_examples=10, deadline=None)
def test_shell_profile_is_invariant(seed: int) -> None:
    atoms = PROTOTYPES["AlB2"].decorate(("Mg", "Si"), 60.0)
    other = moved(atoms, seed)
    a, b = (shell_profile(each.numbers, each.positions, each.cell[:]) for each in (atoms, other))
    assert a @ b == pytest.approx(1.0, abs=1e-6)


def test_a_supercell_is_a_duplicate(crystal: MakeCrystal) -> None:
    atoms = bulk("NaCl", "rocksalt", a=5.6)
    assert duplicates([crystal(atoms, "a"), crystal(atoms.repeat(2), "b")], DedupeSpec()) == {"b": "a"}


def test_different_crystals_stay(crystal: MakeCrystal) -> None:
    names = ("CsCl", "rocksalt", "zincblende", "L1_0", "L1_1", "NiAs", "wurtzite", "NaTl")
    crystals = [
        crystal(PROTOTYPES[name].decorate(("Mg", "Si"), 20.0 * len(PROTOTYPES[name].sites)), name) for name in names
    ]
    assert duplicates(crystals, DedupeSpec()) == {}


def test_swapped_elements_are_another_compound(crystal: MakeCrystal) -> None:
    pair = [
        crystal(PROTOTYPES["L1_2"].decorate(elements, 70.0), "-".join(elements))
        for elements in (("Mg", "Si"), ("Si", "Mg"))
    ]
    assert duplicates(pair, DedupeSpec()) == {}


def test_small_displacements_count_as_the_same_large_ones_do_not(crystal: MakeCrystal) -> None:
    atoms = PROTOTYPES["D0_3"].decorate(("Mg", "Al"), 76.0)
    matcher = Matcher(DedupeSpec())
    for spread, same in ((0.02, True), (0.9, False)):
        other = atoms.copy()
        other.positions += np.random.default_rng(1).normal(0, spread, other.positions.shape)
        assert matcher.same(crystal(atoms), crystal(other)) is same


def test_energies_far_apart_are_never_the_same(crystal: MakeCrystal) -> None:
    atoms = bulk("Al")
    pair = [crystal(atoms, "low", -1.0), crystal(atoms, "high", -0.9)]
    assert duplicates(pair, DedupeSpec(), energy_window=0.01) == {}
    assert duplicates(pair, DedupeSpec(), energy_window=0.2) == {"high": "low"}


def test_volumes_far_apart_are_the_same_where_they_will_relax(crystal: MakeCrystal) -> None:
    pair = [crystal(bulk("Al", "fcc", a=4.0), "small"), crystal(bulk("Al", "fcc", a=4.2, cubic=True), "large")]
    assert duplicates(pair, DedupeSpec()) == duplicates(pair, DedupeSpec(), volume_window=0.2) == {"large": "small"}
    assert duplicates(pair, DedupeSpec(), volume_window=0.01) == {}


def test_known_among_names_the_entry(crystal: MakeCrystal) -> None:
    library = [crystal(bulk("Al", "bcc", a=3.2), "lake:bcc"), crystal(bulk("Al", "fcc", a=4.0), "lake:fcc")]
    found = known_among(
        [crystal(bulk("Al", "fcc", a=4.3), "mine"), crystal(bulk("Cu"), "other")], library, DedupeSpec()
    )
    assert found == {"mine": "lake:fcc"}


def test_another_volume_is_unknown_where_cells_stay(crystal: MakeCrystal) -> None:
    library = [crystal(bulk("Cu", a=3.6), "lake:small"), crystal(bulk("Cu", a=3.9), "lake:large")]
    strained = [crystal(bulk("Cu", a=a), f"{a}") for a in (3.601, 3.75, 3.9)]
    assert known_among(strained, library, DedupeSpec(), 0.01) == {"3.601": "lake:small", "3.9": "lake:large"}


@pytest.mark.slow
def test_a_thousand_candidates_stay_distinct() -> None:
    spec = CandidateSpec(
        elements=["Li", "Mg", "Al", "Si"],
        min_elements=2,
        prototypes=["all"],
        derivatives=[DerivativeSpec(n_elements=[2, 3], max_sites=4)],
    )
    candidates = [*decorated_prototypes(spec), *decorated_derivatives(spec)]
    crystals = [Crystal(c.candidate_id, c.numbers, c.positions, c.cell) for c in candidates]
    repeated = duplicates(crystals, DedupeSpec())
    assert len(crystals) - len(repeated) > 1000
    # every derivative is one of a kind among derivatives of its parent
    source = {c.candidate_id: c.source for c in candidates}
    for name, first in repeated.items():
        families = [source[each].split(":")[1].split("-")[0] for each in (name, first)]
        assert not (
            families[0] == families[1]
            and source[name].startswith("derivative")
            and source[first].startswith("derivative")
        )
