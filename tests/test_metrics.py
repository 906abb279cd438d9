"""Metrics against scikit-learn, and confidence intervals against theory and simulation."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest
from sklearn import metrics as sk

from musicclass.evaluation import intervals
from musicclass.evaluation.intervals import artist_ids, bootstrap_ci, proportion_ci, wilson
from musicclass.evaluation.metrics import (
    accuracy_at_coverage,
    adaptive_ece,
    evaluate_probabilities,
    expected_ece_if_calibrated,
    reliability_bins,
)

GENRES = ("a", "b", "c")


def random_predictions(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.dirichlet([0.5] * 3, n), rng.integers(0, 3, n)


@pytest.fixture(autouse=True)
def few_resamples(monkeypatch):
    monkeypatch.setattr(intervals, "RESAMPLES", 300)


@given(st.integers(3, 60), st.integers(0, 100))
@settings(max_examples=5)
def test_metrics_match_scikit_learn(n, seed):
    probabilities, labels = random_predictions(n, seed)
    metrics, predicted = evaluate_probabilities(probabilities, labels, GENRES, np.arange(n)), probabilities.argmax(1)
    options = {"labels": range(3), "target_names": GENRES, "output_dict": True, "zero_division": 0}
    report = sk.classification_report(labels, predicted, **options)
    assert metrics["accuracy"] == pytest.approx(sk.accuracy_score(labels, predicted))
    f1 = sk.f1_score(labels, predicted, labels=np.unique(labels), average="macro")  # of the genres that have tracks
    assert metrics["macro_f1"] == pytest.approx(f1)
    assert metrics["macro_recall"] == pytest.approx(sk.balanced_accuracy_score(labels, predicted))
    assert metrics["log_loss"] == pytest.approx(sk.log_loss(labels, probabilities, labels=[0, 1, 2]))
    assert metrics["confusion_matrix"] == sk.confusion_matrix(labels, predicted, labels=[0, 1, 2]).tolist()
    for genre, scores in metrics["genres"].items():
        values = [scores[name] for name in ("precision", "recall", "f1", "n_tracks")]
        assert values == pytest.approx(list(report[genre].values()))
    low, high = metrics["accuracy_ci95"]
    assert low <= metrics["accuracy"] <= high


def test_ece_is_small_for_calibrated_and_large_for_overconfident_predictions():
    rng = np.random.default_rng(1)
    probabilities = rng.dirichlet([1] * 3, 20_000)
    labels = np.array([rng.choice(3, p=p) for p in probabilities])
    correct = probabilities.argmax(1) == labels
    assert adaptive_ece(probabilities.max(1), correct) < 0.02
    overconfident = probabilities**4 / (probabilities**4).sum(1, keepdims=True)
    assert adaptive_ece(overconfident.max(1), correct) > 0.2
    assert adaptive_ece(np.ones(3), np.zeros(3, bool)) == pytest.approx(1)


def test_ece_of_calibrated_model_is_positive_for_small_samples():
    confidence = np.random.default_rng(0).uniform(0.3, 1, 200)
    assert expected_ece_if_calibrated(confidence) > 0.06
    assert expected_ece_if_calibrated(np.resize(confidence, 20_000)) < 0.02


def test_reliability_bins_have_equal_mass_and_give_the_ece():
    probabilities, labels = random_predictions(100)
    confidence, correct = probabilities.max(1), probabilities.argmax(1) == labels
    bins = reliability_bins(confidence, correct)
    assert len(bins) == 15 and {n for _, _, n in bins} == {6, 7} and sum(n for _, _, n in bins) == 100
    assert [c for c, _, _ in bins] == sorted(c for c, _, _ in bins)
    assert adaptive_ece(confidence, correct) == pytest.approx(sum(abs(c - a) * n / 100 for c, a, n in bins))


def test_accuracy_at_coverage_keeps_the_most_confident_tracks():
    confidence, correct = np.array([0.9, 0.1, 0.8, 0.3, 0.7]), np.array([True, False, True, False, True])
    assert accuracy_at_coverage(confidence, correct) == 1 and accuracy_at_coverage(confidence, correct, 1.0) == 0.6
    assert accuracy_at_coverage(confidence, correct, 0.01) == 1


def test_intervals_of_proportions_match_scipy_and_their_formula():
    """Six artists of five tracks each, three all correct and three all wrong: n_eff = 5 * 30 / 29 / (t / z) ** 2."""
    for k, n in ((0, 5), (3, 7), (50, 50), (66, 100)):
        assert wilson(k, n) == pytest.approx(binomtest(k, n).proportion_ci(method="wilson"), abs=1e-5)
    n_effective = 5 * 30 / 29 / (2.570582 / 1.959964) ** 2
    interval = proportion_ci(np.repeat([True, False], 15), np.repeat(np.arange(6), 5))
    assert interval == pytest.approx(wilson(n_effective / 2, n_effective), abs=1e-5)


def test_clustered_interval_without_variance_between_artists_counts_artists():
    empty = np.zeros(0, int)
    assert proportion_ci(empty > 0, empty) == (0, 1)
    assert proportion_ci(np.ones(9, bool), np.zeros(9, int)) == (0, 1)
    artists = np.repeat(np.arange(10), 10)
    all_correct, one_wrong = proportion_ci(np.ones(100, bool), artists), proportion_ci(np.arange(100) > 0, artists)
    assert one_wrong[0] <= all_correct[0] < 0.75 and all_correct[1] == 1


@given(st.integers(4, 30), st.integers(1, 4), st.integers(0, 100))
@settings(max_examples=10)
def test_duplicated_tracks_of_an_artist_narrow_no_interval(n, copies, seed):
    correct = np.random.default_rng(seed).random(n) < 0.6
    low, high = wilson(correct.sum(), n)
    duplicated = proportion_ci(np.repeat(correct, copies), np.repeat(np.arange(n), copies))
    assert duplicated[0] <= low + 1e-9 and duplicated[1] >= high - 1e-9


def test_bootstrap_interval_matches_the_binomial():
    correct = np.arange(400) < 280
    low, high = bootstrap_ci(lambda ids: correct[ids].mean(axis=-1), 400)
    assert low == pytest.approx(0.7 - 0.045, abs=0.015) and high == pytest.approx(0.7 + 0.045, abs=0.015)


def test_bootstrap_interval_where_bca_is_undefined_includes_the_estimate():
    """No resample of distinct values has more of them than the sample."""
    low, high = bootstrap_ci(lambda ids: np.apply_along_axis(lambda x: len(np.unique(x)) / 50, -1, ids), 50)
    assert 0.5 < low < 0.7 and high == 1, (low, high)


def test_unknown_artists_count_as_one_artist_each_and_a_single_artist_says_nothing():
    assert artist_ids(["x", "", "y", "x", ""]).tolist() == [0, 1, 2, 0, 3]
    probabilities, labels = random_predictions(40)
    unknown = evaluate_probabilities(probabilities, labels, GENRES, artist_ids([""] * 40))
    assert unknown["n_artists"] == 40 and 0 < unknown["macro_f1_ci95"][0] < unknown["macro_f1_ci95"][1] < 1
    single = evaluate_probabilities(probabilities, labels, GENRES, artist_ids(["x"] * 40))
    assert all(single[f"{name}_ci95"] == (0, 1) for name in ("accuracy", "macro_f1", "ece"))


@pytest.mark.slow
def test_intervals_by_artist_have_nominal_coverage():
    """Tracks of an artist are correlated, ten artists a genre: intervals by track are much too narrow."""
    rng, covered, n_runs = np.random.default_rng(1), np.zeros(5), 60
    for _ in range(n_runs):
        artists = np.repeat(np.arange(20), rng.integers(4, 16, 20))
        accuracies = rng.beta(2.1, 0.9, 20)[artists]  # 0.7 on average
        labels = artists % 2
        predicted = np.where(rng.random(len(artists)) < accuracies, labels, 1 - labels)
        clustered, by_track = (
            evaluate_probabilities(np.eye(2)[predicted], labels, ("a", "b"), ids)
            for ids in (artists, np.arange(len(artists)))
        )
        cis = [clustered[f"{name}_ci95"] for name in ("accuracy", "macro_f1")]
        cis += [clustered["genres"]["a"][f"{name}_ci95"] for name in ("recall", "f1")]
        covered += [low <= 0.7 <= high for low, high in (*cis, by_track["accuracy_ci95"])]
    assert (covered[:4] >= 0.85 * n_runs).all() and covered[4] < 0.85 * n_runs
