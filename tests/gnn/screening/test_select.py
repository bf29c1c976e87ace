from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gnn.screening.campaign import SelectionSpec
from gnn.screening.select import BEYOND_BUDGET, Contender, ranked, score, select


def contender(name: str, distance: float, uncertainty: float | None = 0.0, formula: str = "", **more: str) -> Contender:
    return Contender(name, formula or name, more.get("prototype"), more.get("system", "Al-Li"), distance, uncertainty)


contenders = st.lists(
    st.tuples(st.floats(-0.2, 0.2), st.floats(0, 0.1), st.sampled_from("ABC"), st.sampled_from("PQ")), max_size=25
).map(lambda rows: [contender(f"c{k:02}", d, u, formula=f, prototype=p) for k, (d, u, f, p) in enumerate(rows)])
specs = st.builds(
    SelectionSpec,
    budget=st.integers(1, 12),
    kappa=st.floats(-1, 2),
    exploration=st.sampled_from([0.0, 0.25, 1.0]),
    max_per_formula=st.one_of(st.none(), st.integers(1, 3)),
    max_per_prototype=st.one_of(st.none(), st.integers(1, 5)),
)


@given(contenders, specs)
def test_everyone_is_chosen_or_has_a_reason(found: list[Contender], spec: SelectionSpec) -> None:
    selection = select(found, spec)
    assert len(selection.chosen) <= spec.budget
    assert sorted([*selection.chosen, *selection.rejected]) == sorted(c.name for c in found)


@given(contenders, specs)
def test_caps_hold(found: list[Contender], spec: SelectionSpec) -> None:
    chosen = [c for c in found if c.name in select(found, spec).chosen]
    if spec.max_per_formula is not None:
        assert max(Counter(c.formula for c in chosen).values(), default=0) <= spec.max_per_formula
    if spec.max_per_prototype is not None:
        assert max(Counter(c.prototype for c in chosen).values(), default=0) <= spec.max_per_prototype


@given(contenders, specs, st.randoms())
def test_order_of_arrival_does_not_matter(found: list[Contender], spec: SelectionSpec, random: object) -> None:
    shuffled = list(found)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert select(found, spec) == select(shuffled, spec)


@given(contenders, specs)
def test_without_caps_the_budget_is_spent_on_the_best(found: list[Contender], spec: SelectionSpec) -> None:
    free = spec.model_copy(update={"max_per_formula": None, "max_per_prototype": None, "exploration": 0.0})
    best = [c.name for c in ranked(found, spec.kappa)][: spec.budget]
    assert list(select(found, free).chosen) == best


def test_score_favours_what_may_be_better() -> None:
    sure, unsure = contender("sure", 0.05, 0.0), contender("unsure", 0.06, 0.05)
    assert [c.name for c in ranked([sure, unsure], kappa=1.0)] == ["unsure", "sure"]
    assert [c.name for c in ranked([sure, unsure], kappa=-1.0)] == ["sure", "unsure"]
    assert score(contender("x", 0.1, None), 5.0) == 0.1


def test_ties_go_by_name() -> None:
    assert [c.name for c in ranked([contender("b", 0.1), contender("a", 0.1)], 0.5)] == ["a", "b"]


def test_exploration_takes_the_uncertain() -> None:
    found = [contender(f"c{k}", 0.01 * k, 0.001 * k) for k in range(10)]
    selection = select(found, SelectionSpec(budget=4, kappa=0, exploration=0.5))
    assert selection.chosen == {"c0": "rank", "c1": "rank", "c9": "exploration", "c8": "exploration"}


def test_exploration_without_uncertainty_falls_back_to_rank() -> None:
    found = [contender(f"c{k}", 0.01 * k, None) for k in range(4)]
    selection = select(found, SelectionSpec(budget=2, exploration=1.0))
    assert selection.chosen == {"c0": "rank", "c1": "rank"}


def test_reasons_tell_the_cap_from_the_budget() -> None:
    found = [
        contender(name, distance, formula=formula)
        for name, distance, formula in [
            ("a", 0.0, "LiAl"),
            ("b", 0.01, "LiAl"),
            ("c", 0.02, "Li2Al"),
            ("d", 0.03, "Li3Al"),
        ]
    ]
    selection = select(found, SelectionSpec(budget=2, max_per_formula=1))
    assert list(selection.chosen) == ["a", "c"]
    assert selection.rejected == {"b": "enough of its formula", "d": BEYOND_BUDGET}


@pytest.mark.parametrize("cap", ["prototype", "system"])
def test_other_caps(cap: str) -> None:
    found = [contender(f"c{k}", 0.01 * k, **{cap: "same"}) for k in range(3)]
    selection = select(found, SelectionSpec(budget=3, **{f"max_per_{cap}": 1}))
    assert list(selection.chosen) == ["c0"]
    assert set(selection.rejected.values()) == {f"enough of its {cap}"}
