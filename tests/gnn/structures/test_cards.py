"""Cards: what they may say, what is refused and how, and that those that ship are whole."""

from __future__ import annotations

from pathlib import Path

import pytest

from gnn.errors import InputError
from gnn.structures.cards import Card, generic_card, known_cards, load_card, read_card, structures_card

SETS = [
    "3bpa", "bo2_oxides", "carbon24", "ethanol", "gete_deepmd", "mlearn", "mp20", "mpts52", "oc20_relax", "perov5",
    "sluice-sample", "vasp_raw", "water_deepmd", "wbm",
]  # fmt: skip


@pytest.fixture
def shipped(repository) -> Path:
    return repository / "datasets" / "cards"


def write(folder: Path, text: str, name: str = "mine.toml") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("name", SETS)
def test_shipped_cards_say_all_that_provenance_needs(shipped, name):
    card = load_card(name, [shipped])
    assert card.name == name
    assert card.licence and card.citation and card.description
    assert card.theory or card.theory_column or card.reader in ("auto", "parquet")
    assert Card.model_validate_json(card.model_dump_json()) == card


def test_every_shipped_card_is_tested(shipped):
    assert sorted(known_cards([shipped])) == sorted(SETS)


def test_a_card_takes_its_name_from_its_file(tmp_path):
    assert read_card(write(tmp_path, 'theory = "pbe/x"')).name == "mine"


def test_unknown_names_list_the_known(shipped):
    with pytest.raises(InputError, match=r"no card 'mp21'; known are: .*mp20.*or give the path of a \.toml file"):
        load_card("mp21", [shipped])


def test_first_folder_wins(tmp_path, shipped):
    write(tmp_path, 'theory = "mine/x"', "mp20.toml")
    assert load_card("mp20", [tmp_path, shipped]).theory == "mine/x"
    assert load_card(str(shipped / "mp20.toml"), [tmp_path]).theory == "pbe+u/vasp-mp"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("theory = ", "cannot be read"),
        ('reeder = "csv"', "reeder"),
        ('[units]\nenergy = "erg"', "unknown unit 'erg'; known are eV"),
        ('[units]\nforces = "N"', "write ENERGY/LENGTH"),
        ('[stress]\nsign = "up"', "stress.sign"),
        ("[properties.gap]\nextensive = true", "properties.gap.unit"),
        ('energy_is = "some"', "energy_is"),
    ],
)
def test_mistakes_are_named_in_one_line(tmp_path, text, words):
    with pytest.raises(InputError, match=words) as caught:
        read_card(write(tmp_path, text))
    assert "\n" not in str(caught.value)
    assert "mine.toml" in str(caught.value)


def test_a_missing_path_is_named():
    with pytest.raises(InputError, match=r"there is no card nowhere/x\.toml"):
        load_card("nowhere/x.toml", [])


def test_file_tables_change_the_rules_of_their_files_only(shipped):
    card = load_card("mlearn", [shipped])
    plain = card.rules_for(Path("/data/mlearn/Si/training.json.gz"))
    nickel = card.rules_for(Path("/data/mlearn/Ni/id_prop.json.gz"))
    assert (plain.energy_is, plain.rows, plain.columns.structure) == ("total", None, "structure")
    assert (nickel.energy_is, nickel.rows, nickel.columns.structure) == ("per_atom", (0, 263), "atoms")
    assert card.rules_for(Path("/data/mlearn/Cu/id_prop.json")).rows == (0, 262)
    assert nickel.units == plain.units and nickel.stress.sign == plain.stress.sign == "compression"
    assert (plain.stress.order, nickel.stress.order) == ("vasp", "xx yy zz xy xz yz")


def test_a_wrong_file_table_is_named(tmp_path):
    card = read_card(write(tmp_path, '[[files]]\nmatch = "a.xyz"\nrowz = [0, 1]'))
    with pytest.raises(InputError, match=r"card mine, \[\[files\]\] for a.xyz: rowz"):
        card.rules_for(Path("a.xyz"))


def test_theory_from_the_command_line():
    given = generic_card("x").with_theory("pbe/a")
    assert (given.theory, given.fallback_theory) == (None, "pbe/a"), "what a file tells comes before it"
    assert given.with_theory("pbe/a") == given.with_theory(None) == given
    with pytest.raises(InputError, match="contradicts card x, which says pbe/a"):
        given.with_theory("lda/b")
    assert generic_card("x", "pbe/a").with_theory("pbe/a").theory == "pbe/a"
    assert generic_card("x", "pbe/a").with_theory(None).theory == "pbe/a"
    with pytest.raises(InputError, match="contradicts card x, which says pbe/a"):
        generic_card("x", "pbe/a").with_theory("lda/b")
    with pytest.raises(InputError, match="column functional"):
        Card(name="x", theory_column="functional").with_theory("lda/b")


def test_property_specs_leave_columns_out(shipped):
    specs = load_card("perov5", [shipped]).property_specs
    assert specs["heat_all"].model_dump() == {"unit": "eV", "level": "structure", "extensive": True}
    assert specs["dir_gap"].extensive is False


def test_a_card_for_structures_only():
    assert structures_card("x").labels is False and structures_card("x").theory == "none"
