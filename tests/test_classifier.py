"""From file to Prediction: properties, reproducibility, golden values, awkward clips."""

from __future__ import annotations

import copy
import io
import json
import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import soundfile

from musicclass import Classifier, Prediction
from musicclass.config import AudioConfig
from musicclass.errors import AudioError, DecodeError, InvalidSampleError, SilentError, TooShortError
from tests.conftest import RATE, make_music, make_noise, make_tone, script


def test_prediction_is_consistent(classifier, wav, music):
    path = wav(music)
    prediction = classifier.predict(path)
    probabilities = list(prediction.probabilities.values())
    assert prediction.file == str(path) and prediction.model == "music" and prediction.duration == pytest.approx(24)
    assert set(prediction.probabilities) == set(classifier.genres) and len(classifier.genres) == 12
    assert sum(probabilities) == pytest.approx(1, abs=1e-6) and probabilities == sorted(probabilities, reverse=True)
    assert prediction.confidence == prediction.probabilities[prediction.top_genre] == max(probabilities)
    assert 0 < prediction.familiarity < 1
    assert prediction.genre == (prediction.top_genre if prediction.familiarity >= 0.5 else "unknown")
    assert json.loads(prediction.to_json())["segments"][0]["start"] == 0


@pytest.mark.parametrize("seconds", [1.0, 4.0, 9.99, 10.0, 10.5, 24.0, 61.0])
def test_segments_are_contiguous_and_consistent(classifier, seconds):
    segments = classifier.predict_waveform(make_music(seconds), RATE).segments
    edges = [segment.start for segment in segments] + [segments[-1].end]
    assert edges[0] == 0 and edges[-1] == pytest.approx(seconds, abs=1e-3) and edges == sorted(set(edges))
    assert [segment.end for segment in segments] == edges[1:]
    for segment in segments:
        assert segment.confidence == segment.probabilities[segment.top_genre]
        assert sum(segment.probabilities.values()) == pytest.approx(1) and 0 <= segment.familiarity <= 1
        assert segment.genre == (segment.top_genre if segment.familiarity >= 0.5 else "unknown")


