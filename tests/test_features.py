"""Features: against librosa, by property, against golden values, and on awkward clips."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import librosa
import numpy as np
import pytest
import scipy.fft
from hypothesis import given, settings
from hypothesis import strategies as st

from musicclass.config import FeatureConfig
from musicclass.features import log_mel, log_mel_of_blocks, mel_filterbank, mfcc, product, scale_window, window_starts
from tests.conftest import RATE, make_music, make_noise, make_tone

DEFAULT = FeatureConfig()
LIBROSA = FeatureConfig(hop_length=512, n_bands=128)
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
def test_filter_bank_is_librosas(config):
    theirs = librosa.filters.mel(
        sr=config.sample_rate, n_fft=config.n_fft, n_mels=config.n_mels, fmin=config.fmin, fmax=config.fmax
    )
    np.testing.assert_allclose(mel_filterbank(config), theirs[: config.n_bands], atol=1e-7)


@pytest.mark.parametrize("name", SOUNDS)
@pytest.mark.parametrize("config", [LIBROSA, DEFAULT], ids=["hop 512", "default"])
def test_log_mel_is_librosas_within_a_thousandth_of_a_db(name, config):
    sound = SOUNDS[name]
    power = librosa.feature.melspectrogram(
        y=sound, sr=RATE, n_fft=config.n_fft, hop_length=config.hop_length, n_mels=config.n_mels
    )
    theirs = librosa.power_to_db(power, ref=np.max, top_db=80).T[:, : config.n_bands]
    ours = log_mel(sound, config)
    ours = np.maximum(ours - ours.max(), -80)
    assert ours.dtype == np.float32
    assert np.abs(ours - theirs).max() <= 1e-3


def test_the_students_mfccs_are_librosas():
    config = FeatureConfig(hop_length=512, n_bands=128, n_mfcc=23, scale_seconds=3600)
    sound = SOUNDS["music"]
    scaled = scale_window(log_mel(sound, config), 0, config, length=10_000)
    power = librosa.feature.melspectrogram(y=sound, sr=RATE, n_fft=2048, hop_length=512)
    above_floor = librosa.power_to_db(power, ref=np.max, top_db=80) + 80
    theirs = librosa.feature.mfcc(S=above_floor, n_mfcc=23, norm="ortho")
    np.testing.assert_allclose(mfcc(scaled, 23), theirs.T, atol=5e-3)


@settings(max_examples=30)
@given(cuts=st.lists(st.integers(0, 5 * RATE), max_size=8))
def test_cutting_the_waveform_changes_no_bit(cuts):
    sound = make_noise(5)
    whole = log_mel(sound, DEFAULT)
    blocks = np.split(sound, sorted(cuts))
    np.testing.assert_array_equal(log_mel_of_blocks(blocks, DEFAULT), whole)


@pytest.mark.parametrize("samples", [1, 100, 1024, 2047, 2048, 914 * 64, 914 * 64 + 1, RATE])
def test_number_of_frames(samples):
    assert len(log_mel(make_noise(4)[:samples], DEFAULT)) == 1 + samples // 914
    assert len(log_mel(make_noise(4)[:samples], LIBROSA)) == 1 + samples // 512


def test_no_samples_are_refused():
    with pytest.raises(ValueError, match="no samples"):
        log_mel(np.zeros(0, np.float32), DEFAULT)


def test_a_louder_clip_scales_to_the_same_window(music):
    quiet, loud = (scale_window(log_mel(music * gain, DEFAULT), 0, DEFAULT) for gain in (0.2, 0.8))
    np.testing.assert_allclose(quiet, loud, atol=2e-3)


def test_scaled_windows_lie_between_the_floor_and_the_maximum_and_reach_both(music):
    frames = log_mel(music, DEFAULT)
    windows = [scale_window(frames, start, DEFAULT) for start in window_starts(len(frames), DEFAULT)]
    values = np.concatenate(windows)
    assert values.min() == 0 and values.max() == DEFAULT.top_db


def test_windows_of_a_30_s_clip_are_scaled_as_one_clip(music):
    frames = log_mel(make_music(30), DEFAULT)
    whole = scale_window(frames, 0, DEFAULT, length=len(frames))
    for start in (0, 100, len(frames) - DEFAULT.window_frames):
        np.testing.assert_array_equal(
            scale_window(frames, start, DEFAULT), whole[start : start + DEFAULT.window_frames]
        )


def test_scale_of_one_single_value_is_zero():
    assert not scale_window(np.full((300, 112), -100, np.float32), 0, DEFAULT).any()


@given(n_frames=st.integers(1, 20_000), seconds=st.floats(1, 30))
def test_windows_cover_a_track_without_reaching_beyond(n_frames, seconds):
    config = FeatureConfig(window_seconds=seconds)
    starts, width = window_starts(n_frames, config), config.window_frames
    assert starts[0] == 0 and starts == sorted(starts)
    if n_frames <= width:
        assert starts == [0]
    else:
        assert starts[-1] + width == n_frames
        assert max(np.diff(starts)) <= width
        share = n_frames / len(starts)  # each part of the time line lies in its window
        assert all(s <= i * share + 0.5 and (i + 1) * share <= s + width + 0.5 for i, s in enumerate(starts))


def test_mfcc_of_all_bands_keeps_everything():
    frames = np.random.default_rng(0).random((5, 112), dtype=np.float32)
    np.testing.assert_allclose(scipy.fft.idct(mfcc(frames, 112), norm="ortho"), frames, atol=1e-5)


def test_golden_values():
    golden = json.loads((Path(__file__).parent / "golden" / "features.json").read_text())
    frames = log_mel(make_music(12), DEFAULT)
    coefficients = mfcc(scale_window(frames, 0, DEFAULT), DEFAULT.n_mfcc)
    np.testing.assert_allclose(frames[::50, ::16], golden["log_mel"], atol=2e-2)
    np.testing.assert_allclose(coefficients[::50, ::8], golden["mfcc"], atol=2e-3)


BITS = """
import hashlib, numpy as np
from musicclass.features import mfcc
from musicclass.halving import Halver
rng = np.random.default_rng(0)
windows = 80 * rng.random((5, 241, 112), dtype=np.float32)
sound = rng.standard_normal((529_200, 2), dtype=np.float32)
for made in (mfcc(windows[0], 64), mfcc(windows, 64), Halver(2).convert(sound)):
    print(hashlib.sha256(made.tobytes()).hexdigest())
"""


def test_no_bit_depends_on_the_number_of_threads():
    """The kernel for Haswell adds up otherwise where threads divide a product."""

    def bits(threads: int) -> str:
        environment = os.environ | {"OPENBLAS_NUM_THREADS": str(threads), "OPENBLAS_CORETYPE": "Haswell"}
        return subprocess.run(
            [sys.executable, "-c", BITS], env=environment, capture_output=True, text=True, check=True
        ).stdout

    assert bits(1) == bits(2) == bits(7)


@pytest.mark.parametrize("n", [0, 1, 35, 36, 37, 72, 500])
def test_a_product_in_pieces_is_a_product(n):
    rng = np.random.default_rng(n)
    rows, matrix = (rng.standard_normal(shape).astype(np.float32) for shape in ((n, 112), (112, 64)))
    np.testing.assert_allclose(product(rows, matrix), np.float64(rows) @ np.float64(matrix), atol=1e-4)
