"""Explanations: shapes, a classifier whose evidence is known, and the effect of occlusion."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from musicclass.config import FeatureConfig
from musicclass.explain import BAND_GROUPS, MAX_WINDOWS, Explanation, explain, occlude
from musicclass.features import TrackFeatures, log_mel
from musicclass.prediction import Prediction, Segment
from tests.conftest import RATE, make_music


def prediction_of(genre: str, duration: float) -> Prediction:
    return Prediction(None, genre, genre, 1.0, 1.0, {genre: 1.0}, duration, (), "test", {})


def test_explanation_is_consistent(classifier, wav):
    explanation = classifier.explain(wav(make_music(14.2)))
    weights, times, frequencies = explanation.weights, explanation.times, explanation.frequencies
    assert explanation.prediction == classifier.predict(explanation.prediction.file)
    assert explanation.genre == explanation.prediction.top_genre
    assert weights.shape == (14, BAND_GROUPS) == (len(times) - 1, len(frequencies) - 1)
    assert times[-1] == pytest.approx(14.2, abs=1e-3) and frequencies[0] == 0
    assert list(frequencies) == sorted(frequencies) and frequencies[-1] < 11_025
    assert np.isfinite(weights).all() and np.abs(weights).max() > 0
    assert sum(end - start for start, end in explanation.top_spans()) == pytest.approx(14.2 / 14 * 3)
    assert json.loads(json.dumps(explanation.to_dict()))["genre"] == explanation.genre


def test_summary_names_the_spans_with_the_largest_weights_only():
    weights = np.full((100, BAND_GROUPS), 0.01, np.float32)
    for number, cell in enumerate(range(0, 100, 10)):
        weights[cell : cell + 2, 0] = 1 + number
    times, frequencies = (tuple(map(float, range(n + 1))) for n in weights.shape)
    explanation = Explanation(prediction_of("jazz", 100.0), "jazz", times, frequencies, weights, weights)
    assert explanation.top_spans() == [(50, 52), (60, 62), (70, 72), (80, 82), (90, 92)]
    assert explanation.summary().startswith("strongest evidence for jazz: 0:50-0:52, 1:00-1:02,")


def test_known_evidence_is_located():
    """The energy of the lowest eighth of the bands in the second second decides."""
    config = FeatureConfig(n_mfcc=112, window_seconds=4)
    frames = np.full((96, 112), -60, np.float32)
    frames[24:48, :14] = 0
    frames += np.random.default_rng(0).standard_normal(frames.shape).astype(np.float32)

    def probability(windows, _):
        return 1 / (1 + np.exp(-windows[:, 24:48, :14].mean(axis=(1, 2)) / 20))

    explanation = explain(probability, frames, prediction_of("low", 4.0), "low", config)
    assert np.unravel_index(explanation.weights.argmax(), explanation.weights.shape) == (1, 0)
    assert explanation.top_spans(0.25) == [(1.0, 2.0)] and explanation.top_band() == explanation.frequencies[:2]
    assert "low: 0:01-0:02" in explanation.summary()


def test_some_windows_of_a_long_track_are_examined():
    """Evidence is in the lowest bands of windows with the genre, which is that of the track's second half."""
    config = FeatureConfig(n_mfcc=112, window_seconds=4)
    frames = np.random.default_rng(0).standard_normal((96 * 20, 112)).astype(np.float32) - 60
    frames[::24, 0] = 0
    halves = [Segment(4.0 * i, 4.0 * i + 4, genre, genre, 1.0, 1.0, {genre: 1.0})
              for i, genre in enumerate(["high"] * 10 + ["low"] * 10)]  # fmt: skip
    prediction = replace(prediction_of("low", 80.0), segments=tuple(halves))
    calls = []

    def probability(windows, i):
        calls.append(i)
        return 1 / (1 + np.exp(-windows[:, :, :14].mean(axis=(1, 2)) / 20))

    explanation = explain(probability, frames, prediction, "low", config)
    assert len(calls) == MAX_WINDOWS and (min(calls), max(calls)) == (10, 19)
    assert [round(start / 4) for start, _ in explanation.examined] == calls
    assert min(start for start, _ in explanation.top_spans()) >= 40 and not explanation.weights[:39].any()
    calls.clear()
    explain(probability, frames, prediction, "neither", config)
    assert len(calls) == MAX_WINDOWS


def test_silence_at_the_end_of_a_song_is_no_evidence(classifier):
    config = classifier.model.features
    fade = np.concatenate([np.ones(10 * RATE), np.full(10 * RATE, 1e-4)]).astype(np.float32)
    track = TrackFeatures(log_mel(make_music(20) * fade, config), 20.0)
    explanation = classifier.explain_features(track, classifier.predict_features(track))
    assert max(end for _, end in explanation.top_spans()) <= 11 and not explanation.weights[11:].any()


def test_occlusion_of_the_top_cells_lowers_the_probability(classifier):
    config = classifier.model.features
    frames = log_mel(make_music(12), config)
    track = TrackFeatures(frames, 12.0)
    explanation = classifier.explain_features(track, classifier.predict_features(track))
    index, weights = classifier.genres.index(explanation.genre), explanation.weights

    def probability(mask):
        return classifier.score(occlude(frames, mask, config)).probabilities[index]

    unchanged = probability(np.zeros_like(weights, bool))
    assert unchanged == pytest.approx(explanation.prediction.probabilities[explanation.genre], abs=1e-6)
    assert probability(weights >= np.quantile(weights, 0.8)) < unchanged


def test_genre_can_be_chosen(classifier, wav):
    path = wav(make_music(3))
    assert classifier.explain(path, genre="metal").genre == "metal"
    with pytest.raises(ValueError, match="polka"):
        classifier.explain(path, genre="polka")


def test_command_line_prints_and_plots_explanations(run, wav, tmp_path):
    path = wav(make_music(6))
    status, out, _ = run("predict", path, "--explain", "--plot", tmp_path / "plot.png")
    assert status == 0 and "strongest evidence for" in out and (tmp_path / "plot.png").stat().st_size > 20_000
    status, out, _ = run("predict", path, "--explain", "--json")
    assert status == 0 and len(json.loads(out)["explanation"]["weights"]) == 6
