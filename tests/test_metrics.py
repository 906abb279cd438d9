from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from musicclass.training import metrics
from musicclass.training.metrics import (
    _genre_f1,
    accuracy_of_surest,
    bootstrap,
    by_artist,
    calibration_noise,
    evaluate_probabilities,
    expected_calibration_error,
    reliability,
    share_interval,
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
    assert found["accuracy"] == found["macro_f1"] == 1 and found["accuracy_95"] == wilson(4, 4)
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
    low, high = bootstrap(lambda rows: float(right[rows].mean()), np.arange(400))
    assert low == pytest.approx(0.7 - 0.045, abs=0.01) and high == pytest.approx(0.7 + 0.045, abs=0.01)


@given(st.integers(2, 30), st.integers(1, 4), st.integers(0, 100))
@settings(max_examples=20, deadline=None)
def test_tracks_that_are_all_alike_count_once(n, copies, seed):
    """Three copies of each track are no news: neither bootstrap nor Wilson's interval may get narrower."""
    right = np.random.default_rng(seed).random(n) < 0.6
    many, groups = np.repeat(right, copies), np.repeat(np.arange(n), copies)
    once = bootstrap(lambda rows: right[rows].mean(), np.arange(n))
    assert bootstrap(lambda rows: many[rows].mean(), groups) == pytest.approx(once)
    low, high = share_interval(right, np.arange(n))
    assert (low, high) == wilson(right.sum(), n)
    of_many = share_interval(many, groups)
    assert of_many[0] <= low + 1e-9 and of_many[1] >= high - 1e-9


def test_intervals_by_artist_hold_the_truth_as_often_as_they_say(monkeypatch):
    """Artists who are alike in themselves, ten of each genre: by track, intervals hold the truth far less often."""
    monkeypatch.setattr(metrics, "RESAMPLES", 400)
    rng, held, runs = np.random.default_rng(1), np.zeros(5), 40
    for _ in range(runs):
        groups = np.repeat(np.arange(20), rng.integers(4, 16, 20))
        chances = rng.beta(2.1, 0.9, 20)[groups]  # 70% on average
        truth, right = groups % 2, rng.random(len(groups)) < chances
        told = np.where(right, truth, 1 - truth)
        found, by_track = (evaluate_probabilities(np.eye(2)[told], truth, ("a", "b"), groups=x) for x in (groups, None))
        intervals = [found[f"{name}_95"] for name in ("accuracy", "macro_f1")]
        intervals += [found["genres"]["a"][f"{name}_95"] for name in ("recall", "f1")]
        held += [low <= 0.7 <= high for low, high in (*intervals, by_track["accuracy_95"])]
    assert (held[:4] >= 0.85 * runs).all() and held[4] < 0.85 * runs


def test_share_interval_by_hand():
    """Six artists of five tracks each, three all right and three all wrong: worth 5 * 30 / 29, less by Student's t."""
    worth = 5 * 30 / 29 / (2.570582 / 1.959964) ** 2
    found = share_interval(np.repeat([True, False], 15), np.repeat(np.arange(6), 5))
    assert found == pytest.approx(wilson(worth / 2, worth), abs=1e-5)


def test_share_interval_of_few():
    nobody = np.zeros(0, int)
    assert share_interval(nobody > 0, nobody) == (0, 1)
    assert share_interval(np.ones(9, bool), np.zeros(9, int)) == (0, 1), "one artist tells nothing of others"
    ten = np.repeat(np.arange(10), 10)
    all_right, one_wrong = share_interval(np.ones(100, bool), ten), share_interval(np.arange(100) > 0, ten)
    assert one_wrong[0] <= all_right[0] < 0.75 and all_right[1] == 1


def test_one_artist_tells_nothing_of_others():
    probabilities, truth = guesses(40)
    found = evaluate_probabilities(probabilities, truth, GENRES, groups=by_artist(["x"] * 40))
    of_all = ("accuracy", "macro_f1", "calibration_error", "surest_60")
    assert all(found[f"{name}_95"] == (0, 1) for name in of_all) and found["genres"]["a"]["f1_95"] == (0, 1)


def test_groups_by_artist():
    assert by_artist(["x", "", "y", "x", ""]).tolist() == [0, 1, 2, 0, 3]
    probabilities, truth = guesses(40)
    apart = evaluate_probabilities(probabilities, truth, GENRES, groups=by_artist([""] * 40))
    assert apart == evaluate_probabilities(probabilities, truth, GENRES) and apart["groups"] == 40
    together = evaluate_probabilities(probabilities, truth, GENRES, groups=by_artist(["x", "y"] * 20))
    assert together["groups"] == 2 and together["accuracy"] == apart["accuracy"]


@given(st.integers(1, 60), st.integers(0, 100))
def test_fast_f1(n, seed):
    rng = np.random.default_rng(seed)
    truth, guess = rng.integers(0, 3, (2, n))
    found, there = _genre_f1(truth, guess, 3), np.isin([0, 1, 2], truth)
    of_each = sk.f1_score(truth, guess, labels=[0, 1, 2], average=None, zero_division=0)
    assert found[there] == pytest.approx(of_each[there]) and np.isnan(found[~there]).all()


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
