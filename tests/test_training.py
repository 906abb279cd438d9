"""Training: networks, LDA, batches, resuming, export, the saved model, cross-validation."""

from __future__ import annotations

import csv
import json
from collections import Counter
from dataclasses import replace

import keras
import numpy as np
import onnx
import pytest
import scipy.fft
import scipy.signal
import scipy.stats
import soundfile
from scipy.special import softmax
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from musicclass.classifier import Classifier
from musicclass.config import Config, FeatureConfig, ModelConfig, load_config
from musicclass.datasets import Track, folder
from musicclass.datasets.splits import Split, make_split
from musicclass.errors import ConfigError, DatasetError, LeakError, ModelError
from musicclass.evaluation.evaluate import compute_metrics, evaluate_tracks, read_predictions
from musicclass.features import TrackFeatures, log_mel
from musicclass.saved_model import load_model
from musicclass.tagger import EMBEDDING_SIZE
from musicclass.training import cross_validation, export, trainer
from musicclass.training.batches import ContrastiveBatches, LabelledBatches
from musicclass.training.cnn_lstm import build_cnn_lstm
from musicclass.training.cross_validation import HeldOut, evaluate_folds
from musicclass.training.ensemble import (
    TEMPERATURE,
    build_backbone,
    build_ensemble,
    build_network,
    network_configs,
    supervised_contrastive_loss,
)
from musicclass.training.export import onnx_predict_fn, quantize_int8, to_onnx
from musicclass.training.lda import RhythmStatistics, TextureStatistics, build_lda, weighted_lda
from musicclass.training.networks import Monitor, train_networks
from musicclass.training.ood import FeatureOodScorer
from musicclass.training.tracks import LabelledTracks, WindowedTracks
from musicclass.training.train import train
from tests.conftest import RATE, make_noise, make_tone

SMALL = (
    "features.window_seconds=1",
    "features.n_mfcc=20",
    "model.inverse_dct_bands=16",
    "model.filters=[4, 8]",
    "model.time_pool=[2, 2]",
    "model.freq_pool=[4, 4]",
    "model.lstm_units=8",
    "model.bidirectional=false",
    "training.epochs=3",
    "training.batch_size=16",
    "training.learning_rate=0.02",
)
CNN = (*SMALL, "model.architecture=cnn_lstm")


def as_features(frames: dict[str, np.ndarray]) -> dict[str, TrackFeatures]:
    return {name: TrackFeatures(rows, len(rows) / FeatureConfig().frames_per_second) for name, rows in frames.items()}


def to_numpy(tensor) -> np.ndarray:
    return keras.ops.convert_to_numpy(tensor)


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """Eight clips by four artists for each of two genres that are easy to classify."""
    root = tmp_path_factory.mktemp("clips") / "easy"
    for i in range(8):
        for genre, sound in (("hiss", make_noise(3, seed=i)), ("tone", make_tone(200 + 50 * i))):
            (root / genre).mkdir(parents=True, exist_ok=True)
            soundfile.write(root / genre / f"{i}.wav", sound, RATE)
    dataset = folder.read(root)
    tracks = (replace(track, artist=f"{track.genre} {i // 2}") for i, track in enumerate(dataset.tracks))
    return replace(dataset, tracks=tuple(tracks))


@pytest.fixture(scope="module")
def tracks(clips):
    return LabelledTracks.load(clips, [track.id for track in clips.tracks], load_config(None, SMALL))


@pytest.fixture(scope="module")
def model(clips, tmp_path_factory):
    """A saved model of both branches, and the steps that its training reported."""
    steps: list[trainer.Step] = []
    out = tmp_path_factory.mktemp("runs") / "easy"
    return train(
        clips, make_split(clips, "artist"), load_config(None, SMALL), out, monitor=Monitor(steps.append)
    ), steps


# Networks


def build_networks(config: Config) -> dict[str, list[keras.Model]]:
    return {branch: [build_network(each, 3) for each in items] for branch, items in network_configs(config).items()}


@pytest.mark.parametrize(
    "settings",
    [
        (),
        ("model.temporal_pooling=last", "model.lstm_layers=2"),
        ("model.temporal_pooling=mean", "model.bidirectional=true", "model.inverse_dct_bands=0"),
        ("model.architecture=lda",),
        ("model.architecture=baseline",),
    ],
)
def test_networks_take_windows_of_any_length_in_keras_and_in_onnx(settings):
    config = load_config(None, (*CNN, *settings))
    keras.utils.set_random_seed(0)
    network = build_network(config, 3)
    architecture = config.model.architecture
    exported = to_onnx(build_ensemble({architecture: [network]}, {architecture: 2.0}))
    for length in (12, 100):
        windows = np.random.default_rng(0).standard_normal((2, length, 20)).astype(np.float32)
        np.testing.assert_allclose(onnx_predict_fn(exported)(windows), 2 * to_numpy(network(windows)), atol=1e-4)
    operators = {node.op_type for node in onnx.load_model_from_string(exported).graph.node}
    assert ("LSTM" in operators) == (architecture != "lda") and not operators & {"Loop", "Scan"}


