"""Files as others write them: other names, other shapes, other company."""

from __future__ import annotations

import csv
import gzip
import json
import zipfile
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase.build import molecule
from ase.calculators.singlepoint import SinglePointCalculator
from ase.db import connect
from ase.io.trajectory import Trajectory
from pymatgen.core import Molecule, Structure
from pymatgen.io.ase import AseAtomsAdaptor
from pymatgen.io.cif import CifWriter

from gnn.errors import InputError
from gnn.structures.cards import Card, Units, generic_card
from gnn.structures.readers import Rejected, UnreadableFile, read_records, read_whole
from gnn.structures.readers.sources import expand


@pytest.fixture
def xyz(tmp_path, frames) -> Path:
    path = tmp_path / "frames.xyz"
    ase.io.write(path, frames, format="extxyz")
    return path


@pytest.fixture
def structures(frames) -> list[Structure]:
    return [AseAtomsAdaptor.get_structure(atoms) for atoms in frames]


@pytest.fixture
def targets() -> Card:
    return Card.model_validate({"name": "x", "theory": "t", "properties": {"gap": {"unit": "eV"}}})


def gaps(path: Path, card: Card) -> list[float | None]:
    return [record.properties.get("gap") for record in read_records(path, card)]


# extended XYZ


def test_words_in_a_comment_are_no_labels(tmp_path, card, read_all):
    path = tmp_path / "w.xyz"
    path.write_text("3\nwater, energy and forces follow\nO 0 0 0\nH 0 0 1\nH 0 1 0\n")
    assert read_all(path, card)[0].energy is None


@pytest.mark.parametrize(
    "text",
    [
        '"_JSON [[1.0, 6, 5], [6, 2, 4], [5, 4, 3]]"',
        "[[1, 6, 5], [6, 2, 4], [5, 4, 3]]",
        "[1, 6, 5, 6, 2, 4, 5, 4, 3]",
        "{{1 6 5} {6 2 4} {5 4 3}}",
        '"[1, 2, 3, 4, 5, 6]"',
        "[1, 2, 3, 4, 5, 6]",
    ],
)
@pytest.mark.parametrize("key", ["stress", "REF_stress"])
def test_ways_to_write_a_stress(tmp_path, card, read_all, key, text):
    line = f'Lattice="3 0 0 0 3 0 0 0 3" Properties=species:S:1:pos:R:3 {key}={text} energy=-1.5 q=1'
    (tmp_path / "a.xyz").write_text(f"1\n{line}\nFe 0 0 0\n")
    (record,) = read_all(tmp_path / "a.xyz", card)
    assert record.stress.tolist() == [1, 2, 3, 4, 5, 6] and record.energy == -1.5


@pytest.mark.parametrize("key", ["stress", "virial"])
def test_six_numbers_where_ase_takes_nine(xyz, frames, card, read_all, key):
    """In ASE's order; a virial is -stress x volume."""
    lines = []
    for atoms in frames:
        stress = atoms.calc.results["stress"] * (1 if key == "stress" else -atoms.get_volume())
        lattice = " ".join(map(str, atoms.cell[:].ravel()))
        six = " ".join(map(str, stress))
        lines += [str(len(atoms)), f'Lattice="{lattice}" Properties=species:S:1:pos:R:3 energy=-1.0 {key}="{six}"']
        lines += [f"Si {' '.join(map(str, position))}" for position in atoms.positions]
    xyz.write_text("\n".join(lines))
    for record, atoms in zip(read_all(xyz, card), frames, strict=True):
        assert np.allclose(record.stress, atoms.calc.results["stress"], atol=1e-12)


@pytest.mark.timeout(60)
def test_nine_numbers_of_many_digits_are_read_at_once(tmp_path, card, read_all):
    """Not after a trial of all ways in which their digits could be six numbers."""
    path, nine = tmp_path / "long.xyz", " ".join(f"{k / 1000:.120f}" for k in (1, 2, 3, 2, 4, 5, 3, 5, 6))
    comment = f'Lattice="4 0 0 0 4 0 0 0 4" Properties=species:S:1:pos:R:3 energy=-1.0 pbc="T T T" stress="{nine}"'
    path.write_text(f"1\n{comment}\nCu 0 0 0\n")
    (record,) = read_all(path, card)
    assert record.stress == pytest.approx([0.001, 0.004, 0.006, 0.005, 0.003, 0.002])


