import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gnn.screening.names import CHUNK, ByName, Names, links, names_digest

words = st.lists(st.text("0123456789abcdef", min_size=1, max_size=16), unique=True, max_size=40)


@given(words, st.text("0123456789abcdef", min_size=1, max_size=20))
def test_names_are_a_list_that_is_searched_quickly(found: list[str], other: str) -> None:
    names = Names(found)
    assert list(names) == found
    assert [names[k] for k in range(len(found))] == found
    assert [names.place(name) for name in found] == list(range(len(found)))
    assert (other in names) == (other in found)
    assert names.place(other) == (found.index(other) if other in found else None)
    assert names.repeated() is None
    assert list(Names.joined([names, Names(found[:1])])) == [*found, *found[:1]]
    assert Names.joined([names, Names(found[:1])]).repeated() == (found[0] if found else None)
    assert names == Names(found)
    assert list(names[1:3]) == found[1:3]


def test_more_than_one_chunk() -> None:
    count = CHUNK + 3
    names = Names(f"{k:06x}" for k in range(count))
    assert len(names) == count
    assert names.place(f"{CHUNK + 1:06x}") == CHUNK + 1
    assert sum(1 for _ in names) == count


@given(words)
def test_the_digest_is_of_the_sorted_names(found: list[str]) -> None:
    assert names_digest(found) == hashlib.sha256("".join(sorted(found)).encode()).hexdigest()
    assert names_digest(Names(found[::-1])) == names_digest(found)


def test_what_is_known_of_names() -> None:
    squares = ByName(Names("abc"), lambda place: place**2, known=np.array([1, 0, 1]))
    assert dict(squares) == {"a": 0, "c": 4}
    assert (len(squares), "b" in squares, squares.get("b"), squares.get("z", 7)) == (2, False, None, 7)
    with pytest.raises(KeyError):
        squares["b"]


def test_links_from_one_to_another() -> None:
    found = links(Names("abc"), np.array([0, 1, 1], dtype=np.uint32))
    assert found == {"b": "a", "c": "a"}
