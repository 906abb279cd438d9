"""The path from real audio against published features of the same tracks, where both are at hand."""

from __future__ import annotations

import numpy as np
import pytest

from musicclass.audio import load
from musicclass.classifier import Classifier
from musicclass.config import FeatureConfig
from musicclass.datasets import archive, gtzan
from tests.conftest import RATE, ROOT, SHARED, script

AUDIO, FRAMES = SHARED / "gtzan" / "genres_original", SHARED / "gtzan" / "logmel_visible.npz"
pytestmark = pytest.mark.skipif(
    not (AUDIO.exists() and FRAMES.exists()), reason="GTZAN's audio and features are not beside the project"
)


@pytest.fixture(scope="module")
def frames(tmp_path_factory):
    target = tmp_path_factory.mktemp("archive") / "visible.npz"
    convert = script("scripts/convert_logmel.py")
    archive.write(target, convert.tracks(FRAMES), FeatureConfig(n_bands=127))
    return archive.read(target)


def test_answers_from_audio_and_from_frames_agree(frames):
    classifier, audio = Classifier.load(), gtzan.read(AUDIO)
    by_id = {track.id: track for track in frames.tracks}
    same, gaps = 0, []
    for track in audio.tracks:
        heard = classifier.predict(track.path)
        read = classifier.predict_log_mel(frames.log_mel(by_id[track.id], FeatureConfig()), 30.0, track.id)
        same += heard.genre == read.genre
        gaps.append(max(abs(heard.probabilities[genre] - read.probabilities[genre]) for genre in classifier.genres))
    assert len(audio.tracks) == 74
    assert same >= 72 and np.median(gaps) < 0.02


def test_features_of_audio_are_the_published_ones(frames, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    agreement = script("benchmarks/audio_agreement.py")
    by_id = {track.id: track for track in frames.tracks}
    tracks = gtzan.read(AUDIO).tracks[::8]
    errors = [
        agreement.feature_difference(load(track.path, RATE), frames.log_mel(by_id[track.id], FeatureConfig()))
        for track in tracks
    ]
    assert np.median(errors) < 0.3 and max(errors) < 0.3
