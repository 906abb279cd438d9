from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from musicclass.config import PRESETS, FeatureConfig, TrainConfig
from musicclass.features import log_mel, scale_window
from musicclass.training import augment
from tests.conftest import make_music, make_tone

CONFIG = FeatureConfig(window_seconds=2)
OFF = PRESETS["student"].training
ON = TrainConfig()


@pytest.fixture(scope="module")
def frames():
    return log_mel(make_music(8), CONFIG)


def windows(count: int = 6) -> np.ndarray:
    return 80 * np.random.default_rng(0).random((count, CONFIG.window_frames, CONFIG.n_bands), dtype=np.float32)


def test_without_augmentation_a_cut_is_a_window_of_the_track(frames):
    cut = augment.cut(frames, CONFIG, OFF, np.random.default_rng(3))
    whole = scale_window(frames, 0, CONFIG, length=len(frames))
    gaps = [
        np.abs(whole[s : s + len(cut)] - cut).mean() for s in range(len(whole) - len(cut))
    ]  # between two frames, so near to one of them
    assert min(gaps) < 4 and np.median(gaps) > 2 * min(gaps)


def test_pitch_moves_the_bands():
    tone, higher = (log_mel(make_tone(f, 8), CONFIG) for f in (1000, 1000 * 2 ** (2 / 12)))
    bands = augment._shifted_bands(2, CONFIG)
    shifted = augment._lerp(tone.T, bands).T
    assert shifted[50].argmax() == pytest.approx(higher[50].argmax(), abs=1)
    assert augment._shifted_bands(0, CONFIG) == pytest.approx(np.arange(CONFIG.n_bands), abs=1e-4)


def test_everything_keeps_its_shape_and_stays_finite(frames):
    rng = np.random.default_rng(0)
    batch = np.stack([augment.cut(frames, CONFIG, ON, rng) for _ in range(4)])
    targets = np.eye(4, dtype=np.float32)
    mixed, soft = augment.mixup(batch, targets, 0.4, rng)
    assert not np.array_equal(mixed, batch)
    done = augment.mask(augment.colour(mixed, ON, rng), ON, rng)
    assert done.shape == batch.shape and done.dtype == np.float32 and np.isfinite(done).all()
    assert soft.sum(1) == pytest.approx(np.ones(4))


def test_a_short_track_is_repeated(frames):
    cut = augment.cut(frames[:20], CONFIG, OFF, np.random.default_rng(0))
    assert len(cut) == CONFIG.window_frames
    assert np.abs(cut[:19] - cut[20:39]).max() < 1e-5


def test_off_is_off():
    batch, targets = windows(), np.eye(6, dtype=np.float32)
    rng = np.random.default_rng(0)
    np.testing.assert_array_equal(augment.colour(batch, OFF, rng), batch)
    np.testing.assert_array_equal(augment.mask(batch, OFF, rng), batch)
    np.testing.assert_array_equal(augment.mixup(batch, targets, 0, rng)[0], batch)


def test_mixup_keeps_most_of_the_first():
    batch, targets = windows(), np.eye(6, dtype=np.float32)
    mixed, soft = augment.mixup(batch, targets, 0.4, np.random.default_rng(0))
    assert (soft.argmax(1) == np.arange(6)).all() and (soft.max(1) >= 0.5).all()
    assert np.abs(mixed - batch).max() > 0


def test_masks_leave_the_input_alone():
    batch = windows()
    before = batch.copy()
    masked = augment.mask(batch, dataclasses.replace(OFF, time_mask=0.5), np.random.default_rng(0))
    np.testing.assert_array_equal(batch, before)
    assert (masked != before).any()


def test_degraded_recordings(frames):
    rng, only = np.random.default_rng(0), dataclasses.replace
    cut_off = augment.degrade(frames, CONFIG, only(OFF, band_limit=1.0), rng)
    assert (cut_off <= frames).all() and (cut_off[:, :60] == frames[:, :60]).all() and cut_off[:, -1].max() < -20
    hissing = augment.degrade(frames, CONFIG, only(OFF, hiss=1.0), rng)
    assert (hissing >= frames).all() and hissing.min() > frames.min() + 10
    echoing = augment.degrade(frames, CONFIG, only(OFF, echo=1.0), rng) - frames
    assert np.ptp(echoing, axis=0).max() < 1e-3 < np.ptp(echoing[0])  # a filter: the same in every frame
    assert echoing.max() < 6.1
    flatter = augment.degrade(frames, CONFIG, only(OFF, contrast=0.2), rng)
    assert np.ptp(flatter) == pytest.approx(np.ptp(frames), rel=0.2) and np.ptp(flatter) != np.ptp(frames)
    np.testing.assert_array_equal(augment.degrade(frames, CONFIG, OFF, rng), frames)


def test_a_comb_is_what_a_delayed_copy_does():
    delay = 0.001
    gain = augment._comb(delay, 0.9, CONFIG)
    centres = augment.band_centres(CONFIG)
    assert gain[np.abs(centres - 500).argmin()] < -8 and gain[np.abs(centres - 1000).argmin()] > 4
