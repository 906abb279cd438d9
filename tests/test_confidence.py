"""Calibration and familiarity: against known temperatures, by property, on cards, and on what is no music."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from scipy.spatial.distance import mahalanobis

from musicclass import Classifier
from musicclass.bundle import load_bundle, save_bundle
from musicclass.confidence import (
    KNOWN,
    Answers,
    Confidence,
    Familiarity,
    fit_scale,
    fit_temperature,
    share,
    softmax,
    statistics,
    turns,
)
from musicclass.errors import BundleError
from tests.conftest import RATE, make_music, make_noise, make_tone, script


def tracks(n: int, seed: int = 0, offset: float = 0.0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.standard_normal((3, 40, 12)).astype(np.float32) + np.float32(offset) for _ in range(n)]


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_a_known_temperature_is_found_again(temperature):
    rng = np.random.default_rng(0)
    true = rng.standard_normal((4000, 1, 5)) * 2
    truth = np.array([rng.choice(5, p=softmax(row[0])) for row in true])
    assert fit_temperature(list(true * temperature), truth) == pytest.approx(temperature, rel=0.1)


def test_a_genre_that_is_passed_over_gets_a_bias():
    """A genre whose logit is too low for all tracks; with few tracks, next to none."""
    rng, truth = np.random.default_rng(0), np.arange(400) % 4
    fair = 1.5 * np.eye(4)[truth] + rng.standard_normal((400, 4))
    low = fair - np.array([1.5, 0, 0, 0])
    temperature, biases = fit_scale(list(low[:, None]), truth)
    assert biases.argmax() == 0 and biases[0] > 0.5 > np.abs(biases[1:]).max()
    right = [(np.argmax(x, axis=1) == truth).mean() for x in (low, low / temperature + biases)]
    assert right[1] > right[0]
    assert np.abs(fit_scale(list(fair[:, None]), truth)[1]).max() < 0.2
    assert np.abs(fit_scale(list(low[:12, None]), truth[:12])[1]).max() < 0.2


def test_familiar_is_near_and_strange_is_far():
    familiarity = Familiarity.fit(tracks(60), tracks(40, seed=1))
    near = share(familiarity.distances(tracks(1, seed=2)[0]).mean())
    far = share(familiarity.distances(tracks(1, seed=2, offset=5)[0]).mean())
    assert near > 0.5 > 0.01 > far
    assert share(1.0) == 0.5 and share(0.0) == 1


def answers(n: int, seed: int = 0, genres: int = 4) -> tuple[list[np.ndarray], np.ndarray]:
    """Logits of `n` tracks, (3, genres) each, and their genres: right answers, mostly."""
    rng = np.random.default_rng(seed)
    truth = np.arange(n) % genres
    return [3 * np.eye(genres)[genre] + rng.standard_normal((3, genres)) for genre in truth], truth


def test_one_track_in_twenty_is_unfamiliar():
    fitted = Confidence.fit(tracks(60), tracks(600, seed=1), *answers(600))
    logits, _ = answers(1000, seed=1)
    told = [fitted.track(*pair) for pair in zip(tracks(1000, seed=2), logits, strict=True)]
    assert 25 < sum(t.familiarity < KNOWN for t in told) < 75
    for t in told:
        assert t.probabilities.sum() == pytest.approx(1)
        assert t.confidence == pytest.approx(t.probabilities.max() * min(1, 2 * t.familiarity))


def test_few_tracks_of_a_genre_leave_the_sound_alone():
    logits, truth = answers(100)
    logits = [np.pad(x, ((0, 0), (0, 1))) for x in logits]  # a fifth genre, of which none is held out
    few = Confidence.fit(tracks(60), tracks(100, seed=1), logits, truth)
    assert few.answers is None and few.familiarity is not None
    for windows, rows in zip(tracks(9, seed=2), logits, strict=False):
        distance = few.familiarity.distances(windows).mean()
        assert few.track(windows, rows).familiarity == pytest.approx(1 / (1 + distance**6))


def test_nearness_is_a_relative_mahalanobis_distance():
    """Against SciPy's, of the covariances without shrinkage, where there are so many tracks that it can be undone."""
    logits, truth = answers(400, genres=3)
    means = np.stack([x.mean(axis=0) for x in logits])
    found = Answers.fit(means, truth)
    off = np.concatenate([means[truth == genre] - means[truth == genre].mean(axis=0) for genre in range(3)])
    for precision, covariance in (
        (found.within, off.T @ off / (400 - 3)),
        (found.overall, np.cov(means.T)),
    ):
        wanted = 0.7 * covariance + 0.3 * np.diag(np.diag(covariance))
        np.testing.assert_allclose(np.linalg.inv(precision), wanted, rtol=1e-3, atol=1e-5)
    asked = np.array([[1.0, 2.0, -1.0], [5.0, 0.0, 0.0]])
    nearest = [min(mahalanobis(x, mean, found.within) ** 2 for mean in found.means) for x in asked]
    to_all = [mahalanobis(x, found.centre, found.overall) ** 2 for x in asked]
    np.testing.assert_allclose(found.nearness(asked, np.zeros(2)), np.subtract(to_all, nearest))
    np.testing.assert_allclose(found.nearness(asked, np.ones(2)), np.subtract(to_all, nearest) - 8)


