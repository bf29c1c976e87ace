import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import spearmanr

from gnn.errors import InputError
from gnn.screening.metrics import predicted_hull_distance, spearman, stability_metrics, top_recall

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
    assert top_recall(truth, np.full(10, np.nan), 0.5) == 0
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
    assert (m.n, m.n_true_stable, m.n_predicted_stable) == (5, 3, 3)
    assert m.precision == m.recall == m.f1 == pytest.approx(2 / 3)
    assert m.prevalence == pytest.approx(3 / 5)
    assert m.daf == pytest.approx((2 / 3) / (3 / 5))
    assert m.accuracy == pytest.approx(3 / 5)
    assert m.false_positive_rate == pytest.approx(1 / 2)
    assert m.wasted == pytest.approx(1 / 3)
    assert m.mae == pytest.approx(np.mean([0.1, 0.2, 0.3, 0.1, 0]))


def test_a_missing_prediction_is_unstable_and_no_error() -> None:
    m = stability_metrics([-0.1, -0.1, 0.2], [np.nan, -0.1, np.nan])
    assert (m.recall, m.precision, m.accuracy) == (0.5, 1.0, pytest.approx(2 / 3))
    assert m.mae == 0


def test_a_missing_truth_is_left_out() -> None:
    assert stability_metrics([np.nan, -0.1], [-0.1, -0.1]).n == 1


def test_no_positives_give_no_ratio() -> None:
    m = stability_metrics([0.1, 0.2], [0.3, 0.4])
    assert math.isnan(m.precision)
    assert math.isnan(m.recall)
    assert math.isnan(m.daf)
    assert math.isnan(m.f1)
    assert m.accuracy == 1
    assert math.isnan(stability_metrics([], []).accuracy)


@given(st.data())
def test_f1_is_the_harmonic_mean(data: st.DataObject) -> None:
    truth = data.draw(VALUES)
    predicted = data.draw(st.lists(st.integers(-5, 5).map(float), min_size=len(truth), max_size=len(truth)))
    m = stability_metrics(truth, predicted)
    if m.precision > 0 and m.recall > 0:
        assert m.f1 == pytest.approx(2 * m.precision * m.recall / (m.precision + m.recall))
        assert m.daf == pytest.approx(m.precision / m.prevalence)


def test_the_hull_stays_where_it_is() -> None:
    assert predicted_hull_distance([0.1], [-0.5], [-0.45])[0] == pytest.approx(0.05)
