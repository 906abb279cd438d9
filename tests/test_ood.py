"""Out-of-distribution scores: against scipy, by property, and of the pretrained model."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.distance import mahalanobis

from musicclass.prediction import OOD_THRESHOLD
from musicclass.training.calibration import Calibrator
from musicclass.training.ood import (
    INPUT_DISTANCE_WEIGHT,
    FeatureOodScorer,
    LogitOodScorer,
    distance_to_familiarity,
    fit_logit_scorer,
    mfcc_statistics,
)
from tests.conftest import RATE, make_noise, make_tone


def make_windows(n: int, seed: int = 0, offset: float = 0.0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.standard_normal((3, 40, 12), dtype=np.float32) + np.float32(offset) for _ in range(n)]


def make_logits(n: int, seed: int = 0, genres: int = 4) -> tuple[list[np.ndarray], np.ndarray]:
    """Logits (3, genres) of `n` tracks, and their labels, which are mostly the largest logits."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % genres
    return [3 * np.eye(genres)[genre] + rng.standard_normal((3, genres)) for genre in labels], labels


def fit(logits: list[np.ndarray], labels: np.ndarray, n_folds: int = 5) -> Calibrator:
    heldout = make_windows(len(logits), seed=1)
    ood = FeatureOodScorer.fit(make_windows(60), heldout)
    return Calibrator.fit(ood, [ood.distance(x) for x in heldout], logits, labels, np.arange(len(logits)) % n_folds)


def test_feature_distance_is_small_for_training_data_and_large_otherwise():
    scorer = FeatureOodScorer.fit(make_windows(60), make_windows(40, seed=1))
    inside, outside = (scorer.distance(make_windows(1, seed=2, offset=x)[0]).mean() for x in (0, 5))
    assert distance_to_familiarity(inside) > 0.5 > 0.01 > distance_to_familiarity(outside)
    assert distance_to_familiarity(np.array([0.0, 1.0])) == pytest.approx([1, 0.5])


def test_few_and_equal_windows_have_finite_scores():
    same = [np.ones((1, 30, 12), np.float32)] * 2
    scorer = FeatureOodScorer.fit(same, same)
    assert np.isfinite(scorer.distance(same[0])).all() and mfcc_statistics(same[0]).shape == (1, 24)


def test_five_percent_of_heldout_tracks_are_out_of_distribution():
    fitted = fit(*make_logits(600))
    logits, _ = make_logits(1000, seed=1)
    distances = map(fitted.feature_ood.distance, make_windows(1000, seed=2))
    scores = [fitted.score(*pair) for pair in zip(logits, distances, strict=True)]
    assert 25 < sum(s.familiarity < OOD_THRESHOLD for s in scores) < 75
    by_window = np.concatenate([s.window_familiarity for s in scores])
    assert 0.025 < (by_window < OOD_THRESHOLD).mean() < 0.075


def test_few_heldout_tracks_reject_no_more_new_ones_than_many():
    rejected = []
    for seed in range(20):
        logits, labels = make_logits(40, seed=seed)
        distances = [np.zeros(len(x)) for x in logits]
        scorer = fit_logit_scorer(logits, distances, np.zeros(40), labels, np.arange(40) // 4 % 5)
        new = np.stack([x.mean(axis=0) for x in make_logits(1000, seed=100 + seed)[0]])
        rejected.append((scorer.score(new, np.zeros(1000)) < scorer.threshold).mean())
    assert 0.01 < np.mean(rejected) < 0.05


@pytest.mark.parametrize("all_of_one_artist", [False, True])
def test_without_enough_heldout_tracks_or_artists_of_a_genre_features_alone_decide(all_of_one_artist):
    logits, labels = make_logits(100)
    if not all_of_one_artist:
        logits = [np.pad(x, ((0, 0), (0, 1))) for x in logits]  # no track of a fifth genre is held out
    fitted = fit(logits, labels, n_folds=1 if all_of_one_artist else 5)
    assert fitted.logit_ood is None
    for windows, x in zip(make_windows(5, seed=2), logits, strict=False):
        distance = fitted.feature_ood.distance(windows)
        assert fitted.score(x, distance).familiarity == pytest.approx(1 / (1 + distance.mean() ** 6))


def test_logit_score_is_a_relative_mahalanobis_distance():
    """Against scipy's distance, and covariances whose shrinkage is undone."""
    logits, labels = make_logits(400, genres=3)
    means = np.stack([x.mean(axis=0) for x in logits])
    scorer = LogitOodScorer.fit(means, labels)
    offsets = np.concatenate([means[labels == genre] - means[labels == genre].mean(axis=0) for genre in range(3)])
    covariances = offsets.T @ offsets / (400 - 3), np.cov(means.T)
    for precision, covariance in zip((scorer.within_precision, scorer.total_precision), covariances, strict=True):
        expected = 0.7 * covariance + 0.3 * np.diag(np.diag(covariance))
        np.testing.assert_allclose(np.linalg.inv(precision), expected, rtol=1e-3, atol=1e-5)
    x = np.array([[1.0, 2.0, -1.0], [5.0, 0.0, 0.0]])
    nearest = [min(mahalanobis(row, mean, scorer.within_precision) ** 2 for mean in scorer.means) for row in x]
    expected = np.subtract([mahalanobis(row, scorer.mean, scorer.total_precision) ** 2 for row in x], nearest)
    np.testing.assert_allclose(scorer.score(x, np.zeros(2)), expected)
    np.testing.assert_allclose(scorer.score(x, np.ones(2)), expected - INPUT_DISTANCE_WEIGHT)


def test_unusual_logits_are_out_of_distribution_whatever_their_probability():
    fitted = fit(*make_logits(100))
    windows = make_windows(1, seed=2)[0]
    inside, outside = (fitted.feature_ood.distance(x) for x in (windows, windows + 5))
    usual = fitted.score(np.tile([3.0, 0, 0, 0], (3, 1)), inside)
    unusual = fitted.score(np.tile([9.0, 6.0, -6, -6], (3, 1)), inside)  # two genres at once
    other_features = fitted.score(np.tile([3.0, 0, 0, 0], (3, 1)), outside)
    assert usual.familiarity > 0.5 > max(unusual.familiarity, other_features.familiarity)
    assert unusual.probabilities.max() >= usual.probabilities.max() - 0.05
    assert other_features.probabilities.max() == usual.probabilities.max()


@pytest.mark.parametrize("sound", [make_noise(12), make_tone(440, 12), make_tone(60, 12)])
def test_noise_and_tones_are_unknown_to_the_pretrained_model(classifier, sound):
    prediction = classifier.predict_waveform(sound, RATE)
    assert prediction.genre == "unknown" and prediction.familiarity < 0.1
    assert prediction.confidence == max(prediction.probabilities.values())
    assert {segment.genre for segment in prediction.segments} == {"unknown"}