def test_confidence_says_how_often_answers_are_right():
    rng = np.random.default_rng(0)
    logits, truth = answers(600)
    truth = np.where(rng.random(600) < 0.3, rng.integers(0, 4, 600), truth)
    fitted = Confidence.fit(tracks(60), tracks(600, seed=1), logits, truth)
    told = [fitted.track(*pair) for pair in zip(tracks(600, seed=2), logits, strict=True)]
    right = np.mean([t.probabilities.argmax() == genre for t, genre in zip(told, truth, strict=True)])
    assert np.mean([t.confidence for t in told]) == pytest.approx(right, abs=0.06)


def test_an_answer_like_none_is_unknown_however_sure():
    """Such as two genres at once, both far more than any track has: the best one's probability is as high as ever."""
    fitted = Confidence.fit(tracks(60), tracks(100, seed=1), *answers(100))
    sound = tracks(1, seed=2)[0]
    usual = fitted.track(sound, np.tile([3.0, 0, 0, 0], (3, 1)))
    odd = fitted.track(sound, np.tile([9.0, 6.0, -6, -6], (3, 1)))
    far = fitted.track(sound + 5, np.tile([3.0, 0, 0, 0], (3, 1)))
    assert odd.probabilities.max() >= usual.probabilities.max() - 0.05
    assert usual.familiarity > 0.5 > max(odd.familiarity, far.familiarity)
    assert (
        far.probabilities.max() == usual.probabilities.max() == usual.confidence > max(odd.confidence, far.confidence)
    )


def test_all_right_and_all_wrong_can_be_fitted():
    logits, truth = answers(60)
    for genres in (truth, (truth + 1) % 4):
        fitted = Confidence.fit(tracks(20), tracks(60, seed=1), [x * 100 for x in logits], genres)
        told = [fitted.track(*pair).confidence for pair in zip(tracks(60, seed=1), logits, strict=True)]
        assert np.isfinite(told).all() and 0 <= min(told) <= max(told) <= 1
    same = [np.zeros((1, 4))] * 60
    fitted = Confidence.fit(tracks(20), tracks(60, seed=1), same, truth)
    assert 0 < fitted.track(tracks(1)[0], same[0]).confidence < 0.6


def test_each_turn_leaves_out_as_many_of_each_genre():
    genres = np.repeat([0, 1, 2], [10, 20, 3])
    for turn in range(5):
        assert np.bincount(genres[turns(genres) == turn], minlength=3)[:2].tolist() == [2, 4]
    assert len(turns(np.array([], int))) == 0


