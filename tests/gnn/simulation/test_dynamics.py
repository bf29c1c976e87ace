"""Batched dynamics: ASE's path, the bath's temperature, nobody harmed by a neighbour."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk, molecule
from ase.calculators.emt import EMT
from ase.constraints import FixAtoms
from ase.data import atomic_numbers
from ase.md.verlet import VelocityVerlet
from hypothesis import given, settings
from hypothesis import strategies as st

from gnn.errors import InputError
from gnn.potentials.foreign import foreign
from gnn.simulation.dynamics import DynamicsSettings, first_velocities, groups, move_many

MakeCrystal = Callable[..., Atoms]
NEWTON = DynamicsSettings(temperature=600, steps=60, every=20, timestep=2.0, friction=0.0, seed=3)


def test_without_friction_it_is_ases_velocity_verlet() -> None:
    atoms = bulk("Cu", cubic=True) * (2, 1, 1)
    atoms.set_velocities(first_velocities(atoms, 600, np.random.default_rng(0)))
    (found,) = move_many([atoms], foreign("emt"), NEWTON)
    atoms.calc = EMT()
    VelocityVerlet(atoms, NEWTON.timestep * units.fs).run(NEWTON.steps)
    np.testing.assert_allclose(found.frames[-1].positions, atoms.positions, atol=1e-8)
    np.testing.assert_allclose(found.frames[-1].get_momenta(), atoms.get_momenta(), atol=1e-7)
    assert found.frames[-1].get_potential_energy() == pytest.approx(atoms.get_potential_energy())
    assert len(found.frames) == NEWTON.steps // NEWTON.every


def test_without_friction_the_energy_stays(morse, make_crystal: MakeCrystal) -> None:
    crystals = [make_crystal(np.random.default_rng(k), (2, 2, 1)) for k in range(2)]
    settings = DynamicsSettings(temperature=500, steps=400, every=10, timestep=1.0, friction=0.0)
    for path in move_many(crystals, morse, settings):
        energies = [frame.get_total_energy() / len(frame) for frame in path.frames]
        assert np.ptp(energies) < 2e-4


def test_the_bath_has_its_temperature(morse) -> None:
    """Equipartition: 576 degrees of freedom at five nearly independent times know the mean to 3 %."""
    crystals = [bulk("Cu", cubic=True) * (2, 2, 2)] * 6
    settings = DynamicsSettings(temperature=400, steps=400, every=50, timestep=2.0, friction=0.03)
    paths = move_many(crystals, morse, settings)
    kinetic = [frame.get_kinetic_energy() / len(frame) for path in paths for frame in path.frames[3:]]
    assert np.mean(kinetic) == pytest.approx(1.5 * units.kB * 400, rel=0.12)


def test_a_path_does_not_depend_on_the_batch(morse, make_crystal: MakeCrystal) -> None:
    crystals = [make_crystal(np.random.default_rng(k), (1 + k, 1, 2)) for k in range(3)]
    settings = DynamicsSettings(steps=30, every=15)
    together = move_many(crystals, morse, settings)
    apart = move_many(crystals, morse, settings, max_atoms=1)
    for one, other in zip(together, apart, strict=True):
        np.testing.assert_allclose(one.frames[-1].positions, other.frames[-1].positions, atol=1e-9)


def test_seeds_are_other_paths(morse, make_crystal: MakeCrystal) -> None:
    crystal = make_crystal(np.random.default_rng(0))
    ends = [
        move_many([crystal], morse, DynamicsSettings(steps=20, every=20, seed=seed))[0].frames[-1].positions
        for seed in (0, 0, 1)
    ]
    np.testing.assert_array_equal(ends[0], ends[1])
    assert np.abs(ends[0] - ends[2]).max() > 1e-4


def test_held_atoms_stay(morse, make_crystal: MakeCrystal) -> None:
    crystal = make_crystal(np.random.default_rng(1), (2, 2, 1))
    crystal.set_constraint(FixAtoms([0, 3]))
    (path,) = move_many([crystal], morse, DynamicsSettings(steps=20, every=20))
    moved = np.abs(path.frames[-1].positions - crystal.positions).max(axis=1)
    assert moved[[0, 3]].max() == 0
    assert moved[[1, 2]].min() > 0


def test_masses_are_the_structures_own(morse) -> None:
    light, heavy = bulk("Cu", cubic=True), bulk("Cu", cubic=True)
    heavy.set_masses([1000.0] * 4)
    paths = move_many([light, heavy], morse, DynamicsSettings(temperature=300, steps=5, every=5, friction=0.0))
    speeds = [np.sqrt((path.frames[0].get_velocities() ** 2).mean()) for path in paths]
    assert speeds[1] < speeds[0] / 2
    assert paths[1].frames[0].get_masses()[0] == 1000


@pytest.mark.parametrize(
    ("bad", "failure"),
    [
        (Atoms("Xe2", positions=[[0, 0, 0], [0, 0, 3]]), "non_finite"),
        (Atoms("Rn2", positions=[[0, 0, 0], [0, 0, 3]]), "error"),
        (Atoms("Cu2", positions=[[0, 0, 0], [0, 0, 0.2]]), "too_close"),
        (molecule("H2O"), "elements"),
        (Atoms(), "error"),
    ],
    ids=["nan", "failing", "overlapping", "unknown", "empty"],
)
def test_one_that_fails_harms_nobody(morse, make_crystal: MakeCrystal, bad: Atoms, failure: str) -> None:
    good = make_crystal(np.random.default_rng(2))
    settings = DynamicsSettings(steps=10, every=5)
    alone = move_many([good, good], morse, settings)
    first, lost, last = move_many([good, bad, good], morse, settings)
    assert lost.failure == failure
    assert lost.reason
    assert lost.frames == []
    assert first.failure is None
    np.testing.assert_allclose(first.frames[-1].positions, alone[0].frames[-1].positions, atol=1e-9)
    assert len(last.frames) == 2


def test_one_that_fails_later_keeps_its_frames(morse) -> None:
    meeting = Atoms("Cu2", positions=[[0, 0, 0], [0, 0, 3.0]])
    meeting.set_velocities([[0, 0, 2.0], [0, 0, -2.0]])
    (path,) = move_many([meeting], morse, DynamicsSettings(steps=100, every=2, friction=0.0))
    assert path.failure in {"too_close", "forces"}
    assert 0 < len(path.frames) < 50


def test_everyone_is_reported_once(morse, make_crystal: MakeCrystal) -> None:
    crystals = [make_crystal(np.random.default_rng(k), (1, 1, 1 + k)) for k in range(3)]
    seen: list[int] = []
    settings = DynamicsSettings(steps=2, every=1)
    move_many([*crystals, molecule("H2O")], morse, settings, max_atoms=2, on_result=lambda k, _: seen.append(k))
    assert sorted(seen) == [0, 1, 2, 3]


def test_a_potential_without_forces_is_refused(make_morse) -> None:
    with pytest.raises(InputError, match="gives no forces"):
        move_many([bulk("Cu")], make_morse(provides=frozenset({"energy"})))


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"temperature": -1}, "temperature -1 K"),
        ({"friction": -0.1}, "friction -0.1/fs"),
        ({"timestep": 0}, "timestep 0 fs"),
        ({"steps": 5, "every": 10}, "every 10 must be from 1 to steps 5"),
        ({"every": 0}, "every 0 must be"),
    ],
)
def test_senseless_settings_are_refused(wrong, said: str) -> None:
    with pytest.raises(InputError, match=said):
        DynamicsSettings(**wrong)


@settings(max_examples=30, deadline=None)
@given(sizes=st.lists(st.integers(1, 12), max_size=12), room=st.integers(1, 20))
def test_groups_hold_everyone_once_and_no_more_than_there_is_room_for(sizes: list[int], room: int) -> None:
    structures = [Atoms([atomic_numbers["Cu"]] * size) for size in sizes]
    found = list(groups(structures, range(len(sizes)), room))
    assert sorted(index for group in found for index in group) == list(range(len(sizes)))
    assert all(sum(sizes[k] for k in group) <= room or len(group) == 1 for group in found)
