"""Temperature, biases and branch weights: against known ones, and at the limits."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import softmax

from musicclass.config import load_config
from musicclass.datasets import Track
from musicclass.training.calibration import (
    Calibrator,
    artist_folds,
    fit_bias_corrected_temperature,
    fit_branch_weights,
    fit_temperature,
    log_loss,
)
from musicclass.training.cross_validation import HeldOut, calibrate
from musicclass.training.ood import FeatureOodScorer


def draw_labels(logits: np.ndarray) -> np.ndarray:
    rng = np.random.default_rng(1)
    return np.array([rng.choice(len(row), p=softmax(row)) for row in logits])


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_fitted_temperature_is_the_true_one(temperature):
    logits = np.random.default_rng(0).standard_normal((4000, 5)) * 2
    assert fit_temperature(logits * temperature, draw_labels(logits)) == pytest.approx(temperature, rel=0.1)
    fitted, biases = fit_bias_corrected_temperature(logits * temperature, draw_labels(logits))
    assert fitted == pytest.approx(temperature, rel=0.1) and np.abs(biases).max() < 0.1


def test_a_genre_with_too_low_logits_gets_a_bias_unless_tracks_are_few():
    labels = np.arange(400) % 4
    fair = 1.5 * np.eye(4)[labels] + np.random.default_rng(0).standard_normal((400, 4))
    low = fair - np.array([1.5, 0, 0, 0])
    temperature, biases = fit_bias_corrected_temperature(low, labels)
    assert biases.argmax() == 0 and biases[0] > 0.5 > np.abs(biases[1:]).max()
    before, after = ((logits.argmax(axis=1) == labels).mean() for logits in (low, low / temperature + biases))
    assert after > before
    assert np.abs(fit_bias_corrected_temperature(low[:12], labels[:12])[1]).max() < 0.2


@pytest.mark.parametrize("setting", [(), ("training.bias_penalty=3000",)])
def test_the_configured_penalty_limits_the_biases_of_a_calibration(setting):
    rng, labels = np.random.default_rng(0), np.arange(400) % 4
    logits = np.float32(1.5 * np.eye(4)[labels] + rng.standard_normal((400, 4)) - np.array([1.5, 0, 0, 0]))
    windows = [rng.standard_normal((1, 12, 8)).astype(np.float32) for _ in labels]
    ood = FeatureOodScorer.fit(windows, windows)
    tracks = tuple(Track(str(i), "abcd"[i % 4]) for i in range(400))
    distances, embeddings = [ood.distance(x) for x in windows], [np.zeros((1, 200), np.float32)] * 400
    fold = HeldOut(tracks, labels, {"lda": [x[None] for x in logits]}, distances, embeddings, ood)
    fitted = calibrate([fold], load_config(None, setting), ood)
    assert (np.abs(fitted.calibrator.biases).max() > 0.5) is not bool(setting)


def test_branch_weights_are_the_true_ones_whatever_the_temperature():
    rng = np.random.default_rng(0)
    first, second = rng.standard_normal((2, 4000, 5)) * 2
    labels = draw_labels(0.75 * first + 0.25 * second)
    for temperature in (1.0, 3.0):
        weights = fit_branch_weights([temperature * first, temperature * second], labels)
        assert weights.sum() == pytest.approx(1) and weights == pytest.approx([0.75, 0.25], abs=0.05)
    assert fit_branch_weights([first], labels) == pytest.approx([1])


def test_branch_weights_lower_the_log_loss_and_ignore_a_useless_branch():
    rng = np.random.default_rng(0)
    labels = np.arange(300) % 3
    good, useless = np.eye(3)[labels] + rng.standard_normal((300, 3)), rng.standard_normal((300, 3))
    better = 3 * np.eye(3)[labels] + rng.standard_normal((300, 3))
    weights = fit_branch_weights([good, better], labels)
    combined = weights[0] * good + weights[1] * better
    temperature, biases = fit_bias_corrected_temperature(combined, labels)
    alone = [fit_bias_corrected_temperature(x, labels) for x in (good, better)]
    losses = [log_loss(x / t + b, labels) for x, (t, b) in zip((good, better), alone, strict=True)]
    assert weights[1] > 0.5 > weights[0] > 0.05
    assert log_loss(combined / temperature + biases, labels) < min(losses)
    assert fit_branch_weights([good, useless], labels)[1] < 0.15
    assert fit_branch_weights([-good, -better], labels) == pytest.approx([0.5, 0.5])  # both are worse than chance


def test_artists_and_replicas_share_a_fold_and_genres_are_spread():
    tracks = [Track(f"{g}{i}", g, f"{g} artist {i // 2}" if i < 16 else "") for g in "ab" for i in range(24)]
    tracks += [Track("copy1", "a", "", "same"), Track("copy2", "b", "x", "same")]
    folds = artist_folds(tracks)
    assert set(folds) == set(range(5)) and folds[-1] == folds[-2]
    for artist in {track.artist for track in tracks} - {""}:
        assert len({fold for fold, track in zip(folds, tracks, strict=True) if track.artist == artist}) == 1
    unknown = [fold for fold, track in zip(folds, tracks, strict=True) if not track.artist]
    assert len(set(unknown)) == 5, "tracks of unknown artists aren't one artist"
    for genre in "ab":
        counts = np.bincount([f for f, track in zip(folds, tracks, strict=True) if track.genre == genre], minlength=5)
        assert counts.min() >= 3
    assert artist_folds(tracks[:2]).tolist() == [0, 0]  # one artist


def test_confidence_is_calibrated():
    rng = np.random.default_rng(0)
    labels = np.arange(600) % 4
    logits = [3 * np.eye(4)[genre] + rng.standard_normal((3, 4)) for genre in labels]
    labels = np.where(rng.random(600) < 0.3, rng.integers(0, 4, 600), labels)
    windows = [rng.standard_normal((3, 40, 12), dtype=np.float32) for _ in labels]
    ood = FeatureOodScorer.fit(windows[:60], windows[60:120])
    distances = [ood.distance(x) for x in windows]
    fitted = Calibrator.fit(ood, distances, logits, labels, np.arange(600) % 5)
    scores = [fitted.score(*pair) for pair in zip(logits, distances, strict=True)]
    accuracy = np.mean([s.probabilities.argmax() == genre for s, genre in zip(scores, labels, strict=True)])
    assert np.mean([s.probabilities.max() for s in scores]) == pytest.approx(accuracy, abs=0.06)
    assert all(s.probabilities.sum() == pytest.approx(1) for s in scores)


def test_calibration_of_perfect_wrong_and_constant_logits_is_finite():
    labels = np.arange(60) % 4
    right = [100 * np.eye(4)[genre][None] for genre in labels]
    windows = [np.random.default_rng(i).standard_normal((1, 40, 12), dtype=np.float32) for i in range(60)]
    ood = FeatureOodScorer.fit(windows, windows)
    distances, folds = [ood.distance(x) for x in windows], np.arange(60) // 4 % 5
    for logits, targets in ((right, labels), (right, (labels + 1) % 4), ([np.zeros((1, 4))] * 60, labels)):
        fitted = Calibrator.fit(ood, distances, logits, targets, folds)
        scores = fitted.score(logits[0], distances[0])
        assert np.isfinite(scores.probabilities).all() and np.isfinite(scores.familiarity)
