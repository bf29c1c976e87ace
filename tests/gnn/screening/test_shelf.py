from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk
from hypothesis import given
from hypothesis import strategies as st

from gnn.screening.candidates import Candidate
from gnn.screening.shelf import ShelfBuilder, formula_hash, shared
from gnn.screening.spool import CHUNK, Spool

MakeCandidate = Callable[..., Candidate]


def test_a_spool_gives_back_what_it_took(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "new")
    values = [{"x": 0.1 + k, "y": [None, "ä", 1e-300]} for k in range(CHUNK + 2)]
    assert [spool.append(value) for value in values] == list(range(len(values)))
    assert spool[CHUNK + 1] == values[-1]
    spool.append("later")
    assert (spool[0], spool[CHUNK + 2]) == (values[0], "later")
    assert list(spool) == [*values, "later"]
    assert list((tmp_path / "new").iterdir()) == []


def test_candidates_come_off_the_shelf_bit_for_bit(candidate: MakeCandidate, tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    rows = []
    for k in range(5):
        atoms = bulk("NaCl", "rocksalt", a=5 + random.random())
        atoms.rattle(0.1, seed=k)
        rows.append(candidate(atoms, f"test:{k}", prototype=None if k % 2 else "rocksalt"))
    builder = ShelfBuilder(tmp_path)
    for row in rows:
        builder.add(row)
    shelf = builder.shelf(unreadable=["bad1", "bad2"])
    assert list(shelf.names) == ["bad1", "bad2", *(row.candidate_id for row in rows)]
    assert list(shelf.candidates) == [row.candidate_id for row in rows]
    assert "bad1" not in shelf.candidates
    for row in rows:
        found = shelf.candidates[row.candidate_id]
        assert (found.candidate_id, found.prototype, found.source) == (row.candidate_id, row.prototype, row.source)
        for name in ("numbers", "positions", "cell"):
            assert np.array_equal(getattr(found, name), getattr(row, name))
    assert [place for place, _ in shelf.each(lambda place: place != 3)] == [2, 4, 5, 6]


@given(st.lists(st.integers(0, 5), max_size=30))
def test_places_that_share_a_key(keys: list[int]) -> None:
    places = np.arange(len(keys), dtype=np.uint32)[::-1]
    found = [group.tolist() for group in shared(np.array(keys, dtype=np.int64), places)]
    expected = {key: [k for k in places.tolist() if keys[k] == key] for key in set(keys)}
    assert sorted(found) == sorted(group for group in expected.values() if len(group) > 1)


def test_hashes_of_formulas() -> None:
    assert formula_hash("AlCu") == formula_hash("AlCu") != formula_hash("AlCu2")


@pytest.mark.parametrize("most", [2, 5])
def test_a_builder_packs_ids_in_chunks(
    candidate: MakeCandidate, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, most: int
) -> None:
    monkeypatch.setattr("gnn.screening.shelf.CHUNK", most)
    rows = [candidate(bulk("Al"), f"test:{k}") for k in range(5)]
    builder = ShelfBuilder(tmp_path)
    for row in rows:
        builder.add(row)
    assert list(builder.shelf().names) == [row.candidate_id for row in rows]
