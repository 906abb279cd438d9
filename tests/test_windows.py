"""Windows: position, normalization, silence, and sampling of long tracks."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from musicclass.config import FeatureConfig
from musicclass.errors import SilentError
from musicclass.features import TrackFeatures, log_mel
from musicclass.windows import (
    check_sound,
    extract_windows,
    log_mel_windows,
    mfcc_windows,
    most_probable_path,
    normalize_window,
    window_starts,
    windows_of_track,
)
from tests.conftest import RATE, make_music, make_noise

DEFAULT = FeatureConfig()


@given(n_frames=st.integers(1, 20_000), seconds=st.floats(1, 30))
def test_windows_cover_the_track_evenly(n_frames, seconds):
    config = FeatureConfig(window_seconds=seconds)
    starts, width = window_starts(n_frames, config), config.window_frames
    assert starts[0] == 0 and starts == sorted(starts)
    if n_frames <= width:
        assert starts == [0]
    else:
        assert starts[-1] + width == n_frames and max(np.diff(starts)) <= width
        segment = n_frames / len(starts)  # each lies in its window
        assert all(s <= i * segment + 0.5 and (i + 1) * segment <= s + width + 0.5 for i, s in enumerate(starts))


def test_short_tracks_have_one_short_window():
    assert log_mel_windows(log_mel(make_noise(4), DEFAULT), DEFAULT).shape == (1, 97, 112)
    assert mfcc_windows(log_mel(make_noise(25), DEFAULT), DEFAULT).shape == (3, DEFAULT.window_frames, DEFAULT.n_mfcc)


def test_normalization_removes_gain_and_spans_floor_to_maximum(music):
    quiet, loud = (log_mel_windows(log_mel(music * gain, DEFAULT), DEFAULT) for gain in (0.2, 0.8))
    np.testing.assert_allclose(quiet, loud, atol=2e-3)
    assert quiet.min() == 0 and quiet.max() == DEFAULT.top_db


def test_clips_of_30_s_are_normalized_as_a_whole():
    frames = log_mel(make_music(30), DEFAULT)
    whole = normalize_window(frames, 0, DEFAULT, length=len(frames))
    for start in (0, 100, len(frames) - DEFAULT.window_frames):
        window = normalize_window(frames, start, DEFAULT)
        np.testing.assert_array_equal(window, whole[start : start + DEFAULT.window_frames])


def test_silent_windows_are_zeros():
    assert not normalize_window(np.full((300, 112), -100, np.float32), 0, DEFAULT).any()
    frames = log_mel(np.concatenate([make_music(20), np.zeros(40 * RATE, np.float32)]), DEFAULT)
    windows = windows_of_track(TrackFeatures(frames, 60.0), DEFAULT).windows
    assert windows[:2].any(axis=(1, 2)).all() and not windows[3:].any()


@given(seed=st.integers(0, 10_000), n_windows=st.integers(1, 30), n_genres=st.integers(1, 12))
def test_paths_are_the_argmax_without_a_cost_and_one_genre_with_a_huge_one(seed, n_windows, n_genres):
    probabilities = np.random.default_rng(seed).dirichlet(np.full(n_genres, 0.3), n_windows).astype(np.float32)
    assert most_probable_path(probabilities, 0) == probabilities.argmax(axis=1).tolist()
    together = np.log(np.maximum(probabilities, 1e-9).astype(np.float64)).sum(axis=0)
    assert most_probable_path(probabilities, 1e9) == [together.argmax()] * n_windows
    if n_windows < 5 and n_genres < 5:  # every path
        paths = list(itertools.product(range(n_genres), repeat=n_windows))
        rows = np.log(np.maximum(probabilities, 1e-9).astype(np.float64))
        scores = [sum(rows[range(n_windows), path]) - 2 * np.count_nonzero(np.diff(path)) for path in paths]
        assert most_probable_path(probabilities, 2) == list(paths[int(np.argmax(scores))])


def test_a_path_ignores_single_weak_windows_and_silence_but_follows_clear_changes():
    clear, weak, other = [0.9, 0.05, 0.05], [0.35, 0.45, 0.2], [0.02, 0.03, 0.95]
    windows = np.array([clear, weak, clear, [0, 0, 0], clear, other, other, [0, 0, 0]], np.float32)
    assert most_probable_path(windows) == [0, 0, 0, 0, 0, 2, 2, 2]
    assert most_probable_path(np.array([weak], np.float32)) == [1]


def test_tracks_of_silent_windows_raise_silent_error():
    with pytest.raises(SilentError, match="silent"):
        check_sound(windows_of_track(TrackFeatures(np.full((300, 112), -100, np.float32), 12.0), DEFAULT))


def test_sampling_decodes_four_windows_of_a_long_track(classifier, tmp_path):
    path = tmp_path / "long.flac"
    soundfile.write(path, np.concatenate([make_music(60), 0.3 * make_music(60)[::-1]]), RATE)
    track = extract_windows(path, DEFAULT, sampled=True)
    assert track.windows.shape == (4, DEFAULT.window_frames, 112) and track.duration == 120
    assert track.times.tolist() == [[10, 20], [40, 50], [70, 80], [100, 110]]
    decoded = soundfile.read(path, dtype="float32")[0]
    for window, (start, end) in zip(track.windows, track.times, strict=True):
        frames = log_mel(decoded[int(start) * RATE : int(end) * RATE], DEFAULT)[: DEFAULT.window_frames]
        np.testing.assert_array_equal(log_mel_windows(frames, DEFAULT)[0], window)
    segments = classifier.predict(path, sampled=True).segments
    assert [(segment.start, segment.end) for segment in segments] == [(10, 20), (40, 50), (70, 80), (100, 110)]


def test_sampling_falls_back_to_the_whole_track(classifier, tmp_path):
    """For tracks that are short, partly silent, or damaged."""
    music = make_music(30)
    soundfile.write(tmp_path / "short.flac", music, RATE)
    soundfile.write(tmp_path / "late.flac", np.concatenate([np.zeros(60 * RATE, np.float32), make_music(60)]), RATE)
    for path in tmp_path.iterdir():
        assert classifier.predict(path, sampled=True) == classifier.predict(path)
    with (tmp_path / "short.flac").open("rb") as file:
        assert classifier.predict(file, sampled=True).probabilities == classifier.predict(file.name).probabilities
    whole = (tmp_path / "late.flac").read_bytes()
    (tmp_path / "cut.flac").write_bytes(whole[: len(whole) // 2])
    soundfile.write(tmp_path / "whole.wav", np.tile(music, 8), RATE)
    (tmp_path / "cut.wav").write_bytes((tmp_path / "whole.wav").read_bytes()[:5_000_000])
    for path in tmp_path.glob("cut.*"):
        assert classifier.predict(path, sampled=True).seconds_lost > 10
