from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from hypothesis import given, settings
from hypothesis import strategies as st

from gnn.screening.campaign import CandidateSpec, DerivativeSpec
from gnn.screening.candidates import (
    Candidate,
    can_be_neutral,
    candidates_digest,
    constraint_reason,
    decorated_derivatives,
    decorated_prototypes,
    element_sets,
)
from gnn.screening.volumes import atomic_volume, fitted_volumes, guess_volume

MakeCandidate = Callable[..., Candidate]
KNOWN = frozenset({"Li", "Mg", "Al", "Si", "Na", "Cl"})


def spec(**changes: object) -> CandidateSpec:
    return CandidateSpec.model_validate({"elements": ["Li", "Mg", "Al"], "prototypes": ["CsCl"], **changes})


def test_element_sets() -> None:
    assert element_sets(spec()) == [
        ("Li",),
        ("Mg",),
        ("Al",),
        ("Li", "Mg"),
        ("Li", "Al"),
        ("Mg", "Al"),
        ("Li", "Mg", "Al"),
    ]
    assert element_sets(spec(min_elements=2, max_elements=2)) == [("Li", "Mg"), ("Li", "Al"), ("Mg", "Al")]
    assert element_sets(spec(systems=["Si-Al"])) == [("Si", "Al")]


def test_decorations_count() -> None:
    found = list(decorated_prototypes(spec(prototypes=["fcc", "CsCl", "half-Heusler", "CsCl"])))
    assert Counter(c.prototype for c in found) == {"fcc": 3, "CsCl": 6, "half-Heusler": 6}
    assert len({c.candidate_id for c in found}) == len(found)
    assert {c.system for c in found if c.prototype == "half-Heusler"} == {"Al-Li-Mg"}


def test_all_prototypes() -> None:
    found = {c.prototype for c in decorated_prototypes(spec(elements=["Li", "Mg", "Al", "Si"], prototypes=["all"]))}
    assert {"rocksalt", "Laves-C14", "perovskite", "inverse-Heusler", "LiMgPdSn", "bcc"} <= found


def test_derivative_families_are_not_repeated() -> None:
    families = [DerivativeSpec(parents=["fcc"], max_sites=3), DerivativeSpec(parents=["fcc", "bcc"], max_sites=3)]
    found = list(decorated_derivatives(spec(prototypes=[], derivatives=families)))
    assert len(found) == 3 * 2 * (2 + 6)
    assert len({c.source for c in found}) == len(found)


@given(st.floats(0.6, 1.5))
@settings(max_examples=10, deadline=None)
def test_first_volumes(scale: float) -> None:
    candidate = next(decorated_prototypes(spec(systems=["Li-Al"], volume_scale=scale)))
    expected = scale * (atomic_volume("Li") + atomic_volume("Al"))
    assert candidate.atoms().get_volume() == pytest.approx(expected)


def test_a_table_of_volumes_goes_first() -> None:
    assert guess_volume(["Li", "Al"], {"Li": 10.0}) == pytest.approx(10.0 + atomic_volume("Al"))


@given(st.floats(8, 30), st.floats(8, 30))
def test_fitted_volumes_reproduce_what_adds_up(a: float, b: float) -> None:
    crystals = [({"Li": n, "Al": m}, n * a + m * b) for n in range(4) for m in range(4) if n + m]
    fitted = fitted_volumes(crystals, weight=1e-9)
    bounds = {s: (0.5 * atomic_volume(s), 2 * atomic_volume(s)) for s in ("Li", "Al")}
    assert fitted["Li"] == pytest.approx(np.clip(a, *bounds["Li"]), rel=1e-3)
    assert fitted["Al"] == pytest.approx(np.clip(b, *bounds["Al"]), rel=1e-3)


def test_an_element_seen_once_stays_near_its_own_volume() -> None:
    assert fitted_volumes([]) == {}
    alone = fitted_volumes([({"Al": 1.0}, 10.0)])
    assert 10.0 < alone["Al"] < atomic_volume("Al")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({}, None),
        ({"exclude": ["Al"]}, "excluded elements"),
        ({"max_elements": 1}, "more than 1 elements"),
        ({"min_elements": 3}, "fewer than 3 elements"),
        ({"max_atoms": 1}, "more than 1 atoms"),
        ({"charge_neutral": True}, "common oxidation states cannot make it neutral"),
    ],
)
def test_constraints(candidate: MakeCandidate, changes: dict, reason: str | None) -> None:
    atoms = Atoms("LiAl", positions=[[0, 0, 0], [1.6, 1.6, 1.6]], cell=[3.2] * 3, pbc=True)
    found = constraint_reason(candidate(atoms), spec(**changes), KNOWN)
    assert (None if found is None else found[0]) == reason


def test_elements_the_model_does_not_know(candidate: MakeCandidate) -> None:
    assert constraint_reason(candidate(bulk("Cu")), spec(), KNOWN) == ("elements the model does not know", "Cu")


def test_charges() -> None:
    assert can_be_neutral("NaCl")
    assert can_be_neutral("Al")
    assert not can_be_neutral("NaCl3")


def test_ids_tell_source_and_geometry_apart(candidate: MakeCandidate) -> None:
    atoms = bulk("Al")
    shifted = atoms.copy()
    shifted.positions += 1e-3
    ids = [candidate(atoms, "a").candidate_id, candidate(atoms, "b").candidate_id, candidate(shifted, "a").candidate_id]
    assert len(set(ids)) == 3
    noisy = atoms.copy()
    noisy.positions += 1e-9
    assert candidate(noisy, "a").candidate_id == ids[0]
    assert len(ids[0]) == 16


def test_the_digest_does_not_depend_on_order(candidate: MakeCandidate) -> None:
    found = [candidate(bulk(s), s) for s in ("Al", "Li", "Si")]
    assert candidates_digest(found) == candidates_digest(found[::-1]) != candidates_digest(found[:2])


def test_what_a_candidate_says_of_itself(candidate: MakeCandidate) -> None:
    made = candidate(bulk("NaCl", "rocksalt", a=5.6).repeat(2), "x", "rocksalt")
    assert (made.formula, made.system, made.n_atoms, made.prototype) == ("NaCl", "Cl-Na", 16, "rocksalt")
    assert made.atoms().pbc.all()
