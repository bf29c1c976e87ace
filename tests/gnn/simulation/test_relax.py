"""Batched relaxation: ASE's results, nobody lost, nobody harmed by a neighbour."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, fcc111, molecule
from ase.calculators.emt import EMT
from ase.constraints import FixAtoms, FixCartesian, FixScaled
from ase.data import atomic_numbers
from ase.filters import FrechetCellFilter
from ase.optimize import BFGS, FIRE
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gnn.errors import InputError
from gnn.graphs.batch import Batch
from gnn.potentials.calculator import SluiceCalculator
from gnn.potentials.foreign import CalculatorPotential, foreign
from gnn.potentials.potential import BatchPrediction
from gnn.simulation.relax import Relaxed, RelaxSettings, relax_many

MakeCrystal = Callable[..., Atoms]


def alloys() -> list[Atoms]:
    """Ordered alloys away from their minimum, some rattled and sheared."""
    rng = np.random.default_rng(4)
    found = []
    for number, (element, other) in enumerate((("Cu", "Ni"), ("Al", "Cu"), ("Ni", "Al"))):
        for rattle in (0.0, 0.08):
            atoms = bulk(element, cubic=True)
            atoms.symbols[0] = other
            atoms.set_cell(atoms.cell * (1.04 - 0.02 * number), scale_atoms=True)
            if rattle:
                strain = rng.normal(scale=0.02, size=(3, 3))
                atoms.set_cell(atoms.cell[:] @ (np.eye(3) + strain + strain.T), scale_atoms=True)
                atoms.rattle(rattle, rng=rng)
            found.append(atoms)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("fmax", [0.05, 0.005])
def test_fire_walks_as_ases_fire_with_the_frechet_filter(fmax: float) -> None:
    structures = alloys()
    results = relax_many(structures, foreign("emt"), RelaxSettings(fmax=fmax, optimiser="fire"))
    for atoms, result in zip(structures, results, strict=True):
        atoms.calc = EMT()
        reference = FIRE(FrechetCellFilter(atoms), logfile=None)
        assert reference.run(fmax=fmax, steps=300)
        assert result.converged
        assert abs(result.steps - reference.nsteps) <= 2
        assert result.energy == pytest.approx(atoms.get_potential_energy(), abs=4e-4)
        assert result.atoms.get_volume() == pytest.approx(atoms.get_volume(), rel=2e-3)


@pytest.mark.slow
def test_lbfgs_ends_where_ases_bfgs_ends_with_fewer_calls() -> None:
    structures = alloys()
    results = relax_many(structures, foreign("emt"), RelaxSettings(fmax=0.002))
    fire = relax_many(structures, foreign("emt"), RelaxSettings(fmax=0.002, optimiser="fire"))
    for atoms, result in zip(structures, results, strict=True):
        atoms.calc = EMT()
        assert BFGS(FrechetCellFilter(atoms), logfile=None).run(fmax=0.002, steps=500)
        assert result.converged
        assert result.energy == pytest.approx(atoms.get_potential_energy(), abs=1e-4 * len(atoms))
        assert result.atoms.get_volume() == pytest.approx(atoms.get_volume(), rel=1e-3)
    assert sum(r.steps for r in results) < 0.5 * sum(r.steps for r in fire)


def test_the_result_is_what_the_potential_says_of_the_relaxed_structure(morse: Any, make_crystal: MakeCrystal) -> None:
    rng = np.random.default_rng(0)
    results = relax_many([make_crystal(rng, (2, 1, 1)) for _ in range(3)], morse)
    for result, fresh in zip(results, morse.predict_atoms([r.atoms for r in results]), strict=True):
        assert result.converged
        assert result.reason is None
        assert result.energy == pytest.approx(fresh.energy, abs=1e-9)
        assert result.forces == pytest.approx(fresh.forces, abs=1e-9)
        assert result.stress == pytest.approx(fresh.stress, abs=1e-9)
        assert result.atoms.get_potential_energy() == result.energy
        assert result.atoms.get_stress() == pytest.approx(result.stress)


def test_fmax_is_ases(morse: Any, make_crystal: MakeCrystal) -> None:
    atoms = make_crystal(np.random.default_rng(1), (2, 1, 1))
    result = relax_many([atoms], morse, RelaxSettings(max_steps=0))[0]
    atoms.calc = SluiceCalculator(morse)
    norms = np.linalg.norm(FrechetCellFilter(atoms).get_forces(), axis=1)
    assert result.fmax == pytest.approx(norms.max(), abs=1e-9)
    assert result.outcome == "steps"
    assert result.reason is not None
    assert "not converged after 0 steps" in result.reason
    assert not result.failed


@pytest.mark.slow
@given(
    sizes=st.lists(st.tuples(st.integers(1, 3), st.integers(1, 2)), min_size=0, max_size=8),
    max_atoms=st.integers(1, 20),
    seed=st.integers(0, 1000),
)
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_swapping_in_flight_loses_nothing_and_changes_nothing(
    make_morse: Any, make_crystal: MakeCrystal, sizes: list[tuple[int, int]], max_atoms: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    structures = [make_crystal(rng, (a, b, 1)) for a, b in sizes]
    seen: list[tuple[int, Relaxed]] = []
    morse = make_morse()
    results = relax_many(structures, morse, max_atoms=max_atoms, on_result=lambda k, r: seen.append((k, r)))
    assert sorted(k for k, _ in seen) == list(range(len(structures)))
    assert all(results[k] is result for k, result in seen)
    largest = max((len(atoms) for atoms in structures), default=0)
    assert max(morse.sizes, default=0) <= max(max_atoms, largest)
    for atoms, result in zip(structures, results, strict=True):
        alone = relax_many([atoms], make_morse())[0]
        assert (result.steps, result.outcome) == (alone.steps, alone.outcome)
        assert result.energy == pytest.approx(alone.energy, abs=1e-8)
        assert result.atoms.positions == pytest.approx(alone.atoms.positions, abs=1e-6)
        assert result.atoms.cell[:] == pytest.approx(alone.atoms.cell[:], abs=1e-6)


def test_the_same_call_gives_the_same_bits(morse: Any, make_crystal: MakeCrystal) -> None:
    structures = [make_crystal(np.random.default_rng(k), (1 + k % 3, 1, 1)) for k in range(6)]
    first, second = (relax_many(structures, morse, max_atoms=5) for _ in range(2))
    for one, other in zip(first, second, strict=True):
        assert one.energy == other.energy
        assert np.array_equal(one.atoms.positions, other.atoms.positions)


def test_results_come_as_they_finish_and_the_batch_stays_full(morse: Any, make_crystal: MakeCrystal) -> None:
    structures = [make_crystal(np.random.default_rng(k)) for k in range(12)]
    calls_at_result: list[int] = []
    relax_many(structures, morse, max_atoms=4, on_result=lambda _, __: calls_at_result.append(len(morse.sizes)))
    assert calls_at_result[0] < calls_at_result[-1]
    waiting = morse.sizes[: calls_at_result[7]]
    assert set(waiting) == {4}


def test_inputs_are_left_alone(morse: Any, make_crystal: MakeCrystal) -> None:
    atoms = make_crystal(np.random.default_rng(0))
    atoms.info["name"] = "x"
    before = atoms.copy()
    result = relax_many([atoms], morse)[0]
    assert atoms == before
    assert atoms.calc is None
    assert result.atoms.info["name"] == "x"


@pytest.mark.parametrize("held", [FixCartesian([0]), FixScaled([0])])
def test_atoms_held_in_all_directions_stay(morse: Any, make_crystal: MakeCrystal, held: Any) -> None:
    atoms = make_crystal(np.random.default_rng(0))
    atoms.set_constraint(held)
    result = relax_many([atoms], morse, RelaxSettings(cell=False))[0]
    assert result.atoms.positions[0] == pytest.approx(atoms.positions[0], abs=1e-12)


def test_constraints_are_looked_at_before_anything_moves(morse: Any, make_crystal: MakeCrystal) -> None:
    late = bulk("Cu")
    late.set_constraint(FixCartesian(0, [True, False, False]))
    done: list[int] = []
    with pytest.raises(InputError, match=r"structure 1 \(Cu\) has a constraint FixCartesian that cannot be kept"):
        relax_many(
            [make_crystal(np.random.default_rng(0)), late], morse, max_atoms=1, on_result=lambda k, _: done.append(k)
        )
    assert done == []


def test_a_constraint_that_holds_nothing_is_none(morse: Any, make_crystal: MakeCrystal) -> None:
    atoms = make_crystal(np.random.default_rng(1))
    free = relax_many([atoms], morse)[0]
    atoms.set_constraint([FixCartesian(k, [False] * 3) for k in range(len(atoms))])
    assert relax_many([atoms], morse)[0].energy == pytest.approx(free.energy)


def test_constraints_that_cannot_be_kept_are_refused(morse: Any, make_crystal: MakeCrystal) -> None:
    atoms = make_crystal(np.random.default_rng(0))
    atoms.set_constraint(FixCartesian([0], mask=(True, True, False)))
    with pytest.raises(InputError, match="constraint FixCartesian that cannot be kept"):
        relax_many([atoms], morse)


def test_fixed_atoms_stay_and_their_forces_do_not_count(morse: Any) -> None:
    slab = fcc111("Cu", (2, 2, 3), a=3.7, vacuum=8.0)
    slab.rattle(0.05, seed=1)
    fixed = [atom.index for atom in slab if atom.tag == 3]
    slab.set_constraint(FixAtoms(fixed))
    result = relax_many([slab], morse)[0]
    assert result.converged
    assert result.atoms.positions[fixed] == pytest.approx(slab.positions[fixed], abs=1e-12)
    assert np.abs(result.atoms.positions - slab.positions).max() > 0.01
    assert result.atoms.cell[:] == pytest.approx(slab.cell[:])
    assert result.forces is not None
    assert np.linalg.norm(result.forces[fixed], axis=1).max() > 0.05


def test_fixed_atoms_scale_with_the_cell_as_in_ase(morse: Any) -> None:
    atoms = bulk("Cu", a=3.5, cubic=True)
    atoms.rattle(0.05, seed=2)
    atoms.set_constraint(FixAtoms([0]))
    result = relax_many([atoms], morse, RelaxSettings(fmax=0.001))[0]
    reference = atoms.copy()
    reference.calc = SluiceCalculator(morse)
    BFGS(FrechetCellFilter(reference), logfile=None).run(fmax=0.001, steps=300)
    assert result.energy == pytest.approx(reference.get_potential_energy(), abs=1e-4)
    assert result.atoms.get_scaled_positions()[0] == pytest.approx(atoms.get_scaled_positions()[0], abs=1e-3)


def test_molecules_and_crystals_relax_side_by_side() -> None:
    water, crystal = molecule("H2O"), bulk("Cu", a=3.7)
    water.rattle(0.05, seed=0)
    results = relax_many([water, crystal], foreign("emt"))
    assert [r.converged for r in results] == [True, True]
    assert results[0].stress is None
    assert not results[0].atoms.cell.any()
    assert results[1].atoms.get_volume() < crystal.get_volume()


def test_without_the_cell_it_stays(morse: Any, make_crystal: MakeCrystal) -> None:
    atoms = make_crystal(np.random.default_rng(2), (2, 2, 1))
    result = relax_many([atoms], morse, RelaxSettings(cell=False))[0]
    assert result.converged
    assert np.array_equal(result.atoms.cell[:], atoms.cell[:])


def test_symmetry_survives() -> None:
    atoms = bulk("Al", cubic=True)
    atoms.symbols[0] = "Cu"
    atoms.set_cell(atoms.cell * 1.05, scale_atoms=True)
    cell = relax_many([atoms], foreign("emt"), RelaxSettings(fmax=1e-4))[0].atoms.cell
    assert cell.lengths() == pytest.approx([cell.lengths()[0]] * 3, abs=1e-9)
    assert cell.angles() == pytest.approx([90.0] * 3, abs=1e-7)


# ---- what cannot be relaxed


def test_a_poisonous_structure_is_set_aside_and_the_rest_unharmed(morse: Any, make_crystal: MakeCrystal) -> None:
    good = [make_crystal(np.random.default_rng(k)) for k in range(4)]
    nan, bad, strange = bulk("Xe", "fcc", a=3.7), bulk("Rn", "fcc", a=3.7), bulk("Mg")
    results = relax_many([good[0], nan, good[1], bad, strange, *good[2:]], morse)
    assert [r.outcome for r in results] == ["converged", "non_finite", "converged", "error", "elements"] + [
        "converged"
    ] * 2
    assert results[1].reason == "the energy or a force is not a finite number"
    assert results[3].reason == "ValueError: radon is not welcome"
    assert results[4].reason == "the potential has never seen Mg"
    assert all(results[k].failed for k in (1, 3, 4))
    alone = relax_many(good, morse)
    assert [results[k].energy for k in (0, 2, 5, 6)] == pytest.approx([r.energy for r in alone], abs=1e-9)


def test_explosion_and_collapse_are_named() -> None:
    far, near = bulk("Cu", a=3.9), bulk("Cu", a=3.4)
    settings_ = RelaxSettings(volume_ratio=(0.95, 1.05))
    exploded, collapsed = relax_many([near, far], foreign("emt"), settings_)
    assert exploded.outcome == "exploded"
    assert exploded.reason is not None
    assert exploded.reason.startswith("exploded: the volume grew to 1.")
    assert collapsed.outcome == "collapsed"
    assert collapsed.reason is not None
    assert collapsed.reason.startswith("collapsed: the volume fell to 0.")


def test_atoms_on_top_of_each_other(morse: Any) -> None:
    atoms = bulk("Cu", cubic=True)
    atoms.positions[1] = atoms.positions[0] + [0.1, 0, 0]
    result = relax_many([atoms], morse)[0]
    assert result.outcome == "too_close"
    assert result.reason == "two atoms came within 0.10 Å"


class Hole(CalculatorPotential):
    """EMT whose energy and forces vanish, as a network's may where atoms lie on each other."""

    def predict(self, batch: Batch) -> BatchPrediction:
        found = super().predict(batch)
        return replace(found, energy=0 * found.energy, forces=0 * found.forces, stress=0 * found.stress)


