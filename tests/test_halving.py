"""Mixing and halving the rate in one product, against a plain filter, and against soxr."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.signal
import soxr

from musicclass import audio
from musicclass.config import FeatureConfig
from musicclass.features import highest_frequency, log_mel
from musicclass.halving import PASSBAND, TAPS, Halver
from tests.conftest import RATE, make_music, make_tone


def halved(sound: np.ndarray, cuts: list[int] | None = None) -> np.ndarray:
    halver = Halver(sound.shape[1])
    return np.concatenate([*(halver.convert(block) for block in np.split(sound, cuts or [])), halver.end()])


@pytest.mark.parametrize("channels", [1, 2, 6])
@pytest.mark.parametrize("frames", [*range(70), 1_000, 5_001])
def test_it_is_the_mean_of_the_channels_filtered_however_the_sound_is_cut(channels, frames):
    rng = np.random.default_rng(frames)
    sound = rng.standard_normal((frames, channels), dtype=np.float32)
    taps = scipy.signal.remez(TAPS, [0, PASSBAND, 0.5 - PASSBAND, 0.5], [1, 0], fs=1)
    wanted = np.convolve(np.pad(sound.mean(axis=1), TAPS // 2), taps, "valid")[::2] if frames else np.zeros(0)
    for cuts in ([], [frames // 3], sorted(rng.integers(0, frames + 1, 5))):
        np.testing.assert_allclose(halved(sound, cuts), wanted, atol=1e-5)


@pytest.mark.parametrize("hz", [0, 50, 1_000, 5_000, 7_200])
def test_what_is_listened_to_is_kept_as_soxr_keeps_it(hz):
    sound = make_tone(hz, 3, 44_100) + np.float32(0.25)
    ours, theirs = halved(sound[:, None]), soxr.resample(sound, 44_100, 22_050)
    assert len(ours) == len(theirs)
    np.testing.assert_allclose(ours[2_000:-2_000], theirs[2_000:-2_000], atol=1e-4)


@pytest.mark.parametrize("hz", [14_900, 16_000, 18_500, 22_000])
def test_what_would_fold_onto_it_is_80_db_down(hz):
    sound = make_tone(hz, 1, 44_100)
    assert np.std(halved(sound[:, None])[100:-100]) < 1.1e-4 * np.std(sound)


def test_the_bands_of_a_file_are_those_of_soxr(wav):
    path, config = wav(make_music(5, 44_100), 44_100), FeatureConfig()
    ours, theirs = (
        log_mel(np.concatenate(list(blocks)), config)
        for blocks in (audio.stream_for(path, config), audio.stream(path, RATE))
    )
    heard = theirs > theirs.max() - config.top_db
    assert np.abs(ours - theirs)[heard].max() < 0.05
    assert np.median(np.abs(ours - theirs)[heard]) < 1e-3


def test_bands_that_reach_higher_are_resampled_in_full(wav):
    path, config = wav(make_tone(10_000, 2, 44_100), 44_100), FeatureConfig(n_bands=128)
    assert highest_frequency(config) == pytest.approx(11_025)
    np.testing.assert_array_equal(
        np.concatenate(list(audio.stream_for(path, config))), np.concatenate(list(audio.stream(path, RATE)))
    )


@pytest.mark.parametrize("odd", [np.nan, np.inf])
def test_odd_samples_stay_odd(odd):
    sound = np.zeros((1_000, 2), np.float32)
    sound[500, 1] = odd
    assert np.isnan(halved(sound)).any()
