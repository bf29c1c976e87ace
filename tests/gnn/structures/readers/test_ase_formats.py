"""ASE trajectories and databases, and what else ASE reads."""

from __future__ import annotations

from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase.db import connect
from ase.io.trajectory import Trajectory
from pymatgen.core import Lattice, Structure
from records import assert_same

from flows.structure_files import read_structures
from gnn.errors import InputError
from gnn.files import file_sha256
from gnn.structures.cards import Card
from gnn.structures.readers import Rejected, UnreadableFile, read_records
from gnn.structures.readers.raw import DISORDERED
from gnn.structures.record import Record


def test_trajectory(tmp_path, crystal, ethanol, card, read_all):
    path = tmp_path / "run.traj"
    with Trajectory(str(path), "w") as trajectory:
        trajectory.write(crystal)
        crystal.calc.results["energy"] -= 1
        trajectory.write(crystal)
    records = read_all(path, card)
    assert records[1].energy == pytest.approx(records[0].energy - 1)
    assert_same(records[1], crystal)
    assert np.flatnonzero(records[0].fixed).tolist() == [2]
    assert np.abs(records[0].forces[2]).max() > 0, "forces of fixed atoms stay raw"
    assert {record.group for record in records} == {f"{tmp_path.name}/run.traj#{file_sha256(path)[:8]}"}


def test_files_of_one_name_in_different_folders_are_groups_of_their_own(
    tmp_path, crystal, ethanol, card, read_all, monkeypatch
):
    paths = [tmp_path / system / "relax" / "opt.traj" for system in ("a", "b")]
    for path, atoms in zip(paths, (crystal, ethanol), strict=True):
        path.parent.mkdir(parents=True)
        ase.io.write(path, atoms)
    groups = [read_all(path, card)[0].group for path in paths]
    assert len(set(groups)) == 2
    monkeypatch.chdir(paths[0].parent)
    assert read_all(Path("opt.traj"), card)[0].group == groups[0], "wherever one stands"


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
    assert_same(records[0], crystal)
    assert_same(records[1], frames[0])
    assert [record.properties["heat"] for record in records] == [1.5, 2.5]
    assert [record.group for record in records] == ["a", "b"]
    assert records[0].total_charge is None


@pytest.mark.parametrize(
    ("charges", "total"), [((0.3, -0.1), None), ((0.3, -0.3 + 1e-15), None), ((0.7, 0.3 + 1e-9), 1), ((-1.2, -0.8), -2)]
)
def test_the_charge_of_a_database_is_the_sum_of_initial_charges(tmp_path, crystal, card, read_all, charges, total):
    crystal.set_initial_charges([*charges, *[0.0] * (len(crystal) - 2)])
    with connect(str(tmp_path / "set.db")) as database:
        database.write(crystal)
    assert read_all(tmp_path / "set.db", card)[0].total_charge == total


@pytest.mark.parametrize("name", ["set.sqlite", "set.sqlite3", "set.db.bak", "set"])
def test_a_database_of_any_name(tmp_path, crystal, card, read_all, name):
    with connect(str(tmp_path / "set.db"), type="db") as database:
        database.write(crystal)
    path = (tmp_path / "set.db").rename(tmp_path / name)
    assert_same(read_all(path, card)[0], crystal)


def test_a_database_in_json(tmp_path, crystal, card, read_all):
    with connect(str(tmp_path / "set.json"), type="json") as database:
        database.write(crystal)
    assert_same(read_all(tmp_path / "set.json", card)[0], crystal)


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


@pytest.mark.parametrize("first", [{"Cu": 0.5, "Al": 0.5}, {"Cu": 0.7}])
def test_a_disordered_crystal_is_none(tmp_path, card, first):
    structure = Structure(Lattice.cubic(3.0), [first, "Cu"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    structure.to(filename=str(tmp_path / "alloy.cif"))
    (found,) = read_records(tmp_path / "alloy.cif", card)
    assert isinstance(found, Rejected)
    assert found.reason == DISORDERED
    with pytest.raises(InputError, match=r"alloy\.cif, structure 0 is disordered: .*; give one ordering of it"):
        read_structures(tmp_path / "alloy.cif")


@pytest.mark.parametrize(("occupancy", "kept"), [("?", True), (".", True), ("1.00(2)", True), ("0.9", False)])
def test_an_occupancy_that_is_not_stated_is_full(tmp_path, card, occupancy, kept):
    path = tmp_path / "cu.cif"
    Structure(Lattice.cubic(3.0), ["Cu", "Al"], [[0, 0, 0], [0.5, 0.5, 0.5]]).to(filename=str(path))
    lines = path.read_text().rstrip().splitlines()
    path.write_text("\n".join([*lines[:-1], f"{lines[-1].rsplit(maxsplit=1)[0]}  {occupancy}"]))
    (found,) = read_records(path, card)
    assert isinstance(found, Record) is kept


def test_an_unknown_format(tmp_path, card):
    path = tmp_path / "notes.zzz"
    path.write_text("nothing of use")
    with pytest.raises(UnreadableFile, match="not a format that is known here"):
        list(read_records(path, card))
