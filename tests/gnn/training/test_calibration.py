"""The factor between spread and error, and intervals that hold what they promise."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gnn.training.calibration import (
    Coverage,
    Residuals,
    calibrate,
    coverage,
    interval_factor,
    mean_over_groups,
    summary,
)


@pytest.fixture
def committee() -> Callable[..., Residuals]:
    """A maker of residuals whose members are Gaussian about the truth, in groups with a shift of their own."""

    def make(members: int, n: int = 4000, groups: int = 400, shift: float = 0.0, seed: int = 0) -> Residuals:
        random = np.random.default_rng(seed)
        belongs = random.integers(groups, size=n)
        truth = shift * random.normal(size=groups)[belongs]
        found = random.normal(size=(members, n))
        return Residuals(found.mean(axis=0) - truth, found.std(axis=0), [str(k) for k in belongs])

    return make


def test_calibration_finds_the_factor() -> None:
    random = np.random.default_rng(0)
    spread = random.uniform(0.001, 0.01, 4000)
    found = calibrate(Residuals(3.0 * spread * random.normal(size=4000), spread))
    assert found is not None
    assert found.energy_scale == pytest.approx(3.0, rel=0.05)
    assert found.interval_90 == pytest.approx(1.645, rel=0.05)
    assert (found.n, found.groups, found.kind) == (4000, 4000, "committee")


@given(st.floats(-7.0, 7.0))
def test_the_uncertainty_is_as_large_as_the_errors_whatever_the_unit_of_the_spread(magnitude: float) -> None:
    """A last layer's spread is about √D: errors of an accurate network are a ten-thousandth of it."""
    random = np.random.default_rng(0)
    error = 1e-3 * random.normal(size=400)
    spread = 10.0**magnitude * random.uniform(0.5, 2.0, size=400)
    found = calibrate(Residuals(error, spread))
    assert found is not None
    uncertainty = found.energy_scale * spread
    assert np.sqrt(np.mean(uncertainty**2)) == pytest.approx(np.sqrt(np.mean(error**2)))


def test_errors_of_nothing_leave_factors_that_are_positive() -> None:
    found = calibrate(Residuals(np.zeros(20), np.ones(20)))
    assert found is not None
    assert 0.0 < found.energy_scale <= 1e-9


def test_no_calibration_without_spread_or_with_few_structures() -> None:
    ones = np.ones(4000)
    assert calibrate(Residuals(ones, 0.0 * ones)) is None
    assert calibrate(Residuals(ones[:5], ones[:5])) is None


def test_two_members_that_agree_by_chance_do_not_decide_the_factor(committee: Callable[..., Residuals]) -> None:
    found = committee(2)
    found.spread[0] = 1e-6
    calibration = calibrate(found)
    # the mean of two has variance 1/2, and so has their spread on average
    assert calibration is not None
    assert calibration.energy_scale == pytest.approx(1.0, rel=0.1)


@pytest.mark.parametrize(("members", "student"), [(2, 6.314), (3, 2.920), (5, 2.132)])
def test_small_committees_need_students_quantile_and_the_held_out_errors_give_it(
    committee: Callable[..., Residuals], members: int, student: float
) -> None:
    held = committee(members, n=20000)
    calibration = calibrate(held)
    assert calibration is not None
    assert calibration.interval_90 is not None
    # the error of a mean of M over their deviation (divided by M) is t(M-1) / sqrt(M-1)
    over_spread = calibration.interval_90 * calibration.energy_scale
    assert over_spread == pytest.approx(student / np.sqrt(members - 1), rel=0.06)
    gaussian = np.mean(np.abs(held.error) <= 1.645 * calibration.energy_scale * held.spread)
    assert gaussian < (0.88 if members < 5 else 0.9)


@pytest.mark.parametrize("members", [2, 3, 5])
@pytest.mark.parametrize("shift", [0.0, 2.0])
def test_mean_coverage_is_nominal_within_two_standard_errors(
    committee: Callable[..., Residuals], members: int, shift: float
) -> None:
    found = coverage(committee(members, n=1000, groups=60, shift=shift, seed=members), splits=40)
    assert found.splits == 40
    assert found.targets > 15_000
    assert found.mean == pytest.approx(0.9, abs=max(2 * found.standard_error, 0.015))
    assert found.half_width > 0


