"""Every reader on real data, against ASE or pymatgen on the same file, and the traps that the sets are known for."""

from __future__ import annotations

import csv
import gzip
import json
import shutil
from itertools import islice
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase.io.trajectory import Trajectory
from pymatgen.core import Structure

from gnn.structures.cards import load_card
from gnn.structures.checks import flags_of, reject_reason
from gnn.structures.readers import Rejected, read_records
from gnn.structures.readers.cif import _by_pymatgen, _plain
from gnn.structures.record import label_hash
from gnn.structures.units import voigt_from_matrix

pytestmark = pytest.mark.data
KBAR = 1602.1766208


@pytest.fixture
def read(real_data, repository):
    """The first records of a file of a set, read with its shipped card."""

    def records(path: str, limit: int | None = None, card: str | None = None):
        chosen = load_card(card or path.partition("/")[0], [repository / "datasets" / "cards"])
        return list(islice(read_records(real_data / path, chosen), limit))

    return records


@pytest.fixture
def plain(real_data, tmp_path):
    """The decompressed copy of a file."""

    def unpack(path: str) -> Path:
        target = tmp_path / Path(path).stem
        with gzip.open(real_data / path) as source, target.open("wb") as sink:
            shutil.copyfileobj(source, sink)
        return target

    return unpack


@pytest.mark.parametrize("path", ["3bpa/train_300K.xyz.gz", "ethanol/test_MD.xyz.gz"])
def test_extxyz_against_ase(read, plain, path):
    records = read(path, 40)
    for record, atoms in zip(records, ase.io.iread(plain(path), index=":40"), strict=True):
        assert record.numbers.tolist() == atoms.numbers.tolist()
        assert np.allclose(record.positions, atoms.positions) and np.allclose(record.forces, atoms.get_forces())
        assert record.energy == atoms.get_potential_energy() and record.free_energy is None
        assert not record.cell.any() and record.group is None


def test_isolated_atoms(read):
    records = read("3bpa/iso_atoms.xyz")
    assert [record.is_isolated_atom for record in records] == [True] * 4
    assert {record.formula: round(record.energy, 3) for record in records}["H"] == -13.587
    assert {record.theory for record in records} == {"wb97x/orca-6-31gd"}


def test_trajectories_against_ase(read, plain):
    """Forces of fixed atoms stay raw; wild trial steps are flagged and kept."""
    path = "oc20_relax/random1000117.traj.gz"
    records = read(path)
    frames = list(Trajectory(str(plain(path))))
    assert len(records) == len(frames) == 158
    for record, atoms in zip(records, frames, strict=True):
        assert np.allclose(record.forces, atoms.get_forces(apply_constraint=False))
        assert record.energy == atoms.calc.results["energy"]
        assert record.free_energy == atoms.calc.results["free_energy"]
        assert np.flatnonzero(record.fixed).tolist() == atoms.constraints[0].index.tolist()
        assert record.stress is None and record.tags is None
    wild = [row for row, record in enumerate(records) if "large-force" in flags_of(record)]
    assert wild == [1] and np.abs(records[1].forces).max() == pytest.approx(351.2, abs=0.1)
    assert {record.group.partition("#")[0] for record in records} == {path}


def test_pymatgen_json_against_pymatgen(read, real_data):
    records = read("mlearn/Mo/training.json.gz", card="mlearn")
    with gzip.open(real_data / "mlearn/Mo/training.json.gz") as stream:
        entries = json.load(stream)
    assert len(records) == len(entries) == 194
    for record, entry in list(zip(records, entries, strict=True))[::10]:
        structure = Structure.from_dict(entry["structure"])
        assert np.allclose(record.positions, structure.cart_coords)
        assert record.energy == entry["outputs"]["energy"]
        xx, yy, zz, xy, xz, yz = entry["outputs"]["virial_stress"]  # yz and xz are exchanged in this element
        assert np.allclose(record.stress, -np.array([xx, yy, zz, yz, xz, xy]) / KBAR)
        assert record.config_type == entry["group"]


