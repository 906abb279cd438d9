"""Training: the networks, one epoch on made-up clips, an interruption, the export, the bundle."""

from __future__ import annotations

import json
from dataclasses import replace

import keras
import numpy as np
import onnx
import onnxruntime
import pytest
import scipy.fft
import scipy.signal
import scipy.stats
import soundfile
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from musicclass.bundle import load_bundle
from musicclass.classifier import Classifier
from musicclass.confidence import Familiarity, softmax
from musicclass.config import PRESETS, ModelConfig, load_config
from musicclass.datasets import folder
from musicclass.datasets.splits import Split, make_split
from musicclass.errors import BundleError, ConfigError, DatasetError, LeakError
from musicclass.features import log_mel, mfcc, scale_window
from musicclass.training import export
from musicclass.training import fit as fitting
from musicclass.training import train as training
from musicclass.training.data import (
    PairedWindows,
    ShiftedWindows,
    TrackWindows,
    TrainingWindows,
    familiar_windows,
    load_frames,
)
from musicclass.training.discriminant import discriminant
from musicclass.training.evaluate import predict_tracks, score, seen_in_training
from musicclass.training.export import runner, to_int8, to_onnx
from musicclass.training.fit import fit, parts, pretrain
from musicclass.training.model import Rhythm, Statistics, build_model, ensemble, inverse_dct
from tests.conftest import RATE, make_noise, make_tone

CNN = ModelConfig(network="cnn_lstm")
SMALL = (
    "features.window_seconds=1",
    "features.n_mfcc=20",
    "model.unmix_bands=16",
    "model.filters=[4, 8]",
    "model.time_pool=[2, 2]",
    "model.band_pool=[4, 4]",
    "model.lstm_units=8",
    "training.epochs=4",
    "training.batch_size=8",
)


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """Eight clips for each of two genres that are easy to tell apart."""
    root = tmp_path_factory.mktemp("clips") / "easy"
    for i in range(8):
        for genre, sound in (("hiss", make_noise(3, seed=i)), ("tone", make_tone(200 + 50 * i))):
            (root / genre).mkdir(parents=True, exist_ok=True)
            soundfile.write(root / genre / f"{i}.wav", sound, RATE)
    return folder.read(root)


