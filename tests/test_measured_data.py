"""Features and predictions from real audio against those from published features of the same tracks."""

from __future__ import annotations

import numpy as np
import pytest

from musicclass.audio import load
from musicclass.classifier import Classifier
from musicclass.config import FeatureConfig
from musicclass.datasets import feature_archive, gtzan
from musicclass.features import TrackFeatures, log_mel
from tests.conftest import RATE, SHARED, script

AUDIO, SPECTROGRAMS = SHARED / "gtzan" / "genres_original", SHARED / "gtzan" / "logmel_visible.npz"
pytestmark = pytest.mark.skipif(
    not (AUDIO.exists() and SPECTROGRAMS.exists()), reason="needs GTZAN's audio and features in ../shared/data/gtzan"
)


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """Track id -> log-mel frames."""
    path, wanted = tmp_path_factory.mktemp("archive") / "visible.npz", {track.id for track in gtzan.read(AUDIO).tracks}
    tracks = (item for item in script("scripts/convert_logmel.py").tracks(SPECTROGRAMS) if item[0].id in wanted)
    feature_archive.write(path, tracks, FeatureConfig(n_mels_kept=127))
    dataset = feature_archive.read(path)
    return {track.id: dataset.features(track, FeatureConfig(), False).log_mel for track in dataset.tracks}


def median_difference(waveform, image):
    """In dB, after min-max scaling: images (n_frames, n_mels) keep neither gain nor floor.

    An image shows every 1.785th frame of hop 512, in clips of 1,293 frames.
    """
    config = FeatureConfig(hop_length=512, n_mels_kept=image.shape[1])
    frames = log_mel(waveform, config)
    columns = ((1.78522 * (np.arange(len(image)) + 1) + 3.3003) * len(frames) / 1293).astype(int)
    decibels = np.maximum(frames - frames.max(), -80)[np.minimum(columns, len(frames) - 1)]
    scaled = [(values - values.min()) / np.ptp(values) for values in (decibels, image)]
    return np.median(np.abs(scaled[0] - scaled[1])) * np.ptp(decibels)


def test_features_of_audio_match_published_ones(published):
    tracks = gtzan.read(AUDIO).tracks[::8]
    assert max(median_difference(load(track.path, RATE), published[track.id]) for track in tracks) < 0.2  # dB


@pytest.mark.slow
def test_predictions_from_audio_match_those_from_published_features(published):
    classifier, n_equal, differences = Classifier.load("gtzan"), 0, []
    for track in gtzan.read(AUDIO).tracks:
        a, b = classifier.predict(track.path), classifier.predict_features(TrackFeatures(published[track.id], 30.0))
        n_equal += a.genre == b.genre
        differences.append(max(abs(a.probabilities[genre] - b.probabilities[genre]) for genre in classifier.genres))
    assert len(differences) == 74 and n_equal >= 72 and np.median(differences) < 0.02