def test_coverage_is_nominal_over_fresh_data_with_few_groups(committee: Callable[..., Residuals]) -> None:
    means = [coverage(committee(4, 200, 40, 1.0, seed), splits=4, seed=seed).mean for seed in range(60)]
    assert np.mean(means) == pytest.approx(0.9, abs=0.02)


def test_too_few_groups_are_refused() -> None:
    with pytest.raises(ValueError, match="four groups"):
        coverage(Residuals(np.ones(9), np.ones(9), list("aaabbbccc")))


@given(st.integers(9, 60), st.integers(0, 1000))
def test_the_factor_is_one_of_the_ratios_and_grows_with_the_level(n: int, seed: int) -> None:
    ratios = np.abs(np.random.default_rng(seed).normal(size=n))
    groups = [str(k) for k in range(n)]
    low, high = (interval_factor(ratios, groups, level) for level in (0.5, 0.9))
    assert {low, high} <= set(ratios.tolist())
    assert low <= high
    assert np.mean(ratios <= high) >= 0.9


def test_few_structures_give_the_largest_ratio() -> None:
    assert interval_factor(np.arange(5.0), list("abcde")) == 4.0


@given(st.integers(9, 40), st.integers(1, 6), st.integers(0, 1000))
def test_structures_of_one_group_have_one_vote(n: int, copies: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    ratios, repeats = random.random(n), random.integers(1, copies + 1, size=n)
    names = np.arange(n).astype(str)
    alone = interval_factor(ratios, names.tolist())
    order = random.permutation(int(repeats.sum()))
    assert interval_factor(np.repeat(ratios, repeats)[order], np.repeat(names, repeats)[order].tolist()) == alone


@given(st.integers(9, 200), st.integers(0, 1000))
def test_structures_alone_have_the_rank_of_split_conformal_prediction(n: int, seed: int) -> None:
    ratios = np.random.default_rng(seed).random(n)
    rank = int(np.ceil(0.9 * (n + 1) - 1e-9))
    assert interval_factor(ratios, [str(k) for k in range(n)]) in np.sort(ratios)[rank - 1 : rank + 1]


@pytest.mark.parametrize(("groups", "effect"), [(6, 0.0), (12, 0.0), (12, 1.0), (40, 1.0)])
def test_nine_of_ten_structures_of_a_new_group_are_within(groups: int, effect: float) -> None:
    """Groups of 1 to 30 structures, whose errors differ, those of small groups being the larger, or are all alike."""
    random = np.random.default_rng(groups)

    def drawn(n: int) -> tuple[np.ndarray, list[str]]:
        sizes = random.choice([1, 9, 30], size=n)
        scales = np.exp(effect * random.normal(size=n)) * np.where(sizes == 1, 1.0 + 4.0 * effect, 1.0)
        ratios = np.abs(random.normal(size=sizes.sum()) * np.repeat(scales, sizes))
        return ratios, np.repeat(np.arange(n), sizes).astype(str).tolist()

    inside = []
    for _ in range(1500):
        factor = interval_factor(*drawn(groups))
        ratios, _ = drawn(1)
        inside.append(np.mean(ratios <= factor))
    three_deviations = 3.0 * float(np.std(inside)) / np.sqrt(len(inside))
    assert 0.9 - three_deviations <= np.mean(inside) <= 0.92 + three_deviations


def test_one_group_gives_its_largest_ratio() -> None:
    assert interval_factor(np.arange(5.0), list("aaaaa")) == 4.0


def test_groups_count_alike() -> None:
    inside = np.array([True] * 8 + [False, True, False, False])
    assert mean_over_groups(inside, [*"aaaaaaaa", *"bb", *"cc"]) == pytest.approx((1.0 + 0.5 + 0.0) / 3)


def test_a_summary_knows_whether_it_is_nominal() -> None:
    found = summary(0.9, [0.88, 0.92, 0.9], [0.01, 0.02, 0.03], 30)
    assert found.mean == pytest.approx(0.9)
    assert found.half_width == pytest.approx(0.02)
    assert found.is_nominal
    assert not Coverage(0.9, 0.8, 0.01, 20, 1000, 0.1).is_nominal