@pytest.fixture(scope="module")
def bundle(clips, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "easy"
    return training.train(clips, make_split(clips), load_config(None, (*SMALL, "training.learning_rate=0.02")), out)


def test_parameters():
    assert build_model(PRESETS["student"].model, 23, 10).count_params() == 126_694
    small = load_config(None, SMALL)
    assert [build_model(part.model, 20, 2).count_params() for part in parts(small)] == [2_927, 4_282]
    assert build_model(small.model, 20, 2).count_params() == 2_927 + 4_282


@pytest.mark.parametrize("summary", ["last", "mean", "attention"])
@pytest.mark.parametrize("layers", [1, 2])
def test_networks_take_windows_of_any_length(summary, layers):
    model = build_model(ModelConfig(summary=summary, lstm_layers=layers, filters=(4,) * 4), 20, 3)  # of both kinds
    for length in (24, 100):
        assert model(np.zeros((2, length, 20), np.float32)).shape == (2, 3)


def test_time_stays_in_order_and_apart_from_frequency():
    """What the LSTM reads at step t depends on the frames around t alone."""
    keras.utils.set_random_seed(0)
    sizes = {"stem": (3, 3), "filters": (4, 4), "time_pool": (2, 2), "band_pool": (2, 2)}
    model = build_model(replace(CNN, squeeze=False, unmix_bands=0, **sizes), 20, 3)
    lstm = next(layer for layer in model.layers if isinstance(layer, keras.layers.Bidirectional))
    before = keras.Model(model.inputs, lstm.input)
    windows = np.zeros((2, 80, 20), np.float32)
    windows[1, 40] = 1
    steps = keras.ops.convert_to_numpy(before(windows))
    changed = np.flatnonzero(np.abs(steps[1] - steps[0]).max(axis=1))
    assert steps.shape[1] == 20 and set(changed) <= {8, 9, 10, 11, 12} and 10 in changed


def test_an_equaliser_changes_nothing_for_a_network_without_means():
    """An equaliser adds the same to each frame's MFCCs."""
    windows = np.random.default_rng(0).standard_normal((2, 80, 20)).astype(np.float32)
    equalised = windows + np.linspace(9, -9, 20, dtype=np.float32)
    for subtract_mean in (True, False):
        model = build_model(replace(CNN, subtract_mean=subtract_mean), 20, 3)
        before, after = (keras.ops.convert_to_numpy(model(x)) for x in (windows, equalised))
        assert np.allclose(before, after, atol=1e-4) == subtract_mean


def test_an_ensemble_is_the_mean_over_kinds_of_the_mean_of_their_networks():
    keras.utils.set_random_seed(0)
    config = replace(load_config(None, SMALL).model, members=3)
    ones = [replace(config, network="cnn_lstm", members=1, subtract_mean=means) for means in (False, True, False)]
    ones.append(replace(config, network="statistics"))
    networks = [build_model(one, 20, 3) for one in ones]
    windows = np.random.default_rng(0).standard_normal((4, 30, 20)).astype(np.float32)
    together = ensemble(config, 20, 3, [network.get_weights() for network in networks])
    *cnns, statistics = [keras.ops.convert_to_numpy(network(windows)) for network in networks]
    apart = (np.mean(cnns, axis=0) + statistics) / 2
    np.testing.assert_allclose(keras.ops.convert_to_numpy(together(windows)), apart, atol=1e-5)
    assert together.count_params() == sum(network.count_params() for network in networks)
    for wrong in (networks[1:], [*networks, networks[0]]):
        with pytest.raises(ValueError):
            ensemble(config, 20, 3, [network.get_weights() for network in wrong])


def test_statistics_against_scipy():
    mfccs = np.cumsum(np.random.default_rng(0).standard_normal((2, 300, 50)), axis=1).astype(np.float32)
    for found, x in zip(keras.ops.convert_to_numpy(Statistics()(mfccs)), mfccs[:, :, :40].astype(float), strict=True):
        z = (x - x.mean(axis=0)) / x.std(axis=0)
        expected = [x.mean(axis=0), np.log(x.std(axis=0)), scipy.stats.skew(x)]
        expected += [np.log(scipy.stats.kurtosis(x, fisher=False)), np.log(np.abs(z).mean(axis=0))]
        expected.append(np.corrcoef(x.T)[:20, :20][np.triu_indices(20, 1)])
        for lag in (1, 2, 4, 8, 16, 32):
            alike = z[:-lag].T @ z[lag:] / len(z)
            expected.append(np.log(x.std(axis=0)) + np.log(1.001 - np.diag(alike)) / 2)
            if lag in (2, 8, 32):
                expected.append(alike[:12, :12].ravel())
        np.testing.assert_allclose(found, np.concatenate(expected), atol=0.02)  # deviations are a thousandth larger


def test_log_deviation_of_what_changes_is_told_apart_from_that_of_all():
    """Two coefficients that spread alike: one moves slowly, one in every frame."""
    time = np.arange(400)
    slow, fast = np.sin(2 * np.pi * time / 200), np.sin(2 * np.pi * time / 3)
    found = keras.ops.convert_to_numpy(Statistics()(np.stack([slow, fast], axis=1)[None].astype(np.float32)))[0]
    spread, change = found[2:4], found[11:13]
    np.testing.assert_allclose(spread[0], spread[1], atol=0.01)
    true = [np.log(np.std(np.diff(x)) / np.sqrt(2)) for x in (slow, fast)]
    assert change[1] - change[0] > 2 and change[1] == pytest.approx(true[1], abs=0.02)


def test_rhythm_against_scipy():
    mfccs = 100 * np.random.default_rng(0).standard_normal((2, 240, 30)).astype(np.float32)
    hann = scipy.signal.windows.hann(242)[1:-1]
    for found, x in zip(keras.ops.convert_to_numpy(Rhythm()(mfccs)), mfccs.astype(float), strict=True):
        bands = scipy.fft.idct(x[:, :16], norm="ortho")
        rises = np.maximum(np.diff(bands, axis=0, append=bands[-1:]), 0)
        expected = [np.log(rises.mean(axis=0)), np.log(rises.std(axis=0)), scipy.stats.skew(rises)]
        moving = np.concatenate([rises, x[:, :20]], axis=1)
        power = np.abs(np.fft.rfft((moving - moving.mean(axis=0)) * hann[:, None], axis=0)) ** 2 / np.sum(hann**2)
        for low, high in [(3, 8), (8, 15), (15, 30), (30, 60), (60, 121)]:  # of 240
            octave = power[low:high]
            expected.append(np.log(octave.max(axis=0) / octave.mean(axis=0)))
        np.testing.assert_allclose(found, np.concatenate(expected), atol=0.03)  # what keeps logs finite is in `found`


def test_a_beat_stands_out_wherever_it_falls():
    """Two beats a second against hits at random times: their octave tells them apart, and their phase doesn't count."""
    hits = np.zeros((3, 240, 20), np.float32)
    hits[0, 3::12] = hits[1, 7::12] = 30
    hits[2, np.random.default_rng(0).permutation(240)[:20]] = 30
    found = keras.ops.convert_to_numpy(Rhythm()(hits))
    octave = found[:, 48 + 2 * 36 : 48 + 3 * 36]
    assert (octave[0] > octave[2] + 0.5).all()
    np.testing.assert_allclose(found[0], found[1], atol=0.1)


@pytest.mark.parametrize("window", [np.zeros((1, 1)), np.zeros((50, 1)), np.full((240, 1), 1e4), np.full((3, 1), -70)])
def test_statistics_of_next_to_nothing_are_numbers(window):
    model = build_model(ModelConfig(network="statistics"), 20, 3)
    windows = np.repeat(window, 20, axis=1)[None].astype(np.float32)
    assert np.isfinite(keras.ops.convert_to_numpy(model(windows))).all()


def test_the_discriminant_is_that_of_scikit_learn():
    rng = np.random.default_rng(0)
    genres = np.repeat(np.arange(3), 20)
    vectors = rng.standard_normal((60, 8)) @ rng.standard_normal((8, 8)) + rng.standard_normal((3, 8))[genres]
    weights, biases = discriminant(vectors, np.ones(60), genres, 3, 0.4)
    theirs = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=0.4).fit(vectors, genres)
    ours, expected = vectors @ weights + biases, theirs.decision_function(vectors)
    np.testing.assert_allclose(ours - ours[:, :1], expected - expected[:, :1], atol=1e-3)


