"""Augmentation of log-mel windows: pitch, tempo, recording conditions, equalizer, noise, masks, mixup.

It is applied to log-mel in dB, before the DCT: `simulate_recording` before a window is normalized (see
windows.normalize_window), the rest after that. Functions take a random generator, so that a batch can be redrawn.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from musicclass.config import AugmentConfig, FeatureConfig
from musicclass.features import Array, hz_to_mel, mel_to_hz
from musicclass.windows import normalize_window

Rng = np.random.Generator


def random_crop(frames: Array, features: FeatureConfig, augment: AugmentConfig, rng: Rng) -> Array:
    """A normalized window (window_frames, n_mels_kept) from log-mel `frames` in dB, at a random time, tempo and pitch.

    A track shorter than a window is repeated, as all windows of a batch have one length.
    """
    rate = float(np.exp(rng.uniform(-1, 1) * np.log1p(augment.time_stretch)))
    positions = rate * np.arange(features.window_frames)
    start = rng.uniform(0, max(1e-9, len(frames) - 1 - positions[-1]))
    length = int(positions[-1]) + 3
    first = max(0, int(start) - features.norm_frames)  # normalization depends on no frames before these
    context = frames[first : int(start) + length + features.norm_frames]
    window = normalize_window(simulate_recording(context, features, augment, rng), int(start) - first, features, length)
    window = _interpolate_rows(window, (start % 1 + positions) % len(window))
    semitones = rng.uniform(-1, 1) * augment.pitch_semitones
    return _interpolate_rows(window.T, _shifted_bands(semitones, features)).T


def simulate_recording(frames: Array, features: FeatureConfig, augment: AugmentConfig, rng: Rng) -> Array:
    """Log-mel `frames` in dB under other recording conditions: dynamic range, low-pass, comb filter, noise floor.

    These change the maximum or the floor, so they come before normalization. Without them, a model depends on what an
    encoder or a cheap microphone does to the highest bands. The dynamic range is varied also because that of GTZAN's
    published features is unknown.
    """
    frames = frames * np.float32(np.exp(rng.uniform(-1, 1) * np.log1p(augment.dynamic_range)))
    bands = np.arange(features.n_mels_kept, dtype=np.float32)
    if rng.random() < augment.lowpass_prob:
        cutoff, slope = rng.uniform(0.55, 1) * features.n_mels_kept, rng.uniform(4, 30)
        frames = frames - np.float32(slope) * np.maximum(0, bands - np.float32(cutoff))
    if rng.random() < augment.comb_filter_prob:
        frames = comb_filter(frames, features, rng)
    if rng.random() < augment.noise_floor_prob:
        tilt = rng.uniform(25, 70), rng.uniform(-15, 15)
        level = frames.max() - tilt[0] + tilt[1] * (bands / features.n_mels_kept - 0.5)
        noise = np.linspace(3, 1, features.n_mels_kept) * rng.standard_normal(frames.shape, dtype=np.float32)
        frames = np.maximum(frames, np.float32(level + noise))
    return frames


def comb_filter(frames: Array, features: FeatureConfig, rng: Rng) -> Array:
    """Log-mel `frames` in dB of a signal plus itself 0.1 to 2 ms later, as from two microphones or a reflection."""
    delay, strength = rng.uniform(1e-4, 2e-3), rng.uniform(0.2, 0.9)
    power = 1 + strength**2 + 2 * strength * np.cos(2 * np.pi * band_centers(features, 8) * delay)
    gain: Array = (10 * np.log10(power.reshape(-1, 8).mean(axis=1))).astype(np.float32)
    return frames + gain


def band_centers(features: FeatureConfig, per_band: int = 1) -> npt.NDArray[np.float64]:
    """Center frequencies (Hz) of the mel bands, or `per_band` frequencies spread over each band."""
    low, high = hz_to_mel([features.fmin, features.fmax])
    positions = 0.5 + (np.arange(features.n_mels_kept * per_band) + 0.5) / per_band
    return mel_to_hz(low + (high - low) / (features.n_mels + 1) * positions)


def _interpolate_rows(rows: Array, positions: Array) -> Array:
    """`rows` at fractional `positions`, linearly interpolated; beyond the end, the last row."""
    below = np.minimum(positions.astype(np.intp), len(rows) - 1)
    above = np.minimum(below + 1, len(rows) - 1)
    weight = (positions - below).astype(np.float32)[:, None].clip(0, 1)
    return np.asarray(rows[below] * (1 - weight) + rows[above] * weight)


def _shifted_bands(semitones: float, features: FeatureConfig) -> Array:
    """For each band, the fractional index of the band that lies `semitones` below it."""
    low, high = hz_to_mel([features.fmin, features.fmax])
    step = (high - low) / (features.n_mels + 1)
    bands = (hz_to_mel(band_centers(features) * 2 ** (-semitones / 12)) - low) / step - 1
    return np.asarray(np.maximum(bands, 0), np.float32)


def random_eq_and_noise(windows: Array, augment: AugmentConfig, rng: Rng) -> Array:
    """Random smooth equalizers, and noise on each cell, of windows (batch, n_frames, n_bands) in dB above the floor."""
    batch, _, bands = windows.shape
    if augment.random_eq_db:
        curves = np.cos(np.pi * np.arange(1, 5)[:, None] * (np.arange(bands) + 0.5) / bands)
        gains = rng.standard_normal((batch, 4)) * augment.random_eq_db / np.arange(1, 5) ** 0.5
        windows = windows + (gains @ curves).astype(np.float32)[:, None, :]
    if augment.noise_std_db:
        std = rng.uniform(0, augment.noise_std_db, (batch, 1, 1)).astype(np.float32)
        windows = windows + std * rng.standard_normal(windows.shape, dtype=np.float32)
    return windows


def mask(windows: Array, augment: AugmentConfig, rng: Rng) -> Array:
    """Two random spans of frames and two of bands set to the window's mean (SpecAugment, Park et al. 2019)."""
    windows = windows.copy()
    for window in windows:
        mean = window.mean()
        for rows, share in ((window, augment.time_mask), (window.T, augment.freq_mask)):
            for _ in range(2):
                width = int(rng.uniform(0, share) * len(rows))
                first = rng.integers(0, len(rows) - width + 1)
                rows[first : first + width] = mean
    return windows


def mixup(windows: Array, targets: Array, alpha: float, rng: Rng) -> tuple[Array, Array]:
    """Each window and target mixed with another one's (Zhang et al. 2018); unchanged for an `alpha` of 0."""
    if not alpha:
        return windows, targets
    share = rng.beta(alpha, alpha, len(windows)).astype(np.float32)
    share = np.maximum(share, 1 - share)[:, None]
    other, weight = rng.permutation(len(windows)), share[:, None]
    mixed = windows * weight + windows[other] * (1 - weight)
    return mixed, targets * share + targets[other] * (1 - share)
