"""Records to and from ASE and pymatgen."""

from __future__ import annotations

import numpy as np
from ase import Atoms

from gnn.structures.atoms import atoms_to_record, record_to_atoms, record_to_structure
from gnn.structures.record import label_hash


def test_atoms_come_back(crystal):
    crystal.set_tags([0, 0, 1, 1, 2, 2, 0, 0])
    crystal.info |= {"group": "g", "config_type": "rattled"}
    record = atoms_to_record(crystal, "set", "pbe/x")
    back = record_to_atoms(record)
    assert np.allclose(back.positions, crystal.positions) and np.allclose(back.cell[:], crystal.cell[:])
    assert np.allclose(back.get_forces(apply_constraint=False), crystal.calc.results["forces"])
    assert np.allclose(back.get_stress(), crystal.calc.results["stress"])
    assert back.get_potential_energy() == crystal.calc.results["energy"]
    assert back.get_tags().tolist() == crystal.get_tags().tolist()
    assert back.constraints[0].index.tolist() == [2]
    again = atoms_to_record(back, "set", "pbe/x")
    assert again.structure_id == record.structure_id and label_hash(again) == label_hash(record)
    assert (again.group, again.config_type) == ("g", "rattled")


def test_nothing_is_computed_and_nothing_invented():
    record = atoms_to_record(Atoms("H2", positions=[[0, 0, 0], [0.74, 0, 0]]), "set", "t")
    for name in ("energy", "free_energy", "forces", "stress", "magmoms", "charges", "fixed", "tags", "group"):
        assert getattr(record, name) is None, name
    assert record_to_atoms(record).calc.results == {}


def test_structure_of_pymatgen(crystal):
    structure = record_to_structure(atoms_to_record(crystal, "set", "t"))
    assert np.allclose(structure.cart_coords, crystal.positions)
    assert np.allclose(structure.lattice.matrix, crystal.cell[:])
    assert [site.specie.Z for site in structure] == crystal.numbers.tolist()
