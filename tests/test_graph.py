"""The exported graphs against their reference in numpy."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from musicclass.config import FeatureConfig
from musicclass.features import log_mel, mfcc
from musicclass.onnx_session import create_session
from musicclass.tagger import EMBEDDING_SIZE
from musicclass.training.calibration import Calibrator
from musicclass.training.cross_validation import Calibration
from musicclass.training.graph import build_frontend, build_model
from musicclass.training.ood import EmbeddingOodScorer, FeatureOodScorer, LogitOodScorer
from musicclass.training.tagger_head import Linear, TaggerHead
from musicclass.windows import log_mel_windows, window_starts
from tests.conftest import make_music, make_noise

FEATURES = FeatureConfig(n_mfcc=16)
N_GENRES = 4


def make_network(rng: np.random.Generator) -> tuple[bytes, np.ndarray]:
    """A network whose logits are a linear function of the mean MFCCs, and its weights."""
    weights = rng.standard_normal((FEATURES.n_mfcc, N_GENRES)).astype(np.float32) / 40
    nodes = [
        helper.make_node("ReduceMean", ["mfcc"], ["mean"], axes=[1], keepdims=0),
        helper.make_node("MatMul", ["mean", "weights"], ["logits"]),
    ]
    mfcc_input = helper.make_tensor_value_info("mfcc", TensorProto.FLOAT, ["n", "t", FEATURES.n_mfcc])
    output = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", N_GENRES])
    graph = helper.make_graph(nodes, "g", [mfcc_input], [output], [numpy_helper.from_array(weights, "weights")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 15)], ir_version=8)
    return model.SerializeToString(), weights


def make_windows(rng: np.random.Generator, n: int, n_frames: int = 50) -> np.ndarray:
    return 80 * rng.random((n, n_frames, FEATURES.n_mels_kept), dtype=np.float32)


@pytest.fixture(scope="module", params=["logits and features", "features"])
def model(request):
    """The session of a model with these OOD scorers, its calibrator, and its network as a function."""
    rng = np.random.default_rng(0)
    network, weights = make_network(rng)
    training = [mfcc(make_windows(rng, 3), FEATURES.n_mfcc) for _ in range(20)]
    labels = np.arange(60) % N_GENRES
    logits = LogitOodScorer.fit(rng.standard_normal((60, N_GENRES)) + 2 * np.eye(N_GENRES)[labels], labels)
    scorer = logits if request.param == "logits and features" else None
    calibrator = Calibrator(1.7, rng.standard_normal(N_GENRES), FeatureOodScorer.fit(training, training), scorer)
    calibration = Calibration({"lda": 1.0}, calibrator)
    session = create_session(build_model(network, calibration, None, FEATURES, "abcd"))
    return session, calibrator, lambda mfccs: mfccs.mean(axis=1) @ weights


@pytest.mark.parametrize(("n", "n_frames", "silent"), [(1, 30, ()), (5, 50, (0, 3)), (33, 50, (32,)), (70, 12, ())])
def test_model_graph_equals_the_calibrator(model, n, n_frames, silent):
    session, calibrator, network = model
    windows = make_windows(np.random.default_rng(n), n, n_frames)
    windows[list(silent)] = 0
    outputs = session.run(
        ["probabilities", "familiarity", "window_probabilities", "window_familiarity"], {"windows": windows}
    )
    sounding = windows.any(axis=(1, 2))
    mfccs = mfcc(windows[sounding], FEATURES.n_mfcc)
    expected = calibrator.score(network(mfccs), calibrator.feature_ood.distance(mfccs))
    for actual, wanted in zip(outputs, expected, strict=True):
        actual = actual[sounding] if np.shape(actual)[:1] == (n,) and n != N_GENRES else actual
        np.testing.assert_allclose(actual, wanted, atol=1e-5)
    for by_window in outputs[2:]:
        assert not by_window[~sounding].any()


@pytest.mark.parametrize("with_expert", [True, False])
def test_model_graph_with_tagger_equals_the_reference_with_and_without_embeddings(with_expert):
    rng = np.random.default_rng(1)
    network, weights = make_network(rng)
    labels = np.arange(80) % N_GENRES
    embeddings = rng.standard_normal((80, EMBEDDING_SIZE), dtype=np.float32)
    embeddings[:, :N_GENRES] += 2 * np.eye(N_GENRES, dtype=np.float32)[labels]

    def linear(n: int) -> Linear:
        return Linear(rng.standard_normal((EMBEDDING_SIZE, n)) / 5, rng.standard_normal(n))

    head = TaggerHead(linear(N_GENRES), 0.01, linear(3), linear(1), np.array([0, 1, 3]))
    head = head if with_expert else TaggerHead(head.general)
    training = [mfcc(make_windows(rng, 3), FEATURES.n_mfcc) for _ in range(20)]
    ood = FeatureOodScorer.fit(training, training)
    scorers = [LogitOodScorer.fit(rng.standard_normal((80, N_GENRES)) + np.eye(N_GENRES)[labels], labels) for _ in "ab"]
    embedding_ood = EmbeddingOodScorer.fit(embeddings, labels, N_GENRES)
    together = Calibrator(1.3, rng.standard_normal(N_GENRES), ood, scorers[0], embedding_ood)
    alone = Calibrator(0.8, rng.standard_normal(N_GENRES), ood, scorers[1])
    calibration = Calibration({"lda": 0.4, "tagger": 0.6}, together, alone)
    session = create_session(build_model(network, calibration, head, FEATURES, "abcd"))
    windows = make_windows(rng, 7)
    windows[2] = 0
    sounding = np.arange(7) != 2
    mfccs = mfcc(windows[sounding], FEATURES.n_mfcc)
    logits, distance = mfccs.mean(axis=1) @ weights, ood.distance(mfccs)
    tagger_logits = head.logits(embeddings[:7])
    np.testing.assert_allclose(np.exp(tagger_logits.astype(float)).sum(axis=1), 1, atol=1 if with_expert else 1e-5)
    with_tagger = together.score(logits + 0.6 * tagger_logits[sounding], distance, embeddings[:7][sounding])
    for given, expected in ((embeddings[:7], with_tagger), (0 * embeddings[:7], alone.score(logits, distance))):
        outputs = session.run(list(expected._fields), {"windows": windows, "embeddings": given})
        for name, actual in zip(expected._fields, outputs, strict=True):
            actual = actual[sounding] if name.startswith("window") else actual
            np.testing.assert_allclose(actual, getattr(expected, name), atol=1e-5)


def test_model_graph_scores_nothing_but_silence_with_finite_values(model):
    outputs = model[0].run(None, {"windows": np.zeros((2, 30, FEATURES.n_mels_kept), np.float32)})
    assert all(np.isfinite(output).all() for output in outputs)


@pytest.fixture(scope="module")
def frontend():
    return create_session(build_frontend(FEATURES))


@pytest.mark.parametrize("seconds", [1.0, 12.3, 31.0, 95.0])
@pytest.mark.parametrize("sound", ["music", "noise, silence, noise", "silence"])
def test_frontend_graph_equals_features_and_windows(frontend, seconds, sound):
    samples = make_music(seconds) if sound == "music" else make_noise(seconds)
    if sound == "silence":
        samples[:] = 0
    elif sound != "music":
        samples[len(samples) // 4 : -len(samples) // 10] = 0
    log_mel_frames, windows, starts, means = frontend.run(None, {"samples": samples})
    frames = log_mel(samples, FEATURES)
    audible = frames > frames.max() - FEATURES.top_db  # below that, float32 has no digits left
    np.testing.assert_allclose(log_mel_frames[audible], frames[audible], atol=1e-3)
    expected = log_mel_windows(frames, FEATURES)
    np.testing.assert_allclose(windows, expected, atol=1e-3)
    np.testing.assert_array_equal(windows.any(axis=(1, 2)), expected.any(axis=(1, 2)))
    assert starts.tolist() == window_starts(len(frames), FEATURES)
    np.testing.assert_allclose(means, expected.mean(axis=(1, 2)), atol=1e-3)