def test_a_vectors_share_counts_as_so_many_vectors():
    rng = np.random.default_rng(0)
    vectors, genres, times = rng.standard_normal((12, 4)), np.arange(12) % 3, rng.integers(1, 4, 12)
    by_shares = discriminant(vectors, times / 7, genres, 3, 0.5)
    by_copies = discriminant(np.repeat(vectors, times, axis=0), np.ones(times.sum()), np.repeat(genres, times), 3, 0.5)
    for ours, expected in zip(by_shares, by_copies, strict=True):
        np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("genres", [[0, 0, 0], [0, 1, 1], [1, 1, 1]])
def test_a_discriminant_of_next_to_nothing_is_made_of_numbers(genres):
    for vectors in (np.zeros((3, 5)), np.random.default_rng(0).standard_normal((3, 5))):
        for n in (0, 1, 3):
            found = discriminant(vectors[:n], np.ones(n), np.array(genres[:n], int), 2, 0.6)
            assert all(np.isfinite(values).all() for values in found)


def test_statistics_are_solved_at_once_and_the_same_each_time(clips, tmp_path):
    config = load_config(None, (*SMALL, "training.pretraining=5"))
    cnn, one = parts(config)
    assert cnn.model.network == "cnn_lstm" and one.model.network == "statistics"
    assert cnn.training == config.training and parts(PRESETS["student"]) == [PRESETS["student"]]
    assert one.training.epochs == 1 and one.training.pretraining == 0
    frames = {track.id: clips.log_mel(track, config.features) for track in clips.tracks}
    labels = {track.id: clips.genres.index(track.genre) for track in clips.tracks}
    ids = list(frames)
    made = [
        fit(frames, labels, ids, ids[:2], clips.genres, one, tmp_path / name) for name in ("a.npz", "b.npz", "a.npz")
    ]
    for model, progress in made:
        assert progress.epoch == 1 and progress.history[0]["accuracy"] == 1
        for ours, first in zip(model.get_weights(), made[0][0].get_weights(), strict=True):
            np.testing.assert_array_equal(ours, first)