@pytest.mark.slow
def test_networks_of_other_backends_are_exported_in_a_second_process(monkeypatch):
    ensemble = build_ensemble(build_networks(load_config(None, SMALL)), {"cnn_lstm": 0.3, "lda": 0.7})
    monkeypatch.setattr(keras.backend, "backend", lambda: "other")
    assert onnx.load_model_from_string(to_onnx(ensemble)).graph.output


def test_lstm_steps_depend_on_neighboring_frames_alone():
    keras.utils.set_random_seed(0)
    sizes = {"stem_kernel": (3, 3), "filters": (4, 4), "time_pool": (2, 2), "freq_pool": (2, 2)}
    network = build_cnn_lstm(20, 3, ModelConfig(**sizes, squeeze_excite=False, inverse_dct_bands=0))
    windows = np.zeros((2, 80, 20), np.float32)
    windows[1, 40] = 1
    steps = to_numpy(keras.Model(network.inputs, network.get_layer("lstm1").input)(windows))
    changed = np.flatnonzero(np.abs(steps[1] - steps[0]).max(axis=1))
    assert steps.shape[1] == 20 and set(changed) <= {8, 9, 10, 11, 12} and 10 in changed


@pytest.mark.parametrize("norm", [True, False])
def test_cepstral_mean_normalization_cancels_an_equalizer(norm):
    """An equalizer adds the same to each frame's MFCCs."""
    windows = np.random.default_rng(0).standard_normal((2, 80, 20)).astype(np.float32)
    network = build_cnn_lstm(20, 3, replace(load_config(None, CNN).model, cepstral_mean_norm=norm))
    before, after = (to_numpy(network(x)) for x in (windows, windows + np.linspace(9, -9, 20, dtype=np.float32)))
    assert np.allclose(before, after, atol=1e-4) == norm


def test_an_ensemble_is_the_weighted_sum_of_its_branches_means():
    config = load_config(None, (*SMALL, "model.ensemble_size=3", "training.pretrain_epochs=5"))
    configs = network_configs(config)
    assert [each.training.seed for each in configs["cnn_lstm"]] == [42, 43, 44]
    assert [each.model.cepstral_mean_norm for each in configs["cnn_lstm"]] == [False, True, False]
    assert [(c.training.epochs, c.training.pretrain_epochs) for c in configs["lda"]] == [(1, 0)]
    networks = build_networks(config)
    ensemble = build_ensemble(networks, {"cnn_lstm": 0.3, "lda": 0.7})
    windows = np.random.default_rng(0).standard_normal((4, 30, 20)).astype(np.float32)
    outputs = {branch: np.mean([to_numpy(n(windows)) for n in items], axis=0) for branch, items in networks.items()}
    expected = 0.3 * outputs["cnn_lstm"] + 0.7 * outputs["lda"]
    np.testing.assert_allclose(to_numpy(ensemble(windows)), expected, atol=1e-5)
    assert ensemble.count_params() == sum(n.count_params() for items in networks.values() for n in items)


@pytest.mark.parametrize("n", [1, 2])
def test_backbone_onnx_gives_the_inputs_of_the_logits(n):
    config = load_config(None, (*CNN, f"model.ensemble_size={n}"))
    networks = build_networks(config)["cnn_lstm"]
    exported = to_onnx(build_backbone(networks), "features")
    windows = np.random.default_rng(0).standard_normal((4, 30, 20)).astype(np.float32)
    features = np.split(onnx_predict_fn(exported)(windows), n, axis=1)
    for network, x in zip(networks, features, strict=True):
        weights, biases = network.get_layer("logits").get_weights()
        np.testing.assert_allclose(x @ weights + biases, to_numpy(network(windows)), atol=1e-4)
    graph = onnx.load_model_from_string(exported).graph
    assert [x.name for x in (*graph.input, *graph.output)] == ["mfcc", "features"]


# LDA