def test_stress_of_mlearn_is_the_derivative_of_its_energy(read):
    """-dE/dstrain over the volume along a uniaxial strain of Mo is the stress of the file, in our units and sign."""
    records = [r for r in read("mlearn/Mo/training.json.gz", card="mlearn") if r.group == "Mo: Mo 3x3x3 cell, mode 1"]
    points = sorted((r.cell[0, 0], r.energy, r.stress[0], abs(np.linalg.det(r.cell))) for r in records)
    length, energy, stress, volume = (np.array(column) for column in zip(*points, strict=True))
    derivative = np.gradient(energy, np.log(length)) / volume
    inner = slice(1, -1)
    assert np.corrcoef(derivative[inner], stress[inner])[0, 1] > 0.99
    assert np.allclose(derivative[inner], stress[inner], atol=0.25 * np.abs(stress).max())


@pytest.mark.parametrize("file", ["Li/training", "Si/training", "Mo/training", "Ni/id_prop", "Cu/id_prop", "Cu/test"])
def test_sheared_cells_of_mlearn_are_stressed_in_the_same_components(read, file):
    """A cubic crystal answers the shear of a plane with a stress in that plane: no two components are exchanged."""
    strains, stresses = [], []
    for record in read(f"mlearn/{file}.json.gz", card="mlearn"):
        strain = voigt_from_matrix(record.cell / np.cbrt(abs(np.linalg.det(record.cell))) - np.eye(3))
        if record.pbc.all() and np.abs(strain[3:]).max() > 0.01 and np.abs(strain).max() < 0.2:
            strains.append(strain[3:])
            stresses.append(record.stress[3:])
    correlation = np.corrcoef(np.array(strains).T, np.array(stresses).T)[:3, 3:]
    assert len(strains) >= 4
    assert (np.diag(correlation) > 0.95).all()


@pytest.mark.parametrize(("element", "train", "total"), [("Ni", 263, 325), ("Cu", 262, 324)])
def test_jarvis_json_and_its_trap(read, real_data, element, train, total):
    """Energies per atom; the rows after the training part are the test set twice, with stresses of other rows."""
    records = read(f"mlearn/{element}/id_prop.json.gz", card="mlearn")
    with gzip.open(real_data / f"mlearn/{element}/id_prop.json.gz") as stream:
        entries = json.load(stream)
    assert (len(records), len(entries)) == (train, total)
    first = entries[0]
    assert records[0].energy == pytest.approx(first["total_energy"] * len(first["atoms"]["elements"]))
    test = read(f"mlearn/{element}/test.json.gz", card="mlearn")
    assert len(test) == 31
    assert not {r.structure_id for r in records} & {r.structure_id for r in test}
    per_atom = np.array([r.energy / r.n_atoms for r in (*records, *test)])
    assert np.ptp(per_atom) < 2


def test_nested_json_and_its_traps(read, real_data):
    records = read("bo2_oxides/supporting-information.json.gz")
    rejected = [record for record in records if isinstance(record, Rejected)]
    kept = [record for record in records if not isinstance(record, Rejected)]
    assert (len(kept), [record.code for record in rejected]) == (1298, ["calculation unavailable"] * 2)
    assert {record.reason.split()[2] for record in rejected} == {
        "VO2/anatase/PBE/final/calculations", "VO2/anatase/AM05/final/calculations",
    }  # fmt: skip
    assert {record.theory.partition("/")[0] for record in kept} == {"pbe", "pbesol", "lda", "am05"}
    curve = [r for r in kept if (r.group, r.config_type) == ("TiO2 rutile", "EOS") and r.theory.startswith("pbe/")]
    points = np.array(sorted((abs(np.linalg.det(r.cell)), r.energy, -r.stress[:3].mean() * KBAR / 10) for r in curve))
    slope = -np.gradient(points[:, 1], points[:, 0]) * KBAR / 10
    assert np.allclose(slope[1:-1], points[1:-1, 2], atol=1.5), "GPa from both, and not ten times more"


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("mp20/mp_20_pilot_val.csv.gz", "formation_energy_per_atom"), ("perov5/perov_5_val.csv.gz", "heat_all"),
        ("wbm/wbm_val.csv.gz", "formation_energy_per_atom"), ("carbon24/carbon_24_val.csv.gz", "energy_per_atom"),
        ("mpts52/mpts_52_val.csv.gz", "formation_energy_per_atom"),
    ],
)  # fmt: skip
def test_csv_against_pymatgen(read, real_data, path, name):
    csv.field_size_limit(1 << 27)
    with gzip.open(real_data / path, "rt") as stream:
        rows = list(islice(csv.DictReader(stream), 60))
    for record, row in list(zip(read(path, 60), rows, strict=True))[::7]:
        reference, fast = _by_pymatgen(row["cif"]), _plain(row["cif"])
        assert fast is not None
        assert sorted(record.numbers) == sorted(reference.numbers)
        assert np.allclose(record.cell, reference.cell)
        for number in set(record.numbers):
            mine = record.positions[record.numbers == number]
            theirs = reference.positions[reference.numbers == number]
            gap = (mine[:, None] - theirs[None]) @ np.linalg.inv(record.cell)
            distances = np.linalg.norm((gap - np.round(gap)) @ record.cell, axis=-1)
            assert distances.min(axis=1).max() < 2e-3
        assert record.properties[name] == float(row[name])
        assert record.energy is None and reject_reason(record) is None


