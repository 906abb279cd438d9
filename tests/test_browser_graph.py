"""The tagger's part of the browser's graphs against tagger.py and windows.py."""

from __future__ import annotations

import numpy as np
import pytest

from musicclass import tagger
from musicclass.config import FeatureConfig
from musicclass.features import track_features
from musicclass.onnx_session import create_session
from musicclass.training.browser_graph import build_pooling, build_tagger_frontend
from musicclass.windows import windows_of_track
from tests.conftest import make_noise

FEATURES = FeatureConfig(n_mfcc=16)
PATCH_SECONDS = tagger.PATCH_SAMPLES / tagger.SAMPLE_RATE


class RecordingTagger:
    """Embeddings are the first samples of a patch; tag logits are the average song's and the samples."""

    def __init__(self):
        self.patches = np.zeros((0, tagger.PATCH_SAMPLES), np.float32)

    def run(self, names, inputs):
        samples = inputs["samples"]
        self.patches = np.concatenate([self.patches, samples])
        mean, std = tagger.tag_statistics()
        logits = mean + std * (100 * samples[:, :50] + np.linspace(-3, 2, 50))
        return [samples[:, : tagger.EMBEDDING_SIZE], logits.astype(np.float32)]


@pytest.fixture
def recorder(monkeypatch):
    recorder = RecordingTagger()
    monkeypatch.setattr(tagger, "available", lambda: True)
    monkeypatch.setattr(tagger, "_session", lambda: recorder)
    return recorder


@pytest.fixture(scope="module")
def sessions():
    return create_session(build_tagger_frontend(FEATURES)), create_session(build_pooling())


@pytest.mark.parametrize("silence", [None, (0.0, 0.5), (0.2, 0.9), (0.0, 0.99)])
@pytest.mark.parametrize("n_patches", [0.35, 0.999, 1.0, 5.5, 16.0, 17.3, 31.9, 32.0, 33.0, 62.0, 63.9, 150.0])
def test_graphs_equal_the_tagger_and_its_windows(sessions, recorder, n_patches, silence):
    samples = 0.1 * make_noise(n_patches * PATCH_SECONDS)
    samples *= np.linspace(1, 0.3, len(samples), dtype=np.float32)
    if silence:
        samples[int(silence[0] * len(samples)) : int(silence[1] * len(samples))] = 0
    track = windows_of_track(track_features([samples], FEATURES, with_tagger=True), FEATURES)
    frontend, pooling = sessions
    windows, patches, weights = frontend.run(["windows", "patches", "patch_weights"], {"samples": samples})
    np.testing.assert_allclose(windows, track.windows, atol=2e-3)
    if track.patches is None:
        assert not weights.any() and np.isfinite(patches).all()
    else:
        np.testing.assert_allclose(patches, recorder.patches, rtol=1e-5, atol=1e-6)
    embeddings, logits = RecordingTagger().run((), {"samples": patches})
    inputs = {"patch_weights": weights, "embeddings": embeddings, "tag_logits": logits}
    window_embeddings, tags, probabilities = pooling.run(None, inputs)
    np.testing.assert_allclose(window_embeddings, track.embeddings, atol=1e-5)
    actual = {tagger.TAGS[i]: p for i, p in zip(tags, probabilities.tolist(), strict=True)}
    expected = tagger.characteristic_tags(track.patches)
    assert list(actual) == list(expected) and actual == pytest.approx(expected, abs=1e-4)
