"""Log-mel frames and MFCCs: equality with librosa and SciPy, properties, golden values."""

from __future__ import annotations

import json
from pathlib import Path

import librosa
import numpy as np
import pytest
import scipy.fft
import scipy.signal
from hypothesis import given, settings
from hypothesis import strategies as st

from musicclass.config import FeatureConfig
from musicclass.features import log_mel, log_mel_with_duration, mel_filterbank, mfcc
from musicclass.windows import normalize_window
from tests.conftest import RATE, make_music, make_noise, make_tone

DEFAULT = FeatureConfig()
LIBROSA = FeatureConfig(hop_length=512, n_mels_kept=128)
SOUNDS = {
    "noise": make_noise(),
    "low tone": make_tone(110),
    "high tone": make_tone(6000),
    "music": make_music(12),
    "silence": np.zeros(RATE, np.float32),
    "half silent": np.concatenate([make_noise(1), np.zeros(RATE, np.float32)]),
}


@pytest.mark.parametrize(
    "config", [LIBROSA, DEFAULT, FeatureConfig(sample_rate=16_000, fmax=8_000, n_fft=1024, hop_length=160)]
)
def test_mel_filterbank_equals_librosa(config):
    expected = librosa.filters.mel(
        sr=config.sample_rate, n_fft=config.n_fft, n_mels=config.n_mels, fmin=config.fmin, fmax=config.fmax
    )
    np.testing.assert_allclose(mel_filterbank(config), expected[: config.n_mels_kept], atol=1e-7)


@pytest.mark.parametrize("name", SOUNDS)
@pytest.mark.parametrize("config", [LIBROSA, DEFAULT], ids=["hop 512", "default"])
def test_log_mel_equals_scipy_within_a_thousandth_of_a_db(name, config):
    window, overlap = scipy.signal.windows.hann(config.n_fft, sym=False), config.n_fft - config.hop_length
    padded = np.pad(np.float64(SOUNDS[name]), config.n_fft // 2)
    _, _, spectrum = scipy.signal.stft(
        padded, window=window, noverlap=overlap, nperseg=2048, boundary=None, padded=False
    )
    power = mel_filterbank(config) @ np.abs(spectrum * window.sum()) ** 2
    frames, expected = log_mel(SOUNDS[name], config), 10 * np.log10(np.maximum(power, 1e-10)).T
    floor = expected.max() - 80
    assert frames.dtype == np.float32
    np.testing.assert_allclose(np.maximum(frames, floor), np.maximum(expected, floor), atol=1e-3)


@pytest.mark.slow  # importing librosa.feature compiles for 25 s
@pytest.mark.parametrize("name", SOUNDS)
def test_log_mel_and_mfccs_equal_librosa(name):
    for config in (LIBROSA, DEFAULT):
        power = librosa.feature.melspectrogram(
            y=SOUNDS[name], sr=RATE, n_fft=config.n_fft, hop_length=config.hop_length, n_mels=config.n_mels
        )
        decibels = librosa.power_to_db(power, ref=np.max, top_db=80).T[:, : config.n_mels_kept]
        frames = log_mel(SOUNDS[name], config)
        assert np.abs(np.maximum(frames - frames.max(), -80) - decibels).max() <= 1e-3
        expected = librosa.feature.mfcc(S=decibels.T + 80, n_mfcc=23, norm="ortho").T
        above_floor = normalize_window(frames, 0, config, length=len(frames))
        if above_floor.any():
            np.testing.assert_allclose(mfcc(above_floor, 23), expected, atol=1e-2)


@settings(max_examples=30)
@given(cuts=st.lists(st.integers(0, 5 * RATE), max_size=8))
def test_log_mel_does_not_depend_on_block_sizes(cuts):
    sound = make_noise(5)
    frames, duration = log_mel_with_duration(np.split(sound, sorted(cuts)), DEFAULT)
    np.testing.assert_array_equal(frames, log_mel(sound, DEFAULT))
    assert duration == 5


@pytest.mark.parametrize("samples", [1, 100, 1024, 2047, 2048, 914 * 64, 914 * 64 + 1, RATE])
def test_number_of_frames(samples):
    for config in (DEFAULT, LIBROSA):
        assert len(log_mel(make_noise(4)[:samples], config)) == 1 + samples // config.hop_length


def test_empty_waveform_is_rejected():
    with pytest.raises(ValueError, match="no samples"):
        log_mel(np.zeros(0, np.float32), DEFAULT)


def test_mfccs_of_all_bands_are_invertible():
    frames = np.random.default_rng(0).random((5, 112), dtype=np.float32)
    np.testing.assert_allclose(scipy.fft.idct(mfcc(frames, 112), norm="ortho"), frames, atol=1e-5)


def test_golden_features():
    golden = json.loads((Path(__file__).parent / "golden" / "features.json").read_text())
    frames = log_mel(make_music(12), DEFAULT)
    coefficients = mfcc(normalize_window(frames, 0, DEFAULT), DEFAULT.n_mfcc)
    np.testing.assert_allclose(frames[::50, ::16], golden["log_mel"], atol=2e-2)
    np.testing.assert_allclose(coefficients[::50, ::8], golden["mfcc"], atol=2e-3)