@pytest.mark.parametrize(
    ("seconds", "rows", "path"),
    [
        (24, "electronic electronic classical", "electronic electronic electronic"),  # 66% against 32%
        (48, "electronic electronic electronic classical classical", None),
    ],
)
def test_genres_of_segments_follow_the_most_probable_path(classifier, seconds, rows, path):
    clips = script("scripts/make_clips.py")
    halves = (style(np.random.default_rng(0))[: seconds * clips.RATE // 2] for style in (clips.disco, clips.classical))
    segments = classifier.predict_waveform(np.concatenate(list(halves)), clips.RATE).segments
    assert [max(segment.probabilities, key=segment.probabilities.get) for segment in segments] == rows.split()
    assert [segment.genre for segment in segments] == (path or rows).split()


def test_classifiers_can_be_pickled_and_copied(classifier):
    """As ProcessPoolExecutor does with `classifier.predict`."""
    chosen = Classifier(classifier.model, AudioConfig(max_seconds=9), 0.25)
    for other in (pickle.loads(pickle.dumps(chosen.predict_waveform)).__self__, copy.deepcopy(chosen)):
        assert (other.limits, other.min_confidence, other.model.card) == (chosen.limits, 0.25, chosen.model.card)
        assert other.predict_waveform(make_music(3), RATE) == chosen.predict_waveform(make_music(3), RATE)


def test_min_confidence_replaces_familiarity(classifier):
    unfamiliar = make_noise(3)
    assert classifier.predict_waveform(unfamiliar, RATE).genre == "unknown"
    always = Classifier(classifier.model, min_confidence=0).predict_waveform(unfamiliar, RATE)
    assert all(item.genre == item.top_genre for item in (always, *always.segments))
    assert Classifier(classifier.model, min_confidence=1).predict_waveform(make_music(3), RATE).genre == "unknown"
    with pytest.raises(ValueError, match="min_confidence"):
        Classifier(classifier.model, min_confidence=1.5)


@pytest.mark.parametrize(
    ("genre", "familiarity", "summary"),
    [
        ("jazz", 0.9, "jazz: confidence 96%, familiarity 0.90"),
        ("jazz", 0.1, "jazz: confidence 96%, familiarity 0.10 (unlike the training data)"),
        ("unknown", 0.1, "unknown, closest to jazz: confidence 96%, familiarity 0.10 (unlike the training data)"),
        ("unknown", 0.9, "unknown, closest to jazz: confidence 96% (too low), familiarity 0.90"),
    ],
)
def test_summaries_give_the_reason_for_unknown(genre, familiarity, summary):
    prediction = Prediction("x", genre, "jazz", 0.96, familiarity, {"jazz": 0.96}, 3.0, (), "gtzan", {})
    assert prediction.summary() == summary


def test_predictions_are_reproducible_and_thread_safe(classifier, wav, music):
    path, other = wav(music), wav(make_noise(3), name="other.wav")
    first = classifier.predict(path)
    assert classifier.predict(other) != first
    assert classifier.predict(path) == Classifier.load().predict(path) == first
    with ThreadPoolExecutor(4) as pool:
        assert all(prediction == first for prediction in pool.map(classifier.predict, [path] * 8))


@pytest.mark.parametrize("rate", [RATE, 44_100])
def test_path_binary_file_and_waveform_give_equal_predictions(classifier, wav, rate):
    path = wav(np.stack([make_music(12, rate), make_noise(12, rate)], axis=1), rate)
    expected = classifier.predict(path).probabilities
    assert classifier.predict(str(path)).probabilities == expected
    assert classifier.predict(io.BytesIO(path.read_bytes())).probabilities == expected
    waveform, _ = soundfile.read(path, dtype="float32")
    prediction = classifier.predict_waveform(waveform, rate)
    assert prediction.probabilities == expected and prediction.file is None


def test_gain_does_not_change_the_prediction(classifier, music):
    loud, quiet = (classifier.predict_waveform(gain * music, RATE).probabilities for gain in (1.9, 0.05))
    assert quiet == pytest.approx(loud, abs=1e-3)


def test_silent_segments_have_no_genre_and_no_influence(classifier):
    silence = np.zeros(40 * RATE, np.float32)
    prediction = classifier.predict_waveform(np.concatenate([make_music(20), silence]), RATE)
    last = prediction.segments[-1]
    assert (last.genre, last.top_genre, last.confidence, last.familiarity, last.probabilities) == (None, None, 0, 0, {})
    logits = [np.log([s.probabilities[g] for g in classifier.genres]) for s in prediction.segments if s.genre]
    odds = np.exp(np.mean(logits, axis=0))  # mean logits, up to a constant
    assert [prediction.probabilities[g] for g in classifier.genres] == pytest.approx(list(odds / odds.sum()), rel=1e-3)


AWKWARD = {
    "empty": (np.zeros(0), RATE, DecodeError),
    "one sample": (np.ones(1), RATE, TooShortError),
    "shorter than a frame": (make_noise(0.05), RATE, TooShortError),
    "stereo": (np.stack([make_noise(2), make_noise(2, seed=1)], 1), RATE, None),
    "96 kHz": (make_tone(440, 2, 96_000), 96_000, None),
    "one sample at 384 kHz": (np.ones(1), 384_000, TooShortError),
    "no channel": (np.zeros((RATE, 0)), RATE, DecodeError),
    "silent": (np.zeros(3 * RATE), RATE, SilentError),
    "NaN": (np.full(3 * RATE, np.nan), RATE, InvalidSampleError),
    "8 channels": (np.tile(make_noise(2)[:, None], 8), RATE, None),
    "9 channels": (np.tile(make_noise(2)[:, None], 9), RATE, DecodeError),
    "8 kHz": (make_tone(440, 2, 8_000), 8_000, None),
    "1 kHz": (make_tone(100, 2, 1_000), 1_000, DecodeError),
    "one second": (make_noise(1), RATE, None),
    "double precision": (make_noise(2).astype(np.float64), RATE, None),
    "constant": (np.full(3 * RATE, 0.5), RATE, SilentError),
    "clipped": (np.clip(make_noise(2) * 100, -1, 1), RATE, None),
}


@pytest.mark.parametrize("name", AWKWARD)
def test_awkward_waveforms_give_a_prediction_or_a_named_error(classifier, name):
    samples, rate, error = AWKWARD[name]
    if error:
        with pytest.raises(error, match="<waveform>: "):
            classifier.predict_waveform(samples, rate)
    else:
        assert sum(classifier.predict_waveform(samples, rate).probabilities.values()) == pytest.approx(1)


def test_integer_samples_have_the_full_scale_of_their_type_and_others_are_rejected(gtzan):
    music = make_music(6)
    expected = gtzan.predict_waveform(music, RATE).probabilities
    for dtype, scale in ((np.int16, 2**15), (np.int32, 2**31)):
        assert gtzan.predict_waveform((music * scale).astype(dtype), RATE).probabilities == pytest.approx(
            expected, abs=1e-3
        )
    for samples in (np.zeros(RATE, np.uint8), np.zeros((2, 2, 2)), np.zeros(()), np.zeros(RATE, complex)):
        with pytest.raises(ValueError, match="needs floats, int16 or int32"):
            gtzan.predict_waveform(samples, RATE)
    for rate in (None, "44100", True):
        with pytest.raises(ValueError, match="sample rate in Hz"):
            gtzan.predict_waveform(music, rate)


def test_limits_apply_and_errors_name_the_file(classifier, wav):
    limited = Classifier(classifier.model, AudioConfig(max_seconds=5))
    assert limited.predict(wav(make_music(20))).duration == pytest.approx(5)
    with pytest.raises(AudioError, match=r"short\.wav: only 0\.30 s"):
        classifier.predict(wav(make_noise(0.3), name="short.wav"))


def test_golden_prediction(gtzan):
    golden = json.loads((Path(__file__).parent / "golden" / "prediction.json").read_text())
    assert gtzan.predict_waveform(make_music(24), RATE).probabilities == pytest.approx(golden, abs=1e-3)
