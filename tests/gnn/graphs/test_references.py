"""Reference energies: isolated atoms, fits, deficient sets, refusals."""

from __future__ import annotations

import numpy as np
import pytest
from ase.data import chemical_symbols
from hypothesis import given, settings
from hypothesis import strategies as st

from gnn.graphs import references
from gnn.graphs.references import fit_references, lowest


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 6), st.integers(0, 10**6))
def test_a_sum_of_element_energies_is_found_again(n_elements, seed):
    rng = np.random.default_rng(seed)
    truth = rng.uniform(-2000, 0, n_elements)
    counts = np.vstack([np.eye(n_elements, dtype=int), rng.integers(0, 9, (20, n_elements))])
    counts = counts[counts.any(axis=1)]
    names = chemical_symbols[1 : n_elements + 1]
    found = fit_references(names, counts, counts @ truth)
    np.testing.assert_allclose([found.energies[name] for name in names], truth, atol=1e-6)
    assert set(found.source.values()) == {"fitted"}


def test_isolated_atoms_are_taken_and_the_rest_is_fitted_to_what_remains():
    counts = np.array([[1, 1], [2, 1], [1, 3]])
    energies = counts @ np.array([-10.0, -4.0])
    found = fit_references(["Li", "Si"], counts, energies, {"Li": -10.0})
    assert found.energies == pytest.approx({"Li": -10.0, "Si": -4.0})
    assert found.source == {"Li": "isolated", "Si": "fitted"}


def test_what_isolated_atoms_leave_over_is_their_bonding():
    counts = np.array([[1, 1], [2, 1], [1, 3]])
    energies = counts @ np.array([-12.0, -9.0])
    found = fit_references(["Li", "Si"], counts, energies, {"Li": -10.0, "Si": -4.0})
    assert found.energies == {"Li": -10.0, "Si": -4.0}
    assert found.bonding == pytest.approx({"Li": -2.0, "Si": -5.0})
    assert fit_references(["Li", "Si"], counts, energies).bonding == {}


def test_a_fit_beside_isolated_atoms_takes_what_they_leave_over():
    found = fit_references(["Li", "Si"], np.array([[1, 1], [2, 2]]), np.array([-7012.0, -14024.0]), {"Li": -10.0})
    assert found.energies == pytest.approx({"Li": -10.0, "Si": -7002.0})
    assert found.bonding == pytest.approx({"Li": 0.0}, abs=1e-9)


def test_isolated_atoms_alone_need_no_structures():
    found = fit_references(["H"], np.zeros((0, 1), dtype=int), np.zeros(0), {"H": -13.6})
    assert found.energies == {"H": -13.6}


def test_one_composition_gives_its_elements_one_energy():
    counts = np.array([[1, 1], [2, 2], [4, 4]])
    found = fit_references(["Ga", "As"], counts, counts.sum(axis=1) * -4.0)
    assert found.energies == pytest.approx({"Ga": -4.0, "As": -4.0})


def test_what_compositions_leave_open_is_taken_from_elements_alike():
    counts = np.array([[1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    found = fit_references(["Na", "Zr", "Hf", "K"], counts, np.array([-9.0, -8.0, -1.0]))
    assert found.energies["Hf"] == pytest.approx(-8.0)
    assert found.energies["K"] == pytest.approx(-1.0)
    assert found.energies["Na"] + found.energies["Zr"] == pytest.approx(-9.0)
    assert found.energies["Na"] > -3.5
    assert found.energies["Zr"] < -5.5


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.floats(-1000, 1000))
def test_another_zero_of_energy_moves_all_references_alike(seed, zero):
    rng = np.random.default_rng(seed)
    names = ["H", "Li", "O", "Ti", "Zr", "Ce"]
    counts = rng.integers(0, 4, (4, len(names)))
    counts[:, 0] += 1
    energies = rng.uniform(-9, -1, 4) * counts.sum(axis=1)
    here = fit_references(names, counts, energies).energies
    there = fit_references(names, counts, energies + zero * counts.sum(axis=1)).energies
    assert there == pytest.approx({name: energy + zero for name, energy in here.items()}, abs=1e-6)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6))
def test_a_deficient_fit_predicts_what_it_has_seen(seed):
    rng = np.random.default_rng(seed)
    counts = rng.integers(0, 4, (3, 6))
    counts[:, 0] += 1
    energies = rng.uniform(-500, -100, 3) * counts.sum(axis=1)
    found = fit_references(chemical_symbols[1:7], counts, energies)
    values = np.array([found.energies.get(symbol, 0.0) for symbol in chemical_symbols[1:7]])
    if np.linalg.matrix_rank(counts / counts.sum(axis=1, keepdims=True)) == 3:
        residual = (counts @ values - energies) / counts.sum(axis=1)
        assert np.abs(residual).max() < 1e-3
    assert np.isfinite(values).all()


def test_an_element_without_energy_is_refused():
    found = fit_references(["Li", "U"], np.array([[2, 0], [4, 0]]), np.array([-4.0, -8.0]))
    assert found.energies == {"Li": pytest.approx(-2.0)}


@pytest.mark.parametrize("elements", [["Li"], []])
def test_no_structures_and_no_atoms_give_nothing(elements):
    assert fit_references(elements, np.zeros((0, len(elements)), dtype=int), np.zeros(0)).energies == {}


def test_chunks_do_not_matter(monkeypatch):
    rng = np.random.default_rng(0)
    counts = rng.integers(0, 5, (200, 4))
    counts[:, 0] += 1
    energies = rng.normal(size=200)
    whole = fit_references(["H", "C", "N", "O"], counts, energies)
    monkeypatch.setattr(references, "CHUNK_ROWS", 7)
    pieces = fit_references(["H", "C", "N", "O"], counts, energies)
    assert pieces.energies == pytest.approx(whole.energies)


def test_the_ground_state_of_several_atoms_is_taken():
    assert lowest([("O", -1.0), ("O", -3.0), ("H", -0.5)]) == {"O": -3.0, "H": -0.5}