def test_texture_statistics_equal_those_of_scipy():
    mfccs = np.cumsum(np.random.default_rng(0).standard_normal((2, 300, 50)), axis=1).astype(np.float32)
    for actual, x in zip(to_numpy(TextureStatistics()(mfccs)), mfccs[:, :, :40].astype(float), strict=True):
        z = (x - x.mean(axis=0)) / x.std(axis=0)
        expected = [x.mean(axis=0), np.log(x.std(axis=0)), scipy.stats.skew(x)]
        expected += [np.log(scipy.stats.kurtosis(x, fisher=False)), np.log(np.abs(z).mean(axis=0))]
        expected.append(np.corrcoef(x.T)[:20, :20][np.triu_indices(20, 1)])
        for lag in (1, 2, 4, 8, 16, 32):
            correlation = z[:-lag].T @ z[lag:] / len(z)
            expected.append(np.log(x.std(axis=0)) + np.log(1.001 - np.diag(correlation)) / 2)
            if lag in (2, 8, 32):
                expected.append(correlation[:12, :12].ravel())
        np.testing.assert_allclose(actual, np.concatenate(expected), atol=0.02)  # offsets keep logarithms finite


def test_rhythm_statistics_equal_those_of_scipy():
    mfccs = 100 * np.random.default_rng(0).standard_normal((2, 240, 30)).astype(np.float32)
    hann = scipy.signal.windows.hann(242)[1:-1]
    for actual, x in zip(to_numpy(RhythmStatistics()(mfccs)), mfccs.astype(float), strict=True):
        bands = scipy.fft.idct(x[:, :16], norm="ortho")
        onsets = np.maximum(np.diff(bands, axis=0, append=bands[-1:]), 0)
        expected = [np.log(onsets.mean(axis=0)), np.log(onsets.std(axis=0)), scipy.stats.skew(onsets)]
        moving = np.concatenate([onsets, x[:, :20]], axis=1)
        power = np.abs(np.fft.rfft((moving - moving.mean(axis=0)) * hann[:, None], axis=0)) ** 2 / np.sum(hann**2)
        for low, high in [(3, 8), (8, 15), (15, 30), (30, 60), (60, 121)]:  # of 240
            expected.append(np.log(power[low:high].max(axis=0) / power[low:high].mean(axis=0)))
        np.testing.assert_allclose(actual, np.concatenate(expected), atol=0.03)


@pytest.mark.parametrize("window", [np.zeros((1, 1)), np.zeros((50, 1)), np.full((240, 1), 1e4), np.full((3, 1), -70)])
def test_statistics_of_constant_and_short_windows_are_finite(window):
    windows = np.repeat(window, 20, axis=1)[None].astype(np.float32)
    assert np.isfinite(to_numpy(build_lda(20, 3, ModelConfig())(windows))).all()


def test_lda_equals_that_of_scikit_learn():
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(3), 20)
    x = rng.standard_normal((60, 8)) @ rng.standard_normal((8, 8)) + rng.standard_normal((3, 8))[labels]
    coefficients, intercepts = weighted_lda(x, np.ones(60), labels, 3, 0.4)
    expected = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=0.4).fit(x, labels).decision_function(x)
    actual = x @ coefficients + intercepts
    np.testing.assert_allclose(actual - actual[:, :1], expected - expected[:, :1], atol=1e-3)


def test_lda_with_weights_equals_lda_with_repeated_samples():
    rng = np.random.default_rng(0)
    x, labels, times = rng.standard_normal((12, 4)), np.arange(12) % 3, rng.integers(1, 4, 12)
    weighted = weighted_lda(x, times / 7, labels, 3, 0.5)
    repeated = weighted_lda(np.repeat(x, times, axis=0), np.ones(times.sum()), np.repeat(labels, times), 3, 0.5)
    for actual, expected in zip(weighted, repeated, strict=True):
        np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("n", [0, 1, 3])
def test_lda_of_few_or_equal_samples_is_finite(n):
    for x in (np.zeros((3, 5)), np.random.default_rng(0).standard_normal((3, 5))):
        solution = weighted_lda(x[:n], np.ones(n), np.array([0, 0, 1][:n], int), 2, 0.6)
        assert all(np.isfinite(values).all() for values in solution)


# Batches


def test_batches_are_reproducible_and_differ_between_epochs(tracks):
    batches = LabelledBatches(tracks, load_config(None, SMALL))
    windows, targets = batches[1]
    assert len(batches) == 3 and windows.shape == (16, 24, 20) and targets.shape == (16, 2)
    np.testing.assert_array_equal(batches[1][0], windows)
    batches.epoch = 1
    assert not np.array_equal(batches[1][0], windows)
    pairs, ids = ContrastiveBatches(tracks, load_config(None, SMALL))[0]
    np.testing.assert_array_equal(ids[:16], ids[16:])
    assert all(not np.array_equal(a, b) for a, b in zip(pairs[:16], pairs[16:], strict=True))


