"""JSON of pymatgen, of JARVIS and nested by a card: labels in the units of the house."""

from __future__ import annotations

import gzip
import json

import numpy as np
import pytest
from ase.units import GPa
from pymatgen.core import Lattice, Structure
from pymatgen.io.ase import AseAtomsAdaptor
from records import assert_same

from gnn.errors import InputError
from gnn.structures.cards import Card, Columns, GroupRule, StressRule, Units, generic_card
from gnn.structures.readers import Rejected, UnreadableFile, read_records

KBAR = 0.1 * GPa


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
        assert_same(record, atoms)
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
    assert_same(records[0], atoms)


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
    assert_same(records[0], frames[0], stress=False)


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


def test_a_file_of_refused_structures_is_read(tmp_path, card):
    """Under the usual name of a structure and under a card's; numbers in their place are none."""
    structure = Structure(Lattice.cubic(4.2), [{"Fe": 0.5, "Ni": 0.5}, "O"], [[0, 0, 0], [0.5, 0.5, 0.5]]).as_dict()
    path = tmp_path / "x.json"
    path.write_text(json.dumps([{"structure": structure, "id": 1}]))
    for named in (None, "structure"):
        (refused,) = read_records(path, card.model_copy(update={"columns": Columns(structure=named)}))
        assert isinstance(refused, Rejected) and refused.code == "disordered"
    with pytest.raises(InputError, match="nothing in it looks like a structure"):
        list(read_records(path, card.model_copy(update={"columns": Columns(structure="id")})))


def test_disordered_structures_and_unknown_elements_are_rejected(tmp_path, frames, card):
    good = AseAtomsAdaptor.get_structure(frames[0]).as_dict()
    shared, unknown = json.loads(json.dumps(good)), json.loads(json.dumps(good))
    shared["sites"][0]["species"] = [{"element": "Si", "occu": 0.5}, {"element": "Ge", "occu": 0.5}]
    unknown["sites"][0]["species"] = [{"element": "Qq", "occu": 1}]
    path = tmp_path / "x.json"
    path.write_text(json.dumps([{"structure": entry} for entry in (good, shared, unknown)]))
    records = list(read_records(path, card))
    assert [getattr(record, "code", "kept") for record in records] == ["kept", "disordered", "unknown-element"]


def test_a_bad_cif_costs_its_row(tmp_path, frames, read_all):
    good = AseAtomsAdaptor.get_structure(frames[0]).to(fmt="cif")
    path = tmp_path / "cifs.json"
    path.write_text(json.dumps([{"cif": good}, {"cif": "data_x\n_cell_length_a 3\n"}, {"cif": "no crystal"}]))
    found = list(read_records(path, generic_card("x", "t")))
    assert [getattr(record, "code", "kept") for record in found] == ["kept", "unreadable-row", "unreadable-row"]


@pytest.mark.filterwarnings("ignore:Structure charge")
@pytest.mark.parametrize(
    ("states", "stated", "read"),
    [((8 / 3, -2), None, None), ((2.67, -2), None, None), ((2, -1), None, 2), ((2.67, -2), 1, 1), ((0, 0), -1, -1)],
)
def test_oxidation_states_are_no_charge_that_a_crystal_could_not_have(tmp_path, card, read_all, states, stated, read):
    """Thirds leave rounding errors, rounded thirds more; a whole charge is a charge, whatever it is from."""
    places = np.random.default_rng(0).random((7, 3))
    structure = Structure(Lattice.cubic(9), ["Fe"] * 3 + ["O"] * 4, places, charge=stated)
    structure.add_oxidation_state_by_site([states[0]] * 3 + [states[1]] * 4)
    path = tmp_path / "x.json"
    path.write_text(json.dumps([{"structure": structure.as_dict()}]))
    (record,) = read_all(path, card)
    assert record.total_charge == read


@pytest.mark.filterwarnings("ignore:Structure charge")
def test_a_fractional_charge_that_is_stated_is_refused(tmp_path, card):
    structure = Structure(Lattice.cubic(4.2), ["Fe", "O"], [[0, 0, 0], [0.5, 0.5, 0.5]], charge=0.5)
    path = tmp_path / "x.json"
    path.write_text(json.dumps([{"structure": structure.as_dict()}]))
    (refused,) = read_records(path, card)
    assert isinstance(refused, Rejected) and "total_charge is 0.5" in refused.reason


def test_charges_of_sites_are_charges_of_atoms(tmp_path, card, read_all):
    structure = Structure(Lattice.cubic(4.2), ["Fe", "O"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    structure.add_site_property("charge", [1.2, -1.2])
    path = tmp_path / "x.json"
    path.write_text(json.dumps([{"structure": structure.as_dict()}]))
    (record,) = read_all(path, card)
    assert record.total_charge is None and record.charges.tolist() == [1.2, -1.2]


@pytest.mark.parametrize(
    ("stated", "words"),
    [
        (
            {"energy": -5.0, "data": {"energy": -2.5}},
            r"'data\.energy' and 'energy' both look like the energy",
        ),
        ({"output": {"energy": -5.0}, "data": {"energy": -2.5}}, r"write \[columns\] energy = \"output\.energy\""),
        ({"energy": -5.0, "data": {"energy": -5.0}}, None),
        ({"energy": None, "data": {"energy": -5.0}}, None),
        ({"data": {"energy": -5.0, "id": 1}, "output": {"id": 2}, "id": 3}, None),
    ],
)
def test_energies_in_two_places_that_differ_are_an_error(tmp_path, frames, read_all, stated, words):
    """Unless the card says which, or none is read."""
    path = tmp_path / "x.json"
    path.write_text(json.dumps([{"structure": AseAtomsAdaptor.get_structure(frames[0]).as_dict()} | stated]))
    card = Card(name="x", theory="t", units=Units(energy="eV"))
    if words is None:
        assert read_all(path, card)[0].energy == -5.0
        return
    with pytest.raises(InputError, match=words):
        read_all(path, card)
    for column, energy in (("data.energy", -2.5), ("energy", stated.get("energy", -2.5))):
        told = card.model_copy(update={"columns": Columns(energy=column)})
        assert read_all(path, told)[0].energy == energy
    assert read_all(path, card.model_copy(update={"labels": False}))[0].energy is None


@pytest.mark.parametrize("between", ["\n", "", ",\n", "\n" + 300 * " "])
def test_what_follows_a_list_is_read_too(tmp_path, frames, vasp_json, read_all, monkeypatch, between):
    from gnn.structures.readers import json_rows

    monkeypatch.setattr(json_rows, "CHUNK", 97)
    path = tmp_path / "x.jsonl"
    first, second, last = ([pymatgen_entry(atoms) for atoms in part] for part in (frames[:2], frames[2:4], frames[4:]))
    path.write_text(between.join([json.dumps(first), json.dumps(second), json.dumps(last[0]), ""]))
    assert len(read_all(path, vasp_json)) == 5
    path.write_text(f"{json.dumps(first)}\nand words")
    with pytest.raises(UnreadableFile):
        list(read_records(path, vasp_json))


def test_long_lists_are_read_piece_by_piece(tmp_path, frames, vasp_json, read_all, monkeypatch):
    from gnn.structures.readers import json_rows

    monkeypatch.setattr(json_rows, "CHUNK", 97)
    path = tmp_path / "x.json"
    path.write_text(json.dumps([pymatgen_entry(atoms) for atoms in frames], indent=2))
    assert len(read_all(path, vasp_json)) == 5
