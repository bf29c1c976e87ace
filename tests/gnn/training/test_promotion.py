"""The rule of promotion, as properties."""

from __future__ import annotations

import math

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from gnn.training.metrics import GroupMetrics, Metrics, PropertyMetrics
from gnn.training.promotion import Rule, SuiteErrors, decide, ratio, suite_errors

NAMES = ("energy_mae_mev_per_atom", "force_mae_mev_per_angstrom", "stress_mae_gpa", "gap MAE")
GROUPS = ("element Li", "element Al", "theory pbe")

values = st.floats(1e-3, 1e3)
factors = st.floats(0.3, 3.0)


def measured(
    errors: dict[str, float], groups: dict[str, dict[str, float]] | None = None, **changes: object
) -> SuiteErrors:
    sizes = dict.fromkeys(groups or {}, 30)
    return SuiteErrors(
        **{"suite": "s", "n_structures": 50, "errors": errors, "groups": groups or {}, "group_sizes": sizes, **changes}
    )


@st.composite
def pairs(draw: st.DrawFn) -> tuple[SuiteErrors, SuiteErrors]:
    """Two measurements of the same quantities and groups."""
    names = draw(st.lists(st.sampled_from(NAMES), min_size=1, unique=True))
    groups = draw(st.lists(st.sampled_from(GROUPS), unique=True))
    first = measured({n: draw(values) for n in names}, {g: {names[0]: draw(values)} for g in groups})
    second = measured(
        {n: value * draw(factors) for n, value in first.errors.items()},
        {g: {n: v * draw(factors) for n, v in errors.items()} for g, errors in first.groups.items()},
    )
    return first, second


def scaled(found: SuiteErrors, name: str, factor: float) -> SuiteErrors:
    def change(errors: dict[str, float]) -> dict[str, float]:
        return {n: v * factor if n == name else v for n, v in errors.items()}

    groups = {group: change(errors) for group, errors in found.groups.items()}
    return found.model_copy(update={"errors": change(found.errors), "groups": groups})


def far_from_every_edge(challenger: SuiteErrors, champion: SuiteErrors, rule: Rule) -> bool:
    score = decide(challenger, champion, rule).score
    edges = [(score, 1 - rule.margin)]
    edges += [(ratio(challenger.errors[n], v), 1 + rule.worse) for n, v in champion.errors.items()]
    for group, errors in champion.groups.items():
        edges += [(ratio(challenger.groups[group][n], v), 1 + rule.worse_group) for n, v in errors.items()]
    return all(value is not None and abs(value - edge) > 1e-6 for value, edge in edges)


@given(pairs())
def test_nobody_beats_itself(pair: tuple[SuiteErrors, SuiteErrors]) -> None:
    assert not decide(pair[0], pair[0]).promote


@given(pairs())
def test_two_versions_never_beat_each_other(pair: tuple[SuiteErrors, SuiteErrors]) -> None:
    a, b = pair
    assert not (decide(a, b).promote and decide(b, a).promote)


@given(st.lists(st.lists(values, min_size=2, max_size=2), min_size=2, max_size=8))
def test_promotions_never_lead_back(errors: list[list[float]]) -> None:
    champion = first = measured(dict(zip(NAMES, errors[0], strict=False)))
    promotions = 0
    for row in errors[1:]:
        challenger = measured(dict(zip(NAMES, row, strict=False)))
        if decide(challenger, champion).promote:
            champion, promotions = challenger, promotions + 1
    gain = math.prod(ratio(champion.errors[n], v) for n, v in first.errors.items()) ** (1 / len(first.errors))
    assert gain <= (1 - Rule().margin) ** promotions * (1 + 1e-9)
    assert promotions == 0 or not decide(first, champion).promote


@given(pairs(), st.sampled_from(NAMES), st.floats(0.01, 100))
def test_units_do_not_matter(pair: tuple[SuiteErrors, SuiteErrors], name: str, factor: float) -> None:
    a, b = pair
    assume(far_from_every_edge(a, b, Rule()))
    assert decide(scaled(a, name, factor), scaled(b, name, factor)).promote == decide(a, b).promote


