"""What is to be labelled, from campaigns and files."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from ase.build import bulk, molecule
from ase.constraints import FixAtoms
from ase.io import write

from gnn.dft.sources import chosen, read_wanted, shortlist_file
from gnn.errors import InputError


def row(symbol: str, rank: int | None, shortlisted: bool = True) -> dict:
    atoms = bulk(symbol)
    return {
        "numbers": atoms.numbers.tolist(), "positions": atoms.positions.ravel().tolist(),
        "cell": atoms.cell[:].ravel().tolist(), "rank": rank, "prototype": "fcc", "shortlisted": shortlisted,
    }  # fmt: skip


@pytest.fixture
def campaign(tmp_path):
    pq.write_table(pa.Table.from_pylist([row("Cu", 2), row("Al", 1), row("Ni", 3)]), tmp_path / "shortlist.parquet")
    return tmp_path


def test_a_campaign_gives_its_shortlist_by_rank(campaign):
    wanted = read_wanted(campaign)
    assert [(w.rank, str(w.atoms.symbols)) for w in wanted] == [(1, "Al"), (2, "Cu"), (3, "Ni")]
    assert {w.config_type for w in wanted} == {"screened-fcc"}
    assert wanted[0].atoms.pbc.all()


def test_all_candidates_give_the_shortlisted_ones(tmp_path):
    table = pa.Table.from_pylist([row("Cu", 1), row("Al", 2, shortlisted=False)])
    pq.write_table(table, tmp_path / "candidates.parquet")
    assert [str(w.atoms.symbols) for w in read_wanted(tmp_path / "candidates.parquet")] == ["Cu"]


def test_a_campaign_with_an_extxyz_shortlist_only(tmp_path):
    write(tmp_path / "shortlist.extxyz", [bulk("Cu"), bulk("Al")])
    assert [w.rank for w in read_wanted(tmp_path)] == [1, 2]


@pytest.mark.parametrize("name", ["a.extxyz", "a.traj", "a.cif", "POSCAR"])
def test_any_structure_file(name, tmp_path):
    write(tmp_path / name, bulk("Cu", cubic=True))
    (wanted,) = read_wanted(tmp_path / name)
    assert len(wanted.atoms) == 4
    assert wanted.config_type == "labelled"


def test_a_molecule_stays_a_molecule(tmp_path):
    write(tmp_path / "m.extxyz", molecule("H2O"))
    assert not read_wanted(tmp_path / "m.extxyz")[0].atoms.pbc.any()


def test_a_job_is_grouped_by_formula(campaign):
    job = read_wanted(campaign)[0].job("relax")
    assert (job.kind, job.group, job.config_type) == ("relax", "Al", "screened-fcc")


def test_ranks_and_limit(campaign):
    wanted = read_wanted(campaign)
    assert [w.rank for w in chosen(wanted, [(3, 3), (1, 1)], None)] == [1, 3]
    assert [w.rank for w in chosen(wanted, None, 2)] == [1, 2]
    assert [w.rank for w in chosen(wanted, [(2, 3)], 1)] == [2]


def test_a_range_takes_the_ranks_that_there_are(tmp_path):
    rows = [row(symbol, rank) for symbol, rank in (("Al", 1), ("Cu", 4), ("Ni", 9))]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "shortlist.parquet")
    wanted = read_wanted(tmp_path)
    assert [w.rank for w in chosen(wanted, [(1, 5)], None)] == [1, 4]
    with pytest.raises(InputError, match="no structure of rank 5 to 8; there are 1, 4, 9"):
        chosen(wanted, [(1, 1), (5, 8)], None)


def test_a_rank_that_is_not_there(campaign):
    with pytest.raises(InputError, match=r"no structure of rank 9; there are 1, 2, 3$"):
        chosen(read_wanted(campaign), [(9, 9)], None)


def test_nothing_there(tmp_path):
    with pytest.raises(InputError, match="there is no file or campaign"):
        read_wanted(tmp_path / "nope")
    with pytest.raises(InputError, match="has the campaign reached its shortlist"):
        shortlist_file(tmp_path)


def test_a_damaged_table(tmp_path):
    (tmp_path / "a.parquet").write_bytes(b"damaged")
    with pytest.raises(InputError, match=r"a\.parquet is damaged, or no Parquet table"):
        read_wanted(tmp_path / "a.parquet")


def test_an_empty_shortlist(tmp_path):
    pq.write_table(pa.Table.from_pylist([row("Cu", 1)]).slice(0, 0), tmp_path / "shortlist.parquet")
    with pytest.raises(InputError, match="holds no structure"):
        read_wanted(tmp_path)


def test_a_file_says_charge_multiplicity_and_fixed_atoms(tmp_path):
    ion, plain, odd = molecule("H2O"), molecule("CH4"), molecule("CO")
    ion.info = {"charge": 1, "multiplicity": 2, "energy": -1.0}
    odd.info = {"charge": 0.3}
    plain.set_constraint(FixAtoms([1]))
    write(tmp_path / "a.xyz", [ion, plain, odd], format="extxyz")
    jobs = [wanted.job("static") for wanted in read_wanted(tmp_path / "a.xyz")]
    said = [(job.total_charge, job.multiplicity, job.fixed) for job in jobs]
    assert said == [(1, 2, []), (None, None, [1]), (None, None, [])]


def test_a_table_says_charge_multiplicity_and_fixed_atoms(tmp_path):
    ion = {**row("Cu", None), "total_charge": 1, "multiplicity": 2, "fixed": [True]}
    plain = {**row("Al", None), "total_charge": None, "multiplicity": None, "fixed": [False]}
    pq.write_table(pa.Table.from_pylist([ion, plain]), tmp_path / "a.parquet")
    jobs = [wanted.job("static") for wanted in read_wanted(tmp_path / "a.parquet")]
    said = [(job.total_charge, job.multiplicity, job.fixed) for job in jobs]
    assert said == [(1, 2, [0]), (None, None, [])]
