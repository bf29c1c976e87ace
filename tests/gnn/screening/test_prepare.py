import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.io import write
from hypothesis import given
from hypothesis import strategies as st
from pymatgen.io.ase import AseAtomsAdaptor

from gnn.errors import InputError
from gnn.files import file_sha256
from gnn.screening.campaign import CampaignSpec
from gnn.screening.gather import Inputs, pinned_datasets
from gnn.screening.names import Names
from gnn.screening.plan import MOST_SHARDS, Plan, number_of_shards, plan_shards
from gnn.screening.preparation import PLAN_NAME, TABLE_NAME, number_planned, read_prepared, rows_of_shard
from gnn.screening.prepare import prepare, prepared
from gnn.screening.tables import INPUT_SCHEMA, read_rows, write_rows
from gnn.structures.atoms import atoms_to_record
from gnn.structures.cards import generic_card

MakeSpec = Callable[..., CampaignSpec]


def files(**extra: object) -> dict:
    return {"files": ["a.xyz"], "elements": [], **extra}


@pytest.fixture
def write_file(tmp_path: Path) -> None:
    """Good, too close, unknown to EMT, a molecule, and good again in another cell."""
    close = bulk("Al", cubic=True)
    close.positions[1] = close.positions[0] + 0.3
    frames = [
        bulk("CuAl", "cesiumchloride", a=3.0),
        close,
        bulk("Fe"),
        molecule("H2O"),
        bulk("AlCu", "cesiumchloride", a=3.1).repeat((2, 1, 1)),
    ]
    write(tmp_path / "a.xyz", frames, format="extxyz")


def test_stages(make_spec: MakeSpec, inputs: Inputs, write_file: None) -> None:
    ready = prepare(make_spec(candidates=files()), inputs, workers=1)
    rejected = {stage.stage: stage.rejected for stage in ready.ledger.stages}
    assert rejected == {
        "read": {"not periodic in three directions": 1},
        "constraints": {"elements the model does not know": 1},
        "sane": {"atoms too close": 1},
        "distinct": {"duplicate": 1},
        "novel": {},
    }
    assert [ready.candidates[name].source for name in ready.ledger.alive] == ["file:a.xyz#0"]
    assert list(ready.unreadable.values()) == ["file:a.xyz#3"]
    assert len(ready.duplicate_of) == 1


def test_it_comes_back_from_disk_as_it_was(
    make_spec: MakeSpec, inputs: Inputs, write_file: None, tmp_path: Path
) -> None:
    spec = make_spec(candidates=files(prototypes=["CsCl", "L1_2"], elements=["Al", "Cu"]), shards={"atoms": 6})
    first = prepared(spec, inputs, tmp_path / "shards", workers=2)
    again = read_prepared(tmp_path / "shards")
    assert again is not None
    assert again.ledger.stages == first.ledger.stages
    assert again.ledger.ids == first.ledger.ids
    assert {n: d.text for n, d in again.ledger.drops.items()} == {n: d.text for n, d in first.ledger.drops.items()}
    assert (again.plan, again.digest, again.duplicate_of) == (first.plan, first.digest, first.duplicate_of)
    assert set(again.references) == set(first.references)
    assert number_planned(tmp_path / "shards") == len(first.plan) > 1
    for shard in first.plan:
        rows = rows_of_shard(tmp_path / "shards", shard)
        assert (
            [row.candidate_id for row in rows] == first.plan[shard] == [row.candidate_id for row in again.rows(shard)]
        )
        assert all(np.allclose(a.positions, b.positions) for a, b in zip(rows, first.rows(shard), strict=True))


def test_tables_of_old_are_still_read(make_spec: MakeSpec, inputs: Inputs, write_file: None, tmp_path: Path) -> None:
    """They lie in the order of the sources and have no column for it."""
    spec = make_spec(candidates=files(prototypes=["CsCl", "L1_2"], elements=["Al", "Cu"]), shards={"atoms": 6})
    folder = tmp_path / "shards"
    first = prepared(spec, inputs, folder, workers=2)
    rows = sorted(read_rows(folder / TABLE_NAME), key=lambda row: row.pop("place"))
    old = pa.schema([field for field in INPUT_SCHEMA if field.name != "place"])
    write_rows(folder / TABLE_NAME, rows, old)
    plan = json.loads((folder / PLAN_NAME).read_text())
    (folder / PLAN_NAME).write_text(json.dumps({**plan, "sha256": file_sha256(folder / TABLE_NAME)}))
    again = prepared(spec, inputs, folder, workers=2)
    assert (again.plan, again.digest, again.ledger.ids) == (first.plan, first.digest, first.ledger.ids)
    assert again.ledger.drops == first.ledger.drops
    assert list(again.references) == list(first.references)


