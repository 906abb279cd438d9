from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as sk

from musicclass.training.metrics import (
    _macro_f1,
    bootstrap,
    evaluate_probabilities,
    expected_calibration_error,
    reliability,
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
    assert expected_calibration_error(np.eye(3)[(truth + 1) % 3], truth) == pytest.approx(1)


def test_calibration_error_of_calibrated_guesses_is_small_and_of_boasters_is_not():
    rng = np.random.default_rng(1)
    probabilities = rng.dirichlet([1] * 3, 20_000)
    truth = np.array([rng.choice(3, p=p) for p in probabilities])
    assert expected_calibration_error(probabilities, truth) < 0.02
    sharp = probabilities**4 / (probabilities**4).sum(1, keepdims=True)
    assert expected_calibration_error(sharp, truth) > 0.2


def test_bins_hold_equally_many():
    bins = reliability(*guesses(100))
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