def test_shifted_windows_differ_in_pitch_and_tempo_alone():
    config = load_config(None, ("training.band_limit=1", "training.echo=1", "training.hiss=1"))
    features = config.features
    ramp = (0.05 * np.arange(400)[:, None] - 0.1 * np.arange(features.n_bands)).astype(np.float32)
    still = replace(config, training=replace(config.training, pitch=0.0, tempo=0.0))
    plain = mfcc(scale_window(ramp, 0, features), features.n_mfcc)
    (as_it_is,), (heard,) = (ShiftedWindows([ramp], one).tracks for one in (still, config))
    np.testing.assert_allclose(as_it_is[:, :, 1:], np.broadcast_to(plain[:, 1:], as_it_is[:, :, 1:].shape), atol=1e-2)
    assert np.ptp(heard[:, 0, 0]) > 1 and not np.allclose(np.diff(heard[0], axis=0), np.diff(plain, axis=0), atol=1e-3)
    np.testing.assert_array_equal(ShiftedWindows([ramp], config).tracks[0], heard)


def test_inverse_dct_undoes_the_dct():
    bands = np.random.default_rng(0).random((3, 32), dtype=np.float32)
    np.testing.assert_allclose(mfcc(bands, 32) @ inverse_dct(32, 32), bands, atol=1e-5)


@pytest.mark.parametrize("config", [ModelConfig(), replace(CNN, summary="last"), PRESETS["student"].model])
def test_keras_and_onnx_agree(config):
    keras.utils.set_random_seed(0)
    model = build_model(config, 23, 10)
    session = onnxruntime.InferenceSession(to_onnx(model, config, 23, 10))
    for length in (5, 24, 130):
        windows = np.random.default_rng(0).standard_normal((5, length, 23)).astype(np.float32)
        ours = keras.ops.convert_to_numpy(model(windows))
        theirs = session.run(None, {"mfcc": windows})[0]
        np.testing.assert_allclose(theirs, ours, atol=1e-5)


def test_the_export_has_a_native_lstm():
    model = build_model(ModelConfig(), 23, 10)
    graph = onnx.load_from_string(to_onnx(model, ModelConfig(), 23, 10)).graph
    kinds = {node.op_type for node in graph.node}
    assert "LSTM" in kinds and not kinds & {"Loop", "Scan"}


def clip_windows(clips, config) -> np.ndarray:
    frames = load_frames(clips, [track.id for track in clips.tracks], config.features)
    return np.concatenate(TrackWindows(frames.values(), config.features).tracks)


def test_whole_numbers_answer_as_the_network_does(bundle, clips):
    config = load_config(None, SMALL)
    plain = (bundle.path / "model.onnx").read_bytes()
    windows = clip_windows(clips, config)
    network = to_int8(plain, windows)
    kinds = [node.op_type for node in onnx.load_from_string(network).graph.node]
    assert kinds.count("QuantizeLinear") and kinds.count("LSTM") and kinds.count("Conv") == 2
    before, after = (softmax(runner(content)(windows)) for content in (plain, network))
    assert np.abs(before - after).max() < 0.05
    for length in (24, 100):
        assert runner(network)(np.zeros((2, length, 20), np.float32)).shape == (2, 2)