def test_too_close_is_seen_where_the_potential_needs_no_edges() -> None:
    pair = Atoms("Cu2", positions=[[0, 0, 0], [0, 0, 0.35]], cell=[12] * 3, pbc=True)
    result = relax_many([pair], Hole(EMT, "hole"))[0]
    assert (result.outcome, result.reason) == ("too_close", "two atoms came within 0.35 Å")


class Choosy(EMT):
    """EMT that raises what no one expects over one element."""

    def calculate(self, atoms: Atoms | None = None, *arguments: Any, **options: Any) -> None:
        if atoms is not None and "Ni" in atoms.symbols:
            raise KeyError("first line\nsecond line")
        super().calculate(atoms, *arguments, **options)


def test_whatever_a_potential_raises_costs_its_structure_only() -> None:
    results = relax_many([bulk("Cu"), bulk("Ni"), bulk("Al")], CalculatorPotential(Choosy, "choosy"))
    assert [result.converged for result in results] == [True, False, True]
    assert results[1].outcome == "error"
    assert results[1].reason == "KeyError: 'first line\\nsecond line'"


def test_forces_beyond_sense(morse: Any) -> None:
    result = relax_many([bulk("Cu", a=2.2)], morse, RelaxSettings(largest_force=5.0))[0]
    assert result.outcome == "forces"
    assert result.reason is not None
    assert "eV/Å" in result.reason