def test_a_shard_lies_together_in_the_table(make_spec: MakeSpec, inputs: Inputs, tmp_path: Path) -> None:
    prepared(make_spec(shards={"atoms": 6}), inputs, tmp_path, workers=2)
    shards = [row["shard"] for row in read_rows(tmp_path / TABLE_NAME) if row["shard"] is not None]
    assert shards == sorted(shards)
    assert len(set(shards)) > 1


def test_nothing_but_table_and_plan_is_left(make_spec: MakeSpec, inputs: Inputs, tmp_path: Path) -> None:
    ready = prepared(make_spec(), inputs, tmp_path / "shards", workers=1)
    assert ready.candidates[ready.ledger.alive[0]].n_atoms
    assert sorted(path.name for path in (tmp_path / "shards").iterdir()) == [TABLE_NAME, PLAN_NAME]


def test_changed_files_are_noticed(make_spec: MakeSpec, inputs: Inputs, write_file: None, tmp_path: Path) -> None:
    spec = make_spec(candidates=files())
    prepared(spec, inputs, tmp_path / "shards", workers=1)
    write(tmp_path / "a.xyz", [bulk("Al"), bulk("Cu")], format="extxyz")
    with pytest.raises(InputError, match=r"prepared from other files.*--fresh"):
        prepared(spec, inputs, tmp_path / "shards", workers=1)


def test_a_damaged_table_is_made_anew(make_spec: MakeSpec, inputs: Inputs, write_file: None, tmp_path: Path) -> None:
    spec = make_spec(candidates=files())
    first = prepared(spec, inputs, tmp_path / "shards", workers=1)
    (tmp_path / "shards" / TABLE_NAME).write_bytes(b"damaged")
    assert read_prepared(tmp_path / "shards") is None
    assert prepared(spec, inputs, tmp_path / "shards", workers=1).digest == first.digest


def test_a_damaged_table_is_cut_as_it_was(make_spec: MakeSpec, inputs: Inputs, tmp_path: Path) -> None:
    """By whoever makes it anew: shards that are finished must fit."""
    spec, folder = make_spec(), tmp_path / "shards"
    first = prepared(spec, inputs, folder, workers=1, n_shards=3)
    (folder / TABLE_NAME).write_bytes(b"damaged")
    assert prepared(spec, inputs, folder, workers=1).plan == first.plan
    assert number_planned(folder) == 3


@pytest.mark.parametrize("text", ["{", "{}", "[]"])
def test_a_damaged_plan_counts_as_none(make_spec: MakeSpec, inputs: Inputs, tmp_path: Path, text: str) -> None:
    spec, folder = make_spec(), tmp_path / "shards"
    first = prepared(spec, inputs, folder, workers=1)
    (folder / PLAN_NAME).write_text(text)
    assert (read_prepared(folder), number_planned(folder)) == (None, 0)
    with pytest.raises(InputError, match="nothing is prepared in"):
        rows_of_shard(folder, 0)
    assert prepared(spec, inputs, folder, workers=1).plan == first.plan


def test_a_shard_of_a_damaged_table_is_refused(make_spec: MakeSpec, inputs: Inputs, tmp_path: Path) -> None:
    prepared(make_spec(), inputs, tmp_path, workers=1)
    (tmp_path / TABLE_NAME).write_bytes(b"damaged")
    with pytest.raises(InputError, match=r"inputs\.parquet cannot be read"):
        rows_of_shard(tmp_path, 0)


def test_an_unreadable_file_costs_that_file(
    make_spec: MakeSpec, inputs: Inputs, write_file: None, tmp_path: Path
) -> None:
    (tmp_path / "b.cif").write_text("this is no CIF")
    ready = prepare(make_spec(candidates=files(files=["a.xyz", "b.cif"])), inputs, workers=1)
    assert ready.ledger.stages[0].rejected["unreadable file"] == 1
    assert len(ready.ledger.alive) == 1


