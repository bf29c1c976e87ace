import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from hypothesis import given
from hypothesis import strategies as st

from gnn.screening.campaign import FilterSpec
from gnn.screening.filters import energy_reason, geometry_reason, hull_reason, uncertainty_reason

SPEC = FilterSpec()


def reason(atoms: Atoms, spec: FilterSpec = SPEC) -> str | None:
    found = geometry_reason(atoms.numbers, atoms.positions, atoms.cell[:], spec)
    return None if found is None else found[0]


@pytest.mark.parametrize("atoms", [bulk("Al"), bulk("Si"), bulk("Mg"), bulk("NaCl", "rocksalt", a=5.64), bulk("Li")])
def test_real_crystals_pass(atoms: Atoms) -> None:
    assert reason(atoms) is None
    assert reason(atoms.repeat(2)) is None


@pytest.mark.parametrize(("scale", "expected"), [(0.5, "too dense"), (2.0, "too dilute"), (0.1, "no volume")])
def test_wrong_volumes(scale: float, expected: str) -> None:
    atoms = bulk("Al")
    atoms.set_cell(atoms.cell[:] * scale, scale_atoms=True)
    assert reason(atoms) == expected


@pytest.mark.parametrize(("symbols", "volume"), [("N8", 181.0), ("C4O8", 178.0), ("H24O12", 390.0), ("Be3F6", 114.0)])
def test_molecular_crystals_are_not_too_dilute(symbols: str, volume: float) -> None:
    """Of nitrogen, dry ice, ice and beryllium fluoride, Å³."""
    numbers, box = Atoms(symbols).numbers, volume ** (1 / 3) * np.eye(3)
    spread = np.random.default_rng(0).permutation(64)[: len(numbers)]
    places = np.stack(np.unravel_index(spread, (4, 4, 4)), axis=1) / 4 @ box
    spec = SPEC.model_copy(update={"min_distance": 0.0})
    assert geometry_reason(numbers, places, box, spec) is None
    assert geometry_reason(numbers, 2 * places, 2 * box, spec)[0] == "too dilute"


def test_volumes_may_be_unlimited() -> None:
    atoms = bulk("Al")
    atoms.set_cell(atoms.cell[:] * 2, scale_atoms=True)
    assert reason(atoms, FilterSpec.model_validate({"volume_ratio": False})) is None


def test_atoms_too_close() -> None:
    atoms = bulk("Al", cubic=True)
    atoms.positions[1] = atoms.positions[0] + [0.8, 0, 0]
    assert geometry_reason(atoms.numbers, atoms.positions, atoms.cell[:], SPEC) == ("atoms too close", "Al-Al 0.80 Å")
    assert reason(atoms, FilterSpec(min_distance=0)) is None


def test_a_short_bond_does_not_hide_a_pair_that_is_too_close() -> None:
    cage = Atoms("Cs2", positions=[[0, 0, 0], [1.2, 0, 0]], cell=3 * [8.0], pbc=True)
    with_hydrogen = cage + Atoms("H2", positions=[[4, 4, 4], [4.74, 4, 4]])
    spec = SPEC.model_copy(update={"volume_ratio": None})
    assert reason(cage, spec) == reason(with_hydrogen, spec) == "atoms too close"
    found = geometry_reason(with_hydrogen.numbers, with_hydrogen.positions, with_hydrogen.cell[:], spec)
    assert found == ("atoms too close", "Cs-Cs 1.20 Å")


def test_an_image_can_be_too_close() -> None:
    atoms = Atoms("Al", cell=[1.0, 4.0, 4.0], pbc=True)
    assert reason(atoms) == "atoms too close"


@pytest.mark.parametrize("array", ["positions", "cell"])
def test_not_finite(array: str) -> None:
    atoms = bulk("Al")
    positions, cell = atoms.positions.copy(), np.array(atoms.cell[:])
    (positions if array == "positions" else cell)[0, 0] = np.nan
    assert geometry_reason(atoms.numbers, positions, cell, SPEC) == ("not finite", "")


def test_energies() -> None:
    assert energy_reason(None, None, SPEC) == ("no energy", "")
    assert energy_reason(float("nan"), None, SPEC) == ("no energy", "")
    assert energy_reason(-3.0, 0.1, SPEC) is None
    assert energy_reason(-3.0, -7.0, SPEC) == ("formation energy beyond 5 eV/atom", "-7.00")
    assert energy_reason(-3.0, None, SPEC) is None


@given(st.floats(0, 2), st.one_of(st.none(), st.floats(0.01, 1)))
def test_uncertainty(value: float, limit: float | None) -> None:
    spec = FilterSpec(max_uncertainty=limit)
    assert (uncertainty_reason(value, spec) is None) == (limit is None or value <= limit)
    assert uncertainty_reason(None, spec) is None


@given(st.floats(-1, 1), st.one_of(st.none(), st.floats(0, 0.5)))
def test_hull_distance(value: float, limit: float | None) -> None:
    assert (hull_reason(value, FilterSpec(max_hull_distance=limit)) is None) == (limit is None or value <= limit)