@pytest.mark.parametrize(
    ("atoms", "reason"),
    [
        (Atoms("Cu", positions=[[np.nan, 0, 0]]), "not finite"),
        (Atoms("Cu", pbc=True), "no length along periodic direction a"),
        (Atoms("Cu", cell=[[0, 0, 0], [0, 4, 0], [0, 0, 0]], pbc=[1, 0, 0]), "no length along periodic direction a"),
        (Atoms("Cu", cell=[[4, 0, 0], [0, 4, 0], [4, 4, 0]], pbc=True), "in one plane or line"),
        (Atoms(), "no atoms"),
    ],
)
def test_structures_that_cannot_start(morse: Any, atoms: Atoms, reason: str) -> None:
    result, other = relax_many([atoms, bulk("Cu")], morse)
    assert result.failed
    assert result.reason is not None
    assert reason in result.reason
    assert other.converged


def test_out_of_memory_halves_the_batch_for_good(make_morse: Any, make_crystal: MakeCrystal) -> None:
    structures = [make_crystal(np.random.default_rng(k)) for k in range(16)]
    small = make_morse(memory=4)
    results = relax_many(structures, small, max_atoms=16)
    assert all(r.converged for r in results)
    too_large = [size for size in small.sizes if size > 4]
    assert len(too_large) == 2
    free = relax_many(structures, make_morse(), max_atoms=16)
    assert [r.energy for r in results] == pytest.approx([r.energy for r in free], abs=1e-9)


