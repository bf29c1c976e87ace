"""The ASE calculator gives the batched evaluator's numbers, at every step of a walk."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.calculator import PropertyNotImplementedError
from ase.calculators.fd import calculate_numerical_forces, calculate_numerical_stress
from ase.md.verlet import VelocityVerlet

from gnn.errors import InputError
from gnn.potentials.calculator import SluiceCalculator
from gnn.potentials.foreign import foreign
from gnn.potentials.load import CheckpointPotential, load
from gnn.potentials.potential import NeverSeenWarning


@pytest.fixture(scope="module")
def potential(checkpoint: Path) -> CheckpointPotential:
    return load(checkpoint, dtype="float64")


def test_it_equals_the_evaluator(potential: CheckpointPotential, structures: list[Atoms]) -> None:
    calculator = potential.calculator()
    for atoms, expected in zip(structures, potential.predict_atoms(structures), strict=True):
        work = atoms.copy()
        work.calc = calculator
        assert work.get_potential_energy() == pytest.approx(expected.energy, abs=1e-9)
        assert work.get_potential_energy(force_consistent=True) == pytest.approx(expected.energy, abs=1e-9)
        assert work.get_forces() == pytest.approx(expected.forces, abs=1e-9)
        assert calculator.results["uncertainty"] == pytest.approx(expected.uncertainty, abs=1e-9)
        if expected.stress is not None:
            assert work.get_stress() == pytest.approx(expected.stress, abs=1e-9)


def test_a_walk_with_strain_and_jumps_stays_exact(potential: CheckpointPotential) -> None:
    rng = np.random.default_rng(1)
    atoms = bulk("Cu", cubic=True)
    atoms.calc = potential.calculator()
    for step in range(15):
        atoms.rattle(0.03 if step % 5 else 0.5, rng=rng)
        atoms.set_cell(atoms.cell[:] @ (np.eye(3) + rng.normal(scale=0.01, size=(3, 3))), scale_atoms=True)
        fresh = potential.predict_atoms([atoms])[0]
        assert atoms.get_potential_energy() == pytest.approx(fresh.energy, abs=1e-9)
        assert atoms.get_forces() == pytest.approx(fresh.forces, abs=1e-9)


def test_the_skin_saves_searches_on_small_moves(potential: CheckpointPotential) -> None:
    calculator = SluiceCalculator(potential)
    atoms = bulk("Al", cubic=True)
    atoms.calc = calculator
    for _ in range(10):
        atoms.rattle(0.005, seed=3)
        atoms.get_forces()
    assert calculator._edges.searches == 1


def test_another_structure_is_searched_anew(potential: CheckpointPotential) -> None:
    calculator = potential.calculator()
    for atoms in (bulk("Al"), bulk("Cu"), bulk("Al") * (2, 1, 1), molecule("H2O")):
        atoms.calc = calculator
        assert atoms.get_potential_energy() == pytest.approx(potential.predict_atoms([atoms])[0].energy, abs=1e-9)


def test_forces_and_stress_are_derivatives_of_the_energy(potential: CheckpointPotential) -> None:
    atoms = bulk("Cu", cubic=True)
    atoms.rattle(0.1, seed=2)
    atoms.calc = potential.calculator()
    assert atoms.get_forces() == pytest.approx(calculate_numerical_forces(atoms, eps=1e-4), abs=1e-5)
    assert atoms.get_stress() == pytest.approx(calculate_numerical_stress(atoms, eps=1e-4), abs=1e-6)


def test_molecules_have_no_stress(potential: CheckpointPotential) -> None:
    atoms = molecule("H2O")
    atoms.calc = potential.calculator()
    with pytest.raises(PropertyNotImplementedError):
        atoms.get_stress()


def test_properties_stand_in_the_results(make_checkpoint: Callable[..., Path]) -> None:
    atoms = bulk("Cu", cubic=True)
    atoms.calc = load(make_checkpoint(properties=True)).calculator()
    atoms.get_potential_energy()
    assert np.shape(atoms.calc.results["charge"]) == (4,)
    assert isinstance(atoms.calc.results["gap"], float)


def test_a_model_of_properties_alone_is_no_calculator(make_checkpoint: Callable[..., Path]) -> None:
    potential = load(make_checkpoint(members=1, properties=True))
    data = potential.manifest.data.model_copy(update={"labels": ["charge", "gap"]})
    potential.manifest = potential.manifest.model_copy(update={"data": data})
    with pytest.raises(InputError, match="a model of charge, gap alone has no energies for a calculator"):
        potential.calculator()


def test_two_atoms_in_one_place_are_told(potential: CheckpointPotential) -> None:
    atoms = Atoms("Al2", positions=np.zeros((2, 3)), calculator=potential.calculator())
    with pytest.raises(InputError, match="energy of Al2 is nan: are two atoms in one place"):
        atoms.get_potential_energy()


def test_unknown_elements_are_refused(potential: CheckpointPotential) -> None:
    atoms = bulk("Ni")
    atoms.calc = potential.calculator()
    with pytest.raises(InputError, match="never seen Ni"):
        atoms.get_potential_energy()


def test_elements_known_only_from_the_start_are_warned_of(make_checkpoint: Callable[..., Path]) -> None:
    potential = load(make_checkpoint(members=1, trained_on=("Cu", "O")))
    assert potential.inherited == {"Al", "H"}
    for work in (potential.predict_atoms, lambda found: potential.calculator().calculate(found[0])):
        with pytest.warns(NeverSeenWarning, match="has not seen Al in its last training"):
            work([bulk("Al")])
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            work([bulk("Cu")])


def test_molecular_dynamics_keeps_its_energy(potential: CheckpointPotential) -> None:
    atoms = bulk("Cu", cubic=True)
    atoms.rattle(0.1, seed=5)
    atoms.calc = potential.lead().calculator()
    before = atoms.get_total_energy()
    VelocityVerlet(atoms, timestep=0.05, logfile=None).run(20)
    assert atoms.get_total_energy() == pytest.approx(before, abs=1e-3)


def test_a_foreign_potential_is_a_calculator_too() -> None:
    potential = foreign("emt")
    atoms = bulk("Cu", cubic=True)
    atoms.rattle(0.1, seed=0)
    expected = potential.predict_atoms([atoms])[0]
    atoms.calc = SluiceCalculator(potential)
    assert atoms.get_potential_energy() == pytest.approx(expected.energy)
    assert atoms.get_forces() == pytest.approx(expected.forces)
    assert atoms.get_stress() == pytest.approx(expected.stress)
