"""From file to Prediction: properties, golden values, awkward clips."""

from __future__ import annotations

import io
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import soundfile

from musicclass import Classifier
from musicclass.classifier import hear, track_windows
from musicclass.confidence import Confidence, softmax
from musicclass.config import AudioConfig, FeatureConfig
from musicclass.errors import AudioError, DecodeError, InvalidSampleError, SilentError, TooShortError
from musicclass.features import log_mel
from tests.conftest import RATE, make_music, make_noise, make_tone


def test_a_prediction_is_whole(classifier, wav, music):
    path = wav(music)
    found = classifier.predict(path)
    assert found.file == str(path) and found.model == "gtzan"
    assert found.duration == pytest.approx(24)
    assert set(found.probabilities) == set(classifier.genres) and len(classifier.genres) == 10
    assert sum(found.probabilities.values()) == pytest.approx(1, abs=1e-9)
    assert list(found.probabilities.values()) == sorted(found.probabilities.values(), reverse=True)
    assert found.probabilities[found.best_guess] == max(found.probabilities.values())
    assert 0 < found.confidence < 1 and 0 < found.familiarity < 1
    assert found.confidence == pytest.approx(found.probabilities[found.best_guess] * min(1, 2 * found.familiarity))
    assert found.genre == (found.best_guess if found.familiarity >= 0.5 else "unknown")
    assert json.loads(found.to_json())["segments"][0]["start"] == 0


@pytest.mark.parametrize("seconds", [1.0, 4.0, 9.99, 10.0, 10.5, 24.0, 61.0])
def test_segments_follow_each_other_from_start_to_end(classifier, seconds):
    found = classifier.predict_waveform(make_music(seconds), RATE)
    edges = [segment.start for segment in found.segments] + [found.segments[-1].end]
    assert edges[0] == 0 and edges[-1] == pytest.approx(seconds, abs=1e-3)
    assert edges == sorted(set(edges))
    for before, after in zip(found.segments, found.segments[1:], strict=False):
        assert before.end == after.start
    for segment in found.segments:
        assert (
            0 <= segment.confidence <= max(segment.probabilities.values()) == segment.probabilities[segment.best_guess]
        )
        assert sum(segment.probabilities.values()) == pytest.approx(1)


def test_the_track_is_the_mean_of_its_windows_logits():
    logits = np.random.default_rng(0).standard_normal((5, 10)).astype(np.float32)
    told = Confidence(temperature=2.0).track(np.ones((5, 24, 8), np.float32), logits)
    np.testing.assert_allclose(told.probabilities, softmax(logits.mean(0) / 2), rtol=1e-6)
    np.testing.assert_allclose(told.by_window, softmax(logits / 2), rtol=1e-6)
    np.testing.assert_allclose(softmax(logits), softmax(logits + 100), atol=1e-5)


def test_the_same_answer_bit_for_bit(classifier, wav, music):
    path = wav(music)
    wav(make_noise(3), name="other.wav")
    first = classifier.predict(path)
    other = classifier.predict(path.with_name("other.wav"))
    assert other != first
    assert classifier.predict(path) == first
    assert Classifier.load().predict(path) == first
    with ThreadPoolExecutor(4) as pool:
        assert all(found == first for found in pool.map(classifier.predict, [path] * 8))


@pytest.mark.parametrize("rate", [RATE, 44_100])
def test_path_file_object_and_waveform_agree_bit_for_bit(classifier, wav, rate):
    path = wav(np.stack([make_music(12, rate), make_noise(12, rate)], axis=1), rate)
    wanted = classifier.predict(path).probabilities
    assert classifier.predict(str(path)).probabilities == wanted
    assert classifier.predict(io.BytesIO(path.read_bytes())).probabilities == wanted
    samples, _ = soundfile.read(path, dtype="float32")
    found = classifier.predict_waveform(samples, rate)
    assert found.probabilities == wanted and found.file is None


@pytest.mark.parametrize("gain", [0.05, 0.25, 1.9])
def test_a_louder_or_softer_clip_gives_the_same_answer(classifier, music, gain):
    before, after = (classifier.predict_waveform(music * g, RATE) for g in (1, gain))
    assert after.genre == before.genre
    assert after.confidence == pytest.approx(before.confidence, abs=1e-3)


def test_a_silent_stretch_has_no_genre_and_no_vote(classifier):
    music = make_music(20)
    found = classifier.predict_waveform(np.concatenate([music, np.zeros(40 * RATE, np.float32)]), RATE)
    assert found.segments[-1].genre is None
    assert found.segments[-1].confidence == 0 and found.segments[-1].probabilities == {}
    heard = [s for s in found.segments if s.genre]
    logits = [np.log([s.probabilities[g] for g in classifier.genres]) for s in heard]  # up to what is added to all
    assert [found.probabilities[g] for g in classifier.genres] == pytest.approx(list(softmax(np.mean(logits, axis=0))))


def test_a_short_track_is_one_short_window():
    config = FeatureConfig()
    assert track_windows(make_noise(1)[:1].repeat(100 * 112).reshape(100, 112), config).shape == (1, 100, config.n_mfcc)
    frames = np.random.default_rng(0).standard_normal((600, 112)).astype(np.float32)
    assert track_windows(frames, config).shape == (3, config.window_frames, config.n_mfcc)


