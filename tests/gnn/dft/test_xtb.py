"""Tight-binding labels: tblite's numbers, forces that are the energy's slopes, what fails costs itself."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from hypothesis import given
from hypothesis import strategies as st
from tblite.ase import TBLite

from gnn.dft.engine import Engine, LabelError, RelaxSettings
from gnn.dft.engines import make_engine
from gnn.dft.xtb import XtbEngine, XtbSettings
from gnn.errors import InputError

RELAX = RelaxSettings(fmax=0.02, max_steps=60)


@pytest.fixture
def ethanol() -> Atoms:
    atoms = molecule("CH3CH2OH")
    atoms.rattle(0.05, seed=1)
    return atoms


def test_a_static_has_tblites_numbers(ethanol: Atoms) -> None:
    (frame,) = XtbEngine().run(ethanol, "static", RELAX).frames
    ethanol.calc = TBLite(method="GFN2-xTB", verbosity=0)
    assert frame.energy == pytest.approx(ethanol.get_potential_energy(), abs=1e-6)
    assert frame.free_energy == frame.energy
    np.testing.assert_allclose(frame.forces, ethanol.get_forces(), atol=1e-6)
    assert frame.stress is None


def test_forces_are_the_slopes_of_the_energy(ethanol: Atoms) -> None:
    engine, step = XtbEngine(), 1e-3
    (frame,) = engine.run(ethanol, "static", RELAX).frames
    energies = []
    for sign in (1, -1):
        moved = ethanol.copy()
        moved.positions[2, 1] += sign * step
        energies.append(engine.run(moved, "static", RELAX).frames[0].free_energy)
    assert -(energies[0] - energies[1]) / (2 * step) == pytest.approx(frame.forces[2, 1], abs=2e-4)


def test_a_relaxation_goes_down(ethanol: Atoms) -> None:
    labelled = XtbEngine().run(ethanol, "relax", RELAX)
    assert labelled.converged
    assert labelled.frames[-1].energy < labelled.frames[0].energy
    assert np.abs(labelled.frames[-1].forces).max() < RELAX.fmax


def test_charge_and_spin_are_another_level_of_theory() -> None:
    water = molecule("H2O")
    ion = XtbEngine(XtbSettings(charge=1))
    assert ion.theory == "gfn2-xtb/tblite-q1"
    energies = [engine.run(water, "static", RELAX).frames[0].energy for engine in (XtbEngine(), ion)]
    assert energies[1] - energies[0] > 5


def test_electrons_that_are_not_computed_are_refused() -> None:
    water = molecule("H2O")
    water.info = {"total_charge": 1, "multiplicity": 2}
    with pytest.raises(LabelError, match=r"charge \+1, and this level of theory computes \+0"):
        XtbEngine().run(water, "static", RELAX)
    assert XtbEngine(XtbSettings(charge=1)).run(water, "static", RELAX).converged
    oxygen = molecule("O2")
    oxygen.info = {"total_charge": 0, "multiplicity": 3}
    with pytest.raises(LabelError, match="multiplicity 3, and this level of theory computes 1 or 2"):
        XtbEngine().run(oxygen, "static", RELAX)
    assert XtbEngine(XtbSettings(multiplicity=3)).run(oxygen, "static", RELAX).converged


def test_a_crystal_that_converges_has_a_stress() -> None:
    (frame,) = XtbEngine(XtbSettings(method="GFN1-xTB")).run(bulk("NaCl", "rocksalt", a=5.6), "static", RELAX).frames
    assert frame.stress is not None
    assert frame.stress.shape == (6,)


@pytest.mark.parametrize(
    ("atoms", "said"),
    [
        (bulk("Cu"), "tblite: SCF not converged"),
        (Atoms("U2", positions=[[0, 0, 0], [0, 0, 2.5]]), "tblite: No support for elements with Z >86"),
    ],
    ids=["crystal", "uranium"],
)
def test_what_cannot_be_labelled_says_why(atoms: Atoms, said: str) -> None:
    with pytest.raises(LabelError, match=said):
        XtbEngine().run(atoms, "static", RELAX)


def test_the_structure_given_is_not_touched(ethanol: Atoms) -> None:
    before = ethanol.copy()
    XtbEngine().run(ethanol, "relax", RELAX)
    assert ethanol == before
    assert ethanol.calc is None


def test_by_name_with_settings() -> None:
    engine: Engine = make_engine("xtb", {"method": "GFN1-xTB", "multiplicity": 3})()
    assert (engine.name, engine.theory) == ("xtb", "gfn1-xtb/tblite-m3")
    engine.close()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"method": "GFN3-xTB"}, "engine 'xtb': setting method='GFN3-xTB'"),
        ({"spin": 1}, "setting spin=1.*it knows method, charge, multiplicity"),
        ({"multiplicity": 0}, "setting multiplicity=0"),
    ],
)
def test_a_wrong_setting_is_named(settings: dict[str, object], said: str) -> None:
    with pytest.raises(InputError, match=said):
        make_engine("xtb", settings)


def test_without_tblite_the_way_out_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(InputError, match=r"pip install 'sluice-materials\[xtb\]'"):
        XtbEngine()


@given(
    charge=st.integers(-3, 3),
    multiplicity=st.none() | st.integers(1, 5),
    method=st.sampled_from(["GFN1-xTB", "GFN2-xTB"]),
)
def test_no_two_settings_have_one_theory(charge: int, multiplicity: int | None, method: str) -> None:
    mine = XtbSettings(method=method, charge=charge, multiplicity=multiplicity)
    others = [
        mine.model_copy(update={"charge": charge + 1}),
        mine.model_copy(update={"multiplicity": (multiplicity or 0) + 1}),
    ]
    assert mine.theory not in {other.theory for other in others}