@pytest.mark.parametrize("suffix", [".cif", ".vasp", ".xyz", ".json", ".traj"])
def test_files_of_many_formats(make_spec: MakeSpec, inputs: Inputs, tmp_path: Path, suffix: str) -> None:
    atoms = bulk("CuAl", "cesiumchloride", a=3.0)
    if suffix == ".json":
        AseAtomsAdaptor.get_structure(atoms).to(str(tmp_path / "c.json"))
    else:
        write(tmp_path / f"c{suffix}", atoms)
    ready = prepare(make_spec(candidates=files(files=[f"c{suffix}"])), inputs, workers=1)
    (found,) = ready.candidates.values()
    assert found.formula == "AlCu"
    assert found.atoms().get_volume() == pytest.approx(27.0)


def test_volumes_tell_candidates_apart_whose_cells_stay(make_spec: MakeSpec, inputs: Inputs, tmp_path: Path) -> None:
    write(tmp_path / "b.xyz", [bulk("AlCu", "cesiumchloride", a=a) for a in (2.9, 3.0, 3.0)], format="extxyz")
    kept = {}
    for mode in ("cell", "positions", "none"):
        spec = make_spec(candidates=files(files=["b.xyz"]), relaxation={"mode": mode})
        kept[mode] = prepare(spec, inputs, 1).ledger.n_alive
    assert kept == {"cell": 1, "positions": 2, "none": 2}


def test_strained_candidates_are_new_where_cells_stay(make_spec: MakeSpec, inputs: Inputs, tmp_path: Path) -> None:
    held = atoms_to_record(bulk("AlCu", "cesiumchloride", a=3.0), "mine", "emt/ase")
    inputs.lake.append("mine", [held], generic_card("mine"))
    write(tmp_path / "b.xyz", [bulk("AlCu", "cesiumchloride", a=a) for a in (3.0, 3.1)], format="extxyz")
    spec = make_spec(candidates=files(files=["b.xyz"]), relaxation={"mode": "none"})
    ready = prepare(spec, replace(inputs, versions={"mine": 0}), 1)
    assert [ready.candidates[name].source for name in ready.in_lake] == ["file:b.xyz#0"]


def test_wrong_files(make_spec: MakeSpec, inputs: Inputs, tmp_path: Path, write_file: None) -> None:
    with pytest.raises(InputError, match=r"candidates.files: there is no"):
        prepared(make_spec(candidates=files(files=["none.cif"])), inputs, tmp_path / "s", 1)
    with pytest.raises(InputError, match=r"candidates.files: a.xyz is listed twice"):
        prepared(make_spec(candidates=files(files=["a.xyz", "a.xyz"])), inputs, tmp_path / "s", 1)
    with pytest.raises(InputError, match=r"no table of known compounds .*none.toml"):
        prepared(make_spec(candidates=files(), known_compounds="none.toml"), inputs, tmp_path / "s", 1)


def test_a_folder_gives_the_files_in_it(make_spec: MakeSpec, inputs: Inputs, tmp_path: Path) -> None:
    folder, spec = tmp_path / "more", make_spec(candidates=files(files=["more"]))
    (folder / "deep").mkdir(parents=True)
    with pytest.raises(InputError, match=r"candidates.files: there is no file in .*more"):
        prepared(spec, inputs, tmp_path / "s", 1)
    write(folder / "deep" / "b.xyz", bulk("Al"), format="extxyz")
    (folder / "README.md").write_text("words")
    ready = prepared(spec, inputs, tmp_path / "s", 1)
    assert [ready.candidates[name].source for name in ready.ledger.ids] == ["file:more/deep/b.xyz#0"]
    write(folder / "c.xyz", bulk("Cu"), format="extxyz")
    with pytest.raises(InputError, match="prepared from other files"):
        prepared(spec, inputs, tmp_path / "s", 1)
    with pytest.raises(InputError, match=r"candidates.files: more/c.xyz is listed twice"):
        prepare(make_spec(candidates=files(files=["more", "more/c.xyz"])), inputs, 1)


