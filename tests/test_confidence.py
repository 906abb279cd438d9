"""Calibration and familiarity: against known temperatures, by property, on cards, and on what is no music."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from musicclass import Classifier
from musicclass.bundle import load_bundle, save_bundle
from musicclass.confidence import Confidence, Familiarity, fit_temperature, softmax, statistics
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


def test_familiar_is_near_and_strange_is_far():
    familiarity = Familiarity.fit(tracks(60), tracks(40, seed=1))
    near = familiarity.share(familiarity.distances(tracks(1, seed=2)[0]).mean())
    far = familiarity.share(familiarity.distances(tracks(1, seed=2, offset=5)[0]).mean())
    assert near > 0.5 > 0.01 > far
    assert familiarity.share(familiarity.half) == 0.5 and familiarity.share(0.0) == 1


def test_one_track_in_twenty_is_unknown():
    rng = np.random.default_rng(0)
    logits = [rng.standard_normal((3, 4)) for _ in range(100)]
    fitted = Confidence.fit(tracks(60), tracks(100, seed=1), logits, rng.integers(0, 4, 100))
    told = [fitted.track(*pair) for pair in zip(tracks(100, seed=1), logits, strict=True)]
    assert sum(t.confidence < fitted.min_confidence for t in told) == 5
    for t in told:
        assert t.probabilities.sum() == pytest.approx(1)
        assert t.confidence == pytest.approx(t.probabilities.max() * t.familiarity)


def test_few_and_equal_windows_do_no_harm():
    same = [np.ones((1, 30, 12), np.float32)] * 2
    fitted = Confidence.fit(same, same, [np.zeros((1, 3))] * 2, np.array([0, 1]))
    assert np.isfinite(fitted.track(same[0], np.zeros((1, 3))).confidence)
    assert statistics(same[0]).shape == (1, 24)


def test_cards_bring_it_back():
    fitted = Confidence(1.3, 0.2, Familiarity.fit(tracks(30), tracks(20, seed=1)))
    again = Confidence.from_dict(json.loads(json.dumps(fitted.to_dict())))
    assert again.track(tracks(1)[0], np.ones((3, 4))).confidence == pytest.approx(
        fitted.track(tracks(1)[0], np.ones((3, 4))).confidence
    )
    plain = Confidence().track(tracks(1)[0], np.ones((3, 4)))
    assert plain.confidence == 0.25 and plain.familiarity == 1


def test_a_damaged_card_is_refused(tmp_path):
    whole = load_bundle()
    card = json.loads((whole.path / "card.json").read_text())
    card["confidence"]["familiarity"]["centre"] = [1, 2]
    shutil.copy(whole.path / "model.onnx", tmp_path)
    (tmp_path / "card.json").write_text(json.dumps(card))
    with pytest.raises(BundleError, match="damaged"):
        load_bundle(tmp_path)


@pytest.mark.parametrize("sound", [make_noise(12), make_tone(440, 12), make_tone(60, 12)])
def test_what_is_no_music_is_unknown(classifier, sound):
    found = classifier.predict_waveform(sound, RATE)
    assert found.genre == "unknown" and found.best_guess in classifier.genres
    assert found.familiarity < 0.1 and found.confidence < classifier.min_confidence
    assert {segment.genre for segment in found.segments} == {"unknown"}


def test_made_drums_and_applause_are_unknown(classifier, monkeypatch):
    sounds = script("benchmarks/sounds.py")
    for kind in ("percussion", "applause", "noise"):
        told = [classifier.predict_waveform(sound, RATE).genre for sound in sounds.made(kind, 6)]
        assert told.count("unknown") >= 5, kind


def test_the_threshold_can_be_moved():
    always = Classifier.load(min_confidence=0).predict_waveform(make_noise(3), RATE)
    assert always.genre == always.best_guess
    assert Classifier.load(min_confidence=1).predict_waveform(make_music(12), RATE).genre == "unknown"


def test_a_card_without_it_leaves_answers_as_they_are(tmp_path):
    whole = load_bundle()
    card = {k: v for k, v in whole.card.items() if k not in ("confidence", "format", "sha256")}
    plain = Classifier(save_bundle(tmp_path, (whole.path / "model.onnx").read_bytes(), card))
    found = plain.predict_waveform(make_noise(3), RATE)
    assert found.genre == found.best_guess and found.confidence == max(found.probabilities.values())
