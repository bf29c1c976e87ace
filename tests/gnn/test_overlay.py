from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gnn.overlay import dotted, merged


def test_merged_lays_tables_over_tables() -> None:
    assert merged({"a": {"b": 1, "c": 2}, "d": 3}, {"a": {"b": 9}, "e": 4}) == {"a": {"b": 9, "c": 2}, "d": 3, "e": 4}


@given(st.dictionaries(st.text(max_size=3), st.integers(), max_size=4))
def test_merging_nothing_changes_nothing(base: dict[str, int]) -> None:
    assert merged(base, {}) == base
    assert merged({}, base) == base


def test_dotted_names() -> None:
    assert dotted({"a": {"b": 1, "c": {"d": 2}}, "e": [3]}) == {"a.b": 1, "a.c.d": 2, "e": [3]}
