import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pymatgen.analysis.phase_diagram import PDEntry, PhaseDiagram
from pymatgen.core import Composition
from scipy.optimize import linprog

from gnn.errors import InputError
from gnn.screening.hull import HullEntry, ReferenceHull, lowest_by_composition

ELEMENTS = ("Al", "Li", "Si")


def entry(counts: dict[str, float], energy: float, theory: str = "pbe") -> HullEntry:
    return HullEntry(tuple(counts.items()), energy, "x", "test", theory)


def elements(**energies: float) -> list[HullEntry]:
    return [entry({symbol: 1}, energy) for symbol, energy in energies.items()]


REFERENCES = elements(Al=-3.7, Li=-1.9, Si=-5.4)

compositions = st.tuples(*[st.integers(0, 4)] * 3).filter(any)
compounds = st.lists(st.tuples(compositions, st.floats(-1.0, 0.5)), max_size=8)


def counts_of(amounts: tuple[int, ...]) -> dict[str, float]:
    return {symbol: float(n) for symbol, n in zip(ELEMENTS, amounts, strict=True) if n}


def energy_of(counts: dict[str, float], formation: float) -> float:
    pure = {e.composition[0][0]: e.energy_per_atom for e in REFERENCES}
    return formation + sum(n * pure[symbol] for symbol, n in counts.items()) / sum(counts.values())


def entries_of(found: list[tuple[tuple[int, ...], float]]) -> list[HullEntry]:
    mixed = [(counts_of(amounts), formation) for amounts, formation in found]
    return [entry(counts, energy_of(counts, formation)) for counts, formation in mixed if len(counts) > 1]


@given(compounds, compositions, st.floats(-1.0, 1.0))
@settings(max_examples=40, deadline=None)
def test_distance_is_pymatgens(found: list, amounts: tuple[int, ...], formation: float) -> None:
    hull = ReferenceHull([*REFERENCES, *entries_of(found)])
    counts = counts_of(amounts)
    energy = energy_of(counts, formation)
    diagram = PhaseDiagram(
        [
            PDEntry(Composition(dict(e.composition)), e.energy_per_atom * sum(n for _, n in e.composition))
            for e in hull.entries
        ]
    )
    own = PDEntry(Composition(counts), energy * sum(counts.values()))
    _, expected = diagram.get_decomp_and_e_above_hull(own, allow_negative=True, check_stable=False)
    assert hull.distance(counts, energy) == pytest.approx(expected, abs=1e-7)


@given(compounds, compositions)
@settings(max_examples=40, deadline=None)
def test_hull_energy_is_the_linear_programme(found: list, amounts: tuple[int, ...]) -> None:
    """The hull at a composition is the cheapest mixture of entries with that composition."""
    hull = ReferenceHull([*REFERENCES, *entries_of(found)])
    fractions = np.array([[dict(e.composition).get(s, 0.0) for s in ELEMENTS] for e in hull.entries])
    fractions /= fractions.sum(axis=1, keepdims=True)
    target = np.array(amounts) / sum(amounts)
    best = linprog([e.energy_per_atom for e in hull.entries], A_eq=fractions.T, b_eq=target, bounds=(0, None))
    assert hull.hull_energy(counts_of(amounts)) == pytest.approx(best.fun, abs=1e-7)


@given(compounds)
@settings(max_examples=25, deadline=None)
def test_no_reference_lies_below_the_hull(found: list) -> None:
    hull = ReferenceHull([*REFERENCES, *entries_of(found)])
    distances = [(len(e.elements), hull.distance(dict(e.composition), e.energy_per_atom)) for e in hull.entries]
    assert all(distance >= -1e-9 for _, distance in distances)
    assert all(distance <= 1e-8 for n_elements, distance in distances if n_elements == 1)


def test_formation_energy_of_elements_is_zero() -> None:
    hull = ReferenceHull(REFERENCES)
    for reference in REFERENCES:
        assert hull.formation_energy(dict(reference.composition), reference.energy_per_atom) == pytest.approx(0)
    assert hull.formation_energy({"Li": 1, "Al": 1}, -3.0) == pytest.approx(-3.0 + (3.7 + 1.9) / 2)


def test_multiples_of_a_composition_are_one() -> None:
    entries = [*REFERENCES, entry({"Li": 1, "Al": 1}, -2.9), entry({"Li": 4, "Al": 4}, -3.0)]
    kept = [e for e in lowest_by_composition(entries) if len(e.elements) == 2]
    assert [e.energy_per_atom for e in kept] == [-3.0]


def test_a_candidate_below_the_hull_is_negative_and_moves_nothing() -> None:
    hull = ReferenceHull([*REFERENCES, entry({"Li": 1, "Al": 1}, -3.0)])
    assert hull.distance({"Li": 1, "Al": 1}, -3.1) == pytest.approx(-0.1)
    assert hull.distance({"Li": 1, "Al": 1}, -3.0) == pytest.approx(0)


def test_theories_do_not_mix() -> None:
    with pytest.raises(InputError, match="different theories cannot be mixed: pbe, r2scan"):
        ReferenceHull([entry({"Li": 1}, -1.9), entry({"Al": 1}, -3.7, theory="r2scan")])


def test_missing_elements_are_named() -> None:
    hull = ReferenceHull(REFERENCES)
    assert hull.missing(["Li", "Mg", "Cu"]) == ["Cu", "Mg"]
    with pytest.raises(InputError, match="no reference energy of Mg"):
        hull.distance({"Li": 1, "Mg": 1}, -1.0)
    with pytest.raises(InputError, match="no reference energy of Mg"):
        hull.formation_energy({"Mg": 1}, -1.0)


def test_the_order_of_entries_does_not_matter() -> None:
    entries = [*REFERENCES, entry({"Li": 1, "Al": 1}, -3.0), entry({"Li": 2, "Si": 1}, -3.5)]
    values = {
        round(ReferenceHull(list(order)).distance({"Al": 1, "Li": 2, "Si": 1}, -3.2), 10)
        for order in itertools.islice(itertools.permutations(entries), 0, 120, 13)
    }
    assert len(values) == 1


def test_hulls_that_were_forgotten_are_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gnn.screening.hull.MOST_DIAGRAMS", 1)
    monkeypatch.setattr("gnn.screening.hull.MOST_ENERGIES", 1)
    hull = ReferenceHull(REFERENCES)
    counts = [{"Al": 1.0, "Li": 1.0}, {"Al": 1.0, "Si": 3.0}, {"Al": 1.0, "Li": 1.0}]
    found = [hull.distance(each, -4.0) for each in counts]
    assert found == pytest.approx([-4.0 + 2.8, -4.0 + 4.975, -4.0 + 2.8])
    assert len(hull._diagrams) == len(hull._hull_energies) == 1