def test_few_and_equal_windows_do_no_harm():
    same = [np.ones((1, 30, 12), np.float32)] * 2
    fitted = Confidence.fit(same, same, [np.zeros((1, 3))] * 2, np.array([0, 1]))
    assert np.isfinite(fitted.track(same[0], np.zeros((1, 3))).confidence)
    assert statistics(same[0]).shape == (1, 24)


def test_cards_bring_it_back():
    logits, truth = answers(40)
    fitted = Confidence.fit(tracks(30), tracks(40, seed=1), logits, truth)
    assert fitted.answers is not None
    again = Confidence.from_dict(json.loads(json.dumps(fitted.to_dict())))
    assert again.track(tracks(1)[0], np.ones((3, 4))).confidence == pytest.approx(
        fitted.track(tracks(1)[0], np.ones((3, 4))).confidence
    )
    plain = Confidence().track(tracks(1)[0], np.ones((3, 4)))
    assert plain.confidence == 0.25 and plain.familiarity == 1


def test_a_damaged_card_is_refused(tmp_path):
    whole = load_bundle()
    card = json.loads((whole.path / "card.json").read_text())
    shutil.copy(whole.path / "model.onnx", tmp_path)
    for part in ("familiarity", "answers"):
        damaged = json.loads(json.dumps(card))
        damaged["confidence"][part]["centre"] = [1, 2]
        (tmp_path / "card.json").write_text(json.dumps(damaged))
        with pytest.raises(BundleError, match="damaged"):
            load_bundle(tmp_path)
    card["confidence"]["answers"] = Confidence.fit(tracks(9), tracks(40), *answers(40)).to_dict()["answers"]
    (tmp_path / "card.json").write_text(json.dumps(card))
    with pytest.raises(BundleError, match="don't belong"):
        load_bundle(tmp_path)


def test_a_card_of_before_is_told_by_sound_alone(tmp_path):
    """As cards were, and still are where few tracks are held out."""
    whole = load_bundle()
    card = {k: v for k, v in whole.card.items() if k not in ("format", "sha256")}
    card["confidence"] = {k: v for k, v in card["confidence"].items() if k != "answers"}
    found = Classifier(save_bundle(tmp_path, (whole.path / "model.onnx").read_bytes(), card)).predict_waveform(
        make_music(12), RATE
    )
    assert found.confidence == pytest.approx(found.probabilities[found.best_guess] * min(1, 2 * found.familiarity))


@pytest.mark.parametrize("sound", [make_noise(12), make_tone(440, 12), make_tone(60, 12)])
def test_what_is_no_music_is_unknown(classifier, sound):
    found = classifier.predict_waveform(sound, RATE)
    assert found.genre == "unknown" and found.best_guess in classifier.genres
    assert found.familiarity < 0.1 and found.confidence < 0.2
    assert {segment.genre for segment in found.segments} == {"unknown"}


def test_made_drums_and_applause_are_unknown(classifier, monkeypatch):
    sounds = script("benchmarks/sounds.py")
    for kind in ("percussion", "applause", "noise"):
        told = [classifier.predict_waveform(sound, RATE).genre for sound in sounds.made(kind, 6)]
        assert told.count("unknown") >= 5, kind


def test_the_threshold_can_be_moved(classifier):
    assert classifier.min_confidence is None
    always = Classifier.load(min_confidence=0).predict_waveform(make_noise(3), RATE)
    assert always.genre == always.best_guess
    assert Classifier.load(min_confidence=1).predict_waveform(make_music(12), RATE).genre == "unknown"


def test_a_card_without_it_leaves_answers_as_they_are(tmp_path):
    whole = load_bundle()
    card = {k: v for k, v in whole.card.items() if k not in ("confidence", "format", "sha256")}
    plain = Classifier(save_bundle(tmp_path, (whole.path / "model.onnx").read_bytes(), card))
    found = plain.predict_waveform(make_noise(3), RATE)
    assert found.genre == found.best_guess and found.confidence == max(found.probabilities.values())
