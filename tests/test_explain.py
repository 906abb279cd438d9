"""Explanations: shapes, a network whose reasons are known, and the command line."""

from __future__ import annotations

import json

import numpy as np
import pytest

from musicclass.cli import main
from musicclass.config import FeatureConfig
from musicclass.explain import BAND_GROUPS, Explanation, cover, explain
from musicclass.features import log_mel
from tests.conftest import make_music


def test_an_explanation_is_whole(classifier, wav):
    why = classifier.explain(wav(make_music(14.2)))
    assert why.prediction == classifier.predict(why.prediction.file) and why.genre == why.prediction.best_guess
    assert why.weights.shape == (14, BAND_GROUPS) and len(why.times) == 15 and len(why.frequencies) == BAND_GROUPS + 1
    assert why.times[-1] == pytest.approx(14.2, abs=1e-3) and why.frequencies[0] == 0
    assert list(why.frequencies) == sorted(why.frequencies) and why.frequencies[-1] < 11_025
    assert np.isfinite(why.weights).all() and np.abs(why.weights).max() > 0
    assert sum(end - start for start, end in why.seconds()) == pytest.approx(14.2 / 14 * 3)
    assert json.loads(json.dumps(why.to_dict()))["genre"] == why.genre


def test_of_many_stretches_the_weightiest_are_named():
    weights = np.zeros((100, BAND_GROUPS), np.float32)
    for number, cell in enumerate(range(0, 100, 10)):
        weights[cell : cell + 2, 0] = 1 + number
    times = tuple(float(i) for i in range(101))
    why = Explanation(None, "jazz", times, tuple(range(BAND_GROUPS + 1)), weights, np.zeros((1, 1), np.float32))
    assert why.seconds() == [(50, 52), (60, 62), (70, 72), (80, 82), (90, 92)]
    assert why.in_words().startswith("jazz rests most on 0:50-0:52, 1:00-1:02,")


class Low:
    """A network that tells "low" by the energy of the lowest eighth of the bands, in the second second."""

    genres = ("low", "other")

    def __init__(self, config: FeatureConfig):
        self.config = config
        self.bundle = type("Bundle", (), {"features": config})

    def probabilities(self, windows):
        from musicclass.training.model import inverse_dct

        bands = windows @ inverse_dct(self.config.n_mfcc, self.config.n_bands)
        share = 1 / (1 + np.exp(-bands[:, 24:48, :14].mean(axis=(1, 2)) / 20))
        return np.stack([share, 1 - share], axis=1)


def test_the_reason_is_found():
    config = FeatureConfig(n_mfcc=112, window_seconds=4)
    frames = np.full((96, 112), -60, np.float32)
    frames[24:48, :14] = 0
    frames += np.random.default_rng(0).standard_normal(frames.shape).astype(np.float32)
    prediction = type("P", (), {"duration": 4.0, "best_guess": "low"})
    why = explain(Low(config), frames, prediction)
    assert np.unravel_index(why.weights.argmax(), why.weights.shape) == (1, 0)
    assert why.seconds(0.25) == [(1.0, 2.0)] and why.region() == why.frequencies[:2]
    assert "0:01-0:02" in why.in_words() and "low" in why.in_words()


def test_covering_nothing_changes_nothing_and_covering_lowers(classifier):
    frames = log_mel(make_music(12), classifier.bundle.features)
    why = explain(classifier, frames, classifier.predict_log_mel(frames, 12.0, "x"))
    config, index = classifier.bundle.features, classifier.genres.index(why.genre)
    nothing = cover(frames, np.zeros_like(why.weights, bool), config)

    def left(windows):
        return classifier.bundle.confidence.probabilities(classifier.logits(windows).mean(axis=0))[index]

    assert left(nothing) == pytest.approx(why.prediction.probabilities[why.genre])
    most = why.weights >= np.quantile(why.weights, 0.8)
    assert left(cover(frames, most, config)) < left(nothing)


def test_unknown_genres_are_refused(classifier, wav):
    with pytest.raises(ValueError, match="polka"):
        classifier.explain(wav(make_music(3)), genre="polka")


def test_on_the_command_line(wav, tmp_path, capsys, monkeypatch):
    path = str(wav(make_music(6)))
    monkeypatch.setattr("sys.argv", ["musicclass", "predict", path, "--explain", "--plot", str(tmp_path / "why.png")])
    assert main() == 0
    assert "rests most on 0:0" in capsys.readouterr().out and (tmp_path / "why.png").stat().st_size > 20_000
    monkeypatch.setattr("sys.argv", ["musicclass", "predict", path, "--explain", "--json"])
    assert main() == 0
    assert len(json.loads(capsys.readouterr().out)["explanation"]["weights"]) == 6