def test_whole_numbers_that_answer_otherwise_are_refused(bundle, clips, monkeypatch):
    monkeypatch.setattr(export, "QUANTIZED", 0.0)
    windows = clip_windows(clips, load_config(None, SMALL))
    with pytest.raises(BundleError, match="whole numbers"):
        to_int8((bundle.path / "model.onnx").read_bytes(), windows)


def test_pairs_are_two_windows_of_each_track(clips):
    config = load_config(None, SMALL)
    frames = [clips.log_mel(track, config.features) for track in clips.tracks]
    windows = PairedWindows(frames, config)
    mfccs, tracks = windows[0]
    assert mfccs.shape == (16, 24, 20) and tracks.shape == (16,)
    np.testing.assert_array_equal(tracks[:8], tracks[8:])
    assert all(not np.array_equal(one, other) for one, other in zip(mfccs[:8], mfccs[8:], strict=True))
    np.testing.assert_array_equal(windows[0][0], mfccs)


def test_contrast_against_its_formula():
    """Khosla et al. 2020, equation 2, by loops; and nothing to learn where tracks lie at right angles."""
    vectors = np.random.default_rng(0).standard_normal((7, 5)).astype(np.float32)
    tracks = np.array([0, 1, 2, 0, 1, 2, 0])
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    likeness = np.exp(unit @ unit.T / fitting.TEMPERATURE)
    expected = []
    for i in range(7):
        others = [j for j in range(7) if j != i]
        shares = [likeness[i, j] / likeness[i, others].sum() for j in others if tracks[j] == tracks[i]]
        expected.append(-np.mean(np.log(shares)))
    found = keras.ops.convert_to_numpy(fitting._contrast(tracks, keras.ops.convert_to_tensor(vectors)))
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    apart = keras.ops.convert_to_tensor(np.eye(4, dtype=np.float32)[[0, 1, 0, 1]])
    assert keras.ops.convert_to_numpy(fitting._contrast(np.array([0, 1, 0, 1]), apart)).max() < 0.02


def test_pretraining_brings_windows_of_a_track_together(clips, tmp_path):
    """Tones of eight pitches, of which no altered one passes for the next."""
    config = load_config(None, (*SMALL, "training.pretraining=20", "training.pitch=0.2", "training.tempo=0"))
    config = parts(config)[0]
    frames = [clips.log_mel(track, config.features) for track in clips.tracks if track.genre == "tone"]
    ids = [str(i) for i in range(8)]
    weights = pretrain(frames, ids, config, tmp_path / "pretraining.npz")
    model = build_model(config.model, 20, 2)
    trunk = keras.Model(model.inputs, model.layers[-1].input)
    assert [values.shape for values in weights] == [values.shape for values in trunk.get_weights()]
    trunk.set_weights(weights)
    losses = json.loads(str(np.load(tmp_path / "pretraining.npz")["progress"]))["history"]
    assert len(losses) == 20 and np.mean([row["loss"] for row in losses[-5:]]) < 0.9 * losses[0]["loss"]
    for ours, again in zip(weights, pretrain(frames, ids, config, tmp_path / "pretraining.npz"), strict=True):
        np.testing.assert_array_equal(ours, again)


def test_a_loss_that_is_no_number_ends_the_training(clips, tmp_path):
    config = load_config(None, (*SMALL, "training.learning_rate=1e38"))
    with pytest.raises(ConfigError, match=r"cnn_lstm: the loss is no number .* epoch \d; try a training.learning_rate"):
        training.train(clips, make_split(clips), config, tmp_path)
    assert not (tmp_path / "card.json").exists()