@given(pairs(), st.sampled_from(NAMES), st.floats(0.2, 1.0))
def test_a_smaller_error_never_costs_the_title(pair: tuple[SuiteErrors, SuiteErrors], name: str, factor: float) -> None:
    a, b = pair
    if decide(a, b).promote:
        assert decide(scaled(a, name, factor), b).promote


@given(pairs(), st.floats(0.021, 0.9))
def test_better_by_more_than_the_margin_everywhere_wins(pair: tuple[SuiteErrors, SuiteErrors], gain: float) -> None:
    champion = pair[0]
    challenger = champion
    for name in champion.errors:
        challenger = scaled(challenger, name, 1 - gain)
    decision = decide(challenger, champion)
    assert decision.promote
    assert decision.score == pytest.approx(1 - gain)


@given(pairs(), st.floats(0.0, 0.019))
def test_a_gain_within_the_margin_is_no_gain(pair: tuple[SuiteErrors, SuiteErrors], gain: float) -> None:
    challenger = pair[0]
    for name in pair[0].errors:
        challenger = scaled(challenger, name, 1 - gain)
    assert not decide(challenger, pair[0]).promote


def test_one_error_may_not_grow_for_the_sake_of_another() -> None:
    champion = measured({NAMES[0]: 10.0, NAMES[1]: 10.0})
    assert decide(measured({NAMES[0]: 5.0, NAMES[1]: 10.4}), champion).promote
    refused = decide(measured({NAMES[0]: 5.0, NAMES[1]: 10.6}), champion)
    assert not refused.promote
    assert refused.reason == f"{NAMES[1]} is 1.060 of the champion's"


def test_an_element_may_not_be_lost() -> None:
    champion = measured({NAMES[0]: 10.0}, {"element Li": {NAMES[0]: 10.0}})
    lost = measured({NAMES[0]: 5.0}, {"element Li": {NAMES[0]: 13.0}})
    assert decide(lost, champion).reason == f"{NAMES[0]} of element Li is 1.300 of the champion's"
    few = champion.model_copy(update={"group_sizes": {"element Li": 19}})
    assert decide(lost, few).promote
    gone = measured({NAMES[0]: 5.0}, {"element Li": {}})
    assert not decide(gone, champion).promote


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"suite": "other"}, "measured on suite other, the champion on s"),
        ({"n_structures": 49}, "measured on 49 structures, the champion on 50"),
        ({"errors": {NAMES[1]: 1.0}}, "is measured for only one of the two"),
        ({"errors": {NAMES[0]: math.nan}}, "not a finite number"),
        ({"errors": {NAMES[0]: math.inf}}, "not a finite number"),
        ({"errors": {NAMES[0]: -1.0}}, "not a finite number"),
    ],
)
def test_what_cannot_be_compared_does_not_win(changes: dict[str, object], message: str) -> None:
    challenger = measured({NAMES[0]: 1.0}).model_copy(update=changes)
    decision = decide(challenger, measured({NAMES[0]: 100.0}))
    assert not decision.promote
    assert decision.score is None
    assert message in decision.reason


def test_no_labels_no_win() -> None:
    assert decide(measured({}), measured({})).reason == "the suite has no labels that either predicts"


def test_perfect_models_are_equal() -> None:
    assert decide(measured({NAMES[0]: 0.0}), measured({NAMES[0]: 0.0})).score == pytest.approx(1.0)


def test_what_is_looked_at_of_an_evaluation() -> None:
    group = GroupMetrics(n_structures=3, energy_mae_mev_per_atom=2.0, energy_rmse_mev_per_atom=4.0)
    metrics = Metrics(
        n_structures=5, n_atoms=20, energy_mae_mev_per_atom=1.0, energy_rmse_mev=9.0, stress_mae_gpa=0.1,
        properties={"gap": PropertyMetrics(unit="eV", n=5, mae=0.2, rmse=0.3)}, by_theory={"pbe": group},
        by_element={"Li": group},
    )  # fmt: skip
    found = suite_errors("digest", metrics)
    assert found.errors == {"energy_mae_mev_per_atom": 1.0, "stress_mae_gpa": 0.1, "gap MAE": 0.2}
    assert found.groups == {
        "element Li": {"energy_mae_mev_per_atom": 2.0},
        "theory pbe": {"energy_mae_mev_per_atom": 2.0},
    }
    assert found.group_sizes == {"element Li": 3, "theory pbe": 3}