def test_crops_are_drawn_by_genre_and_by_confidence_of_labels():
    lengths = {"a": 6, "b": 60}
    tracks = [Track(f"{g}{i}", g, confidence="low" if i % 2 else "") for g, n in lengths.items() for i in range(n)]
    frames = np.random.default_rng(0).random((40, 112), dtype=np.float32)
    labelled = LabelledTracks(("a", "b"), tuple(tracks), {track.id: TrackFeatures(frames, 1.0) for track in tracks})
    settings = (*SMALL, "training.crops_per_track=30")

    def draw(*more: str) -> dict[tuple[str, str], int]:
        batches = LabelledBatches(labelled, load_config(None, (*settings, *more)))
        chosen = np.concatenate([batches._choose(i)[0] for i in range(len(batches))])
        return Counter((tracks[i].genre, tracks[i].confidence) for i in chosen)

    assert draw() == {("a", ""): 90, ("a", "low"): 90, ("b", ""): 900, ("b", "low"): 900}
    counts, total = draw("training.genre_balance=1", "training.label_weights=[1.0, 1.0, 0.25]"), 66 * 30
    for genre in "ab":
        assert counts[genre, ""] + counts[genre, "low"] == pytest.approx(total / 2, rel=0.1)
        assert counts[genre, "low"] == pytest.approx(counts[genre, ""] / 4, rel=0.2)
    assert ("b", "low") not in draw("training.label_weights=[1.0, 1.0, 0.0]")


def test_supervised_contrastive_loss_equals_its_formula():
    """Khosla et al. 2020, equation 2, by loops."""
    vectors = np.random.default_rng(0).standard_normal((7, 5)).astype(np.float32)
    ids = np.array([0, 1, 2, 0, 1, 2, 0])
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    similarity = np.exp(unit @ unit.T / TEMPERATURE)
    expected = []
    for i in range(7):
        others = [j for j in range(7) if j != i]
        shares = [similarity[i, j] / similarity[i, others].sum() for j in others if ids[j] == ids[i]]
        expected.append(-np.mean(np.log(shares)))
    loss = to_numpy(supervised_contrastive_loss(ids, keras.ops.convert_to_tensor(vectors)))
    np.testing.assert_allclose(loss, expected, rtol=1e-4)


def test_windows_of_tracks_of_any_length_keep_their_order():
    config = load_config(None, SMALL).features
    lengths = {"a": 30, "b": 24, "c": 100, "d": 10}
    frames = {name: np.random.default_rng(n).random((n, 112), dtype=np.float32) for name, n in lengths.items()}
    tracks = LabelledTracks(("x",), tuple(Track(name, "x") for name in lengths), as_features(frames))
    outputs = WindowedTracks.of(tracks, config).predict(lambda batch: batch[:, 0, :2], batch_size=2)
    assert [len(rows) for rows in outputs] == [2, 1, 5, 1]
    for name, rows in zip(lengths, outputs, strict=True):
        alone = WindowedTracks.of(tracks.subset([name], "x"), config).predict(lambda batch: batch[:, 0, :2])[0]
        np.testing.assert_array_equal(rows, alone)


def test_shifted_windows_differ_in_pitch_and_tempo_alone():
    config = load_config(None, ("augment.lowpass_prob=1", "augment.comb_filter_prob=1", "augment.noise_floor_prob=1"))
    ramp = (0.05 * np.arange(400)[:, None] - 0.1 * np.arange(112)).astype(np.float32)
    tracks = LabelledTracks(("x",), (Track("a", "x"),), as_features({"a": ramp}))
    (plain,) = WindowedTracks.of(tracks, config.features).windows
    still = replace(config, augment=replace(config.augment, pitch_semitones=0.0, time_stretch=0.0))
    (unshifted,), (shifted,) = (WindowedTracks.shifted(tracks, c).windows for c in (still, config))
    np.testing.assert_allclose(unshifted[:, :, 1:] - plain[:1, :, 1:], 0, atol=1e-2)
    assert np.ptp(shifted[:, 0, 0]) > 1
    assert not np.allclose(np.diff(shifted[0], axis=0), np.diff(plain[0], axis=0), atol=1e-3)
    np.testing.assert_array_equal(WindowedTracks.shifted(tracks, config).windows[0], shifted)


