import pytest
from hypothesis import given
from hypothesis import strategies as st

from gnn.errors import SluiceError
from gnn.screening.ledger import Ledger


@given(st.integers(0, 30), st.lists(st.dictionaries(st.integers(0, 29), st.sampled_from(["a", "b"])), max_size=6))
def test_what_goes_in_comes_out_or_is_rejected(n: int, stages: list[dict[int, str]]) -> None:
    ledger = Ledger(tuple(f"c{k}" for k in range(n)))
    for number, wanted in enumerate(stages):
        rejected = {f"c{k}": (reason, "detail") for k, reason in wanted.items() if f"c{k}" in ledger.alive}
        ledger.close(f"stage{number}", rejected)
        assert ledger.n_alive == len(ledger.alive)
        assert not set(rejected) & set(ledger.alive)
    n_in = n
    for stage in ledger.stages:
        assert stage.n_in == n_in
        assert stage.n_in == stage.n_out + sum(stage.rejected.values())
        n_in = stage.n_out
    assert n_in == len(ledger.alive)
    assert sorted([*ledger.alive, *ledger.drops]) == sorted(ledger.ids)


def test_a_drop_keeps_its_reason() -> None:
    ledger = Ledger(("a", "b"))
    ledger.close("sane", {"a": ("too close", "Li-Li 0.1 Å")})
    assert ledger.drops["a"].text == "too close: Li-Li 0.1 Å"
    assert ledger.stages[0].rejected == {"too close": 1}


def test_nobody_is_dropped_twice() -> None:
    ledger = Ledger(("a", "b"))
    ledger.close("one", {"a": "reason"})
    with pytest.raises(SluiceError, match="stage two drops candidate a"):
        ledger.close("two", {"a": "reason"})


def test_strangers_are_refused() -> None:
    with pytest.raises(SluiceError, match="unknown"):
        Ledger(("a",)).close("one", {"z": "reason"})


def test_an_id_stands_once() -> None:
    with pytest.raises(SluiceError, match="candidate a stands twice"):
        Ledger(("a", "b", "a"))