def test_rows_that_two_files_share_are_the_same_row(read):
    val = {r.structure_id: label_hash(r) for r in read("mp20/mp_20_pilot_val.csv.gz")}
    both = {r.structure_id: label_hash(r) for r in read("mp20/mp_20_biternary_val.csv.gz", 1200)}
    shared = val.keys() & both.keys()
    assert len(shared) > 50 and all(val[key] == both[key] for key in shared)


def test_deepmd_npy(read, real_data):
    records = read("water_deepmd/data_1")
    energies = [np.load(real_data / f"water_deepmd/data_1/set.00{k}/energy.npy") for k in (0, 1)]
    assert [record.energy for record in records] == pytest.approx(np.concatenate(energies).tolist())
    assert len(records) == 160 and records[0].formula == "H2O" and records[0].n_atoms == 192
    assert np.linalg.norm(records[0].forces.sum(axis=0)) < 0.5
    assert {record.group.partition("#")[0] for record in records} == {"water_deepmd/data_1"}
    close = [record for record in records if reject_reason(record)]
    assert close == []


def test_deepmd_raw_in_an_archive(read):
    records = read("gete_deepmd/GeTe_raw.tar.xz", 300)
    assert records[0].formula in ("GeTe", "TeGe") and records[0].n_atoms == 64
    assert records[0].source.file.endswith("GeTe_raw.tar.xz!GeTe/data.001")
    assert len({record.group for record in records}) >= 2
    assert all(-165 < record.energy / 64 < -163 for record in records)


@pytest.mark.parametrize(
    ("path", "form", "theory"),
    [
        ("vasp_raw/LiCl_rand_static_2/vasprun.xml.gz", "vasp-xml", "pbesol/vasp-pw700"),
        ("vasp_raw/HfO2/OUTCAR_5.gz", "vasp-out", "scan/vasp-pw500"),
    ],
)
def test_vasp_against_ase(read, plain, path, form, theory):
    (record,) = read(path)
    atoms = ase.io.read(plain(path), format=form)
    assert np.allclose(record.forces, atoms.get_forces(apply_constraint=False))
    assert np.allclose(record.stress, atoms.calc.results["stress"])
    assert (record.energy, record.free_energy) == (atoms.calc.results["energy"], atoms.calc.results["free_energy"])
    assert record.theory == theory and record.flags == ()
    assert np.linalg.norm(record.forces.sum(axis=0)) < 1e-5


def test_vasprun_against_pymatgen(read, plain):
    from pymatgen.io.vasp import Vasprun

    path = "vasp_raw/LiCl_rand_static_3/vasprun.xml.gz"
    (record,) = read(path)
    run = Vasprun(str(plain(path)), parse_dos=False, parse_eigen=False, parse_potcar_file=False)
    step = run.ionic_steps[-1]
    assert np.allclose(record.positions, run.final_structure.cart_coords, atol=1e-6)
    assert record.free_energy == pytest.approx(step["e_fr_energy"])
    stress = -np.array(step["stress"]) / KBAR
    assert np.allclose(record.stress, stress[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]], atol=1e-7)
