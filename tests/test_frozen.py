"""Own genres from few clips: the classifier of a frozen CNN-LSTM's features, and models of it with the tagger's."""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper
from scipy.special import softmax
from sklearn.linear_model import LogisticRegression

from musicclass import saved_model
from musicclass.classifier import Classifier
from musicclass.cli.train import _default_preset
from musicclass.config import Config, load_config
from musicclass.datasets import Dataset
from musicclass.datasets.splits import make_split
from musicclass.errors import ConfigError, ModelError
from musicclass.onnx_session import create_session
from musicclass.training.frozen import fit_frozen
from musicclass.training.networks import Monitor, Step
from musicclass.training.tracks import LabelledTracks, WindowedTracks
from musicclass.training.train import train
from tests.conftest import make_music, make_noise
from tests.test_tagger_head import GENRES, make_dataset

N_FEATURES = 6


@pytest.fixture
def base(tmp_path, monkeypatch):
    """A pretrained model `music` whose backbone is a linear function of the mean MFCCs."""
    folder = tmp_path / "pretrained" / "music"
    shutil.copytree(saved_model.load_model("gtzan").path, folder)
    weights = np.random.default_rng(0).standard_normal((64, N_FEATURES)).astype(np.float32) / 100
    nodes = [
        helper.make_node("ReduceMean", ["mfcc"], ["mean"], axes=[1], keepdims=0),
        helper.make_node("MatMul", ["mean", "weights"], ["features"]),
    ]
    values = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in (("mfcc", ["n", "t", 64]), ("features", ["n", N_FEATURES]))
    ]
    graph = helper.make_graph(nodes, "g", values[:1], values[1:], [numpy_helper.from_array(weights, "weights")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 15)], ir_version=8)
    (folder / "backbone.onnx").write_bytes(model.SerializeToString())
    monkeypatch.setattr(saved_model, "PRETRAINED", folder.parent)
    return weights


def make_tracks(n: int = 36, without: int = 0) -> Dataset:
    """Tracks whose log-mel frames show their genre as well as the embeddings."""
    dataset = make_dataset(n, without=without)

    def features(track, config, with_tagger):
        x = dataset.features(track, config, with_tagger)
        slope = (GENRES.index(track.genre) - 1) * np.linspace(-8, 8, x.log_mel.shape[1], dtype=np.float32)
        return x._replace(log_mel=x.log_mel + slope)

    return replace(dataset, features=features)


def load(dataset: Dataset, config: Config) -> LabelledTracks:
    return LabelledTracks.load(dataset, [track.id for track in dataset.tracks], config)


def test_frozen_network_equals_scikit_learn_on_its_features_and_its_onnx(base):
    tracks, config = load(make_tracks(), Config()), Config()
    windows = WindowedTracks.of(tracks, config.features).windows
    features = np.stack([x.mean(axis=(0, 1)) @ base for x in windows])
    standardized = (features - features.mean(axis=0)) / features.std(axis=0)
    expected = (
        LogisticRegression(C=Config().model.tagger_c, max_iter=1000)
        .fit(standardized, tracks.labels)
        .predict_proba(standardized)
    )
    network = fit_frozen(tracks, config)
    logits = np.stack([network.predict_on_batch(x).mean(axis=0) for x in windows])
    np.testing.assert_allclose(softmax(logits, axis=1), expected, atol=2e-3)
    session = create_session(network.to_onnx(0.5))
    outputs = session.run(None, {"mfcc": windows[0]})[0]
    np.testing.assert_allclose(outputs, 0.5 * network.predict_on_batch(windows[0]), atol=1e-5)
    assert network.count_params() == base.size + N_FEATURES * 3 + 3


def test_missing_backbones_and_other_features_are_errors_with_a_remedy(base):
    tracks, other = load(make_tracks(6), Config()), load_config(None, ("features.n_mfcc=20",))
    with pytest.raises(ConfigError, match="features"):
        fit_frozen(tracks, other)
    (saved_model.PRETRAINED / "music" / "backbone.onnx").unlink()
    with pytest.raises(ModelError, match="--config default"):
        fit_frozen(tracks, Config())