def test_a_potential_without_stress_cannot_relax_cells(make_morse: Any) -> None:
    flat = make_morse(provides=frozenset({"energy", "forces"}))
    with pytest.raises(InputError, match=r"gives no stress: it cannot relax cells; .* without the cell"):
        relax_many([bulk("Cu")], flat)
    assert relax_many([bulk("Cu")], flat, RelaxSettings(cell=False))[0].converged
    with pytest.raises(InputError, match="gives no forces"):
        relax_many([bulk("Cu")], make_morse(provides=frozenset({"energy"})), RelaxSettings(cell=False))


def test_settings_that_make_no_sense() -> None:
    with pytest.raises(InputError, match="must be positive"):
        RelaxSettings(fmax=0.0)
    with pytest.raises(InputError, match="no optimiser 'newton'; there are lbfgs, fire"):
        RelaxSettings(optimiser="newton")  # type: ignore[arg-type]


def test_nothing_to_relax(morse: Any) -> None:
    assert relax_many([], morse) == []


def test_cpu_time_is_shared_out(morse: Any, make_crystal: MakeCrystal) -> None:
    results = relax_many([make_crystal(np.random.default_rng(k)) for k in range(3)], morse)
    assert all(r.cpu_s > 0 for r in results)


def test_the_final_potential_scores_what_finishes_in_batches(
    morse: Any, make_morse: Any, make_crystal: MakeCrystal
) -> None:
    structures = [make_crystal(np.random.default_rng(k)) for k in range(8)]
    structures.insert(3, bulk("Mg"))
    judge = make_morse(depth=0.5)
    results = relax_many(structures, morse, final=judge)
    assert results[3].final is None
    good = [r for r in results if not r.failed]
    expected = make_morse(depth=0.5).predict_atoms([r.atoms for r in good])
    assert [r.final.energy for r in good if r.final] == pytest.approx([p.energy for p in expected], abs=1e-9)
    assert len(judge.sizes) < len(good)
    assert results[0].energy != pytest.approx(expected[0].energy)


def test_shares_of_the_cpu_time_add_up(morse: Any, make_crystal: MakeCrystal) -> None:
    structures = [make_crystal(np.random.default_rng(k), (2, 2, 1)) for k in range(10)]
    started = time.process_time()
    results = relax_many(structures, morse, max_atoms=16)
    spent = time.process_time() - started
    assert 0.7 * spent < sum(r.cpu_s for r in results) <= spent


def test_a_final_potential_that_fails_over_one_harms_no_other(morse: Any, make_morse: Any) -> None:
    judge = make_morse(bad_element=atomic_numbers["Ni"])
    results = relax_many([bulk("Cu"), bulk("Ni", a=3.6), bulk("Al", a=3.6)], morse, final=judge)
    assert [r.outcome for r in results] == ["converged", "error", "converged"]
    assert results[1].reason == "ValueError: radon is not welcome"
    assert [r.final is not None for r in results] == [True, False, True]