AWKWARD = {
    "empty": (np.zeros(0), RATE, DecodeError),
    "one sample": (np.ones(1), RATE, TooShortError),
    "one sample at 384 kHz": (np.ones(1), 384_000, TooShortError),
    "no channel": (np.zeros((RATE, 0)), RATE, DecodeError),
    "shorter than a frame": (make_noise(0.05), RATE, TooShortError),
    "half a second": (make_noise(0.5), RATE, TooShortError),
    "silent": (np.zeros(3 * RATE), RATE, SilentError),
    "NaN": (np.full(3 * RATE, np.nan), RATE, InvalidSampleError),
    "stereo": (np.stack([make_noise(2), make_noise(2)], 1), RATE, None),
    "8 channels": (np.tile(make_noise(2)[:, None], 8), RATE, None),
    "9 channels": (np.tile(make_noise(2)[:, None], 9), RATE, DecodeError),
    "8 kHz": (make_tone(440, 2, 8_000), 8_000, None),
    "96 kHz": (make_tone(440, 2, 96_000), 96_000, None),
    "1 kHz": (make_tone(100, 2, 1_000), 1_000, DecodeError),
    "just a second": (make_noise(1), RATE, None),
    "double precision": (make_noise(2).astype(np.float64), RATE, None),
    "constant": (np.full(3 * RATE, 0.5), RATE, None),
    "clipped": (np.clip(make_noise(2) * 100, -1, 1), RATE, None),
}


@pytest.mark.parametrize("name", AWKWARD)
def test_awkward_clips(classifier, name):
    samples, rate, error = AWKWARD[name]
    if error:
        with pytest.raises(error):
            classifier.predict_waveform(samples, rate)
    else:
        assert sum(classifier.predict_waveform(samples, rate).probabilities.values()) == pytest.approx(1)


def test_samples_that_are_no_waveform_are_refused(classifier):
    for samples in (np.zeros(RATE, np.int16), np.zeros((2, 2, 2)), np.zeros(())):
        with pytest.raises(ValueError, match="needs floats"):
            classifier.predict_waveform(samples, RATE)


def test_limits_can_be_set(wav):
    short = Classifier.load(limits=AudioConfig(max_seconds=5))
    assert short.predict(wav(make_music(20))).duration == pytest.approx(5)


def test_errors_name_the_file(classifier, wav):
    with pytest.raises(AudioError, match=r"short\.wav"):
        classifier.predict(wav(make_noise(0.3), name="short.wav"))


def test_golden_prediction(classifier):
    golden = json.loads((Path(__file__).parent / "golden" / "prediction.json").read_text())
    found = classifier.predict_waveform(make_music(24), RATE).probabilities
    assert found == pytest.approx(golden, abs=5e-3)


def test_fast_hears_parts_of_a_long_track_alone(classifier, tmp_path):
    music = np.concatenate([make_music(60), 0.3 * make_music(60)[::-1]])
    soundfile.write(tmp_path / "long.flac", music, 22_050)
    config = classifier.bundle.features
    heard = hear(tmp_path / "long.flac", config, fast=True)
    assert heard.windows.shape == (4, config.window_frames, config.n_mfcc) and heard.duration == 120
    starts = [int(start * 22_050) for start, _ in heard.times]
    assert starts == [22_050 * second for second in (10, 40, 70, 100)]
    decoded = soundfile.read(tmp_path / "long.flac", dtype="float32")[0]
    for window, start in zip(heard.windows, starts, strict=True):
        frames = log_mel(decoded[start : start + 220_500], config)[: config.window_frames]
        np.testing.assert_array_equal(track_windows(frames, config)[0], window)
    told = classifier.predict(tmp_path / "long.flac", fast=True)
    assert [(part.start, part.end) for part in told.segments] == [(10, 20), (40, 50), (70, 80), (100, 110)]


def test_fast_is_the_whole_where_parts_are_not_to_be_had(classifier, tmp_path):
    music = make_music(30)
    soundfile.write(tmp_path / "short.flac", music, 22_050)
    late = np.concatenate([np.zeros(22_050 * 60), make_music(60)]).astype(np.float32)
    soundfile.write(tmp_path / "silent at first.flac", late, 22_050)
    for path in tmp_path.iterdir():
        assert classifier.predict(path, fast=True) == classifier.predict(path)
    whole = (tmp_path / "silent at first.flac").read_bytes()
    (tmp_path / "cut.flac").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DecodeError, match="cut"):
        classifier.predict(tmp_path / "cut.flac", fast=True)
    soundfile.write(tmp_path / "whole.wav", np.tile(music, 8), 22_050)
    (tmp_path / "half.wav").write_bytes((tmp_path / "whole.wav").read_bytes()[:5_000_000])
    with pytest.raises(DecodeError, match="cut short"):
        classifier.predict(tmp_path / "half.wav", fast=True)
    with (tmp_path / "short.flac").open("rb") as file:
        assert classifier.predict(file, fast=True).probabilities == classifier.predict(file.name).probabilities
