"""Measuring in turn, medians and ratios."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows.bench.rounds import Spread, in_turn, interleaved, ratios, spread

SECONDS = st.floats(min_value=1e-3, max_value=1e3)


def test_every_name_once_a_round_in_the_same_order() -> None:
    assert list(interleaved("abc", 2)) == [(0, "a"), (0, "b"), (0, "c"), (1, "a"), (1, "b"), (1, "c")]


def test_in_turn_keeps_rounds_apart() -> None:
    clock = iter(range(100))
    assert in_turn(["a", "b"], 3, lambda _: next(clock)) == {"a": [0, 2, 4], "b": [1, 3, 5]}


def test_nothing_is_measured_in_no_rounds() -> None:
    assert in_turn(["a"], 0, lambda _: 1 / 0) == {"a": []}


def test_spread_is_median_least_and_greatest() -> None:
    assert spread([3.0, 1.0, 2.0]) == Spread(2.0, 1.0, 3.0)
    assert spread([4.0, 2.0]).middle == 3.0
    assert spread([1.234, 5.0, 1.0]).text() == "1.23 (1.00 to 5.00)"
    assert spread([12.34]).text(1) == "12.3 (12.3 to 12.3)"


def test_ratios_are_taken_round_by_round() -> None:
    # a machine that is twice as slow in the second round changes no ratio
    found = ratios({"slow": [4.0, 8.0], "fast": [1.0, 2.0]}, "slow")
    assert found["fast"] == Spread(4.0, 4.0, 4.0)
    assert found["slow"] == Spread(1.0, 1.0, 1.0)


@given(st.lists(st.tuples(SECONDS, SECONDS, SECONDS), min_size=1, max_size=6))
def test_a_drift_common_to_a_round_cancels(rounds: list[tuple[float, float, float]]) -> None:
    a, b, drift = zip(*rounds, strict=True)
    plain = ratios({"a": a, "b": b}, "a")["b"]
    drifted = ratios({n: [x * d for x, d in zip(v, drift, strict=True)] for n, v in (("a", a), ("b", b))}, "a")["b"]
    assert drifted.middle == pytest.approx(plain.middle)
    assert plain.least <= plain.middle <= plain.greatest


def test_rounds_that_are_missing_are_an_error() -> None:
    with pytest.raises(ValueError, match="shorter"):
        ratios({"a": [1.0, 2.0], "b": [1.0]}, "a")