def test_training_goes_on_from_the_pretraining(clips, tmp_path, monkeypatch):
    settings = (*SMALL, "training.pretraining=2", "training.epochs=1", "training.learning_rate=1e-9")
    config, split = load_config(None, settings), make_split(clips)
    kept, begun = [], []
    monkeypatch.setattr(training, "pretrain", lambda *given: kept.append(pretrain(*given)) or kept[-1])
    monkeypatch.setattr(training, "fit", lambda *given: begun.append(fit(*given)) or begun[-1])
    card = training.train(clips, split, config, tmp_path / "run").card
    assert len(kept) == 1 and len(begun) == 2 and card["config"]["training"]["pretraining"] == 2
    model = begun[0][0]
    kernels = [values for values in model.get_weights()[:-2] if values.ndim == 4]
    assert len(kernels) == 2
    for ours, before in zip(kernels, (values for values in kept[0] if values.ndim == 4), strict=True):
        np.testing.assert_allclose(ours, before, atol=1e-5)
    assert not list((tmp_path / "run").glob("*.npz"))


def test_several_networks_of_a_kind_are_trained_by_a_setting(clips, tmp_path):
    settings = (*SMALL, "training.pretraining=1", "training.epochs=1", "model.members=2")
    made = training.train(clips, make_split(clips), load_config(None, settings), tmp_path)
    assert made.card["parameters"] == 2 * 2_927 + 4_282 and made.card["config"]["model"]["members"] == 2
    assert Classifier(made).predict_waveform(make_tone(300), RATE).best_guess in clips.genres
    cnn, other, statistics = parts(load_config(None, settings))
    assert (cnn.training.seed, other.training.seed, statistics.model.network) == (42, 43, "statistics")
    assert cnn.model.members == 1 and not cnn.model.subtract_mean
    assert other.model == replace(cnn.model, subtract_mean=True)


def test_batches_are_the_same_again_and_differ_by_epoch(clips):
    config = load_config(None, SMALL)
    frames = [clips.log_mel(track, config.features) for track in clips.tracks]
    windows = TrainingWindows(frames, [0] * 8 + [1] * 8, 2, config)
    assert len(windows) == 6
    first, targets = windows[1]
    assert first.shape == (8, 24, 20) and targets.shape == (8, 2)
    np.testing.assert_array_equal(windows[1][0], first)
    windows.epoch = 1
    assert not np.array_equal(windows[1][0], first)


def test_track_windows_of_any_length_keep_their_order():
    config = load_config(None, SMALL).features
    frames = [np.random.default_rng(i).random((n, 112), dtype=np.float32) for i, n in enumerate((30, 24, 100, 10))]
    logits = TrackWindows(frames, config).logits(lambda batch: batch[:, 0, :2])
    assert [len(rows) for rows in logits] == [2, 1, 5, 1]
    for item, rows in zip(frames, logits, strict=True):
        alone = TrackWindows([item], config).logits(lambda batch: batch[:, 0, :2])[0]
        np.testing.assert_array_equal(rows, alone)


def test_music_heard_by_two_microphones_is_familiar():
    """A copy half a millisecond late is far from noise of one kind, and nearer where echoes were learnt along."""
    config = load_config(None, SMALL).features
    sounds = [np.cumsum(make_noise(4, seed=seed)) / 50 for seed in range(60)]
    late = [sound + 0.7 * np.concatenate([np.zeros(11, np.float32), sound[:-11]]) for sound in sounds[:20]]
    learnt, held_out, echoing = (
        [log_mel(np.float32(sound), config) for sound in part] for part in (sounds[20:40], sounds[40:], late)
    )
    plain = TrackWindows(learnt, config).tracks
    both = familiar_windows(learnt, config)
    assert len(both) == 2 * len(plain)
    np.testing.assert_array_equal(both[2], plain[1])

    def distance(known: list[np.ndarray]) -> float:
        """In units of that at which a sound is half familiar."""
        fitted = Familiarity.fit(known, TrackWindows(held_out, config).tracks)
        heard = TrackWindows(echoing, config).tracks
        return float(np.mean([fitted.distances(windows).mean() for windows in heard]))

    assert distance(plain) > 10 and distance(both) < distance(plain) / 2


