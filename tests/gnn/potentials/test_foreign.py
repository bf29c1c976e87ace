"""Foreign potentials: found by entry point, honest about what is missing."""

from __future__ import annotations

from importlib.util import find_spec

import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones
from ase.constraints import FixAtoms

from gnn.errors import InputError
from gnn.potentials.foreign import CalculatorPotential, foreign, foreign_names
from gnn.potentials.potential import Potential

PACKAGES = {"chgnet": "chgnet", "sevennet": "sevenn", "orb": "orb_models"}


def test_emt_is_found_by_its_entry_point() -> None:
    potential: Potential = foreign("emt")
    assert potential.theory == "emt/ase"
    assert "emt" in foreign_names()


def test_it_gives_the_calculators_numbers_raw() -> None:
    atoms = bulk("Cu", cubic=True)
    atoms.rattle(0.1, seed=0)
    atoms.set_constraint(FixAtoms([0]))
    found = foreign("emt").predict_atoms([atoms])[0]
    atoms.calc = EMT()
    assert found.energy == pytest.approx(atoms.get_potential_energy())
    assert found.forces == pytest.approx(atoms.get_forces(apply_constraint=False))
    assert found.stress == pytest.approx(atoms.get_stress())
    assert len(atoms.constraints) == 1


def test_molecules_have_no_stress() -> None:
    assert foreign("emt").predict_atoms([molecule("H2O")])[0].stress is None


def test_any_calculator_will_do() -> None:
    potential = CalculatorPotential(lambda: LennardJones(rc=6.0), "lj", frozenset({"Ar"}))
    assert potential.predict_atoms([Atoms("Ar2", positions=[[0, 0, 0], [1.2, 0, 0]])])[0].energy < 0
    with pytest.raises(InputError, match=r"\(lj\) has never seen Al"):
        potential.predict_atoms([bulk("Al")])


def test_a_calculator_may_provide_less() -> None:
    potential = CalculatorPotential(EMT, "emt", provides=frozenset({"energy"}))
    found = potential.predict_atoms([bulk("Cu")])[0]
    assert found.forces is None
    assert found.stress is None


def test_an_unknown_name_lists_the_known() -> None:
    with pytest.raises(InputError, match=r"no foreign potential 'nope'; there are .*emt"):
        foreign("nope")


def test_a_model_goes_to_makers_that_take_one() -> None:
    with pytest.raises(InputError, match=r"foreign:emt takes no model: leave out 'some/file'"):
        foreign("emt:some/file")
    if find_spec("mace") is None:
        with pytest.raises(InputError, match="mace is not installed"):
            foreign("mace:some.model")


@pytest.mark.parametrize("name", sorted(PACKAGES))
def test_a_missing_package_says_what_brings_it(name: str) -> None:
    if find_spec(PACKAGES[name]) is not None:
        pytest.skip("the package is installed")
    with pytest.raises(InputError, match=rf"{PACKAGES[name]}.* is not installed; .*\[{name}\]"):
        foreign(name)


@pytest.mark.parametrize("name", ["mace", "matgl"])
def test_models_without_published_weights_need_a_path(name: str) -> None:
    with pytest.raises(InputError, match=rf"needs a model: write foreign:{name}:PATH"):
        foreign(name)


def test_threads_do_not_disturb_each_other() -> None:
    """Shards of one process share a potential; ASE's calculators are not made for that."""
    from concurrent.futures import ThreadPoolExecutor

    potential = foreign("emt")
    structures = [bulk(symbol, cubic=True).repeat((k, 1, 1)) for symbol in ("Al", "Cu", "Ni", "Ag") for k in (1, 2, 3)]
    for k, atoms in enumerate(structures):
        atoms.rattle(0.05, seed=k)
    calm = [potential.predict_atoms([atoms])[0].energy for atoms in structures]
    with ThreadPoolExecutor(4) as threads:
        for _ in range(3):
            found = threads.map(lambda atoms: potential.predict_atoms([atoms])[0].energy, structures)
            assert list(found) == pytest.approx(calm, abs=1e-12)


def test_a_model_that_cannot_be_opened_is_told_before_there_is_work() -> None:
    def broken() -> EMT:
        raise FileNotFoundError("typo.model")

    with pytest.raises(InputError, match=r"the model of broken/x cannot be opened: FileNotFoundError: typo\.model"):
        CalculatorPotential(broken, "broken/x").prepare()
    CalculatorPotential(EMT, "emt/ase").prepare()
