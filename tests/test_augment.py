"""Augmentation of log-mel windows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from musicclass.config import AugmentConfig, FeatureConfig, load_config
from musicclass.features import log_mel
from musicclass.training import augment
from musicclass.windows import normalize_window
from tests.conftest import make_music, make_tone

CONFIG = FeatureConfig(window_seconds=2)
OFF = load_config("baseline").augment


@pytest.fixture(scope="module")
def frames():
    return log_mel(make_music(8), CONFIG)


@pytest.fixture
def windows():
    return 80 * np.random.default_rng(0).random((6, CONFIG.window_frames, CONFIG.n_mels_kept), dtype=np.float32)


def test_a_crop_without_augmentation_is_a_window_of_the_track(frames):
    crop = augment.random_crop(frames, CONFIG, OFF, np.random.default_rng(3))
    whole = normalize_window(frames, 0, CONFIG, length=len(frames))
    gaps = [np.abs(whole[s : s + len(crop)] - crop).mean() for s in range(len(whole) - len(crop))]
    assert min(gaps) < 4 and np.median(gaps) > 2 * min(gaps)  # the crop lies between two frames


def test_a_short_track_is_repeated(frames):
    crop = augment.random_crop(frames[:20], CONFIG, OFF, np.random.default_rng(0))
    assert len(crop) == CONFIG.window_frames
    assert np.abs(crop[:19] - crop[20:39]).max() < 1e-5


def test_pitch_shift_moves_the_bands():
    """A crop of a tone, two semitones up, has its maximum where the higher tone has it."""
    low, high = (log_mel(make_tone(f, 8), CONFIG) for f in (1000, 1000 * 2 ** (2 / 12)))
    rng = np.random.default_rng(0)
    settings = replace(OFF, pitch_semitones=2.0)
    peaks = {int(augment.random_crop(low, CONFIG, settings, rng)[20].argmax()) for _ in range(200)}
    assert max(peaks) == pytest.approx(high[50].argmax(), abs=1) and min(peaks) < low[50].argmax() < max(peaks)


def test_augmented_windows_have_the_same_shape_and_are_finite(frames):
    rng, settings = np.random.default_rng(0), AugmentConfig()
    batch = np.stack([augment.random_crop(frames, CONFIG, settings, rng) for _ in range(4)])
    mixed, targets = augment.mixup(batch, np.eye(4, dtype=np.float32), 0.4, rng)
    augmented = augment.mask(augment.random_eq_and_noise(mixed, settings, rng), settings, rng)
    assert augmented.shape == batch.shape and augmented.dtype == np.float32 and np.isfinite(augmented).all()
    assert targets.sum(1) == pytest.approx(np.ones(4))


def test_mixup_keeps_most_of_the_first_window(windows):
    targets = np.eye(6, dtype=np.float32)
    mixed, soft = augment.mixup(windows, targets, 0.4, np.random.default_rng(0))
    assert (soft.argmax(1) == np.arange(6)).all() and (soft.max(1) >= 0.5).all()
    assert np.abs(mixed - windows).max() > 0
    assert augment.mixup(windows, targets, 0, np.random.default_rng(0))[0] is windows


def test_masks_do_not_change_their_input(windows):
    before = windows.copy()
    masked = augment.mask(windows, replace(OFF, time_mask=0.5), np.random.default_rng(0))
    np.testing.assert_array_equal(windows, before)
    assert (masked != before).any()


def test_simulated_recordings(frames):
    def simulate(**settings: float) -> np.ndarray:
        return augment.simulate_recording(frames, CONFIG, replace(OFF, **settings), np.random.default_rng(0))

    lowpass = simulate(lowpass_prob=1.0)
    assert (lowpass <= frames).all() and (lowpass[:, :60] == frames[:, :60]).all() and lowpass[:, -1].max() < -20
    noisy = simulate(noise_floor_prob=1.0)
    assert (noisy >= frames).all() and noisy.min() > frames.min() + 10
    comb = simulate(comb_filter_prob=1.0) - frames
    assert np.ptp(comb, axis=0).max() < 1e-3 < np.ptp(comb[0]) and comb.max() < 6.1  # the same gain in every frame
    flat = simulate(dynamic_range=0.2)
    assert np.ptp(flat) == pytest.approx(np.ptp(frames), rel=0.2) and np.ptp(flat) != np.ptp(frames)
    np.testing.assert_array_equal(simulate(), frames)