def test_names_that_nobody_knows_are_remarked_on(xyz, frames, card):
    for atoms in frames:
        atoms.info["u_tot"], atoms.arrays["push"] = atoms.calc.results["energy"], atoms.calc.results["forces"]
        atoms.calc = SinglePointCalculator(atoms, forces=atoms.calc.results["forces"])
    ase.io.write(xyz, frames, format="extxyz", columns=["symbols", "positions", "forces"])
    said: list[str] = []
    list(read_whole(xyz, card, said.append))
    assert len(said) == 5 and '[columns] energy = "u_tot"' in said[0]
    ase.io.write(xyz, frames, format="extxyz", columns=["symbols", "positions", "push"], write_results=False)
    with pytest.raises(InputError, match=r"u_tot: numbers, .* \[columns\] energy = \"u_tot\""):
        list(read_records(xyz, card))
    for atoms in frames:
        atoms.info = {"energy": -1.0}
    ase.io.write(xyz, frames, format="extxyz", columns=["symbols", "positions", "push"], write_results=False)
    said.clear()
    list(read_whole(xyz, card, said.append))
    assert '[columns] forces = "push"' in said[0]


def test_a_trajectory_with_the_total_moment_beside_those_of_the_atoms(tmp_path, crystal, card, read_all):
    crystal.calc.results |= {"magmom": 1.5, "magmoms": np.arange(8) * 0.1}
    path = tmp_path / "spin.traj"
    with Trajectory(path, "w") as trajectory:
        trajectory.write(crystal)
    assert np.allclose(read_all(path, card)[0].magmoms, np.arange(8) * 0.1)


# names that mislead


@pytest.mark.parametrize("name", ["frames.json", "frames.traj", "frames.dat", "frames", "vasprun.xml"])
def test_content_comes_before_the_name(xyz, card, read_all, name):
    other = xyz.with_name(name)
    other.write_bytes(xyz.read_bytes())
    assert [r.structure_id for r in read_all(other, card)] == [r.structure_id for r in read_all(xyz, card)]


@pytest.mark.parametrize(("name", "packed"), [("frames.extxyz", True), ("frames.xyz.gz", False)])
def test_compression_is_seen_and_not_believed(xyz, card, read_all, name, packed):
    other = xyz.with_name(name)
    other.write_bytes(gzip.compress(xyz.read_bytes()) if packed else xyz.read_bytes())
    assert len(read_all(other, card)) == 5


def test_marks_and_letters_of_other_encodings(xyz, card, read_all):
    text = xyz.read_text()
    xyz.write_bytes(b"\xef\xbb\xbf" + text.replace("energy=", 'by="Andr\xe9" energy=', 1).encode("latin-1"))
    assert len(read_all(xyz, card)) == 5


def test_a_database_in_json(tmp_path, frames, card, read_all):
    path = tmp_path / "set.json"
    for atoms in frames:
        connect(path).write(atoms)
    records = read_all(path, card)
    assert [record.energy for record in records] == pytest.approx([a.calc.results["energy"] for a in frames])


# JSON


def tables(structures: list[Structure]) -> dict[str, str]:
    """One table, written in the ways of pandas and others."""
    rows = [{"structure": structure.as_dict(), "gap": 0.5 * i} for i, structure in enumerate(structures)]
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    return {
        "a list of rows": json.dumps(rows),
        "one a line": "\n".join(map(json.dumps, rows)) + "\n",
        "lists side by side": json.dumps(columns),
        "by index": json.dumps({name: dict(enumerate(column)) for name, column in columns.items()}),
        "split": json.dumps({"index": [*range(5)], "columns": [*rows[0]], "data": [[*row.values()] for row in rows]}),
        "with words about it": json.dumps({"version": "2.1", "about": "crystals", "entries": rows}),
    }


@pytest.mark.parametrize("kind", range(6))
def test_tables_in_json(tmp_path, structures, targets, kind):
    name, text = list(tables(structures).items())[kind]
    path = tmp_path / ("t.jsonl" if name == "one a line" else "t.json")
    path.write_text(text)
    assert gaps(path, targets) == [0.0, 0.5, 1.0, 1.5, 2.0], name


def test_values_that_pymatgen_keeps_with_the_sites(tmp_path, structures, frames, read_all):
    for structure, atoms in zip(structures, frames, strict=True):
        structure.add_site_property("magmom", [0.5] * 8)
        structure.add_site_property("forces", atoms.calc.results["forces"].tolist())
        structure.add_site_property("selective_dynamics", [[True, True, False]] * 6 + [[False] * 3] * 2)
    path = tmp_path / "s.json"
    path.write_text(json.dumps([{"structure": structure.as_dict(), "energy": -1.0} for structure in structures]))
    record = read_all(path, Card(name="x", theory="t", units=Units(energy="eV", forces="eV/Å")))[0]
    assert record.magmoms.tolist() == [0.5] * 8
    assert record.fixed.tolist() == [False] * 6 + [True] * 2
    assert np.allclose(record.forces, frames[0].calc.results["forces"])


