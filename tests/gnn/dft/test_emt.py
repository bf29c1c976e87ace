"""EMT labels, and the frames of a relaxation."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, fcc111, molecule
from ase.calculators.emt import EMT
from ase.constraints import FixAtoms

from gnn.dft.emt import EmtEngine
from gnn.dft.engine import Engine, Frame, LabelError, RelaxSettings
from gnn.dft.relaxation import run_job

RELAX = RelaxSettings(fmax=0.005, max_steps=60)


def test_a_static_has_ases_numbers(aluminium):
    (frame,) = EmtEngine().run(aluminium, "static", RELAX).frames
    aluminium.calc = EMT()
    assert frame.energy == pytest.approx(aluminium.get_potential_energy())
    assert frame.free_energy == pytest.approx(aluminium.get_potential_energy(force_consistent=True))
    np.testing.assert_allclose(frame.forces, aluminium.get_forces())
    np.testing.assert_allclose(frame.stress, aluminium.get_stress())


def test_a_stretched_crystal_has_positive_stress():
    (frame,) = EmtEngine().run(bulk("Al", "fcc", a=4.3), "static", RELAX).frames
    assert frame.stress[:3].min() > 0.01


def test_a_relaxation_goes_down_to_zero_force_and_stress(aluminium):
    labelled = EmtEngine().run(aluminium, "relax", RELAX)
    last = labelled.frames[-1]
    assert labelled.converged
    assert last.energy < labelled.frames[0].energy
    assert abs(np.linalg.det(last.cell) * last.stress).max() < 2 * RELAX.fmax
    assert np.abs(last.forces).max() < RELAX.fmax


def test_each_frame_keeps_its_own_cell_and_positions(aluminium):
    """Frames were once views into the cell that the optimiser went on moving."""
    frames = EmtEngine().run(aluminium.repeat((1, 1, 2)), "relax", RELAX).frames
    assert len(frames) > 3
    cells = {frame.cell.tobytes() for frame in frames}
    positions = {frame.positions.tobytes() for frame in frames}
    assert len(cells) == len(positions) == len(frames)


def test_each_frame_has_the_labels_of_its_geometry(aluminium):
    for frame in EmtEngine().run(aluminium, "relax", RELAX).frames:
        again = Atoms("Al", positions=frame.positions, cell=frame.cell, pbc=True, calculator=EMT())
        assert frame.energy == pytest.approx(again.get_potential_energy(), abs=1e-9)
        np.testing.assert_allclose(frame.stress, again.get_stress(), atol=1e-9)


def test_changing_the_atoms_later_leaves_a_frame_alone(aluminium):
    aluminium.calc = EMT()
    (frame,) = run_job(aluminium, "static", RELAX).frames
    before = frame.cell.copy()
    aluminium.set_cell(aluminium.cell[:] * 1.1, scale_atoms=True)
    aluminium.get_potential_energy()
    np.testing.assert_array_equal(frame.cell, before)


def test_the_structure_given_is_not_touched(aluminium):
    before = aluminium.copy()
    EmtEngine().run(aluminium, "relax", RELAX)
    assert aluminium == before
    assert aluminium.calc is None


def test_a_relaxation_that_does_not_end_says_so(aluminium):
    labelled = EmtEngine().run(aluminium, "relax", RelaxSettings(fmax=1e-9, max_steps=2))
    assert not labelled.converged
    assert len(labelled.frames) >= 2


def test_a_molecule_has_no_stress():
    (frame,) = EmtEngine().run(molecule("N2"), "static", RELAX).frames
    assert frame.stress is None


def test_a_molecule_relaxes_without_a_cell():
    labelled = EmtEngine().run(molecule("N2"), "relax", RelaxSettings(fmax=0.02, max_steps=50))
    assert labelled.converged
    assert np.all(labelled.frames[-1].cell == 0)


def test_fixed_atoms_and_the_cell_under_them_stay():
    slab = fcc111("Cu", (1, 1, 4), vacuum=6.0, periodic=True)
    slab.set_constraint(FixAtoms([0, 1]))
    labelled = EmtEngine().run(slab, "relax", RELAX)
    last = labelled.frames[-1]
    assert labelled.converged
    assert len(labelled.frames) > 2
    np.testing.assert_array_equal(last.cell, slab.cell[:])
    np.testing.assert_array_equal(last.positions[:2], slab.positions[:2])
    assert np.abs(last.positions[2:] - slab.positions[2:]).max() > 0.01
    assert np.abs(last.forces[2:]).max() < RELAX.fmax < np.abs(last.forces[:2]).max()


def test_what_cannot_be_relaxed_costs_itself():
    coinciding = Atoms("Al2", positions=[[0, 0, 0], [0, 0, 0]], cell=[4, 4, 4], pbc=True)
    with pytest.raises(LabelError, match=r"EMT: \w+Error: "):
        EmtEngine().run(coinciding, "relax", RELAX)


@pytest.mark.parametrize(
    ("stated", "said"), [({"total_charge": 1}, r"charge \+1"), ({"multiplicity": 3}, "multiplicity 3")]
)
def test_other_electrons_than_computed_are_refused(stated, said, aluminium):
    aluminium.info = stated
    with pytest.raises(LabelError, match=said):
        EmtEngine().run(aluminium, "static", RELAX)


def test_an_unknown_element_is_named():
    with pytest.raises(LabelError, match="no parameters for Li, Si"):
        EmtEngine().run(Atoms("LiSi", pbc=True, cell=[3, 3, 3]), "static", RELAX)


@pytest.mark.parametrize("atoms", [bulk("Cu"), molecule("N2")], ids=["crystal", "molecule"])
def test_a_frame_survives_json(atoms):
    (frame,) = EmtEngine().run(atoms, "static", RELAX).frames
    again = Frame.from_json(frame.to_json())
    assert again.to_json() == frame.to_json()


def test_emt_is_an_engine():
    engine: Engine = EmtEngine()
    engine.close()
    assert (engine.name, engine.theory) == ("emt", "emt/ase")
