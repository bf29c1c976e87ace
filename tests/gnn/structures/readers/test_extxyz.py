"""Extended XYZ: every spelling of labels, broken frames and files."""

from __future__ import annotations

import bz2
import gzip
import lzma

import ase.io
import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from ase.units import GPa
from records import assert_same

from gnn.errors import InputError
from gnn.structures.cards import (
    Card,
    CardProperty,
    Columns,
    GroupRule,
    StressRule,
    Units,
    generic_card,
    structures_card,
)  # fmt: skip
from gnn.structures.readers import UnreadableFile, read_records

KBAR = 0.1 * GPa


def test_extxyz(xyz, frames, card, read_all):
    records = read_all(xyz, card)
    assert len(records) == 5
    for record, atoms in zip(records, frames, strict=True):
        assert_same(record, atoms)
        assert record.free_energy == pytest.approx(atoms.calc.results["free_energy"])
    assert [record.source.row for record in records] == [0, 1, 2, 3, 4]
    assert records[0].source.file == f"{xyz.parent.name}/frames.xyz"
    assert records[0].theory == "pbe/test" and records[0].group is None


@pytest.mark.parametrize(("suffix", "pack"), [(".gz", gzip.compress), (".bz2", bz2.compress), (".xz", lzma.compress)])
def test_compressed_files_give_the_same_records(xyz, suffix, pack, card, read_all):
    packed = xyz.with_name(xyz.name + suffix)
    packed.write_bytes(pack(xyz.read_bytes()))
    assert [r.structure_id for r in read_all(packed, card)] == [r.structure_id for r in read_all(xyz, card)]


def test_molecules_have_no_cell_and_no_stress(tmp_path, ethanol, card, read_all):
    path = tmp_path / "m.xyz"
    ethanol.info["stress"] = np.zeros(6)
    ase.io.write(path, ethanol, format="extxyz")
    record = read_all(path, card)[0]
    assert not record.cell.any() and not record.pbc.any() and record.stress is None
    assert_same(record, ethanol, stress=False)


@pytest.mark.parametrize(
    ("energy", "forces"),
    [
        ("REF_energy", "REF_forces"),
        ("dft_energy", "dft_forces"),
        ("DFT_energy", "DFT_force"),
        ("total_energy", "force"),
    ],
)
def test_usual_spellings(tmp_path, ethanol, card, read_all, energy, forces):
    results = ethanol.calc.results
    ethanol.info[energy], ethanol.arrays[forces] = results["energy"], results["forces"]
    path = tmp_path / "m.xyz"
    calculator, ethanol.calc = ethanol.calc, None
    ase.io.write(path, ethanol, format="extxyz", columns=["symbols", "positions", forces])
    ethanol.calc = calculator
    assert_same(read_all(path, card)[0], ethanol, stress=False)


def test_two_energies_that_differ_must_be_told_apart(tmp_path, ethanol, card, read_all):
    ethanol.info["REF_energy"] = -1.0
    path = tmp_path / "m.xyz"
    ase.io.write(path, ethanol, format="extxyz")
    with pytest.raises(InputError, match=r"'REF_energy' and 'energy' both .* write \[columns\] energy = "):
        read_all(path, card)
    chosen = card.model_copy(update={"columns": Columns(energy="REF_energy")})
    assert read_all(path, chosen)[0].energy == -1.0


@pytest.mark.parametrize("key", ["virial", "virials", "REF_virial"])
def test_virials(tmp_path, crystal, card, read_all, key):
    """stress = -virial / volume."""
    stress = crystal.calc.results.pop("stress")
    xx, yy, zz, yz, xz, xy = -stress * crystal.get_volume()
    crystal.info[key] = np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]])
    path = tmp_path / "v.xyz"
    ase.io.write(path, crystal, format="extxyz")
    assert np.allclose(read_all(path, card)[0].stress, stress, atol=1e-7)


def test_units_of_a_card(tmp_path, crystal, read_all):
    results = {name: np.copy(value) for name, value in crystal.calc.results.items()}
    crystal.info["E"] = results["energy"] / 27.211386 / len(crystal)
    crystal.info["S"] = -results["stress"] / KBAR
    crystal.arrays["F"] = results["forces"] / 51.422067
    crystal.calc = None
    path = tmp_path / "u.xyz"
    ase.io.write(path, crystal, format="extxyz", columns=["symbols", "positions", "F"])
    card = Card(
        name="x",
        theory="t",
        energy_is="per_atom",
        units=Units(energy="Ha", forces="Ha/Bohr", stress="kBar"),
        stress=StressRule(sign="compression"),
        columns=Columns(energy="E", forces="F", stress="S"),
    )
    record = read_all(path, card)[0]
    assert record.energy == pytest.approx(float(results["energy"]), rel=1e-6)
    assert np.allclose(record.forces, results["forces"], rtol=1e-5, atol=1e-6)
    assert np.allclose(record.stress, results["stress"], atol=1e-7)


