from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gnn.errors import InputError
from gnn.screening.derivatives import (
    PARENTS,
    derivatives,
    distinct_colourings,
    hermite_normal_forms,
    operations,
    reduced_points,
    site_permutations,
    superlattices,
)
from gnn.screening.fingerprint import fingerprint
from gnn.screening.prototypes import PROTOTYPES


def sigma_count(n: int) -> int:
    """Sublattices of index n in three dimensions: sum over d | n of d * sigma(d) (OEIS A001001)."""
    return sum(d * sum(e for e in range(1, d + 1) if d % e == 0) for d in range(1, n + 1) if n % d == 0)


@pytest.mark.parametrize("index", range(1, 13))
def test_hermite_normal_forms_are_all_sublattices(index: int) -> None:
    forms = hermite_normal_forms(index)
    assert len(forms) == sigma_count(index)
    assert len({tuple(form.ravel()) for form in forms}) == len(forms)
    assert all(round(np.linalg.det(form)) == index for form in forms)


@pytest.mark.parametrize(
    ("parent", "counts"),
    [
        # OEIS A159842: symmetry-distinct sublattices of fcc and bcc, and of diamond
        ("fcc", [1, 2, 3, 7, 5, 10, 7, 20]),
        ("bcc", [1, 2, 3, 7, 5, 10, 7, 20]),
        ("diamond", [1, 2, 3, 7, 5, 10, 7, 20]),
    ],
)
def test_distinct_superlattices(parent: str, counts: list[int]) -> None:
    assert [len(superlattices(parent, n)) for n in range(1, 9)] == counts


def exchanged(parent: str, n_sites: int) -> int:
    """Binary derivatives where A and B may be exchanged, as the literature counts them."""
    total = 0
    n_basis = len(PROTOTYPES[parent].sites)
    for hnf in superlattices(parent, n_sites // n_basis):
        translations, permutations = site_permutations(parent, np.array(hnf))
        found = {tuple(row) for row in distinct_colourings(2, translations, permutations)}
        while found:
            colouring = np.array(found.pop())
            swapped = 1 - colouring
            found.discard(min(tuple(swapped[permutation]) for permutation in permutations))
            total += 1
    return total


@pytest.mark.parametrize(
    ("parent", "counts"),
    [
        # Hart and Forcade, Phys. Rev. B 77, 224115 (2008): 2, 3, 12, 14, 50, 52, 229 on fcc and bcc
        ("fcc", {2: 2, 3: 3, 4: 12, 5: 14, 6: 50, 7: 52, 8: 229}),
        ("bcc", {2: 2, 3: 3, 4: 12, 5: 14, 6: 50, 7: 52, 8: 229}),
        # Hart and Forcade, Phys. Rev. B 80, 014120 (2009): 7, 30, 163 for 4, 6, 8 sites on hcp
        ("hcp", {4: 7, 6: 30, 8: 163}),
    ],
)
def test_binary_counts_of_the_literature(parent: str, counts: dict[int, int]) -> None:
    assert {n: exchanged(parent, n) for n in counts} == counts


@pytest.mark.parametrize("parent", PARENTS)
@pytest.mark.parametrize("n_sites", [2, 3, 4])
def test_burnside_agrees(parent: str, n_sites: int) -> None:
    """Orbits counted by Burnside's lemma, superperiodic colourings included in both."""
    n_basis = len(PROTOTYPES[parent].sites)
    if n_sites % n_basis:
        return
    for hnf in superlattices(parent, n_sites // n_basis):
        _, permutations = site_permutations(parent, np.array(hnf))
        fixed = sum(2 ** cycles(permutation) for permutation in permutations)
        assert fixed % len(permutations) == 0
        none = np.empty((0, n_sites), dtype=np.int64)
        # all colourings with both colours, plus the two with one
        assert len(distinct_colourings(2, none, permutations)) + 2 == fixed // len(permutations)


def cycles(permutation: np.ndarray) -> int:
    seen: set[int] = set()
    count = 0
    for start in range(len(permutation)):
        count += start not in seen
        while start not in seen:
            seen.add(start)
            start = int(permutation[start])
    return count


@pytest.mark.parametrize("parent", PARENTS)
def test_operations_are_permutations_of_the_crystal(parent: str) -> None:
    for operation in operations(parent):
        assert sorted(operation.sites) == list(range(len(operation.sites)))
        assert abs(round(np.linalg.det(operation.rotation))) == 1


@given(st.integers(2, 8), st.data())
@settings(max_examples=30, deadline=None)
def test_reduced_points_stay_in_the_same_class(index: int, data: st.DataObject) -> None:
    hnf = data.draw(st.sampled_from(hermite_normal_forms(index)))
    point = np.array([data.draw(st.tuples(*[st.integers(-9, 9)] * 3))])
    reduced = reduced_points(point, hnf)
    assert (reduced >= 0).all()
    assert (reduced[0] < np.diag(hnf)).all()
    steps = (point - reduced) @ np.linalg.inv(hnf)
    assert np.allclose(steps, np.round(steps), atol=1e-9)


@pytest.mark.parametrize(
    ("parent", "n_sites", "n_colours"), [("fcc", 4, 2), ("bcc", 4, 3), ("hcp", 4, 2), ("diamond", 4, 3)]
)
def test_no_two_are_the_same_crystal(parent: str, n_sites: int, n_colours: int) -> None:
    elements = ("Al", "Mg", "Si")[:n_colours]
    prints = Counter(fingerprint(d.decorate(elements, 18.0 * n_sites)) for d in derivatives(parent, n_sites, n_colours))
    assert max(prints.values()) == 1


@pytest.mark.parametrize("parent", PARENTS)
def test_sites_stay_on_the_parent_lattice(parent: str) -> None:
    plain = PROTOTYPES[parent].decorate(("Al",), 18.0 * len(PROTOTYPES[parent].sites))
    for derivative in derivatives(parent, 4, 2):
        atoms = derivative.decorate(("Al", "Al"), 72.0)
        assert fingerprint(atoms) == fingerprint(plain)
        assert atoms.cell.volume == pytest.approx(72.0)
        assert np.linalg.det(atoms.cell[:]) > 0


def test_known_structures_are_among_them() -> None:
    found = {fingerprint(d.decorate(("Al", "Cu"), 60.0)) for n in (2, 4) for d in derivatives("fcc", n, 2)}
    for name in ("L1_0", "L1_1", "L1_2", "D0_22"):
        assert fingerprint(PROTOTYPES[name].decorate(("Al", "Cu"), 60.0)) in found
    bcc = {fingerprint(d.decorate(("Al", "Cu"), 60.0)) for n in (2, 4) for d in derivatives("bcc", n, 2)}
    for name in ("CsCl", "NaTl", "D0_3"):
        assert fingerprint(PROTOTYPES[name].decorate(("Al", "Cu"), 60.0)) in bcc


def test_impossible_sizes_give_nothing() -> None:
    assert derivatives("hcp", 3, 2) == ()
    assert derivatives("fcc", 2, 3) == ()


def test_wrong_requests_are_refused() -> None:
    with pytest.raises(InputError, match="unknown parent lattice 'sc'; known: fcc, bcc, hcp, diamond"):
        derivatives("sc", 2, 2)
    with pytest.raises(InputError, match="at most 8"):
        derivatives("fcc", 9, 2)
