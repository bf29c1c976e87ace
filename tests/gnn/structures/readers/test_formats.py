"""Every format on tiny files written here: the same labels come out, in the units of the house."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import tarfile
from pathlib import Path

import ase.io
import numpy as np
import pyarrow.parquet as pq
import pytest
from ase.db import connect
from ase.io.trajectory import Trajectory
from ase.units import GPa
from pymatgen.core import Structure
from pymatgen.io.ase import AseAtomsAdaptor
from pymatgen.io.cif import CifWriter

from gnn.errors import InputError
from gnn.structures.atoms import atoms_to_record
from gnn.structures.cards import Card, Columns, GroupRule, StressRule, Units, generic_card, structures_card
from gnn.structures.readers import Rejected, UnreadableFile, guess_reader, read_records, read_whole
from gnn.structures.record import records_to_table, table_to_records

KBAR = 0.1 * GPa


def same(record, atoms, stress=True):
    assert record.numbers.tolist() == atoms.numbers.tolist()
    assert np.allclose(record.positions, atoms.positions, atol=1e-6)
    assert record.energy == pytest.approx(atoms.calc.results["energy"])
    assert np.allclose(record.forces, atoms.calc.results["forces"], atol=1e-6)
    if stress and "stress" in atoms.calc.results:
        assert np.allclose(record.stress, atoms.calc.results["stress"], atol=1e-7)


@pytest.fixture
def xyz(tmp_path, frames) -> Path:
    path = tmp_path / "frames.xyz"
    ase.io.write(path, frames, format="extxyz")
    return path


# extended XYZ


def test_extxyz(xyz, frames, card, read_all):
    records = read_all(xyz, card)
    assert len(records) == 5
    for record, atoms in zip(records, frames, strict=True):
        same(record, atoms)
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
    same(record, ethanol, stress=False)


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
    same(read_all(path, card)[0], ethanol, stress=False)


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


def test_one_bad_frame_costs_itself(xyz, card):
    lines = xyz.read_text().splitlines(keepends=True)
    lines[4] = lines[4].replace(lines[4].split()[1], "hello")
    xyz.write_text("".join(lines))
    records = list(read_records(xyz, card))
    assert [type(record).__name__ for record in records] == ["Rejected"] + ["Record"] * 4
    assert records[0].code == "unreadable-row" and records[0].row == 0


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
    assert len(records) == 5 and records[0].energy is None and records[0].forces is None


# ASE trajectories and databases


def test_trajectory(tmp_path, crystal, ethanol, card, read_all):
    path = tmp_path / "run.traj"
    with Trajectory(str(path), "w") as trajectory:
        trajectory.write(crystal)
        crystal.calc.results["energy"] -= 1
        trajectory.write(crystal)
    records = read_all(path, card)
    assert records[1].energy == pytest.approx(records[0].energy - 1)
    same(records[1], crystal)
    assert np.flatnonzero(records[0].fixed).tolist() == [2]
    assert np.abs(records[0].forces[2]).max() > 0, "forces of fixed atoms stay raw"
    assert {record.group for record in records} == {f"{tmp_path.name}/run.traj"}


def test_a_truncated_trajectory_costs_the_file(tmp_path, crystal, card):
    path = tmp_path / "run.traj"
    with Trajectory(str(path), "w") as trajectory:
        for _ in range(3):
            trajectory.write(crystal)
    content = path.read_bytes()
    for keep in (len(content) // 2, 40, 10, 0):
        path.write_bytes(content[:keep])
        with pytest.raises(UnreadableFile):
            list(read_records(path, card))


def test_database(tmp_path, crystal, frames, card, read_all):
    path = tmp_path / "set.db"
    with connect(str(path)) as database:
        database.write(crystal, heat=1.5, group="a")
        database.write(frames[0], heat=2.5, group="b")
    declared = Card.model_validate(card.model_dump() | {"properties": {"heat": {"unit": "eV"}}})
    records = read_all(path, declared)
    same(records[0], crystal)
    same(records[1], frames[0])
    assert [record.properties["heat"] for record in records] == [1.5, 2.5]
    assert [record.group for record in records] == ["a", "b"]
    assert records[0].total_charge is None


def test_what_is_no_database(tmp_path, card):
    path = tmp_path / "set.db"
    path.write_bytes(b"not sqlite at all" * 100)
    with pytest.raises(UnreadableFile):
        list(read_records(path, card))


@pytest.mark.parametrize(("name", "form"), [("POSCAR", "vasp"), ("si.cif", "cif"), ("si.in", "espresso-in")])
def test_anything_that_ase_reads(tmp_path, frames, card, read_all, name, form):
    path = tmp_path / name
    more = {"pseudopotentials": {"Si": "si.upf"}} if form == "espresso-in" else {}
    if name == "si.in":
        path = tmp_path / "si.pwi"
    ase.io.write(path, frames[0], format=form, **more)
    record = read_all(path, card)[0]
    assert record.n_atoms == 8 and record.energy is None


def test_an_unknown_format(tmp_path, card):
    path = tmp_path / "notes.zzz"
    path.write_text("nothing of use")
    with pytest.raises(UnreadableFile, match="not a format that is known here"):
        list(read_records(path, card))


# JSON


def pymatgen_entry(atoms, sign=-1.0):
    structure = AseAtomsAdaptor.get_structure(atoms)
    xx, yy, zz, yz, xz, xy = atoms.calc.results["stress"] / KBAR * sign
    return {
        "structure": structure.as_dict(),
        "outputs": {
            "energy": atoms.calc.results["energy"],
            "forces": atoms.calc.results["forces"].tolist(),
            "virial_stress": [xx, yy, zz, xy, yz, xz],
        },
        "description": "Snapshot 3 of 9 of a run at 300 K",
        "element": "Si",
    }


@pytest.fixture
def vasp_json() -> Card:
    return Card(
        name="x",
        theory="t",
        units=Units(energy="eV", forces="eV/Å", stress="kBar"),
        stress=StressRule(sign="compression", order="vasp"),
        group=GroupRule(by="column", template="{element} {description}", remove=r"Snapshot \d+ of \d+ of "),
    )


def test_pymatgen_json(tmp_path, frames, vasp_json, read_all):
    path = tmp_path / "training.json"
    path.write_text(json.dumps([pymatgen_entry(atoms) for atoms in frames]))
    records = read_all(path, vasp_json)
    for record, atoms in zip(records, frames, strict=True):
        same(record, atoms)
    assert {record.group for record in records} == {"Si a run at 300 K"}


def test_units_that_nobody_tells_are_an_error(tmp_path, frames, read_all):
    path = tmp_path / "training.json"
    path.write_text(json.dumps([pymatgen_entry(frames[0])]))
    with pytest.raises(InputError, match=r"'energy' .*write \[units\] energy = \"eV\""):
        read_all(path, generic_card("x", "t"))
    half = Card(name="x", theory="t", units=Units(energy="eV", forces="eV/Å"))
    with pytest.raises(InputError, match=r"'virial_stress' .*stress = \"kBar\" and \[stress\] sign"):
        read_all(path, half)
    unsigned = Card(name="x", theory="t", units=Units(energy="eV", forces="eV/Å", stress="kBar"))
    with pytest.raises(InputError, match="no sign"):
        read_all(path, unsigned)


@pytest.mark.parametrize("cartesian", [False, True])
def test_jarvis_json(tmp_path, frames, read_all, cartesian):
    atoms = frames[0]
    coordinates = atoms.positions if cartesian else atoms.get_scaled_positions(wrap=False)
    entry = {
        "jid": "1",
        "atoms": {
            "lattice_mat": atoms.cell[:].tolist(),
            "coords": coordinates.tolist(),
            "elements": atoms.get_chemical_symbols(),
            "cartesian": cartesian,
        },
        "total_energy": atoms.calc.results["energy"] / len(atoms),
        "forces": atoms.calc.results["forces"].tolist(),
        "stresses": (-atoms.calc.results["stress"] / KBAR)[[0, 1, 2, 5, 3, 4]].tolist(),
    }
    path = tmp_path / "id_prop.json"
    path.write_text(json.dumps([entry] * 3))
    card = Card(
        name="x",
        theory="t",
        energy_is="per_atom",
        rows=(0, 2),
        units=Units(energy="eV", forces="eV/Å", stress="kBar"),
        stress=StressRule(sign="compression", order="vasp"),
    )
    records = read_all(path, card)
    assert len(records) == 2, "rows outside the card's are not read"
    same(records[0], atoms)


def nested(atoms, **data):
    return {
        "atoms": {
            "cell": atoms.cell[:].tolist(),
            "symbols": atoms.get_chemical_symbols(),
            "positions": atoms.positions.tolist(),
            "pbc": [True] * 3,
        },
        "data": {"total_energy": atoms.calc.results["energy"], "forces": atoms.calc.results["forces"].tolist()} | data,
    }


@pytest.fixture
def nested_card() -> Card:
    return Card(
        name="x",
        levels=("oxide", "functional"),
        theory_column="functional",
        theory_map={"PBE": "pbe/x", "LDA": "lda/x"},
        units=Units(energy="eV", forces="eV/Å"),
        columns=Columns(structure="atoms", energy="data.total_energy", forces="data.forces", config_type="stage"),
    )


def test_nested_json(tmp_path, frames, nested_card):
    tree = {
        "SiO2": {
            "PBE": {"EOS": [nested(frames[0]), nested(frames[1])], "final": "calculation unavailable"},
            "LDA": {"EOS": [nested(frames[2], total_energy="calculation unavailable")]},
        }
    }
    path = tmp_path / "tree.json.gz"
    path.write_bytes(gzip.compress(json.dumps(tree).encode()))
    records = list(read_records(path, nested_card))
    assert [r.theory for r in records if not isinstance(r, Rejected)] == ["pbe/x", "pbe/x"]
    assert records[2].code == "calculation unavailable" and "SiO2/PBE/final" in records[2].reason
    assert records[3].code == "not-a-number"
    same(records[0], frames[0], stress=False)


def test_a_theory_that_the_map_lacks_is_named(tmp_path, frames, nested_card, read_all):
    path = tmp_path / "tree.json"
    path.write_text(json.dumps({"SiO2": {"HSE": [nested(frames[0])]}}))
    with pytest.raises(InputError, match=r"'HSE' is not in the card's theory_map .*\"HSE\" = \"KEY\""):
        read_all(path, nested_card)


@pytest.mark.parametrize(
    "text", ['[{"structure": {"latt', "[1, 2", '{"a": ', "", '[{"structure": 1}] trailing', "not json"]
)
def test_broken_json_costs_the_file(tmp_path, text, card):
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises((UnreadableFile, InputError)):
        list(read_records(path, card))


def test_json_without_structures_says_what_to_write(tmp_path, card):
    path = tmp_path / "x.json"
    path.write_text('[{"a": 1}, {"a": 2}]')
    with pytest.raises(InputError, match=r"write \[columns\] structure = \"KEY\""):
        list(read_records(path, card))


def test_disordered_structures_and_unknown_elements_are_rejected(tmp_path, frames, card):
    good = AseAtomsAdaptor.get_structure(frames[0]).as_dict()
    shared, unknown = json.loads(json.dumps(good)), json.loads(json.dumps(good))
    shared["sites"][0]["species"] = [{"element": "Si", "occu": 0.5}, {"element": "Ge", "occu": 0.5}]
    unknown["sites"][0]["species"] = [{"element": "Qq", "occu": 1}]
    path = tmp_path / "x.json"
    path.write_text(json.dumps([{"structure": entry} for entry in (good, shared, unknown)]))
    records = list(read_records(path, card))
    assert [getattr(record, "code", "kept") for record in records] == ["kept", "disordered", "unknown-element"]


def test_long_lists_are_read_piece_by_piece(tmp_path, frames, vasp_json, read_all, monkeypatch):
    from gnn.structures.readers import json_rows

    monkeypatch.setattr(json_rows, "CHUNK", 97)
    path = tmp_path / "x.json"
    path.write_text(json.dumps([pymatgen_entry(atoms) for atoms in frames], indent=2))
    assert len(read_all(path, vasp_json)) == 5


# CSV with CIF


@pytest.fixture
def table(tmp_path, frames) -> Path:
    import csv

    path = tmp_path / "crystals.csv"
    with path.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, ["material_id", "cif", "formation_energy_per_atom", "gap"])
        writer.writeheader()
        for row, atoms in enumerate(frames):
            cif = str(CifWriter(AseAtomsAdaptor.get_structure(atoms)))
            writer.writerow({"material_id": row, "cif": cif, "formation_energy_per_atom": -0.1 * row, "gap": ""})
    return path


@pytest.fixture
def csv_card() -> Card:
    properties = {"ef": {"unit": "eV/atom", "column": "formation_energy_per_atom"}, "gap": {"unit": "eV"}}
    return Card.model_validate({"name": "x", "theory": "t", "properties": properties})


def test_csv_with_cif(table, frames, csv_card, read_all):
    records = read_all(table, csv_card)
    assert [record.properties for record in records] == [{"ef": pytest.approx(-0.1 * row)} for row in range(5)]
    assert records[0].energy is None, "a formation energy is a property and never the energy"
    assert records[0].group == "Si"
    assert np.allclose(records[0].cell, frames[0].cell[:], atol=1e-6)


def test_undeclared_columns_are_an_error_that_says_what_to_write(table, read_all):
    with pytest.raises(InputError, match=r"\[properties\.formation_energy_per_atom\] unit = 'eV/atom'"):
        read_all(table, generic_card("x", "t"))
    assert len(read_all(table, structures_card("x"))) == 5


def test_rows_of_a_csv_that_cannot_be_read_cost_themselves(table, csv_card):
    text = table.read_text()
    broken = text.replace("_atom_site_occupancy", "_atom_site_nonsense", 1)
    table.write_text(broken + "9,not a cif,0.5,\n" + "10,short\n")
    records = list(read_records(table, csv_card))
    kinds = [getattr(record, "code", "kept") for record in records]
    assert kinds[-2:] == ["unreadable-row", "unreadable-row"] and kinds.count("kept") >= 4
    assert len(kinds) == 7


def test_a_property_that_is_no_number_costs_its_row(table, csv_card):
    table.write_text(table.read_text().replace(",-0.1,", ",oops,"))
    records = list(read_records(table, csv_card))
    assert [getattr(record, "code", "kept") for record in records].count("not-a-number") == 1


def test_a_csv_without_structures(tmp_path, csv_card):
    path = tmp_path / "x.csv"
    path.write_text("a,b\n1,2\n")
    with pytest.raises(InputError, match=r"columns: a, b.*\[columns\] structure"):
        list(read_records(path, csv_card))


def test_plain_cif_is_read_as_pymatgen_reads_it(frames):
    from gnn.structures.readers.cif import _by_pymatgen, _plain

    text = str(CifWriter(AseAtomsAdaptor.get_structure(frames[3])))
    plain, reference = _plain(text), _by_pymatgen(text)
    assert plain is not None
    difference = (plain.positions - reference.positions) @ np.linalg.inv(plain.cell)
    assert np.allclose(plain.cell, reference.cell)
    assert np.allclose(difference, np.round(difference), atol=1e-4)
    assert _plain(text.replace("'x, y, z'", "'x, y, -z'")) is None
    assert _plain(text.replace("Si  Si0  1", "Si  Si0  2")) is None


def test_cif_with_symmetry_goes_to_pymatgen(frames):
    from gnn.structures.readers.cif import raw_of_cif

    structure = Structure.from_spacegroup("Fd-3m", np.eye(3) * 5.43, ["Si"], [[0, 0, 0]])
    raw = raw_of_cif(str(CifWriter(structure, symprec=0.01)))
    assert len(raw.numbers) == 8


# DeePMD


def write_system(folder: Path, frames, kind: str, type_map=True, virial=True) -> Path:
    folder.mkdir(parents=True)
    (folder / "type.raw").write_text("\n".join("0" for _ in frames[0]))
    if type_map:
        (folder / "type_map.raw").write_text("Si\n")
    volume = frames[0].get_volume()
    arrays = {
        "coord": [atoms.positions.ravel() for atoms in frames],
        "box": [atoms.cell[:].ravel() for atoms in frames],
        "energy": [[atoms.calc.results["energy"]] for atoms in frames],
        "force": [atoms.calc.results["forces"].ravel() for atoms in frames],
    }
    if virial:
        stresses = [atoms.calc.results["stress"][[0, 5, 4, 5, 1, 3, 4, 3, 2]] for atoms in frames]
        arrays["virial"] = [-stress * volume for stress in stresses]
    target = folder / "set.000" if kind == "npy" else folder
    target.mkdir(exist_ok=True)
    for name, rows in arrays.items():
        if kind == "npy":
            np.save(target / f"{name}.npy", np.array(rows).squeeze())
        else:
            np.savetxt(target / f"{name}.raw", np.array(rows))
    return folder


@pytest.mark.parametrize("kind", ["npy", "raw"])
def test_deepmd(tmp_path, frames, card, read_all, kind):
    folder = write_system(tmp_path / "data_0", frames, kind)
    records = read_all(folder, card)
    assert len(records) == 5
    for record, atoms in zip(records, frames, strict=True):
        same(record, atoms)
    assert {record.group for record in records} == {f"{tmp_path.name}/data_0"}


def test_deepmd_elements_from_the_card(tmp_path, frames, card, read_all):
    folder = write_system(tmp_path / "d", frames, "raw", type_map=False)
    with pytest.raises(InputError, match="write type_map = "):
        read_all(folder, card)
    assert read_all(folder, card.model_copy(update={"type_map": ("Ge",)}))[0].formula == "Ge"


def test_deepmd_without_periodicity(tmp_path, frames, card, read_all):
    folder = write_system(tmp_path / "d", frames, "npy", virial=False)
    (folder / "set.000" / "box.npy").unlink()
    with pytest.raises(UnreadableFile, match="box is missing"):
        read_all(folder, card)
    (folder / "nopbc").touch()
    assert not read_all(folder, card)[0].pbc.any()


@pytest.mark.parametrize("kind", ["npy", "raw"])
def test_damaged_deepmd_costs_the_system(tmp_path, frames, card, kind):
    folder = write_system(tmp_path / "d", frames, kind)
    path = next(folder.rglob(f"energy.{kind}"))
    content = path.read_bytes()
    path.write_bytes(content[: -len(content) // 3])
    with pytest.raises(UnreadableFile):
        list(read_records(folder, card))
    path.unlink()
    next(folder.rglob(f"coord.{kind}")).unlink()
    with pytest.raises(UnreadableFile, match="coord"):
        list(read_records(folder, card))


# archives


def test_archives_are_read_member_by_member(tmp_path, frames, xyz, card, read_all):
    write_system(tmp_path / "in" / "run" / "data.001", frames, "raw")
    write_system(tmp_path / "in" / "run" / "data.002", frames[:2], "raw")
    path = tmp_path / "all.tar.xz"
    with tarfile.open(path, "w:xz") as archive:
        archive.add(tmp_path / "in" / "run", "run")
        archive.add(xyz, "run/frames.xyz")
    records = read_all(path, card)
    assert len(records) == 5 + 2 + 5
    assert records[0].source.file == f"{tmp_path.name}/all.tar.xz!run/data.001"
    assert len({record.group for record in records}) == 3


def test_hostile_archives_are_refused(tmp_path, xyz, card):
    for name, linkname in (("../escape.xyz", ""), ("link.xyz", "/etc/hostname")):
        path = tmp_path / "bad.tar"
        with tarfile.open(path, "w") as archive:
            member = tarfile.TarInfo(name)
            if linkname:
                member.type, member.linkname = tarfile.SYMTYPE, linkname
            archive.addfile(member)
        with pytest.raises(UnreadableFile):
            list(read_records(path, card))
    assert not (tmp_path.parent / "escape.xyz").exists()


def test_one_bad_member_is_named_and_the_others_are_read(tmp_path, frames, xyz, card):
    (tmp_path / "torn.xyz").write_text(xyz.read_text()[:-300])
    path = tmp_path / "all.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        archive.add(tmp_path / "torn.xyz", "a.xyz")
        archive.add(xyz, "b.xyz")
    kept = []
    with pytest.raises(UnreadableFile, match=r"1 of 2 members: a\.xyz"):
        for record in read_whole(path, card):
            kept.append(record)
    assert len(kept) == 5, "nothing of the torn member, all of the other"


@pytest.mark.parametrize("limit", [1, 20, 10**6])
def test_nothing_is_given_of_a_file_that_does_not_end(xyz, card, monkeypatch, limit):
    from gnn.structures.readers import read

    monkeypatch.setattr(read, "HELD_ATOMS", limit)
    assert len(list(read_whole(xyz, card))) == 5
    xyz.write_text(xyz.read_text()[:-300])
    kept = []
    with pytest.raises(UnreadableFile):
        for record in read_whole(xyz, card):
            kept.append(record)
    assert kept == []


def test_a_truncated_archive_costs_the_file(tmp_path, xyz, card):
    path = tmp_path / "all.tar.xz"
    with tarfile.open(path, "w:xz") as archive:
        archive.add(xyz, "b.xyz")
    path.write_bytes(path.read_bytes()[:-60])
    with pytest.raises(UnreadableFile):
        list(read_records(path, card))


# Parquet


def test_parquet_of_records(tmp_path, frames, crystal, card, read_all):
    records = [atoms_to_record(atoms, "other", "lda/own") for atoms in (*frames, crystal)]
    path = tmp_path / "sample.parquet"
    pq.write_table(records_to_table(records), path)
    back = read_all(path, card)
    assert [r.structure_id for r in back] == [r.structure_id for r in records]
    assert {r.theory for r in back} == {"lda/own"}, "what the file says comes before the card"
    assert {r.dataset for r in back} == {"test"}
    same(back[5], crystal)
    assert back[0].source.file == f"{tmp_path.name}/sample.parquet"


def test_parquet_of_something_else(tmp_path, card):
    import pyarrow as pa

    path = tmp_path / "x.parquet"
    pq.write_table(pa.table({"a": [1]}), path)
    with pytest.raises(UnreadableFile, match="column theory is missing"):
        list(read_records(path, card))
    path.write_bytes(b"PAR1 nothing")
    with pytest.raises(UnreadableFile):
        list(read_records(path, card))


def test_a_parquet_row_of_wrong_length_is_rejected(tmp_path, frames, card):
    table = records_to_table([atoms_to_record(atoms, "o", "t") for atoms in frames])
    rows = table.to_pylist()
    rows[2]["forces"] = rows[2]["forces"][:-1]
    path = tmp_path / "x.parquet"
    pq.write_table(type(table).from_pylist(rows, schema=table.schema), path)
    records = list(read_records(path, card))
    assert [getattr(record, "code", "kept") for record in records] == ["kept"] * 2 + ["array-length"] + ["kept"] * 2
    assert len(table_to_records(table)) == 5


# names


@pytest.mark.parametrize(
    ("name", "reader"),
    [
        ("a.xyz", "extxyz"),
        ("a.extxyz.gz", "extxyz"),
        ("a.traj.bz2", "ase-traj"),
        ("a.db", "ase-db"),
        ("a.json.xz", "json"),
        ("a.csv", "csv"),
        ("vasprun.xml", "vasprun"),
        ("vasprun.relax2.xml.gz", "vasprun"),
        ("OUTCAR", "outcar"),
        ("OUTCAR_3.gz", "outcar"),
        ("a.tar.xz", "tar"),
        ("a.tgz", "tar"),
        ("a.parquet", "parquet"),
        ("a.cif", "ase"),
    ],
)  # fmt: skip
def test_readers_are_guessed_by_name(name, reader):
    assert guess_reader(Path(name)) == reader


def test_a_folder_that_is_no_system(tmp_path):
    with pytest.raises(UnreadableFile, match=r"no DeePMD system"):
        guess_reader(tmp_path)


def test_a_reader_that_is_not_there(xyz):
    with pytest.raises(InputError, match=r"no reader 'xsf'; known are: .*extxyz"):
        list(read_records(xyz, Card(name="x", reader="xsf", theory="t")))
