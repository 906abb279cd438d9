from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as sk

from musicclass.training.metrics import (
    _macro_f1,
    accuracy_of_surest,
    bootstrap,
    calibration_noise,
    evaluate_probabilities,
    expected_calibration_error,
    reliability,
    wilson,
)

GENRES = ("a", "b", "c")


def guesses(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.dirichlet([0.5] * 3, n), rng.integers(0, 3, n)


def test_against_scikit_learn():
    probabilities, truth = guesses(200)
    found = evaluate_probabilities(probabilities, truth, GENRES)
    guess = probabilities.argmax(1)
    assert found["accuracy"] == pytest.approx(sk.accuracy_score(truth, guess))
    assert found["macro_f1"] == pytest.approx(sk.f1_score(truth, guess, average="macro"))
    assert found["log_loss"] == pytest.approx(sk.log_loss(truth, probabilities))
    assert found["genres"]["b"]["recall"] == pytest.approx(sk.recall_score(truth, guess, labels=[1], average="macro"))
    assert found["confusion"] == sk.confusion_matrix(truth, guess).tolist()
    assert found["accuracy_95"][0] < found["accuracy"] < found["accuracy_95"][1]


def test_perfect():
    truth = np.array([0, 1, 2, 1])
    found = evaluate_probabilities(np.eye(3)[truth], truth, GENRES)
    assert found["accuracy"] == found["macro_f1"] == 1 and found["accuracy_95"] == (1, 1)
    assert found["calibration_error"] == 0 and found["log_loss"] == pytest.approx(0, abs=1e-9)


def test_always_wrong_and_sure():
    truth = np.array([0, 1, 2])
    assert expected_calibration_error(np.ones(3), truth < 0) == pytest.approx(1)


def test_calibration_error_of_calibrated_guesses_is_small_and_of_boasters_is_not():
    rng = np.random.default_rng(1)
    probabilities = rng.dirichlet([1] * 3, 20_000)
    truth = np.array([rng.choice(3, p=p) for p in probabilities])
    right = probabilities.argmax(1) == truth
    assert expected_calibration_error(probabilities.max(1), right) < 0.02
    sharp = probabilities**4 / (probabilities**4).sum(1, keepdims=True)
    assert expected_calibration_error(sharp.max(1), right) > 0.2


def test_bins_hold_equally_many():
    probabilities, truth = guesses(100)
    bins = reliability(probabilities.max(1), probabilities.argmax(1) == truth)
    assert len(bins) == 15 and sum(n for _, _, n in bins) == 100
    assert {n for _, _, n in bins} <= {6, 7}
    assert [c for c, _, _ in bins] == sorted(c for c, _, _ in bins)


def test_bootstrap_is_near_the_binomial_interval():
    right = np.arange(400) < 280
    low, high = bootstrap(lambda rows: float(right[rows].mean()), 400)
    assert low == pytest.approx(0.7 - 0.045, abs=0.01) and high == pytest.approx(0.7 + 0.045, abs=0.01)


@given(st.integers(1, 60), st.integers(0, 100))
def test_fast_macro_f1(n, seed):
    rng = np.random.default_rng(seed)
    truth, guess = rng.integers(0, 3, (2, n))
    assert _macro_f1(truth, guess, 3) == pytest.approx(sk.f1_score(truth, guess, average="macro", zero_division=0))


def test_empty_and_malformed():
    probabilities, truth = guesses(5)
    with pytest.raises(ValueError, match="no tracks"):
        evaluate_probabilities(probabilities[:0], truth[:0], GENRES)
    with pytest.raises(ValueError, match="don't fit"):
        evaluate_probabilities(probabilities, truth[:3], GENRES)
    with pytest.raises(ValueError, match="sum to 1"):
        evaluate_probabilities(probabilities * 2, truth, GENRES)


def test_wilson_against_scipy():
    from scipy.stats import binomtest

    for k, n in ((0, 5), (3, 7), (50, 50), (66, 100)):
        low, high = binomtest(k, n).proportion_ci(method="wilson")
        assert wilson(k, n) == pytest.approx((low, high), abs=1e-5)
    assert wilson(0, 0) == (0, 1)


def test_the_surest_are_the_surest():
    confidence, right = np.array([0.9, 0.1, 0.8, 0.3, 0.7]), np.array([True, False, True, False, True])
    assert accuracy_of_surest(confidence, right) == 1 and accuracy_of_surest(confidence, right, 1.0) == 0.6
    assert accuracy_of_surest(confidence, right, 0.01) == 1


def test_few_tracks_are_noisy():
    sure = np.random.default_rng(0).uniform(0.3, 1, 200)
    assert calibration_noise(sure) > 0.06 and calibration_noise(np.resize(sure, 20_000)) < 0.02


def test_given_confidence_is_what_is_calibrated():
    probabilities, truth = guesses(60)
    doubtful = evaluate_probabilities(probabilities, truth, GENRES, np.zeros(60))
    right = doubtful["accuracy"]
    assert doubtful["calibration_error"] == pytest.approx(right) and doubtful["coverage"][-1] == (1, right)
    low, high = doubtful["genres"]["a"]["f1_95"]
    assert low <= doubtful["genres"]["a"]["f1"] <= high


def test_the_interval_of_the_calibration_error_holds_it_and_has_no_bias():
    """Drawn-twice tracks alone would put a perfect model's interval above its error."""
    rng, inside = np.random.default_rng(0), []
    for _ in range(10):
        probabilities = rng.dirichlet(np.ones(3), 200)
        truth = np.array([rng.choice(3, p=row) for row in probabilities])
        found = evaluate_probabilities(probabilities, truth, GENRES)
        low, high = found["calibration_error_95"]
        assert 0 <= low < found["calibration_error"] < high
        inside.append(low < found["calibration_noise"] < high)
    assert sum(inside) >= 8