def test_constraints_tags_and_groups_survive(tmp_path, crystal, card, read_all):
    crystal.set_tags([0, 1, 1, 0, 0, 0, 0, 2])
    crystal.info |= {"group": "run-3", "config_type": "rattled", "charge": 1}
    path = tmp_path / "c.xyz"
    columns = ["symbols", "positions", "tags", "move_mask"]
    ase.io.write(path, crystal, format="extxyz", columns=columns)
    record = read_all(path, card)[0]
    assert record.group == "run-3" and record.config_type == "rattled" and record.total_charge == 1
    assert record.tags.tolist() == [0, 1, 1, 0, 0, 0, 0, 2]
    assert np.flatnonzero(record.fixed).tolist() == [2]


def test_one_atom_as_ase_writes_it(tmp_path, card, read_all):
    """Its `energies` are one number, beside the energy."""
    atoms = bulk("Al")
    atoms.calc = EMT()
    atoms.get_stress()
    ase.io.write(tmp_path / "one.xyz", atoms, format="extxyz")
    ase.io.write(tmp_path / "one.traj", atoms)
    for name in ("one.xyz", "one.traj"):
        (record,) = read_all(tmp_path / name, card)
        assert record.energy == pytest.approx(atoms.get_potential_energy(), abs=1e-7)


def test_words_where_numbers_are_due_cost_the_frame(tmp_path, crystal, card):
    first, second = crystal.copy(), crystal.copy()
    for atoms in (first, second):
        atoms.calc = SinglePointCalculator(atoms, energy=-1.0)
    second.set_array("magmoms", np.array(["up"] * len(second)))
    ase.io.write(tmp_path / "a.xyz", [first, second], format="extxyz")
    kinds = [getattr(record, "code", "kept") for record in read_records(tmp_path / "a.xyz", card)]
    assert kinds == ["kept", "unreadable-row"]


def test_one_bad_frame_costs_itself(xyz, card):
    lines = xyz.read_text().splitlines(keepends=True)
    lines[4] = lines[4].replace(lines[4].split()[1], "hello")
    xyz.write_text("".join(lines))
    records = list(read_records(xyz, card))
    assert [type(record).__name__ for record in records] == ["Rejected"] + ["Record"] * 4
    assert records[0].code == "unreadable-row" and records[0].row == 0


def test_an_unknown_element_is_called_so(xyz, card):
    lines = xyz.read_text().splitlines(keepends=True)
    lines[2] = "Xx" + lines[2][2:]
    xyz.write_text("".join(lines))
    bad, *others = read_records(xyz, card)
    assert bad.reason == "unknown-element: Xx"
    assert len(others) == 4


@pytest.mark.parametrize("drop", [1, 3, 200])
def test_a_truncated_file_costs_the_file(xyz, card, drop):
    text = xyz.read_text()
    xyz.write_text(text[: -len(text.splitlines()[-1]) - drop])
    with pytest.raises(UnreadableFile, match="truncated: frame 4"):
        list(read_records(xyz, card))


def test_a_truncated_gzip_costs_the_file(xyz, card):
    packed = xyz.with_suffix(".xyz.gz")
    packed.write_bytes(gzip.compress(xyz.read_bytes())[:-20])
    with pytest.raises(UnreadableFile):
        list(read_records(packed, card))


@pytest.mark.parametrize("content", [b"", b"hello\n", b"\x00\xff\xfe binary"])
def test_no_xyz_at_all(tmp_path, card, content):
    path = tmp_path / "x.xyz"
    path.write_bytes(content)
    if content:
        with pytest.raises(UnreadableFile):
            list(read_records(path, card))
    else:
        assert list(read_records(path, card)) == []


def test_a_missing_theory_says_what_to_give(xyz):
    with pytest.raises(InputError, match="give --theory KEY"):
        list(read_records(xyz, generic_card("x")))


def test_structures_alone_need_nothing(xyz):
    records = list(read_records(xyz, structures_card("x")))
    assert all(record.energy is None and record.forces is None for record in records)
    assert len(records) == 5 and records[0].energy is None and records[0].forces is None


def test_without_labels_group_theory_charge_and_kind_are_still_found(xyz, crystal, read_all):
    crystal.info |= {"run": "A", "q": 1, "functional": "PBE", "config_type": "rattled", "multiplicity": 1.5}
    ase.io.write(xyz, crystal, format="extxyz")
    card = Card(
        name="x",
        labels=False,
        theory_column="functional",
        theory_map={"PBE": "pbe/x"},
        group=GroupRule(by="column", column="run"),
        columns=Columns(total_charge="q", energy="nowhere"),
        properties={"q": CardProperty(unit="e")},
    )
    (record,) = read_all(xyz, card)
    assert (record.group, record.theory, record.total_charge, record.config_type) == ("A", "pbe/x", 1, "rattled")
    assert record.multiplicity is None, "no whole number, and nobody's label"
    assert record.energy is record.forces is record.stress is None and not record.properties