def test_candidates_of_a_data_set_are_of_the_version_pinned(make_spec: MakeSpec, inputs: Inputs) -> None:
    def put(*crystals: Atoms) -> None:
        inputs.lake.append("mine", [atoms_to_record(c, "mine", "emt/ase") for c in crystals], generic_card("mine"))

    put(bulk("AlCu", "cesiumchloride", a=3.0), molecule("N2"))
    pinned = pinned_datasets(inputs.lake, ["mine"])
    put(bulk("AlCu", "rocksalt", a=5.0))
    assert (pinned, pinned_datasets(inputs.lake, ["mine"])) == (["mine@0"], ["mine@1"])
    ready = prepare(make_spec(candidates={"datasets": ["mine"]}), replace(inputs, datasets=pinned), 1)
    (found,) = ready.candidates.values()
    assert (found.formula, found.n_atoms, found.source.split("#")[0]) == ("AlCu", 2, "lake:mine")
    assert ready.ledger.stages[0].rejected == {"not periodic in three directions": 1}
    with pytest.raises(InputError, match=r"candidates.datasets: 'none' is not in the lake; there are mine"):
        pinned_datasets(inputs.lake, ["none"])


def test_nothing_left_says_why(make_spec: MakeSpec, inputs: Inputs, tmp_path: Path) -> None:
    spec = make_spec(candidates={"elements": ["Fe", "Co"], "min_elements": 2, "prototypes": ["CsCl"]})
    with pytest.raises(
        InputError, match=r"no candidate is left to compute; dropped: 2 elements the model does not know"
    ):
        prepare(spec, inputs, 1)


def test_shards_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nothing is prepared"):
        rows_of_shard(tmp_path, 0)
    assert number_planned(tmp_path) == 0
    assert not (tmp_path / PLAN_NAME).exists()


def test_references_of_a_models_hull(make_spec: MakeSpec, inputs: Inputs) -> None:
    ready = prepare(make_spec(), inputs, 1)
    assert {c.source.split(":")[-1] for c in ready.references.values()} == {"Al", "Cu"}
    assert set(ready.references).isdisjoint(ready.ledger.ids)
    planned = [name for names in ready.plan.values() for name in names]
    assert sorted(planned) == sorted([*ready.ledger.alive, *ready.references])
    assert prepare(make_spec(hull={"reference": "dft"}), inputs, 1).references == {}


# ---- cutting


def dealt_by_hand(sizes: list[int], names: list[str], n_shards: int) -> list[int]:
    """Large ones first, each to the shard with the fewest atoms, the first of these."""
    loads, shard_of = [0] * n_shards, [0] * len(sizes)
    for place in sorted(range(len(sizes)), key=lambda k: (-sizes[k], names[k])):
        shard_of[place] = loads.index(min(loads))
        loads[shard_of[place]] += sizes[place]
    return shard_of


@given(st.lists(st.integers(1, 40), min_size=1, max_size=60), st.integers(1, 8))
def test_shards_are_balanced_and_complete(sizes: list[int], n_shards: int) -> None:
    names = Names(f"{len(sizes) - k:04d}" for k in range(len(sizes)))
    shards = plan_shards(sizes, names, n_shards)
    assert shards.tolist() == dealt_by_hand(sizes, list(names), n_shards)
    loads = [sum(size for size, dealt in zip(sizes, shards, strict=True) if dealt == k) for k in set(shards.tolist())]
    plan = Plan(names, [], shards)
    assert sorted(name for shard in plan.values() for name in shard) == sorted(names)
    assert [sum(sizes[names.place(name)] for name in shard) for shard in plan.values()] == loads
    if len(sizes) >= n_shards:
        assert len(plan) == n_shards
        assert max(loads) - min(loads) <= max(sizes)


@given(
    st.lists(st.integers(1, 500), min_size=1, max_size=50),
    st.integers(1, 64),
    st.one_of(st.none(), st.integers(1, 999)),
)
def test_the_number_of_shards(sizes: list[int], workers: int, atoms: int | None) -> None:
    n = number_of_shards(sizes, workers, atoms)
    assert 1 <= n <= min(len(sizes), MOST_SHARDS)


def test_small_campaigns_get_a_few_shards_a_worker() -> None:
    assert number_of_shards([4] * 1000, workers=2) == 6
    assert number_of_shards([4] * 20, workers=8) == 2
    assert number_of_shards([100] * 1000, workers=1) == 5