def test_charge_and_multiplicity_of_a_molecule(tmp_path, read_all):
    water = molecule("H2O")
    cation = Molecule(water.get_chemical_symbols(), water.positions, charge=1, spin_multiplicity=2)
    path = tmp_path / "m.json"
    path.write_text(json.dumps([{"molecule": cation.as_dict(), "energy": -1.0}]))
    record = read_all(path, Card(name="x", theory="t", units=Units(energy="eV")))[0]
    assert (record.total_charge, record.multiplicity, record.pbc.any()) == (1, 2, False)


def test_bare_structures_are_structures(tmp_path, structures, read_all):
    path = tmp_path / "s.json"
    path.write_text(json.dumps([structure.as_dict() for structure in structures]))
    assert len(read_all(path, generic_card("x", "t"))) == 5


@pytest.mark.parametrize("nothing", ["na", "NA", "n/a", "-", "null", "", None])
def test_how_tables_say_that_there_is_no_number(tmp_path, structures, targets, nothing):
    path = tmp_path / "s.json"
    entries = [{"structure": structure.as_dict(), "gap": nothing} for structure in structures]
    path.write_text(json.dumps(entries))
    assert gaps(path, targets) == [None] * 5


def test_long_text_where_a_row_is_due_is_not_the_name_of_its_reason(tmp_path, structures, targets):
    path = tmp_path / "s.json"
    path.write_text(json.dumps([{"structure": structures[0].as_dict()}, "words " * 100]))
    _, refused = read_records(path, targets)
    assert isinstance(refused, Rejected) and refused.code == "not-a-row"


# CSV


def write_table(path: Path, structures: list[Structure], column: str, as_json: bool = False, **style: str) -> Path:
    with path.open("w", newline="") as stream:
        writer = csv.writer(stream, **style)
        writer.writerow(["id", "gap", column])
        for number, structure in enumerate(structures):
            crystal = json.dumps(structure.as_dict()) if as_json else str(CifWriter(structure))
            writer.writerow([number, 0.5 * number, crystal])
    return path


@pytest.mark.parametrize("style", [{}, {"delimiter": ";"}, {"delimiter": "\t"}, {"lineterminator": "\r\n"}])
@pytest.mark.parametrize(("column", "as_json"), [("cif", False), ("structure", True), ("relaxed geometry", False)])
def test_tables_of_crystals(tmp_path, structures, targets, style, column, as_json):
    path = write_table(tmp_path / "t.csv", structures, column, as_json, **style)
    assert gaps(path, targets) == [0.0, 0.5, 1.0, 1.5, 2.0]


def test_a_table_with_a_byte_order_mark(tmp_path, structures, targets):
    path = write_table(tmp_path / "t.csv", structures, "cif")
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert len(gaps(path, targets)) == 5
    path.write_text("")
    with pytest.raises(InputError, match="no column holds a structure"):
        gaps(path, targets)


# company


def test_a_folder_that_vasp_ran_in_is_one_result(tmp_path):
    for name in ("vasprun.xml", "OUTCAR", "POSCAR", "CONTCAR.gz", "INCAR", "XDATCAR", "notes.xyz"):
        (tmp_path / "one" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "one" / name).touch()
    for name in ("vasprun.relax1.xml.gz", "OUTCAR.relax1", "OUTCAR.relax2", "POSCAR.orig"):
        (tmp_path / "two" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "two" / name).touch()
    (tmp_path / "POSCAR").touch()
    names = ["POSCAR", "one/notes.xyz", "one/vasprun.xml", "two/OUTCAR.relax2", "two/vasprun.relax1.xml.gz"]
    assert [path.relative_to(tmp_path).as_posix() for path in expand([tmp_path])] == names
    assert sorted(expand(tmp_path.glob("one/*"))) == expand([tmp_path / "one"]), "as a shell makes of one/*"


def test_zip_archives(tmp_path, xyz, card, read_all):
    path = tmp_path / "set.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.write(xyz, "a/frames.xyz")
        archive.writestr("../outside.xyz", xyz.read_text())
    records = read_all(path, card)
    assert len(records) == 10 and not (tmp_path.parent / "outside.xyz").exists()
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(UnreadableFile, match=r"set\.zip"):
        read_all(path, card)


def test_a_member_that_is_something_else_costs_itself(tmp_path, xyz, card):
    path = tmp_path / "set.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.write(xyz, "frames.xyz")
        archive.writestr("settings.json", '{"encut": 520.0}')
    kept = []
    with pytest.raises(UnreadableFile, match=r"1 of 2 members: settings\.json: nothing in it looks like a structure"):
        for record in read_whole(path, card):
            kept.append(record)
    assert len(kept) == 5


def test_what_every_member_lacks_is_said_once(tmp_path, xyz):
    path = tmp_path / "set.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name in "ab":
            archive.write(xyz, f"{name}.xyz")
    with pytest.raises(InputError, match=r"^neither the file nor card x says the level of theory") as caught:
        list(read_whole(path, generic_card("x")))
    assert not isinstance(caught.value, UnreadableFile)
