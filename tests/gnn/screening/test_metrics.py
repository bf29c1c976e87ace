import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import spearmanr

from gnn.errors import InputError
from gnn.screening.metrics import spearman, stability_metrics, top_recall

VALUES = st.lists(st.integers(-5, 5).map(float), min_size=3, max_size=30)


@given(st.data())
def test_spearman_is_scipys(data: st.DataObject) -> None:
    truth = data.draw(VALUES)
    predicted = data.draw(st.lists(st.integers(-5, 5).map(float), min_size=len(truth), max_size=len(truth)))
    if len(set(truth)) == 1 or len(set(predicted)) == 1:
        assert math.isnan(spearman(truth, predicted))
    else:
        assert spearman(truth, predicted) == pytest.approx(spearmanr(truth, predicted).statistic)


def test_spearman_leaves_out_what_is_missing() -> None:
    assert spearman([1, 2, 3, np.nan, 5], [2, 4, 6, 1, np.nan]) == pytest.approx(1)
    assert math.isnan(spearman([1, np.nan], [1, 2]))


@given(VALUES, st.sampled_from([0.1, 0.3, 1.0]))
def test_a_perfect_prediction_finds_the_best_decile(truth: list[float], share: float) -> None:
    unique = np.array(truth) + 1e-3 * np.arange(len(truth))
    assert top_recall(unique, unique, share) == pytest.approx(1)
    if share < 0.5 and len(truth) > 6:
        assert top_recall(unique, -unique, share) == 0


def test_a_constant_prediction_finds_what_chance_finds() -> None:
    assert top_recall(np.arange(100.0), np.zeros(100), 0.1) == pytest.approx(0.1)


def test_missing_predictions_are_never_among_the_best() -> None:
    truth, predicted = np.arange(10.0), np.arange(10.0)
    predicted[0] = np.nan
    assert top_recall(truth, predicted, 0.1) == 0
    assert top_recall(truth, np.full(10, np.nan), 0.5) == top_recall(truth, np.full(10, np.inf), 0.5) == 0
    assert math.isnan(top_recall([], [], 0.1))


def test_the_decile_of_twenty_is_two() -> None:
    truth = np.arange(20.0)
    predicted = truth.copy()
    predicted[[1, 5]] = predicted[[5, 1]]
    assert top_recall(truth, predicted) == 0.5


def test_a_share_must_be_a_share() -> None:
    with pytest.raises(InputError, match="share 0"):
        top_recall([1.0], [1.0], 0)
    with pytest.raises(InputError, match="2 true values cannot be compared with 1"):
        top_recall([1.0, 2.0], [1.0])


def test_stability_by_hand() -> None:
    #        TP   FP    FN    TN   stable at the threshold counts as stable
    truth = [-0.1, 0.1, -0.2, 0.3, 0.0]
    predicted = [-0.2, -0.1, 0.1, 0.2, 0.0]
    m = stability_metrics(truth, predicted)
    assert (m.n, m.n_stable, m.n_said, m.n_found, m.n_right) == (5, 3, 3, 2, 3)
    assert m.precision == m.recall == m.f1 == pytest.approx(2 / 3)
    assert m.acceleration == pytest.approx((2 / 3) / (3 / 5))


def test_a_missing_prediction_is_unstable() -> None:
    m = stability_metrics([-0.1, -0.1, 0.2], [np.nan, -0.1, np.nan])
    assert (m.recall, m.precision, m.n_right) == (0.5, 1.0, 2)


def test_a_missing_truth_is_left_out() -> None:
    assert stability_metrics([np.nan, -0.1], [-0.1, -0.1]).n == 1


def test_no_positives_give_no_ratio() -> None:
    m = stability_metrics([0.1, 0.2], [0.3, 0.4])
    assert all(math.isnan(ratio) for ratio in (m.precision, m.recall, m.f1, m.acceleration))
    assert m.n_right == 2
    assert math.isnan(stability_metrics([], []).precision)


@given(st.data())
def test_f1_is_the_harmonic_mean(data: st.DataObject) -> None:
    truth = data.draw(VALUES)
    predicted = data.draw(st.lists(st.integers(-5, 5).map(float), min_size=len(truth), max_size=len(truth)))
    m = stability_metrics(truth, predicted)
    assert m.n_right == sum((a <= 0) == (b <= 0) for a, b in zip(truth, predicted, strict=True))
    if m.n_found:
        assert m.f1 == pytest.approx(2 * m.precision * m.recall / (m.precision + m.recall))
        assert m.acceleration == pytest.approx(m.precision * m.n / m.n_stable)
