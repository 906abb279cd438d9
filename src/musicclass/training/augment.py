"""Windows of log-mel, altered as music could be: other pitch, tempo, tone and noise, parts hidden, tracks mixed.

All of it happens on log-mel in dB, before the DCT: `degrade` before the window is scaled (see
features.scale_window), the rest after. Every function takes its random generator, so a batch can be redrawn.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from musicclass.config import FeatureConfig, TrainConfig
from musicclass.features import Array, hz_to_mel, mel_to_hz, scale_window

Rng = np.random.Generator


def cut(frames: Array, config: FeatureConfig, settings: TrainConfig, rng: Rng) -> Array:
    """A random window of a track's log-mel `frames` in dB, scaled, at a random tempo and pitch.

    A track shorter than a window starts over at its end: windows of a batch must have one length.
    """
    rate = float(np.exp(rng.uniform(-1, 1) * np.log1p(settings.tempo)))
    positions = rate * np.arange(config.window_frames)
    start = rng.uniform(0, max(1e-9, len(frames) - 1 - positions[-1]))
    length = int(positions[-1]) + 3
    first = max(0, int(start) - config.scale_frames)  # all that the scale may depend on, and no more of a long track
    near = degrade(frames[first : int(start) + length + config.scale_frames], config, settings, rng)
    stretch = scale_window(near, int(start) - first, config, length)
    window = _lerp(stretch, (start % 1 + positions) % len(stretch))
    semitones = rng.uniform(-1, 1) * settings.pitch
    return _lerp(window.T, _shifted_bands(semitones, config)).T


def degrade(frames: Array, config: FeatureConfig, settings: TrainConfig, rng: Rng) -> Array:
    """Log-mel `frames` in dB of another recording: other contrast and, each at its chance, a band limit, an echo, hiss.

    Before they are scaled, as a new floor or peak moves all the rest. Without it, answers hang on what
    an encoder or a cheap microphone does to the highest bands. Contrast also because that of published
    GTZAN features isn't known.
    """
    frames = frames * np.float32(np.exp(rng.uniform(-1, 1) * np.log1p(settings.contrast)))
    bands = np.arange(config.n_bands, dtype=np.float32)
    if rng.random() < settings.band_limit:
        cutoff, steepness = rng.uniform(0.55, 1) * config.n_bands, rng.uniform(4, 30)
        frames = frames - np.float32(steepness) * np.maximum(0, bands - np.float32(cutoff))
    if rng.random() < settings.echo:
        frames = echo(frames, config, rng)
    if rng.random() < settings.hiss:
        level = frames.max() - rng.uniform(25, 70) + rng.uniform(-15, 15) * (bands / config.n_bands - 0.5)
        flicker = np.linspace(3, 1, config.n_bands) * rng.standard_normal(frames.shape, dtype=np.float32)
        frames = np.maximum(frames, np.float32(level + flicker))
    return frames


def echo(frames: Array, config: FeatureConfig, rng: Rng) -> Array:
    """Log-mel `frames` in dB mixed with a copy of themselves 0.1 to 2 ms later, as by two microphones or a wall."""
    return frames + _comb(rng.uniform(1e-4, 2e-3), rng.uniform(0.2, 0.9), config)


def _comb(delay: float, strength: float, config: FeatureConfig) -> Array:
    """Gain in dB of each band when a sound is mixed with itself, `delay` seconds later."""
    fine = band_centres(config, 8)
    power = 1 + strength**2 + 2 * strength * np.cos(2 * np.pi * fine * delay)
    gain: Array = (10 * np.log10(power.reshape(-1, 8).mean(axis=1))).astype(np.float32)
    return gain


def band_centres(config: FeatureConfig, per_band: int = 1) -> npt.NDArray[np.float64]:
    """Frequencies (Hz) at the middle of the mel bands, or `per_band` of them spread over each."""
    low, high = hz_to_mel([config.fmin, config.fmax])
    places = 0.5 + (np.arange(config.n_bands * per_band) + 0.5) / per_band
    return mel_to_hz(low + (high - low) / (config.n_mels + 1) * places)


def _lerp(rows: Array, positions: Array) -> Array:
    """`rows` at fractional `positions`, in between by linear interpolation, beyond the ends the last row."""
    below = np.minimum(positions.astype(np.intp), len(rows) - 1)
    above = np.minimum(below + 1, len(rows) - 1)
    part = (positions - below).astype(np.float32)[:, None].clip(0, 1)
    mixed: Array = rows[below] * (1 - part) + rows[above] * part
    return mixed


def _shifted_bands(semitones: float, config: FeatureConfig) -> Array:
    """For each band, the fractional band that lies `semitones` below it."""
    ends = hz_to_mel([config.fmin, config.fmax])
    step = (ends[1] - ends[0]) / (config.n_mels + 1)
    bands = (hz_to_mel(band_centres(config) * 2 ** (-semitones / 12)) - ends[0]) / step - 1
    positions: Array = np.maximum(bands, 0).astype(np.float32)
    return positions


def colour(windows: Array, settings: TrainConfig, rng: Rng) -> Array:
    """Random smooth equalisers and cell noise on windows (batch, frames, bands) of dB above the floor."""
    batch, _, bands = windows.shape
    if settings.eq_db:
        curves = np.cos(np.pi * np.arange(1, 5)[:, None] * (np.arange(bands) + 0.5) / bands)
        depths = rng.standard_normal((batch, 4)) * settings.eq_db / np.arange(1, 5) ** 0.5
        windows = windows + (depths @ curves).astype(np.float32)[:, None, :]
    if settings.noise_db:
        depth = rng.uniform(0, settings.noise_db, (batch, 1, 1)).astype(np.float32)
        windows = windows + depth * rng.standard_normal(windows.shape, dtype=np.float32)
    return windows


def mask(windows: Array, settings: TrainConfig, rng: Rng) -> Array:
    """Two random stretches of time and two of bands set to the window's mean (SpecAugment, Park et al. 2019)."""
    windows = windows.copy()
    for window in windows:
        mean = window.mean()
        for view, share in ((window, settings.time_mask), (window.T, settings.band_mask)):
            for _ in range(2):
                width = int(rng.uniform(0, share) * len(view))
                first = rng.integers(0, len(view) - width + 1)
                view[first : first + width] = mean
    return windows


def mixup(windows: Array, targets: Array, alpha: float, rng: Rng) -> tuple[Array, Array]:
    """Each window and target mixed with another one's (Zhang et al. 2018)."""
    if not alpha:
        return windows, targets
    share = rng.beta(alpha, alpha, len(windows)).astype(np.float32)
    share = np.maximum(share, 1 - share)
    other = rng.permutation(len(windows))
    part = share[:, None, None]
    mixed: Array = windows * part + windows[other] * (1 - part)
    return mixed, targets * share[:, None] + targets[other] * (1 - share[:, None])