def test_own_genres_build_on_the_pretrained_model_where_it_is_installed(base):
    own = make_tracks(6)
    gtzan = replace(own, tracks=(*own.tracks, replace(own.tracks[0], id="blues.00000")))
    assert _default_preset(own)[0] == "transfer" and _default_preset(gtzan)[0] == "default"
    (saved_model.PRETRAINED / "music" / "backbone.onnx").unlink()
    assert _default_preset(own)[0] == "default"


@pytest.mark.parametrize("without", [0, 9])
def test_all_clips_are_in_a_model_whose_metrics_come_from_cross_validation(base, tmp_path, without):
    dataset, config, steps = make_tracks(45, without), load_config("transfer"), list[Step]()
    split = make_split(dataset, "artist", test_size=0)
    saved = train(dataset, split, config, tmp_path / "own", monitor=Monitor(steps.append))
    card = saved.card
    assert card["data"]["counts"] == {"train": 45, "valid": 0, "test": 0} and set(card["metrics"]) == {"cv"}
    assert card["metrics"]["cv"]["n_tracks"] == 45 and card["metrics"]["cv"]["accuracy"] > 0.8
    assert [member["architecture"] for member in card["members"]] == ["frozen", "tagger"]
    assert "keras" not in card["versions"] and "45 held-out tracks of 5 folds by artist" in card["calibration"]["data"]
    assert [step.network for step in steps if step.done][::5] == ["fold 1 of 5: frozen", "frozen"]
    alone = card["calibration"]["branches_alone"]
    assert set(alone) == {"frozen", "tagger"} and all(item["accuracy"] > 0.6 for item in alone.values())
    classifier, correct = Classifier(saved), [0, 0]
    for track in dataset.tracks:
        features = dataset.features(track, config.features, True)
        for i, given in enumerate((features, features._replace(patches=None))):
            correct[i] += classifier.predict_features(given).top_genre == track.genre
    assert min(correct) > 36
    with pytest.raises(Exception, match="exists already"):
        train(dataset, split, config, tmp_path / "own")


def test_own_genres_need_no_keras():
    code = "import sys; sys.modules['keras'] = sys.modules['tensorflow'] = sys.modules['tf2onnx'] = None\n"
    code += "import musicclass.training.train, musicclass.training.cross_validation, musicclass.training.networks"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_command_line_trains_on_own_clips_and_evaluates_on_others(base, run, wav, tmp_path):
    for i in range(8):
        folder = "own" if i < 5 else "other"
        wav(make_noise(4, seed=i), name=f"{folder}/hiss/{folder}{i}.wav")
        wav(make_music(4 + i / 2), name=f"{folder}/beat/{folder}{i}.wav")
    status, out, err = run("train", tmp_path / "own", "--out", tmp_path / "run")
    assert status == 0 and "configuration transfer" in err and "10 train, 0 valid, 0 test" in err
    assert "branches: frozen" in err and "5 folds by track; C chosen by cross-validation" in err
    assert "in cross-validation: frozen alone" in err and "; together " in err
    assert "cross-validation" in out and "(10 tracks" in out
    status, out, err = run("evaluate", tmp_path / "run", tmp_path / "other")
    assert status == 0 and "6 tracks that the model wasn't trained on" in out and "warning" not in err
    wav(make_noise(4, seed=9), name="own/hiss/new.wav")
    status, out, err = run("evaluate", tmp_path / "run", tmp_path / "own")
    assert status == 0 and "1 track that" in out and "warning" not in err
    (tmp_path / "own" / "hiss" / "new.wav").unlink()
    status, out, err = run("evaluate", tmp_path / "run", tmp_path / "own")
    assert status == 2 and "no test tracks" in err and "--split all" in err