def test_comb_filter_brings_recordings_by_two_microphones_into_distribution():
    """A copy half a millisecond late is far from noise, and less far where comb filters are training data."""
    config = load_config(None, SMALL).features
    sounds = [np.cumsum(make_noise(4, seed=seed)) / 50 for seed in range(60)]
    late = [sound + 0.7 * np.concatenate([np.zeros(11, np.float32), sound[:-11]]) for sound in sounds[:20]]

    def load(part: list[np.ndarray]) -> LabelledTracks:
        frames = {str(i): log_mel(np.float32(sound), config) for i, sound in enumerate(part)}
        return LabelledTracks(("x",), tuple(Track(name, "x") for name in frames), as_features(frames))

    training = load(sounds[20:40])
    plain, combed = WindowedTracks.of(training, config), WindowedTracks.with_comb_filter(training, config)
    assert sum(map(len, combed.windows)) == 2 * sum(map(len, plain.windows))
    heldout, late_windows = (WindowedTracks.of(load(part), config).windows for part in (sounds[40:], late))
    scorers = (FeatureOodScorer.fit(known.windows, heldout) for known in (plain, combed))
    outside, inside = (np.mean([scorer.distance(windows).mean() for windows in late_windows]) for scorer in scorers)
    assert outside > 10 and inside < outside / 2


# Training and resuming


class Interruption(Exception):
    pass


@pytest.fixture
def eager():
    """Run training without compiling it, which takes most of the time of these small networks."""
    import tensorflow as tf

    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


def interrupt_after(epoch: int) -> Monitor:
    def report(step: trainer.Step) -> None:
        if step.metrics.get("epoch") == epoch:
            raise Interruption

    return Monitor(report)


def assert_same_weights(*networks: dict) -> None:
    first, second = ([w for m in n.values() for each in m for w in each.network.get_weights()] for n in networks)
    for actual, expected in zip(first, second, strict=True):
        np.testing.assert_array_equal(actual, expected)