def test_easy_genres_are_learnt_and_the_bundle_is_whole(bundle, clips):
    names = {path.name for path in bundle.path.iterdir()}
    assert names == {
        "model.onnx", "card.json", "history.csv", "history.png", "confusion_matrix.png", "reliability.png"
    }  # fmt: skip
    card = json.loads((bundle.path / "card.json").read_text())
    assert card["genres"] == ["hiss", "tone"]
    assert card["metrics"]["test"]["accuracy"] == 1
    assert [len(card["data"]["split"][side]) for side in ("train", "valid", "test")] == [12, 2, 2]
    assert [row["track"] for row in card["predictions"]["test"]] == card["data"]["split"]["test"]
    assert len(card["history"]) == 4 and card["versions"]["keras"] == keras.__version__
    assert (bundle.path / "history.csv").read_text().count("\n") == 5
    assert Classifier.load(bundle.path).predict(clips.tracks[0].path).genre == "hiss"


def test_evaluation_gives_what_the_card_says(bundle, clips):
    card = load_bundle(bundle.path).card
    rows = predict_tracks(Classifier(bundle), clips, card["data"]["split"]["test"])
    assert rows == card["predictions"]["test"]
    assert score(rows, bundle.genres)["accuracy"] == card["metrics"]["test"]["accuracy"]
    sides = card["data"]["split"]
    assert seen_in_training(card, [*sides["train"][:1], *sides["test"]]) == sides["train"][:1]
    assert len(seen_in_training(card, [track.id for track in clips.tracks])) == 14


def test_a_model_is_never_overwritten(bundle, clips):
    with pytest.raises(DatasetError, match="already holds a model"):
        training.train(clips, make_split(clips), load_config(None, SMALL), bundle.path)


def test_strange_genres_are_refused(bundle, clips, tmp_path):
    for name in ("hiss", "polka"):
        (tmp_path / name).mkdir()
        soundfile.write(tmp_path / name / "a.wav", make_noise(2), RATE)
    with pytest.raises(DatasetError, match="polka"):
        predict_tracks(Classifier(bundle), folder.read(tmp_path), [])


class Interrupt(Exception):
    pass


def test_an_interrupted_run_goes_on_as_if_it_never_stopped(clips, tmp_path, monkeypatch):
    config, split = load_config(None, SMALL), make_split(clips)
    whole = training.train(clips, split, config, tmp_path / "whole").card
    line = fitting._line

    def stop(progress, settings):
        if progress.epoch == 2:
            raise Interrupt
        return line(progress, settings)

    monkeypatch.setattr(fitting, "_line", stop)
    with pytest.raises(Interrupt):
        training.train(clips, split, config, tmp_path / "broken")
    monkeypatch.setattr(fitting, "_line", line)
    assert [path.name for path in (tmp_path / "broken").iterdir()] == ["checkpoint-cnn_lstm-1.npz"]
    with pytest.raises(DatasetError, match="--resume"):
        training.train(clips, split, config, tmp_path / "broken")
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "checkpoint-cnn_lstm-1.npz").write_bytes(b"PK")
    with pytest.raises(DatasetError, match="delete it to start over"):
        training.train(clips, split, config, tmp_path / "damaged", resume=True)
    with pytest.raises(DatasetError, match="other settings"):
        training.train(clips, split, load_config(None, (*SMALL, "training.seed=1")), tmp_path / "broken", resume=True)
    broken = training.train(clips, split, config, tmp_path / "broken", resume=True).card
    for ours, theirs in zip(broken["history"], whole["history"], strict=True):
        assert ours == pytest.approx(theirs, rel=1e-4)


def test_leaks_never_reach_training(clips, tmp_path):
    with pytest.raises(LeakError, match=r"hiss/0\.wav"):
        training.train(
            clips, Split("own", ("hiss/0.wav",), ("hiss/0.wav",)), load_config(None, SMALL), tmp_path / "out"
        )
    assert not (tmp_path / "out").exists()
