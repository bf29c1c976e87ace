"""Tables with a CIF a row."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from pymatgen.core import Structure
from pymatgen.io.ase import AseAtomsAdaptor
from pymatgen.io.cif import CifWriter

from gnn.errors import InputError
from gnn.structures.cards import Card, generic_card, structures_card
from gnn.structures.readers import UnreadableFile, read_records
from gnn.structures.readers.raw import DISORDERED


@pytest.fixture
def table(tmp_path, frames) -> Path:
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


def test_a_disordered_crystal_is_counted_as_one(table, csv_card):
    alloy = Structure(np.eye(3) * 3.0, [{"Cu": 0.5, "Al": 0.5}], [[0, 0, 0]])
    header = table.read_text().splitlines()[0]
    with table.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, header.split(","), restval="0.5")
        writer.writeheader()
        writer.writerow({"cif": str(CifWriter(alloy))})
    (found,) = read_records(table, csv_card)
    assert found.reason == DISORDERED


def test_a_table_that_ends_within_a_field_is_cut_short(table, csv_card):
    lines = table.read_text().splitlines(keepends=True)
    table.write_text("".join(lines[:-2]))
    with pytest.raises(UnreadableFile):
        list(read_records(table, csv_card))


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