@pytest.mark.parametrize("pretrain_epochs", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_a_resumed_run_ends_with_the_same_weights(tracks, tmp_path, eager, pretrain_epochs):
    """Interrupted in the pretraining, then in the training, whose dropout has to be the same as well."""
    settings = (*CNN, f"training.pretrain_epochs={pretrain_epochs}", "training.epochs=2")
    config = load_config(None, settings)
    whole = train_networks(config, tracks, tracks, tmp_path / "whole", Monitor())
    broken = tmp_path / "broken"
    for _ in range(2 if pretrain_epochs else 1):
        with pytest.raises(Interruption):
            train_networks(config, tracks, tracks, broken, interrupt_after(1))
    other = load_config(None, (*settings, "training.weight_decay=0"))
    for changed in ((other, tracks), (config, tracks.subset(tracks.ids[1:], "x"))):
        with pytest.raises(DatasetError, match="other settings or tracks"):
            train_networks(*changed, tracks, broken, Monitor())
    resumed = train_networks(config, tracks, tracks, broken, Monitor())
    assert_same_weights(resumed, whole)
    assert resumed["cnn_lstm"][0].history == whole["cnn_lstm"][0].history
    assert [row["epoch"] for row in resumed["cnn_lstm"][0].history] == [1, 2]
    backup = broken / "cnn_lstm-42" / "backup"
    (backup / "latest.weights.h5").write_bytes(b"PK")
    assert_same_weights(train_networks(config, tracks, tracks, broken, Monitor()), whole)  # from the backup before that
    (backup / "latest.weights.h5.bkp").unlink()
    (backup / "latest.weights.h5").write_bytes(b"PK")
    with pytest.raises(DatasetError, match="delete"):
        train_networks(config, tracks, tracks, broken, Monitor())


@pytest.mark.slow
def test_networks_start_from_the_pretrained_backbone(tracks, tmp_path):
    settings = ("training.pretrain_epochs=1", "training.epochs=1", "training.learning_rate=1e-9")
    config = load_config(None, (*CNN, *settings, "model.ensemble_size=2"))
    first, second = train_networks(config, tracks, None, tmp_path, Monitor())["cnn_lstm"]
    for name in ("conv1", "conv2"):
        kernels = [each.network.get_layer(name).get_weights()[0] for each in (first, second)]
        np.testing.assert_allclose(*kernels, atol=1e-6)
    assert not np.allclose(*(each.network.get_layer("logits").get_weights()[0] for each in (first, second)))
    assert [each.config.model.cepstral_mean_norm for each in (first, second)] == [False, True]


@pytest.mark.slow
def test_pretraining_pulls_windows_of_a_track_together(tracks, tmp_path):
    """Tones of eight pitches, none of which is augmented to the next."""
    settings = (
        "training.pretrain_epochs=20",
        "training.epochs=1",
        "augment.pitch_semitones=0.2",
        "augment.time_stretch=0",
    )
    tones = tracks.subset([track.id for track in tracks.tracks if track.genre == "tone"], "x")
    train_networks(load_config(None, (*CNN, *settings)), tones, None, tmp_path, Monitor())
    with (tmp_path / "cnn_lstm-pretraining" / "history.csv").open() as file:
        losses = [float(row["loss"]) for row in csv.DictReader(file)]
    assert len(losses) == 20 and np.mean(losses[-5:]) < 0.9 * losses[0]


def test_lda_is_solved_at_once_and_reproducible(tracks, tmp_path):
    config = load_config(None, (*SMALL, "model.architecture=lda"))
    first, second, loaded = (train_networks(config, tracks, None, tmp_path / name, Monitor()) for name in "aba")
    assert_same_weights(first, second)
    assert_same_weights(first, loaded)
    windows = WindowedTracks.of(tracks, config.features)
    outputs = windows.predict(first["lda"][0].network.predict_on_batch)
    assert [int(logits.mean(axis=0).argmax()) for logits in outputs] == tracks.labels.tolist()


def test_a_loss_that_is_not_finite_is_an_error_with_a_remedy(clips, tmp_path, eager):
    config = load_config(None, (*CNN, "training.learning_rate=1e38"))
    with pytest.raises(ConfigError, match=r"cnn_lstm_42: the loss is NaN .* epoch 1 of .*learning_rate below"):
        train(clips, make_split(clips), config, tmp_path / "out")
    assert not (tmp_path / "out" / "card.json").exists()


def test_tuning_prunes_resumes_and_writes_a_configuration(clips, tmp_path, eager, monkeypatch):
    pytest.importorskip("optuna")
    from musicclass.training import tune as tuning

    config, split = load_config(None, (*CNN, "training.epochs=3")), make_split(clips)
    monkeypatch.setattr(tuning, "MIN_TRIALS", 1)
    monkeypatch.setattr(tuning, "MIN_EPOCHS", 0)
    search = ["training.learning_rate", "model.dropout"]
    steps = []

    def interrupt(step):
        steps.append(step)
        if step.network.startswith("trial 2") and step.metrics:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tuning.tune(clips, split, config, tmp_path, 4, search, Monitor(interrupt, history=tmp_path / "history.png"))
    assert len(list((tmp_path).glob("history.png"))) == 1 and load_config(str(tmp_path / "best.toml"))
    study = tuning.tune(clips, split, config, tmp_path, 4, search)
    assert len(tuning.finished_trials(study)) == 4 and len(study.trials) == 5, "one was interrupted"
    assert any(trial.state.name == "PRUNED" for trial in study.trials)
    rows = (tmp_path / "trials.csv").read_text().splitlines()
    assert rows[0] == "trial,state,epochs,validation_loss,training.learning_rate,model.dropout" and len(rows) == 5
    best = load_config(str(tmp_path / "best.toml"))
    assert best.training.learning_rate == study.best_params["training.learning_rate"]
    assert best.training.epochs == 3 and best.augment == config.augment
    assert len(tuning.tune(clips, split, config, tmp_path, 4, search).trials) == len(study.trials)
    with pytest.raises(ConfigError, match="other settings or tracks"):
        tuning.tune(clips, split, config, tmp_path, 4, search[:1])
    with pytest.raises(ConfigError, match="no CNN-LSTM"):
        tuning.tune(clips, split, load_config(None, ("model.architecture=lda",)), tmp_path / "lda", 1)


# The saved model


def test_the_saved_model_is_complete(model, clips):
    saved, steps = model
    assert {path.name for path in saved.path.iterdir()} == {
        "model.onnx", "frontend.onnx", "backbone.onnx", "card.json", "split.csv", "predictions.csv", "history.csv",
        "history.png", "confusion_matrix.png", "reliability.png",
    }  # fmt: skip
    card = json.loads((saved.path / "card.json").read_text())
    assert card["genres"] == ["hiss", "tone"] and card["metrics"]["test"]["accuracy"] == 1
    assert card["members"] == [
        {"architecture": "cnn_lstm", "seed": 42, "cepstral_mean_norm": False}, {"architecture": "lda", "seed": 42}
    ]  # fmt: skip
    assert sum(card["calibration"]["branch_weights"].values()) == pytest.approx(1)
    assert "artist_overlap" not in card["data"] and "CNN-LSTM and LDA, trained on" in card["summary"]
    assert (saved.path / "card.json").stat().st_size < 15_000
    assert [float(row["epoch"]) for row in saved.read_table("history.csv")] == [1, 2, 3]
    counts, predictions = card["data"]["counts"], read_predictions(saved.path / "predictions.csv")
    assert {subset: len(records) for subset, records in predictions.items()} | {"train": counts["train"]} == counts
    rows = saved.read_table("split.csv")
    assert len(rows) == 16 and {row["artist"] for row in rows} == {track.artist for track in clips.tracks}
    last = next(step for step in reversed(steps) if step.metrics)
    assert last.done == last.total and last.metrics["epoch"] == 3
    assert Classifier(saved).predict(clips.tracks[0].path).genre in ("hiss", "unknown")


def test_evaluation_reproduces_the_stored_predictions(model, clips):
    saved, _ = model
    stored = read_predictions(saved.path / "predictions.csv")["test"]
    records = evaluate_tracks(Classifier(saved), clips, [record.track for record in stored])
    for actual, expected in zip(records, stored, strict=True):
        assert actual.probabilities == pytest.approx(expected.probabilities, abs=1e-5)
    metrics = load_model(saved.path).card["metrics"]["test"]
    assert compute_metrics(records, saved.genres)["accuracy"] == metrics["accuracy"]


@pytest.mark.slow
def test_a_random_split_reports_shared_artists(clips, tmp_path):
    config = load_config(None, (*SMALL, "model.architecture=lda"))
    card = train(clips, make_split(clips, "random"), config, tmp_path).card
    assert card["data"]["artist_overlap"] == card["metrics"]["test"]["artist_overlap"] > 0
    assert "share an artist with training" in card["summary"]


def test_existing_models_interrupted_runs_and_leaks_are_errors(model, clips, tmp_path):
    split, config = make_split(clips), load_config(None, SMALL)
    with pytest.raises(DatasetError, match="exists already"):
        train(clips, split, config, model[0].path)
    (tmp_path / "begun" / "work").mkdir(parents=True)
    with pytest.raises(DatasetError, match="--resume"):
        train(clips, split, config, tmp_path / "begun")
    with pytest.raises(DatasetError, match=r"no validation tracks.*training\.calibration_folds=5"):
        train(clips, replace(split, valid=()), config, tmp_path / "out")
    with pytest.raises(LeakError, match=r"hiss/0\.wav"):
        train(clips, Split("own", ("hiss/0.wav",), ("hiss/0.wav",)), config, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_int8_changes_predictions_little_or_is_an_error(tracks, monkeypatch):
    config = load_config(None, CNN)
    windows = np.concatenate(WindowedTracks.of(tracks, config.features).windows)
    keras.utils.set_random_seed(0)
    network = to_onnx(build_network(config, 2))
    monkeypatch.setattr(export, "MAX_QUANTIZATION_GAP", 0.01)  # its weights are random
    quantized = quantize_int8(network, windows)
    operators = [node.op_type for node in onnx.load_model_from_string(quantized).graph.node]
    assert operators.count("QuantizeLinear") and operators.count("LSTM") and operators.count("Conv") == 2
    before, after = (softmax(onnx_predict_fn(content)(windows), axis=1) for content in (network, quantized))
    assert np.abs(before - after).max() < 0.05
    monkeypatch.setattr(export, "MAX_QUANTIZATION_GAP", 0.0)
    with pytest.raises(ModelError, match=r"training\.quantize=false"):
        quantize_int8(network, windows)


# Cross-validation


@pytest.mark.slow
def test_calibration_folds_train_on_all_tracks_and_report_cross_validation(clips, tmp_path):
    """The recipe of the pretrained model, small; interrupted once."""
    recipe = ("calibration_folds=2", "quantize=true", "pretrain_epochs=1", "epochs=1")
    settings = (*SMALL, "model.ensemble_size=2", *(f"training.{setting}" for setting in recipe))
    split, config = make_split(clips, "artist"), load_config(None, settings)

    def interrupt(step: trainer.Step) -> None:
        if step.network.startswith("fold 2 of 2: cnn_lstm"):
            raise Interruption

    with pytest.raises(Interruption):
        train(clips, split, config, tmp_path / "out", monitor=Monitor(interrupt))
    saved = train(clips, split, config, tmp_path / "out", resume=True)
    card = saved.card
    counts = card["data"]["counts"]
    assert counts == {"train": len(split.train + split.valid), "valid": 0, "test": len(split.test)}
    assert set(card["metrics"]) == {"test", "cv"} and card["metrics"]["cv"]["n_tracks"] == counts["train"]
    assert f"{counts['train']} held-out tracks of 2 folds" in card["calibration"]["data"]
    assert [m["seed"] for m in card["members"]] == [42, 43, 42] and card["members"][1]["pretraining_seed"] == 42
    assert not (saved.path / "work").exists()
    own_split = make_split(clips, str(saved.path / "split.csv"))
    again = train(clips, own_split, load_config("lda", (*SMALL, "training.calibration_folds=2")), tmp_path / "again")
    assert again.card["data"]["counts"] == counts and "cv" in again.card["metrics"]


BOTH = pytest.param("cnn_lstm+lda", marks=pytest.mark.slow)


@pytest.mark.parametrize("architecture", ["lda", BOTH])
def test_cross_validation_writes_metrics_of_all_and_of_each_branch(clips, tmp_path, architecture):
    config = load_config(None, (*SMALL, "training.epochs=1", f"model.architecture={architecture}"))
    ids = [track.id for track in clips.tracks]
    result = cross_validation.run(clips, ids, 2, "artist", config, tmp_path)
    assert set(result.metrics) == {architecture, *architecture.split("+")} and len(result.records) == 16
    assert json.loads((tmp_path / "metrics.json").read_text())["branch_weights"] == result.branch_weights
    assert set(read_predictions(tmp_path / "predictions.csv")) == {"cv"} and not (tmp_path / "work").exists()
    with pytest.raises(DatasetError, match="exists already"):
        cross_validation.run(clips, ids, 2, "artist", config, tmp_path)


@pytest.mark.slow
def test_an_excluded_genre_is_predicted_by_every_fold(clips, tmp_path):
    config, ids = load_config(None, (*SMALL, "model.architecture=lda")), [track.id for track in clips.tracks]
    high = (replace(track, genre="high") if i > 11 else track for i, track in enumerate(clips.tracks))
    three = replace(clips, tracks=tuple(high))
    result = cross_validation.run(three, ids, 2, "artist", config, tmp_path, leave_out="hiss")
    assert result.genres == ("high", "tone") and {record.label for record in result.records} == {"high", "tone"}
    content = json.loads((tmp_path / "metrics.json").read_text())["excluded"]
    assert content == {"genre": "hiss", "auroc_of_familiarity": result.auroc} and result.auroc > 0.9
    with pytest.raises(DatasetError, match="at least two other genres"):
        cross_validation.run(clips, ids, 2, "artist", config, tmp_path / "few", leave_out="hiss")
    with pytest.raises(DatasetError, match="has no genre 'polka'"):
        cross_validation.run(clips, ids, 2, "artist", config, tmp_path / "other", leave_out="polka")


@pytest.fixture
def folds():
    """Four folds of 30 tracks by ten artists, whose logits are right more often than not."""
    rng, made = np.random.default_rng(0), []
    for k in range(4):
        labels = np.arange(30) % 3
        windows = [rng.standard_normal((2, 40, 8), dtype=np.float32) for _ in labels]
        ood = FeatureOodScorer.fit(windows, windows)
        logits = [2 * np.eye(3)[genre] + rng.standard_normal((2, 3)) for genre in labels]
        tracks = tuple(Track(f"{k} {i}", "abc"[genre], f"{k} {i % 10}") for i, genre in enumerate(labels))
        embeddings = [np.zeros((2, EMBEDDING_SIZE), np.float32) for _ in labels]
        made.append(HeldOut(tracks, labels, {"lda": logits}, [ood.distance(x) for x in windows], embeddings, ood))
    return made


def test_each_fold_is_calibrated_on_the_others(folds):
    records = evaluate_folds(folds, "abc", Config())
    assert [record.track for record in records] == [track.id for fold in folds for track in fold.tracks]
    metrics = compute_metrics(records, "abc")
    assert metrics["n_artists"] == 40 and metrics["accuracy"] > 0.8
    last = replace(folds[3], logits={"lda": [logits[:, ::-1] for logits in folds[3].logits["lda"]]})
    changed = evaluate_folds([*folds[:3], last], "abc", Config())
    assert changed[0] != records[0], "the first fold is calibrated on the last"
    unscaled = replace(folds[3].ood, scale=9 * folds[3].ood.scale)
    rescaled = replace(folds[3], ood=unscaled, distances=[x / 9 for x in folds[3].distances])
    same = evaluate_folds([*folds[:3], rescaled], "abc", Config())
    for actual, expected in zip(same[90:], records[90:], strict=True):  # the last fold's own scale isn't used for it
        assert actual.familiarity == pytest.approx(expected.familiarity)
